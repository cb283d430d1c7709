//! A request to commit jobs, and its result.

use std::collections::HashSet;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::relations::Refused;
use crate::queue::job::NewJob;

/// A client's key for a request, and the fingerprint that distinguishes request bodies.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The value of the `Idempotency-Key` header.
    pub key: String,
    /// A hash over method, path and body.
    pub fingerprint: Vec<u8>,
    /// The response to store for a replay, unless it can be read from the ledger.
    pub response: Option<Box<RawValue>>,
}

/// Jobs of one tenant that are committed together or not at all.
#[derive(Debug)]
pub struct EnqueueRequest {
    /// At least one job.
    pub jobs: Vec<NewJob>,
    /// The client's key, if it sent one.
    pub idempotency: Option<Idempotency>,
}

/// The result of a request.
#[derive(Debug)]
pub enum Enqueued {
    /// All its jobs are in the ledger.
    Created,
    /// Its jobs are in the ledger except these, which were refused because of their relations. If
    /// all were refused, nothing was committed.
    CreatedExcept(Vec<Refused>),
    /// An earlier request with this key was committed.
    Replayed {
        /// The first job of the earlier request.
        first_job: Uuid,
        /// The stored response, if there is one.
        response: Option<Box<RawValue>>,
        /// The jobs of the earlier request that were refused.
        refused: Vec<Refused>,
    },
    /// The key was used with another body.
    KeyReused,
}

impl Enqueued {
    pub(in crate::queue) fn created_except(refused: Vec<Refused>) -> Self {
        if refused.is_empty() { Self::Created } else { Self::CreatedExcept(refused) }
    }

    /// Whether the request committed new jobs.
    pub(in crate::queue) const fn has_created(&self) -> bool {
        matches!(self, Self::Created | Self::CreatedExcept(_))
    }
}

impl EnqueueRequest {
    /// Identifies the request, also in a row of its idempotency key.
    pub(in crate::queue) fn first_job(&self) -> Uuid {
        self.jobs[0].id
    }
}

/// The result of a group of requests.
pub(in crate::queue) struct Committed {
    /// One for each request, in the same order.
    pub(in crate::queue) answers: Vec<Enqueued>,
    /// Jobs that are not pushed to the index.
    pub(in crate::queue) idle: HashSet<Uuid>,
}

impl Committed {
    /// All jobs of the group are pushed to the index.
    pub(in crate::queue) fn of_all(answers: Vec<Enqueued>) -> Self {
        Self { answers, idle: HashSet::new() }
    }
}
