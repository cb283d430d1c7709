//! Checks the invariants of one shard, page by page.
//!
//! Invariant: one call is bounded, and each finding holds at that moment, so a repair only touches
//! broken entries.

use std::time::Duration;

use redis::RedisError;
use uuid::Uuid;

use super::{Index, millis, scripts::CHECK};
use crate::{queue::Shard, tenancy::TenantId};

/// A job and its tenant.
pub(in crate::queue) type Member = (Uuid, TenantId);

/// Result of one page.
#[derive(Debug, Default)]
pub(in crate::queue) struct CheckPage {
    /// Cursor of the next page; 0 at the end.
    pub(in crate::queue) cursor: u64,
    /// Broken invariants, each with the member it concerns.
    pub(in crate::queue) broken: Vec<(String, Vec<u8>)>,
    /// Waiting or held jobs, or tenants, depending on the check.
    pub(in crate::queue) seen: Vec<Member>,
}

/// Options of a check.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) struct CheckMode {
    pub(in crate::queue) repairs: bool,
    /// Lease duration given to a held job without a lease.
    pub(in crate::queue) lease: Duration,
}

impl Index {
    /// Runs one page of one check; `arguments` depend on the check, see `lua/check.lua`.
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
