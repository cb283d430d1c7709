//! A tenant's request: several jobs with the same properties, apart from their position.

use std::ops::Range;

use proptest::prelude::*;
use shared::queue::ledger::relations::BatchPart;
use uuid::Uuid;

use super::{
    keys::{KEYS, Key},
    step::TENANTS,
};

/// Whether a job expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Never,
    Later,
    Over,
}

impl Expiry {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Later => "later",
            Self::Over => "over",
        }
    }
}

/// An earlier job that the jobs of a request depend on.
#[derive(Clone, Copy, Debug)]
pub struct Parent {
    pub pick: usize,
    /// Prefers jobs that are not final.
    pub open: bool,
}

/// The relations between the jobs of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Apart,
    /// Each job depends on the previous one, and only the first has the unique key.
    Chain,
    /// A completion job runs once all of them are final.
    Batch,
}

/// Jobs that are committed together.
#[derive(Clone, Debug)]
pub struct Request {
    pub tenant: usize,
    pub jobs: usize,
    pub priority: i16,
    pub due: bool,
    pub expiry: Expiry,
    pub key: Option<Key>,
    pub parents: Vec<Parent>,
    /// Runs jobs once all their dependencies are final, in whatever state; otherwise a failed
    /// dependency cancels them.
    pub run_on_failure: bool,
    pub shape: Shape,
}

/// The relations of one job of a request.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub key: Option<Key>,
    pub after: Vec<Uuid>,
    pub batch: Option<BatchPart>,
}

impl Request {
    /// Jobs without special properties, due at once.
    pub fn plain(tenant: usize, jobs: usize) -> Self {
        Self {
            tenant,
            jobs,
            priority: 2,
            due: true,
            expiry: Expiry::Never,
            key: None,
            parents: Vec::new(),
            run_on_failure: false,
            shape: Shape::Apart,
        }
    }

    /// Mostly jobs without relations.
    pub fn any() -> impl Strategy<Value = Self> {
        let expiry = prop_oneof![6 => Just(Expiry::Never), 4 => Just(Expiry::Later), 1 => Just(Expiry::Over)];
        let parents = prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(Parent::any(), 1..=2)];
        let shape = prop_oneof![8 => Just(Shape::Apart), 1 => Just(Shape::Chain), 1 => Just(Shape::Batch)];
        Self::of(1..12, expiry, prop::option::weighted(0.2, 0..KEYS), parents, shape)
    }

    /// A few jobs of two tenants, most of them with relations.
    pub fn related() -> impl Strategy<Value = Self> {
        let expiry = prop_oneof![4 => Just(Expiry::Never), 6 => Just(Expiry::Later), 1 => Just(Expiry::Over)];
        let parents = prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(Parent::any(), 1..=2)];
        let shape = prop_oneof![2 => Just(Shape::Apart), 2 => Just(Shape::Chain), 1 => Just(Shape::Batch)];
        Self::of(1..4, expiry, prop::option::weighted(0.5, 0..KEYS), parents, shape)
            .prop_map(|request| Self { tenant: request.tenant % 2, ..request })
    }

    fn of(
        jobs: Range<usize>,
        expiry: impl Strategy<Value = Expiry>,
        key: impl Strategy<Value = Option<Key>>,
        parents: impl Strategy<Value = Vec<Parent>>,
        shape: impl Strategy<Value = Shape>,
    ) -> impl Strategy<Value = Self> {
        let plain = (0..TENANTS, jobs, 1_i16..=4, prop::bool::weighted(0.8));
        (plain, expiry, key, parents, prop::bool::weighted(0.3), shape).prop_map(
            |((tenant, jobs, priority, due), expiry, key, parents, run_on_failure, shape)| Self {
                tenant,
                jobs,
                priority,
                due,
                expiry,
                key,
                parents,
                run_on_failure,
                shape,
            },
        )
    }

    /// The relations of the next job, given the earlier ones of the request.
    pub fn wish(&self, parents: &[Uuid], earlier: Option<Uuid>, batch: Option<Uuid>) -> Wish {
        let key = self.key.filter(|_| self.shape != Shape::Chain || earlier.is_none());
        let mut after = parents.to_vec();
        after.extend(earlier.filter(|_| self.shape == Shape::Chain));
        Wish { key, after, batch: batch.map(BatchPart::Member) }
    }
}

impl Parent {
    fn any() -> impl Strategy<Value = Self> {
        (any::<u16>(), prop::bool::weighted(0.8)).prop_map(|(pick, open)| Self { pick: pick.into(), open })
    }
}
