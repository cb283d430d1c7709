//! The model of jobs that wait for others.
//!
//! Invariant: after every change of the ledger, whoever waits waits for jobs that are not final. What a job waited for is over
//! when that was final once, whatever becomes of it later.

use uuid::Uuid;

use super::ledger::{Job, Ledger};

/// What ends meant for those that waited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aftermath {
    pub freed: Vec<Uuid>,
    pub cancelled: Vec<Uuid>,
}

enum Fate {
    Cancelled,
    /// All that it waited for is over.
    Freed,
}

impl Ledger {
    /// Lets every end that has happened have its meaning, until nothing more follows from them.
    pub(super) fn settle(&mut self) {
        while let Some((id, fate)) = self.jobs.iter().find_map(|job| Some((job.id, self.fate(job)?))) {
            match fate {
                Fate::Cancelled => {
                    self.conclude(id, "cancelled");
                    self.aftermath.cancelled.push(id);
                }
                Fate::Freed => {
                    let job = self.job_mut(id);
                    job.after.clear();
                    job.completes = None;
                    job.state = if job.due { "available" } else { "scheduled" };
                    self.aftermath.freed.push(id);
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
