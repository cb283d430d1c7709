//! Progress of a running job, as reported by the run. It is stored in the index only, like the
//! lease: it costs the ledger nothing, and after a loss of Redis the run reports it again.
//!
//! Invariant: a report is bounded (0 to 100, 200 characters, an hour), whatever a kind passes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use redis::RedisError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::queue::{Index, Shard, index::keys};
use crate::{plain_json, tenancy::TenantId};

const MAX_MESSAGE: usize = 200;
/// A run without a report for this long shows no progress.
const TTL: Duration = Duration::from_hours(1);

/// A progress report of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// 0 to 100.
    pub percent: u8,
    /// The current step, 200 characters at most.
    pub message: Option<String>,
    /// The attempt that reports.
    pub attempt: i32,
    /// When it was reported.
    pub at: DateTime<Utc>,
}

impl Progress {
    /// A report within its bounds: a percentage above 100 becomes 100, a longer message is
    /// truncated.
    pub fn new(percent: u8, message: Option<&str>, attempt: i32, at: DateTime<Utc>) -> Self {
        let message = message.map(|text| text.chars().take(MAX_MESSAGE).collect());
        Self { percent: percent.min(100), message, attempt, at }
    }
}

impl Index {
    /// Stores the progress of a job of this shard and notifies its followers.
    pub async fn report_progress(
        &self,
        shard: &Shard,
        tenant: TenantId,
        job: Uuid,
        progress: &Progress,
    ) -> Result<(), RedisError> {
        let text = plain_json::text(progress);
        let ttl_ms = u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX);
        let mut command = redis::cmd("SET");
        command.arg(keys::progress(self.prefix(), job)).arg(text).arg("PX").arg(ttl_ms);
        command.query_async::<()>(&mut self.connection()).await?;
        self.announce_in(shard, &[(job, tenant)]).await
    }

    /// The last report of a job, if there is one.
    pub async fn progress(&self, job: Uuid) -> Result<Option<Progress>, RedisError> {
        let mut command = redis::cmd("GET");
        command.arg(keys::progress(self.prefix(), job));
        let text: Option<String> = command.query_async(&mut self.connection()).await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_and_message_are_bounded() {
        for (percent, length, expected) in [(0, 0, (0, 0)), (100, 200, (100, 200)), (101, 201, (100, 200))] {
            let report = Progress::new(percent, Some(&"ä".repeat(length)), 1, DateTime::UNIX_EPOCH);
            assert_eq!((report.percent, report.message.unwrap_or_default().chars().count()), expected);
        }
    }
}
