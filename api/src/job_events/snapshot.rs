//! A job at one moment, as its followers receive it.
//!
//! Invariant: the version is a hash of the event's data alone, so it is the same in every process,
//! and a client with the current version has missed nothing.

use std::fmt::Write as _;

use axum::response::sse::Event;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use shared::queue::observe::inspect::{JobRecord, ShownState};

const VERSION_BYTES: usize = 12;

/// The data of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The event's id.
    pub version: String,
    /// Whether the job is in a final state.
    pub is_final: bool,
    data: String,
}

impl Snapshot {
    /// The job as `GET` shows it, without its args, which never change.
    pub fn of(job: &JobRecord) -> Self {
        let mut shown = serde_json::to_value(job).expect("a job is plain data");
        if let Value::Object(members) = &mut shown {
            members.remove("args");
        }
        let data = shown.to_string();
        let mut version = String::with_capacity(2 * VERSION_BYTES);
        for byte in &Sha256::digest(data.as_bytes())[..VERSION_BYTES] {
            write!(version, "{byte:02x}").expect("writing to a String does not fail");
        }
        Self { version, is_final: matches!(job.state, ShownState::Ledger(state) if state.is_final()), data }
    }

    /// The server-sent event. `retry` keeps browsers from reconnecting at once.
    pub fn event(&self, retry: std::time::Duration) -> Event {
        Event::default().event("job").id(&self.version).retry(retry).data(&self.data)
    }
}
