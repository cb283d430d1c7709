//! The accepted messages, in order of acceptance and by recipient.
//!
//! Invariant: a message is stored here, and in the journal if there is one, before its 250 is
//! written. A message that a client counts as delivered is therefore always counted, whichever
//! process is killed at whatever time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;

use super::message::{Duplicate, ReceivedMessage};

#[derive(Debug)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    count: watch::Sender<usize>,
    journal: Option<Mutex<File>>,
}

#[derive(Debug, Default)]
struct State {
    messages: Vec<Arc<ReceivedMessage>>,
    by_recipient: HashMap<String, Vec<Arc<ReceivedMessage>>>,
}

/// One line of the journal: one recipient of one accepted message.
#[derive(Serialize)]
struct JournalLine<'a> {
    to: &'a str,
    message_id: Option<&'a str>,
    at: String,
}

impl Mailbox {
    pub fn new(journal: Option<File>) -> Self {
        Self { state: Mutex::default(), count: watch::Sender::new(0), journal: journal.map(Mutex::new) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn store(&self, message: ReceivedMessage) -> io::Result<()> {
        self.write_journal(&message)?;
        let message = Arc::new(message);
        let mut state = self.state();
        for to in &message.to {
            state.by_recipient.entry(to.to_ascii_lowercase()).or_default().push(Arc::clone(&message));
        }
        state.messages.push(message);
        self.count.send_replace(state.messages.len());
        Ok(())
    }

    fn write_journal(&self, message: &ReceivedMessage) -> io::Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let at = DateTime::<Utc>::from(message.received_at).to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut lines = Vec::new();
        for to in &message.to {
            let line = JournalLine { to, message_id: message.message_id.as_deref(), at: at.clone() };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        // A single write, so that a killed sink leaves only whole lines.
        journal.lock().unwrap_or_else(PoisonError::into_inner).write_all(&lines)
    }

    pub fn messages(&self) -> Vec<Arc<ReceivedMessage>> {
        self.state().messages.clone()
    }

    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    pub fn by_recipient(&self, address: &str) -> Vec<Arc<ReceivedMessage>> {
        self.state().by_recipient.get(&address.to_ascii_lowercase()).cloned().unwrap_or_default()
    }

    pub fn recipients(&self) -> Vec<String> {
        let mut recipients: Vec<_> = self.state().by_recipient.keys().cloned().collect();
        recipients.sort_unstable();
        recipients
    }

    pub fn duplicates(&self) -> Vec<Duplicate> {
        let state = self.state();
        let repeated = state.by_recipient.iter().filter(|(_, messages)| messages.len() > 1);
        let mut duplicates: Vec<_> = repeated.map(|(recipient, messages)| duplicate(recipient, messages)).collect();
        duplicates.sort_unstable_by(|a, b| a.recipient.cmp(&b.recipient));
        duplicates
    }

    /// Returns whether `wanted` messages arrived within `patience`.
    pub async fn reached(&self, wanted: usize, patience: Duration) -> bool {
        let mut count = self.count.subscribe();
        timeout(patience, count.wait_for(|count| *count >= wanted)).await.is_ok()
    }
}

fn duplicate(recipient: &str, messages: &[Arc<ReceivedMessage>]) -> Duplicate {
    let first = &messages[0].message_id;
    let same_message_id = first.is_some() && messages.iter().all(|message| message.message_id == *first);
    Duplicate { recipient: recipient.to_owned(), count: messages.len(), same_message_id }
}
