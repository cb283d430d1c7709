//! All kinds, by name. CLI, documentation, metrics and the workers derive from this list.
//!
//! Invariant: only kinds in this list exist; adding one requires its file and its line in
//! [`crate::kinds::all`].

use std::collections::{BTreeMap, BTreeSet};

use shared::{config::TestKinds, queue::QueueName};

use crate::kind::Kind;

/// The kinds of this process.
pub struct Registry {
    kinds: BTreeMap<&'static str, Kind>,
    max_args_bytes: usize,
}

/// Default maximum bytes of a job's args.
const DEFAULT_MAX_ARGS_BYTES: usize = 64 * 1024;

impl Registry {
    /// All kinds, including the given test-only ones.
    pub fn new(testing: TestKinds) -> Self {
        let mut kinds = crate::kinds::all();
        if testing != TestKinds::None {
            kinds.extend(crate::kinds::testing::all());
        }
        if testing == TestKinds::Many {
            kinds.extend(crate::kinds::testing::many());
        }
        Self::of(kinds)
    }

    /// Only these kinds, as a process of another release may have.
    pub fn of(kinds: Vec<Kind>) -> Self {
        let kinds = kinds.into_iter().map(|kind| (kind.name, kind)).collect();
        Self { kinds, max_args_bytes: DEFAULT_MAX_ARGS_BYTES }
    }

    /// The same registry with another limit on the args of jobs that clients submit.
    #[must_use]
    pub fn with_max_args_bytes(self, max_args_bytes: usize) -> Self {
        Self { max_args_bytes, ..self }
    }

    /// Maximum bytes of the args of a job that a client submits.
    pub const fn max_args_bytes(&self) -> usize {
        self.max_args_bytes
    }

    /// The kind with this name.
    pub fn get(&self, name: &str) -> Option<&Kind> {
        self.kinds.get(name)
    }

    /// The kinds that clients may submit, by name.
    pub fn submittable(&self) -> impl Iterator<Item = &Kind> {
        self.iter().filter(|kind| !kind.internal)
    }

    /// All kinds, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.values()
    }

    /// The queues of all kinds.
    pub fn queues(&self) -> BTreeSet<QueueName> {
        self.kinds.values().map(|kind| kind.queue.clone()).collect()
    }
}
