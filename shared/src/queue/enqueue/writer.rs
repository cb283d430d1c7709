//! What writing a group needs, whether it is written at once (`group.rs`) or apart from the others
//! (`isolated.rs`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{EnqueueError, Waiting, isolated::queues::IsolatedTenants, pusher::Pusher};
use crate::{
    db::{self, PinnedConnections},
    queue::ledger::insert_related,
    tenancy::TenantId,
};

/// Shorter than a client waits: with an unavailable ledger no request is committed for longer.
const RECENT: Duration = Duration::from_secs(1);

/// The resources for writing groups.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) connections: PinnedConnections,
    pub(super) pusher: Pusher,
    /// The tasks that write groups or push lone jobs.
    pub(super) commits: TaskTracker,
    /// Tenants whose requests must not delay the shared groups.
    pub(super) isolated: IsolatedTenants,
    pub(super) last_commit: LastCommit,
}

/// When requests were committed last. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct LastCommit(Arc<Mutex<Option<Instant>>>);

impl LastCommit {
    pub(super) fn note(&self) {
        *self.lock() = Some(Instant::now());
    }

    /// Whether the ledger was committing a moment ago.
    pub(super) fn is_recent(&self) -> bool {
        self.lock().is_some_and(|at| at.elapsed() < RECENT)
    }

    /// A panic while the lock is held leaves the time consistent.
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Jobs without relations go together in one statement, before all others. A request with relations
/// may be refused as a whole, which frees its idempotency key. A request with the same key
/// therefore goes into a later part, so that it never replays a result that was not committed.
pub(super) fn apart(group: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    if !group.iter().any(|waiting| insert_related::has_relations(&waiting.request.jobs)) {
        return vec![group];
    }
    let (related, plain): (Vec<_>, Vec<_>) =
        group.into_iter().partition(|waiting| insert_related::has_relations(&waiting.request.jobs));
    let (alone, together): (Vec<_>, Vec<_>) =
        related.into_iter().partition(|waiting| insert_related::must_be_alone(&waiting.request.jobs));
    let parts = [plain].into_iter().chain(keys_apart(together)).chain(alone.into_iter().map(|waiting| vec![waiting]));
    parts.filter(|part| !part.is_empty()).collect()
}

/// The nth request with a key goes into the nth part.
fn keys_apart(requests: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let mut uses = HashMap::<(TenantId, String), usize>::new();
    let mut parts: Vec<Vec<Waiting>> = Vec::new();
    for waiting in requests {
        let part = waiting.request.idempotency.as_ref().map_or(0, |idempotency| {
            let used = uses.entry((waiting.request.jobs[0].tenant, idempotency.key.clone())).or_default();
            *used += 1;
            *used - 1
        });
        if part >= parts.len() {
            parts.push(Vec::new());
        }
        parts[part].push(waiting);
    }
    parts
}

pub(super) fn refuse(group: Vec<Waiting>, error: sqlx::Error) {
    let unavailable = db::is_unavailable(&error);
    tracing::error!(requests = group.len(), error = db::sql_state(&error), "failed to commit jobs");
    let error = Arc::new(error);
    for waiting in group {
        let told = if unavailable { EnqueueError::Unavailable } else { EnqueueError::Ledger(Arc::clone(&error)) };
        let _ = waiting.answer.send(Err(told));
    }
}

/// Why a group was not committed.
pub(super) struct Failed {
    pub(super) error: sqlx::Error,
    /// Whether the group may have been committed nevertheless.
    pub(super) in_doubt: bool,
}
