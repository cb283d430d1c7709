//! Event types, and the message for each event.
//!
//! Invariant: a body is built once and is at most [`MAX_BODY_BYTES`] long, whatever the job's
//! result and error are. A result that is too long is omitted, and `result_omitted` is set.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{plain_json, queue::JobState};

/// Maximum length of a body in bytes; the specification recommends small messages.
pub const MAX_BODY_BYTES: usize = 20 * 1024;
/// Maximum length of a result in bytes. A longer result is omitted; receivers can read it from the
/// job.
const MAX_RESULT_BYTES: usize = 16 * 1024;
const MAX_ERROR_CHARS: usize = 500;
const TEST_TYPE: &str = "webhook.test";

/// The type of an event that a webhook endpoint can subscribe to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, strum::EnumIter, strum::IntoStaticStr, ToSchema,
)]
pub enum EventType {
    /// A job succeeded.
    #[serde(rename = "job.completed")]
    #[strum(serialize = "job.completed")]
    JobCompleted,
    /// A job was discarded.
    #[serde(rename = "job.discarded")]
    #[strum(serialize = "job.discarded")]
    JobDiscarded,
    /// A job was cancelled.
    #[serde(rename = "job.cancelled")]
    #[strum(serialize = "job.cancelled")]
    JobCancelled,
}

impl EventType {
    /// All event types: the subscription of an endpoint that names none.
    pub fn all() -> impl Iterator<Item = Self> {
        <Self as strum::IntoEnumIterator>::iter()
    }

    /// The text used in messages and in the ledger.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The event for a job that reached this state, if the state is final.
    pub const fn of(state: JobState) -> Option<Self> {
        match state {
            JobState::Completed => Some(Self::JobCompleted),
            JobState::Discarded => Some(Self::JobDiscarded),
            JobState::Cancelled => Some(Self::JobCancelled),
            _ => None,
        }
    }
}

/// The parts of a final job that a message contains.
#[derive(Debug)]
pub struct FinalJob {
    /// The job's id.
    pub id: Uuid,
    /// The job's kind.
    pub kind: String,
    /// The job's queue.
    pub queue: String,
    /// The job's final state.
    pub state: JobState,
    /// Number of the last attempt.
    pub attempt: i32,
    /// The result that the kind stored.
    pub result: Option<Box<RawValue>>,
    /// The last error.
    pub error: Option<String>,
    /// Time at which the job became final.
    pub finalized_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct Message<T> {
    #[serde(rename = "type")]
    event_type: &'static str,
    timestamp: DateTime<Utc>,
    data: T,
}

#[derive(Serialize)]
struct JobData<'a> {
    id: Uuid,
    kind: &'a str,
    queue: &'a str,
    state: &'static str,
    attempt: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    result_omitted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    finalized_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct TestData {
    endpoint_id: Uuid,
}

impl FinalJob {
    /// Type and body of the message for this job; `None` if the job is not final.
    pub fn message(&self) -> Option<(EventType, String)> {
        let event = EventType::of(self.state)?;
        let result = self.result.as_deref();
        let fitting = result.filter(|result| result.get().len() <= MAX_RESULT_BYTES);
        let data = JobData {
            id: self.id,
            kind: &self.kind,
            queue: &self.queue,
            state: self.state.as_str(),
            attempt: self.attempt,
            result: fitting,
            result_omitted: result.is_some() && fitting.is_none(),
            error: self.error.as_ref().map(|error| error.chars().take(MAX_ERROR_CHARS).collect()),
            finalized_at: self.finalized_at,
        };
        Some((event, write(event.as_str(), self.finalized_at, data)))
    }
}

/// Type and body of a test message, which shows that messages arrive.
pub fn test_body(endpoint_id: Uuid, now: DateTime<Utc>) -> (&'static str, String) {
    (TEST_TYPE, write(TEST_TYPE, now, TestData { endpoint_id }))
}

fn write<T: Serialize>(event_type: &'static str, timestamp: DateTime<Utc>, data: T) -> String {
    plain_json::text(&Message { event_type, timestamp, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: JobState) -> FinalJob {
        FinalJob {
            id: Uuid::nil(),
            kind: "noop".into(),
            queue: "default".into(),
            state,
            attempt: 2,
            result: None,
            error: None,
            finalized_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        }
    }

    #[test]
    fn a_message_contains_the_final_state_and_result() {
        let mut job = job(JobState::Completed);
        job.result = Some(RawValue::from_string(r#"{"sent":3}"#.into()).unwrap());
        let (event, body) = job.message().unwrap();
        assert_eq!(event, EventType::JobCompleted);
        assert_eq!(
            body,
            r#"{"type":"job.completed","timestamp":"2027-01-15T08:00:00Z","data":{"id":"00000000-0000-0000-0000-000000000000","kind":"noop","queue":"default","state":"completed","attempt":2,"result":{"sent":3},"finalized_at":"2027-01-15T08:00:00Z"}}"#
        );
    }

    #[test]
    fn only_final_states_are_events() {
        for state in [JobState::Scheduled, JobState::Available, JobState::Retryable] {
            assert_eq!(job(state).message(), None);
        }
        let names: Vec<&str> = EventType::all().map(EventType::as_str).collect();
        assert_eq!(names, ["job.completed", "job.discarded", "job.cancelled"]);
        for (event, name) in EventType::all().zip(names) {
            assert_eq!(serde_json::to_value(event).unwrap(), name);
        }
    }

    #[test]
    fn result_and_error_in_a_body_are_bounded() {
        let text = |length: usize| RawValue::from_string(format!("\"{}\"", "x".repeat(length - 2))).unwrap();
        let data = |job: &FinalJob| {
            let body = job.message().unwrap().1;
            assert!(body.len() <= MAX_BODY_BYTES, "{}", body.len());
            serde_json::from_str::<serde_json::Value>(&body).unwrap()["data"].clone()
        };
        let mut job = job(JobState::Discarded);
        job.error = Some("\u{1}".repeat(MAX_ERROR_CHARS + 1));
        job.result = Some(text(MAX_RESULT_BYTES));
        let fits = data(&job);
        assert!(fits["result"].is_string() && fits["result_omitted"].is_null());
        assert_eq!(fits["error"].as_str().unwrap().chars().count(), MAX_ERROR_CHARS);
        job.result = Some(text(MAX_RESULT_BYTES + 1));
        let omitted = data(&job);
        assert!(omitted["result"].is_null() && omitted["result_omitted"] == true);
    }
}
