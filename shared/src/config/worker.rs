//! The queues that a worker serves, and the number of jobs that it runs concurrently.
//!
//! Invariant: a filter names each queue once and never an impossible name. The registry of kinds,
//! which knows all queues, validates the names.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use super::reader::{Reader, Variable};

const QUEUES: Variable = Variable::new(
    "WORKER_QUEUES",
    "names of lower-case letters, digits, '-' and '_', separated by commas, or nothing for all queues",
);
const CONCURRENCY: Variable = Variable::new("WORKER_CONCURRENCY", "a whole number from 1 to 10000");

const MAX_CONCURRENCY: usize = 10_000;
const MAX_NAME_BYTES: usize = 64;
const DEFAULT_CONCURRENCY: NonZeroUsize = NonZeroUsize::new(20).expect("20 is not 0");

/// The queues to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueueFilter {
    /// Every queue there is.
    #[default]
    All,
    /// These only; never empty.
    Only(BTreeSet<String>),
}

impl QueueFilter {
    /// Accepts `email,payments`; an empty text means all queues. `None` if a name is impossible.
    pub fn parse(text: &str) -> Option<Self> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names = names.map(|name| is_queue_name(name).then(|| name.to_owned())).collect::<Option<BTreeSet<_>>>()?;
        Some(if names.is_empty() { Self::All } else { Self::Only(names) })
    }

    /// Whether the worker serves jobs of `queue`.
    pub fn serves(&self, queue: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(queue),
        }
    }
}

fn is_queue_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    name.len() <= MAX_NAME_BYTES && name.bytes().all(plain)
}

/// The worker's section.
#[derive(Clone, Debug)]
pub struct SlotConfig {
    /// `WORKER_QUEUES`, separated by commas; default all.
    pub queues: QueueFilter,
    /// `WORKER_CONCURRENCY`, concurrent jobs in this process; default 20.
    pub concurrency: NonZeroUsize,
}

impl SlotConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            queues: reader.or(QUEUES, QueueFilter::All, QueueFilter::parse),
            concurrency: reader.or(CONCURRENCY, DEFAULT_CONCURRENCY, |text| {
                text.parse().ok().filter(|slots: &NonZeroUsize| slots.get() <= MAX_CONCURRENCY)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_lists_each_queue_once() {
        let filter = QueueFilter::parse(" email, payments,email ,").unwrap();
        assert_eq!(filter, QueueFilter::Only(["email".to_owned(), "payments".to_owned()].into()));
        assert!(filter.serves("email") && !filter.serves("analytics"));
        assert!(QueueFilter::parse(",").unwrap().serves("anything"));
        assert_eq!(QueueFilter::parse("Email"), None);
        assert_eq!(QueueFilter::parse("a{b}"), None);
    }
}
