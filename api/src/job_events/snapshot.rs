//! A job at a moment, as followers are told of it.
//!
//! Invariant: the version is a hash of what is told and of nothing else, so it is the same in every process, and a client that
//! has it has missed nothing.

use std::fmt::Write as _;

use axum::response::sse::Event;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use shared::queue::inspect::{JobRecord, ShownState};

const VERSION_BYTES: usize = 12;

/// What one event tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The event's id.
    pub version: String,
    /// Whether nothing more will happen by itself.
    pub is_final: bool,
    data: String,
}

impl Snapshot {
    /// A job as `GET` shows it, without its args, which never change.
    pub fn of(job: &JobRecord) -> Self {
        let mut shown = serde_json::to_value(job).expect("a job is plain data");
        if let Value::Object(members) = &mut shown {
            members.remove("args");
        }
        let data = shown.to_string();
        let mut version = String::with_capacity(2 * VERSION_BYTES);
        for byte in &Sha256::digest(data.as_bytes())[..VERSION_BYTES] {
            write!(version, "{byte:02x}").expect("a text takes what is written");
        }
        Self { version, is_final: matches!(job.state, ShownState::Ledger(state) if state.is_final()), data }
    }

    /// The event that tells it. `retry` keeps browsers from reconnecting at once.
    pub fn event(&self, retry: std::time::Duration) -> Event {
        Event::default().event("job").id(&self.version).retry(retry).data(&self.data)
    }
}
