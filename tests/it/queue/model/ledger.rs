//! The model of the ledger: the content of each row, and the legal changes.
//!
//! Invariant: one finish is accepted per attempt of a job, whichever worker sends it; a final job
//! changes only by a redrive.

use std::collections::BTreeSet;

use shared::queue::{
    ledger::relations::{BatchPart, Refusal},
    repair::rescue::MAX_CRASHES,
};
use uuid::Uuid;

use super::{
    batches::Batches,
    dependents::FollowUp,
    keys::{Key, Keys},
    request::{Expiry, Request, Wish},
    step::End,
};

/// A row of the table of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: Uuid,
    pub tenant: usize,
    pub priority: i16,
    pub state: &'static str,
    pub attempt: i32,
    pub failures: i16,
    pub crashes: i16,
    /// The number of the lease of the last exclusive run.
    pub quarantine: Option<usize>,
    /// `run_at` has passed.
    pub due: bool,
    pub expiry: Expiry,
    /// No other job of the tenant may hold this key until this job is final.
    pub key: Option<Key>,
    /// Dependencies that are still open; none of them is final.
    pub after: BTreeSet<Uuid>,
    pub run_on_failure: bool,
    /// The batch that must be finished before the job may run.
    pub completes: Option<Uuid>,
    /// The ledger's value, read after each step; it orders the jobs of a tenant.
    pub run_at_ms: i64,
}

impl Job {
    pub fn is_final(&self) -> bool {
        matches!(self.state, "completed" | "cancelled" | "discarded")
    }

    pub fn is_given_up(&self) -> bool {
        matches!(self.state, "discarded" | "cancelled")
    }

    /// Whether a worker may run the job.
    pub fn is_eligible(&self) -> bool {
        !self.is_final() && self.is_free() && self.due && self.expiry != Expiry::Over
    }

    /// Whether the job has no open dependency and no open batch.
    pub fn is_free(&self) -> bool {
        self.after.is_empty() && self.completes.is_none()
    }

    /// Whether no run may start any more and the job is not final yet.
    pub fn is_expired(&self) -> bool {
        !self.is_final() && self.expiry == Expiry::Over
    }
}

/// The result of a finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Final,
    Again,
    RefusedFinal,
    RefusedOvertaken,
}

/// The result of a rescue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    Rescued,
    Poisoned,
    /// The job was final already.
    Finished,
}

/// The result of a redrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redrive {
    Done,
    Refused,
    /// Another job holds the key.
    KeyHeld(Uuid),
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub jobs: Vec<Job>,
    pub keys: Keys,
    pub batches: Batches,
    /// The follow-up of the ends since the last check.
    pub(super) follow_up: FollowUp,
    accepted: BTreeSet<(Uuid, i32)>,
}

impl Ledger {
    /// Commits a job of a request; refuses it if another job holds its key, or if a dependency was
    /// itself refused. [`Self::settle`] follows once the whole request is committed, so a
    /// dependency that failed earlier counts as failing just afterwards.
    pub fn commit(&mut self, id: Uuid, request: &Request, wish: &Wish) -> Result<(), Refusal> {
        let &Request { tenant, priority, due, expiry, run_on_failure, .. } = request;
        if let Some(place) = wish.after.iter().position(|parent| !self.knows(*parent)) {
            return Err(Refusal::DependencyRefused { place });
        }
        let completes = match wish.batch {
            Some(BatchPart::Completion(batch)) => Some(batch),
            _ => None,
        };
        if completes.is_some_and(|batch| !self.batches.has(batch)) {
            return Err(Refusal::DependencyRefused { place: 0 });
        }
        self.keys.take(tenant, wish.key, id).map_err(|holder| Refusal::Duplicate { holder })?;
        let completed = |parent: &Uuid| self.job(*parent).state == "completed";
        let after: BTreeSet<Uuid> = wish.after.iter().copied().filter(|parent| !completed(parent)).collect();
        if let Some(BatchPart::Member(batch)) = wish.batch {
            self.batches.join(batch, id);
        }
        self.jobs.push(Job {
            id,
            tenant,
            priority,
            state: if due && after.is_empty() && completes.is_none() { "available" } else { "scheduled" },
            attempt: 1,
            failures: 0,
            crashes: 0,
            quarantine: None,
            due,
            expiry,
            key: wish.key,
            after,
            run_on_failure,
            completes,
            run_at_ms: 0,
        });
        Ok(())
    }

    fn knows(&self, id: Uuid) -> bool {
        self.jobs.iter().any(|job| job.id == id)
    }

    pub fn job(&self, id: Uuid) -> &Job {
        self.jobs.iter().find(|job| job.id == id).expect("the model knows all jobs")
    }

    pub fn job_mut(&mut self, id: Uuid) -> &mut Job {
        self.jobs.iter_mut().find(|job| job.id == id).expect("the model knows all jobs")
    }

    pub fn finish(&mut self, id: Uuid, attempt: i32, end: End) -> Verdict {
        let job = self.job_mut(id);
        if job.is_final() {
            return Verdict::RefusedFinal;
        }
        if job.attempt != attempt {
            return Verdict::RefusedOvertaken;
        }
        job.failures += i16::from(matches!(end, End::RetryNow | End::RetryLater | End::Discarded));
        let again = matches!(end, End::RetryNow | End::RetryLater | End::Snoozed);
        if again {
            job.attempt += 1;
            job.due = end == End::RetryNow;
        }
        let state = match end {
            End::Completed => "completed",
            End::RetryNow | End::RetryLater => "retryable",
            End::Snoozed => "scheduled",
            End::Discarded => "discarded",
            End::Cancelled => "cancelled",
        };
        assert!(self.accepted.insert((id, attempt)), "two finishes of one attempt");
        if again {
            self.job_mut(id).state = state;
            return Verdict::Again;
        }
        self.end(id, state);
        Verdict::Final
    }

    /// Whether the lease with this number may begin an exclusive run of the job in this attempt.
    pub fn begin_quarantine(&mut self, id: Uuid, attempt: i32, lease: usize) -> bool {
        let job = self.job_mut(id);
        let allowed = job.attempt == attempt && !job.is_final();
        if allowed {
            job.quarantine = Some(lease);
        }
        allowed
    }

    /// The lease with this number expired.
    pub fn crash(&mut self, id: Uuid, lease: usize) -> Crash {
        let job = self.job_mut(id);
        if job.is_final() {
            return Crash::Finished;
        }
        job.attempt += 1;
        if job.crashes + 1 < MAX_CRASHES || job.quarantine == Some(lease) {
            job.crashes += 1;
        }
        if job.crashes < MAX_CRASHES {
            return Crash::Rescued;
        }
        self.end(id, "discarded");
        Crash::Poisoned
    }

    /// Returns whether the cancellation was allowed.
    pub fn cancel(&mut self, id: Uuid) -> bool {
        let allowed = !self.job(id).is_final();
        if allowed {
            self.end(id, "cancelled");
        }
        allowed
    }

    pub fn redrive(&mut self, id: Uuid) -> Redrive {
        let &Job { tenant, key, .. } = self.job(id);
        if !self.job(id).is_given_up() {
            return Redrive::Refused;
        }
        if let Err(holder) = self.keys.take(tenant, key, id) {
            return Redrive::KeyHeld(holder);
        }
        let job = self.job_mut(id);
        job.state = "available";
        job.due = true;
        job.attempt += 1;
        (job.failures, job.crashes) = (0, 0);
        // A redrive overrides the expiry.
        if job.expiry == Expiry::Over {
            job.expiry = Expiry::Never;
        }
        self.batches.count_redrive(id);
        Redrive::Done
    }

    /// Discards jobs that did not start in time. They end together: none is cancelled because of
    /// another.
    pub fn expire(&mut self, ids: &[Uuid]) {
        for id in ids {
            assert!(self.job(*id).is_expired(), "only expired jobs that are not final are discarded");
            self.conclude(*id, "discarded");
        }
        self.settle();
    }

    fn end(&mut self, id: Uuid, state: &'static str) {
        self.conclude(id, state);
        self.settle();
    }

    /// Ends a job without the follow-up.
    pub(super) fn conclude(&mut self, id: Uuid, state: &'static str) {
        let job = self.job_mut(id);
        job.state = state;
        job.after.clear();
        job.completes = None;
        let (tenant, key) = (job.tenant, job.key);
        self.keys.free(tenant, key);
        self.batches.count_end(id);
    }
}
