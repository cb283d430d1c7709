//! The model of the ledger: what each row says, and which changes are legal.
//!
//! Invariant: a finish is accepted once for each attempt of a job, whoever brings it; and what is final changes by a redrive alone.

use std::collections::BTreeSet;

use shared::queue::rescue::MAX_CRASHES;
use uuid::Uuid;

use super::{
    request::{Expiry, Request},
    step::End,
};

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: Uuid,
    pub tenant: usize,
    pub priority: i16,
    pub state: &'static str,
    pub attempt: i32,
    pub failures: i16,
    pub crashes: i16,
    /// Its time has come.
    pub due: bool,
    pub expiry: Expiry,
    /// As the ledger has it; read after each step, for the order inside a tenant.
    pub run_at_ms: i64,
}

impl Job {
    pub fn is_final(&self) -> bool {
        matches!(self.state, "completed" | "cancelled" | "discarded")
    }

    /// Whether a worker may run it.
    pub fn is_eligible(&self) -> bool {
        !self.is_final() && self.due && self.expiry != Expiry::Over
    }

    /// Whether no run of it may begin any more, though it was never decided what becomes of it.
    pub fn is_expired(&self) -> bool {
        !self.is_final() && self.expiry == Expiry::Over
    }
}

/// What becomes of a finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Final,
    Again,
    RefusedFinal,
    RefusedOvertaken,
}

/// What becomes of a job whose holder is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    Rescued,
    Poisoned,
    /// It was final already.
    Finished,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub jobs: Vec<Job>,
    accepted: BTreeSet<(Uuid, i32)>,
}

impl Ledger {
    pub fn commit(&mut self, id: Uuid, request: &Request) {
        let &Request { tenant, priority, due, expiry, .. } = request;
        let state = if due { "available" } else { "scheduled" };
        let job = Job { id, tenant, priority, state, attempt: 1, failures: 0, crashes: 0, due, expiry, run_at_ms: 0 };
        self.jobs.push(job);
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
        job.state = match end {
            End::Completed => "completed",
            End::RetryNow | End::RetryLater => "retryable",
            End::Snoozed => "scheduled",
            End::Discarded => "discarded",
            End::Cancelled => "cancelled",
        };
        assert!(self.accepted.insert((id, attempt)), "two finishes of one attempt");
        if again { Verdict::Again } else { Verdict::Final }
    }

    pub fn crash(&mut self, id: Uuid) -> Crash {
        let job = self.job_mut(id);
        if job.is_final() {
            return Crash::Finished;
        }
        job.attempt += 1;
        job.crashes += 1;
        if job.crashes < MAX_CRASHES {
            return Crash::Rescued;
        }
        job.state = "discarded";
        Crash::Poisoned
    }

    /// Whether it was allowed.
    pub fn cancel(&mut self, id: Uuid) -> bool {
        let job = self.job_mut(id);
        let allowed = !job.is_final();
        if allowed {
            job.state = "cancelled";
        }
        allowed
    }

    /// Whether it was allowed.
    pub fn redrive(&mut self, id: Uuid) -> bool {
        let job = self.job_mut(id);
        let allowed = matches!(job.state, "discarded" | "cancelled");
        if allowed {
            job.state = "available";
            job.due = true;
            job.attempt += 1;
            (job.failures, job.crashes) = (0, 0);
            // To ask for it again is to want it in spite of its time.
            if job.expiry == Expiry::Over {
                job.expiry = Expiry::Never;
            }
        }
        allowed
    }

    /// It was not begun in time.
    pub fn expire(&mut self, id: Uuid) {
        let job = self.job_mut(id);
        assert!(job.is_expired(), "only what expired and is not final is discarded for that");
        job.state = "discarded";
    }
}
