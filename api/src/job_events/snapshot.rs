//! A job at one moment, as its followers receive it.
//!
//! Invariant: the version is a hash of the event's data alone, so it is the same in every process,
//! and a client with the current version has missed nothing.

use axum::response::sse::Event;
use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use shared::{
    plain_json,
    queue::observe::inspect::{JobRecord, ShownState},
};

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
        let mut shown = plain_json::value(job);
        if let Value::Object(members) = &mut shown {
            members.remove("args");
        }
        let data = shown.to_string();
        let version = HEXLOWER.encode(&Sha256::digest(data.as_bytes())[..VERSION_BYTES]);
        Self { version, is_final: matches!(job.state, ShownState::Ledger(state) if state.is_final()), data }
    }

    /// The server-sent event. `retry` keeps browsers from reconnecting at once.
    pub fn event(&self, retry: std::time::Duration) -> Event {
        Event::default().event("job").id(&self.version).retry(retry).data(&self.data)
    }
}
