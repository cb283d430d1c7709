//! Checking the invariants of one shard, page by page.
//!
//! Invariant: one call is bounded, and what it finds is true at that moment, so what it repairs was broken.

use std::time::Duration;

use redis::RedisError;
use uuid::Uuid;

use super::{Index, millis, scripts::CHECK};
use crate::{queue::Shard, tenancy::TenantId};

/// A job and whose it is.
pub(in crate::queue) type Member = (Uuid, TenantId);

/// What one page brought.
#[derive(Debug, Default)]
pub(in crate::queue) struct CheckPage {
    /// Where the next page begins; 0 at the end.
    pub(in crate::queue) cursor: u64,
    /// Broken invariants and whom they are about.
    pub(in crate::queue) broken: Vec<(String, Vec<u8>)>,
    /// Jobs that wait or are held, or tenants, as the check has them.
    pub(in crate::queue) seen: Vec<Member>,
}

/// How a check is done.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) struct CheckMode {
    pub(in crate::queue) repairs: bool,
    /// What a lease gets that has none.
    pub(in crate::queue) lease: Duration,
}

impl Index {
    /// One page of one check; `arguments` as the check wants them.
    pub(in crate::queue) async fn check_page(
        &self,
        shard: &Shard,
        what: &str,
        mode: CheckMode,
        cursor: u64,
        arguments: &[&[u8]],
    ) -> Result<CheckPage, RedisError> {
        let mut call = self.call(&CHECK, shard);
        call.arg(what).arg(u8::from(mode.repairs)).arg(millis(mode.lease)).arg(cursor);
        for argument in arguments {
            call.arg(*argument);
        }
        let (cursor, broken, seen): (String, Vec<Vec<u8>>, Vec<Vec<u8>>) =
            call.invoke_async(&mut self.connection()).await?;
        let broken =
            broken.chunks_exact(2).map(|pair| (String::from_utf8_lossy(&pair[0]).into_owned(), pair[1].clone()));
        let member = |pair: &[Vec<u8>]| {
            Some((Uuid::from_slice(&pair[0]).ok()?, TenantId::new(Uuid::from_slice(&pair[1]).ok()?)))
        };
        Ok(CheckPage {
            cursor: cursor.parse().unwrap_or(0),
            broken: broken.collect(),
            seen: seen.chunks_exact(2).filter_map(member).collect(),
        })
    }
}
