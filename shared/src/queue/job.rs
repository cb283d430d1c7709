//! The data of a job: queue name, priority, state, and the input for a new row.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::queue::ledger::relations::Relations;
use crate::tenancy::TenantId;

/// A queue's name: 1 to 64 of `a-z 0-9 _ -`, starting with a letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct QueueName(Arc<str>);

/// A text that is not a valid queue name.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a valid queue name: 1 to 64 of a-z, 0-9, _ and -, starting with a letter")]
pub struct InvalidQueueName(String);

impl QueueName {
    /// A name that the program itself defines.
    ///
    /// # Panics
    /// If it is not a valid name.
    pub fn of_program(name: &str) -> Self {
        name.parse().expect("the program defines valid queue names")
    }
}

impl FromStr for QueueName {
    type Err = InvalidQueueName;

    fn from_str(text: &str) -> Result<Self, InvalidQueueName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        let valid = text.len() <= 64
            && text.bytes().all(allowed)
            && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
        if valid { Ok(Self(text.into())) } else { Err(InvalidQueueName(text.into())) }
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for QueueName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for QueueName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The order of jobs within one tenant: 1 runs first, 4 last. It never orders one tenant before
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i16", into = "i16")]
pub struct Priority(i16);

impl Priority {
    /// The priority of a job that specifies none.
    pub const DEFAULT: Self = Self(2);

    /// A priority from 1 to 4.
    pub const fn new(value: i16) -> Option<Self> {
        if value >= 1 && value <= 4 { Some(Self(value)) } else { None }
    }

    /// A priority as stored in the ledger; a value outside of this release's range becomes the
    /// default.
    pub fn from_ledger(value: i16) -> Self {
        Self::new(value).unwrap_or(Self::DEFAULT)
    }

    /// The number, for SQL and Redis.
    pub const fn get(self) -> i16 {
        self.0
    }
}

impl TryFrom<i16> for Priority {
    type Error = &'static str;

    fn try_from(value: i16) -> Result<Self, Self::Error> {
        Self::new(value).ok_or("priority must be 1 (first) to 4 (last)")
    }
}

impl From<Priority> for i16 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

/// A job's state in the ledger. `running` is not a state: leases exist in Redis only and are merged
/// in when a job is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "job_state", rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its `run_at`.
    Scheduled,
    /// Waits for a worker.
    Available,
    /// Failed, and waits for its next attempt.
    Retryable,
    /// Succeeded.
    Completed,
    /// Cancelled before it succeeded.
    Cancelled,
    /// Given up: a dead letter until it is redriven.
    Discarded,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Available, Self::Retryable, Self::Completed, Self::Cancelled, Self::Discarded];

    /// Whether the state is final: only a redrive changes it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Discarded)
    }

    /// The name used by the API, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Available => "available",
            Self::Retryable => "retryable",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Discarded => "discarded",
        }
    }
}

/// A job to be committed.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// `UUIDv7`, made by the producer: a repeated insert of the same request is then the same row.
    pub id: Uuid,
    /// The tenant that owns the job.
    pub tenant: TenantId,
    /// The queue it waits in.
    pub queue: QueueName,
    /// The job kind.
    pub kind: Arc<str>,
    /// The kind's arguments, already checked against its schema.
    pub args: Box<RawValue>,
    /// Its priority among the tenant's own jobs.
    pub priority: Priority,
    /// Failed attempts after which the job is discarded.
    pub max_attempts: i16,
    /// Earliest time at which it may run; immediately if `None`.
    pub run_at: Option<DateTime<Utc>>,
    /// After this time no run starts: the job is discarded instead.
    pub expires_at: Option<DateTime<Utc>>,
    /// Version of the arguments' format, counted by the kind.
    pub args_version: i16,
    /// Relations to other jobs; most jobs have none.
    pub relations: Option<Box<Relations>>,
}
