//! The model of the ledger: what each row says, and which changes are legal.
//!
//! Invariant: a finish is accepted once for each attempt of a job, whoever brings it; and what is final changes by a redrive alone.

use std::collections::BTreeSet;

use shared::queue::{
    rescue::MAX_CRASHES,
    ties::{BatchPart, Refusal},
};
use uuid::Uuid;

use super::{
    batches::Batches,
    dependents::Aftermath,
    keys::{Key, Keys},
    request::{Expiry, Request, Wish},
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
    /// The number of the lease under which it last began to run alone.
    pub last_chance: Option<usize>,
    /// Its time has come.
    pub due: bool,
    pub expiry: Expiry,
    /// Nobody else of its tenant may have this key until it is final.
    pub key: Option<Key>,
    /// What it still waits for; none of them is final.
    pub after: BTreeSet<Uuid>,
    pub run_on_failure: bool,
    /// The batch that is to be over before it may run.
    pub completes: Option<Uuid>,
    /// As the ledger has it; read after each step, for the order inside a tenant.
    pub run_at_ms: i64,
}

impl Job {
    pub fn is_final(&self) -> bool {
        matches!(self.state, "completed" | "cancelled" | "discarded")
    }

    pub fn is_given_up(&self) -> bool {
        matches!(self.state, "discarded" | "cancelled")
    }

    /// Whether a worker may run it.
    pub fn is_eligible(&self) -> bool {
        !self.is_final() && self.is_free() && self.due && self.expiry != Expiry::Over
    }

    /// Whether it waits for no other job, nor for a batch.
    pub fn is_free(&self) -> bool {
        self.after.is_empty() && self.completes.is_none()
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

/// What becomes of a wish to have a job again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redrive {
    Done,
    Refused,
    /// Another has its key by now.
    KeyHeld(Uuid),
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub jobs: Vec<Job>,
    pub keys: Keys,
    pub batches: Batches,
    /// What the ends since the last look meant for others.
    pub(super) aftermath: Aftermath,
    accepted: BTreeSet<(Uuid, i32)>,
}

impl Ledger {
    /// A job of a request; or nothing, because another has its key, or it would wait for one that never came to be.
    /// [`Self::settle`] follows when the whole request is committed: what failed before counts as failed a moment later.
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
            last_chance: None,
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

    /// Whether the lease with this number may begin the job's last chance in this attempt.
    pub fn begin_last_chance(&mut self, id: Uuid, attempt: i32, lease: usize) -> bool {
        let job = self.job_mut(id);
        let allowed = job.attempt == attempt && !job.is_final();
        if allowed {
            job.last_chance = Some(lease);
        }
        allowed
    }

    /// The lease with this number ran out.
    pub fn crash(&mut self, id: Uuid, lease: usize) -> Crash {
        let job = self.job_mut(id);
        if job.is_final() {
            return Crash::Finished;
        }
        job.attempt += 1;
        if job.crashes + 1 < MAX_CRASHES || job.last_chance == Some(lease) {
            job.crashes += 1;
        }
        if job.crashes < MAX_CRASHES {
            return Crash::Rescued;
        }
        self.end(id, "discarded");
        Crash::Poisoned
    }

    /// Whether it was allowed.
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
        // To ask for it again is to want it in spite of its time.
        if job.expiry == Expiry::Over {
            job.expiry = Expiry::Never;
        }
        self.batches.count_redrive(id);
        Redrive::Done
    }

    /// They were not begun in time. They end together: none of them is cancelled because of another.
    pub fn expire(&mut self, ids: &[Uuid]) {
        for id in ids {
            assert!(self.job(*id).is_expired(), "only what expired and is not final is discarded for that");
            self.conclude(*id, "discarded");
        }
        self.settle();
    }

    fn end(&mut self, id: Uuid, state: &'static str) {
        self.conclude(id, state);
        self.settle();
    }

    /// An end, without what it means for others.
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
