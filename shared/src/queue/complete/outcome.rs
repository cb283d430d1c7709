//! How a run ended, in the ledger's terms.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::queue::JobState;

/// How a run ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The work is done.
    Completed {
        /// A result to store for later reading.
        result: Option<Box<RawValue>>,
    },
    /// The run failed and another is due after the delay.
    Retry {
        /// What went wrong, for the tenant to read.
        error: String,
        /// How long to wait.
        delay: Duration,
    },
    /// Not now: the job runs again after the delay, and no failure is counted.
    Snoozed {
        /// How long to wait.
        delay: Duration,
    },
    /// Given up for good.
    Discarded {
        /// What went wrong, for the tenant to read.
        error: String,
    },
    /// The kind found that the work is no longer wanted.
    Cancelled {
        /// Why, for the tenant to read.
        reason: String,
    },
}

/// Maximum size of a stored result in bytes.
pub const MAX_RESULT_BYTES: usize = 64 * 1024;

impl Outcome {
    /// A completed run with a result. A result that is too large is replaced by a note of its size:
    /// the work is done, and a failure would repeat it.
    pub fn completed_with(result: Box<RawValue>) -> Self {
        let bytes = result.get().len();
        let result = if bytes > MAX_RESULT_BYTES { omitted(bytes) } else { result };
        Self::Completed { result: Some(result) }
    }

    pub(super) const fn state(&self) -> JobState {
        match self {
            Self::Completed { .. } => JobState::Completed,
            Self::Retry { .. } => JobState::Retryable,
            Self::Snoozed { .. } => JobState::Scheduled,
            Self::Discarded { .. } => JobState::Discarded,
            Self::Cancelled { .. } => JobState::Cancelled,
        }
    }

    /// The name used by logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Completed { .. } => "completed",
            Self::Retry { .. } => "retried",
            Self::Snoozed { .. } => "snoozed",
            Self::Discarded { .. } => "discarded",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// Bytes of text that it adds to the ledger.
    pub fn bytes(&self) -> usize {
        self.error().map_or(0, str::len) + self.result().map_or(0, str::len)
    }

    /// Whether no further run follows.
    pub const fn is_final(&self) -> bool {
        self.state().is_final()
    }

    pub(super) const fn delay(&self) -> Option<Duration> {
        match self {
            Self::Retry { delay, .. } | Self::Snoozed { delay } => Some(*delay),
            _ => None,
        }
    }

    pub(super) fn error(&self) -> Option<&str> {
        match self {
            Self::Retry { error, .. } | Self::Discarded { error } => Some(error),
            Self::Cancelled { reason } => Some(reason),
            _ => None,
        }
    }

    pub(super) fn result(&self) -> Option<&str> {
        match self {
            Self::Completed { result } => result.as_deref().map(RawValue::get),
            _ => None,
        }
    }
}

fn omitted(bytes: usize) -> Box<RawValue> {
    let note = serde_json::json!({ "omitted": true, "size_bytes": bytes, "limit_bytes": MAX_RESULT_BYTES });
    serde_json::value::to_raw_value(&note).expect("a note is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result_of(size: usize) -> Option<String> {
        let text = format!("\"{}\"", "x".repeat(size - 2));
        let raw = RawValue::from_string(text).expect("a JSON string");
        Outcome::completed_with(raw).result().map(str::to_owned)
    }

    #[test]
    fn a_result_over_its_limit_is_omitted() {
        assert_eq!(result_of(MAX_RESULT_BYTES).map(|text| text.len()), Some(MAX_RESULT_BYTES));
        let note: serde_json::Value = serde_json::from_str(&result_of(MAX_RESULT_BYTES + 1).unwrap()).unwrap();
        assert_eq!(note, serde_json::json!({ "omitted": true, "size_bytes": 65_537, "limit_bytes": 65_536 }));
    }
}
