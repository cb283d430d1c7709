//! Writes a batch of outcomes to the ledger, in as many tries as it takes.
//!
//! Invariant: an outcome that cannot be written does not block the others. A batch that met a lock
//! is written tenant by tenant, a batch that the ledger rejects outcome by outcome.

use std::{collections::HashSet, fmt::Display, time::Duration};

use futures::{StreamExt as _, stream};
use shared::{
    db::{self, PinnedConnections},
    queue::complete::{Finish, Recorded, Recording, Records},
};
use tokio::time::sleep;
use uuid::Uuid;

const PAUSE: Duration = Duration::from_millis(100);
/// Tenants whose outcomes are written at the same time after a batch met a lock.
const PARTS: usize = 3;

/// Writes outcomes. Those that exceeded the statement timeout although they were written alone, and
/// those that met a lock, are reported as such; one that the ledger rejects is not in the result: its
/// lease expires, and the job is rescued.
pub(super) async fn record(ledger: &PinnedConnections, batch: &[Finish]) -> Records {
    record_patiently(ledger, Recording::of(batch)).await
}

/// Retries while the ledger is unavailable: the work is done, and only this process knows the
/// outcomes. If the ledger rejects a batch for another reason, the outcomes are written one by one,
/// so that the rejected one does not block the others.
async fn record_patiently(ledger: &PinnedConnections, mut recording: Recording<'_>) -> Records {
    let mut is_logged = false;
    loop {
        match recording.advance(ledger).await {
            Ok(()) => return recording.apart().0,
            Err(error) if db::is_lock_held(&error) => return record_by_tenant(ledger, recording).await,
            Err(error) if db::is_timed_out(&error) => {
                return record_apart(ledger, recording, db::sql_state(&error), true).await;
            }
            Err(error) if db::is_unavailable(&error) => {
                if !is_logged {
                    tracing::warn!(
                        error = db::sql_state(&error),
                        "cannot write outcomes; retrying until the ledger is available"
                    );
                    is_logged = true;
                }
                sleep(PAUSE).await;
            }
            Err(error) => return record_apart(ledger, recording, db::sql_state(&error), false).await,
        }
    }
}

/// Writes the outcomes of each tenant separately, after a batch met a lock that one of the tenants
/// may hold.
async fn record_by_tenant(ledger: &PinnedConnections, recording: Recording<'_>) -> Records {
    let (mut all, mut parts) = recording.apart_by_tenant();
    if parts.len() == 1 {
        all.extend(record_unlocked(ledger, parts.remove(0)).await);
        return all;
    }
    let mut tries = Vec::with_capacity(parts.len());
    for part in parts {
        tries.push(Box::pin(record_patiently(ledger, part)));
    }
    let mut tried = stream::iter(tries).buffer_unordered(PARTS);
    while let Some(part) = tried.next().await {
        all.extend(part);
    }
    all
}

/// Retries the outcomes of one tenant once, without those that meet a lock.
async fn record_unlocked(ledger: &PinnedConnections, mut part: Recording<'_>) -> Records {
    let mut locked = match part.take_locked(ledger).await {
        Ok(locked) => locked,
        Err(error) => {
            tracing::debug!(error = db::sql_state(&error), "could not find out which rows are locked");
            HashSet::default()
        }
    };
    if let Err(error) = part.advance(ledger).await {
        tracing::debug!(error = db::sql_state(&error), "outcomes of a tenant met a lock; writing them later");
        locked.extend(part.open());
    }
    let mut records = part.apart().0;
    records.recorded.extend(locked.into_iter().map(|id| (id, Recorded::Locked)));
    records
}

async fn record_apart(
    ledger: &PinnedConnections,
    recording: Recording<'_>,
    error: impl Display,
    timed_out: bool,
) -> Records {
    let (mut all, mut open) = recording.apart();
    if open.len() == 1 {
        let alone: Vec<Uuid> = open.remove(0).open().collect();
        tracing::error!(job_id = ?alone, %error, timed_out, "cannot write the outcome of a job");
        all.recorded.extend(alone.into_iter().filter(|_| timed_out).map(|id| (id, Recorded::TimedOut)));
        return all;
    }
    for alone in open {
        all.extend(Box::pin(record_patiently(ledger, alone)).await);
    }
    all
}
