//! What a tenant asks for: jobs of one request, all alike.

use proptest::prelude::*;

use super::{
    keys::{KEYS, Key},
    step::TENANTS,
};

/// Whether a job's time runs out.
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

/// Jobs that are committed together.
#[derive(Clone, Debug)]
pub struct Request {
    pub tenant: usize,
    pub jobs: usize,
    pub priority: i16,
    pub due: bool,
    pub expiry: Expiry,
    pub key: Option<Key>,
}

impl Request {
    /// Jobs without anything special, to be run at once.
    pub const fn plain(tenant: usize, jobs: usize) -> Self {
        Self { tenant, jobs, priority: 2, due: true, expiry: Expiry::Never, key: None }
    }

    pub fn any() -> impl Strategy<Value = Self> {
        let expiry = prop_oneof![6 => Just(Expiry::Never), 4 => Just(Expiry::Later), 1 => Just(Expiry::Over)];
        let key = prop::option::weighted(0.3, 0..KEYS);
        (0..TENANTS, 1_usize..12, 1_i16..=4, prop::bool::weighted(0.8), expiry, key)
            .prop_map(|(tenant, jobs, priority, due, expiry, key)| Self { tenant, jobs, priority, due, expiry, key })
    }
}
