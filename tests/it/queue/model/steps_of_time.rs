//! The passing of time, for one job at a time.

use anyhow::Result;

use super::{ledger::Job, request::Expiry, scene::Scene};

impl Scene<'_> {
    pub async fn fall_due(&mut self, pick: usize) -> Result<()> {
        let Some(id) = self.job_where(pick, |job| !job.is_final() && !job.due) else { return Ok(()) };
        let statement = "update jobs set run_at = now() where id = $1";
        sqlx::query(statement).bind(id).execute(&mut self.owner).await?;
        self.model.ledger.job_mut(id).due = true;
        Ok(())
    }

    pub async fn time_is_up(&mut self, pick: usize, held: bool) -> Result<()> {
        let expires = |job: &Job| !job.is_final() && job.expiry == Expiry::Later;
        let is_held = |job: &Job| self.model.index.held.contains_key(&job.id);
        let of_held = held.then(|| self.job_where(pick, |job| expires(job) && is_held(job)));
        let Some(id) = of_held.flatten().or_else(|| self.job_where(pick, expires)) else { return Ok(()) };
        let statement = "update jobs set expires_at = now() where id = $1";
        sqlx::query(statement).bind(id).execute(&mut self.owner).await?;
        self.model.ledger.job_mut(id).expiry = Expiry::Over;
        Ok(())
    }
}
