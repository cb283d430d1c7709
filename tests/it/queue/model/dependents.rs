//! The model of dependent jobs.
//!
//! Invariant: after every change of the ledger, dependent jobs depend only on jobs that are not
//! final. A dependency is over once the job it names was final, whatever happens to that job later.

use uuid::Uuid;

use super::ledger::{Job, Ledger};

/// The follow-up of ends for dependent jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowUp {
    pub freed: Vec<Uuid>,
    pub cancelled: Vec<Uuid>,
}

enum Fate {
    Cancelled,
    /// All its dependencies are over.
    Freed,
}

impl Ledger {
    /// Applies the follow-up of all ends until nothing more follows.
    pub(super) fn settle(&mut self) {
        while let Some((id, fate)) = self.jobs.iter().find_map(|job| Some((job.id, self.fate(job)?))) {
            match fate {
                Fate::Cancelled => {
                    self.conclude(id, "cancelled");
                    self.follow_up.cancelled.push(id);
                }
                Fate::Freed => {
                    let job = self.job_mut(id);
                    job.after.clear();
                    job.completes = None;
                    job.state = if job.due { "available" } else { "scheduled" };
                    self.follow_up.freed.push(id);
                }
            }
        }
        let over: Vec<Uuid> = self.jobs.iter().filter(|job| job.is_final()).map(|job| job.id).collect();
        for job in &mut self.jobs {
            job.after.retain(|parent| !over.contains(parent));
        }
        self.batches.close();
    }

    fn fate(&self, job: &Job) -> Option<Fate> {
        if job.is_free() {
            return None;
        }
        let parents = || job.after.iter().map(|id| self.job(*id));
        if !job.run_on_failure && parents().any(Job::is_given_up) {
            return Some(Fate::Cancelled);
        }
        let completes = job.completes.is_none_or(|batch| self.batches.is_over(batch));
        (completes && parents().all(Job::is_final)).then_some(Fate::Freed)
    }
}
