//! The passing of time, for one job at a time.

use anyhow::Result;
use uuid::Uuid;

use super::{ledger::Job, request::Expiry, scene::Scene};

impl Scene<'_> {
    pub async fn fall_due(&mut self, pick: usize) -> Result<()> {
        let Some(id) = self.waiting(pick, |job| !job.due) else { return Ok(()) };
        let statement = "update jobs set run_at = now() where id = $1";
        sqlx::query(statement).bind(id).execute(&mut self.owner).await?;
        self.model.ledger.job_mut(id).due = true;
        Ok(())
    }

    pub async fn time_is_up(&mut self, pick: usize, held: bool) -> Result<()> {
        let expires = |job: &Job| job.expiry == Expiry::Later;
        let of_held =
            held.then(|| self.waiting(pick, |job| expires(job) && self.model.index.held.contains_key(&job.id)));
        let Some(id) = of_held.flatten().or_else(|| self.waiting(pick, expires)) else { return Ok(()) };
        let statement = "update jobs set expires_at = now() where id = $1";
        sqlx::query(statement).bind(id).execute(&mut self.owner).await?;
        self.model.ledger.job_mut(id).expiry = Expiry::Over;
        Ok(())
    }

    fn waiting(&self, pick: usize, which: impl Fn(&Job) -> bool) -> Option<Uuid> {
        let jobs = self.model.ledger.jobs.iter().filter(|job| !job.is_final() && which(job));
        let ids: Vec<Uuid> = jobs.map(|job| job.id).collect();
        (!ids.is_empty()).then(|| ids[pick % ids.len()])
    }
}
