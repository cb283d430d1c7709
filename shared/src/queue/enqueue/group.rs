//! Writes requests: takes those that wait, commits them as one group, pushes their jobs and sends
//! the results.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sqlx::{PgConnection, error::DatabaseError};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use super::{
    Committed, EnqueueError, Waiting,
    intake::{Group, Intake},
    isolated::IsolatedTenants,
    pusher::Pusher,
    related, statements,
};
use crate::{
    db::{self, Kept},
    faults::{self, Point},
    patience,
    tenancy::TenantId,
};

/// How long a process that shuts down waits for commits in progress.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// A group that takes longer counts as lost; its clients were answered "unavailable" long before.
const ANSWERED: Duration = Duration::from_secs(10);
/// Idle connections are released after this time: other users of a small pool may need them.
const KEPT_FOR: Duration = Duration::from_millis(200);

/// Writes groups of requests until the intake is closed and empty.
pub(super) async fn write(intake: Arc<Intake>, writer: Writer) {
    loop {
        let Some(Group { requests, place }) = intake.next(KEPT_FOR).await else {
            writer.connections.release();
            continue;
        };
        if requests.is_empty() {
            return;
        }
        let group = writer.divert(requests);
        if group.is_empty() {
            continue;
        }
        let commits = writer.commits.clone();
        let writer = writer.clone();
        // One new task per group instead of a pool of waiting tasks: waking the next task of a pool
        // also cost the wake-up of a thread.
        commits.spawn(async move {
            for part in apart(group) {
                writer.commit(part, false).await;
            }
            drop(place);
        });
    }
}

/// The resources for writing groups.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) connections: Kept,
    pub(super) pusher: Pusher,
    /// The tasks that write groups or push lone jobs.
    pub(super) commits: TaskTracker,
    /// Tenants whose requests must not delay the shared groups.
    pub(super) isolated: IsolatedTenants,
}

impl Writer {
    /// `in_doubt`: whether an earlier try may have been committed.
    pub(super) async fn commit(&self, group: Vec<Waiting>, in_doubt: bool) {
        match self.persist(&group, in_doubt).await {
            Ok(Committed { answers, idle }) => {
                faults::pass(Point::AfterCommitBeforePush).await;
                let created = group.iter().zip(&answers).filter(|(_, answer)| answer.has_created());
                let jobs = created.flat_map(|(waiting, _)| &waiting.request.jobs);
                self.pusher.announce_from(&self.commits, jobs.filter(|job| !idle.contains(&job.id)));
                // The push runs on this thread, whose caches are warm, before the results are sent;
                // waking another thread for either takes longer.
                yield_now().await;
                for (waiting, answer) in group.into_iter().zip(answers) {
                    // The client may be gone; its jobs are committed anyway.
                    let _ = waiting.answer.send(Ok(answer));
                }
            }
            Err(Failed { error, in_doubt }) if db::is_lock_held(&error) => self.isolate(group, in_doubt).await,
            // One request's rows can fail the statement for the whole group: commit each request
            // alone, so that the others succeed.
            Err(Failed { error, in_doubt }) if group.len() > 1 && !db::is_unavailable(&error) => {
                for waiting in group {
                    Box::pin(self.commit(vec![waiting], in_doubt)).await;
                }
            }
            Err(Failed { error, .. }) => refuse(group, error),
        }
    }

    /// Inserts the group. After a broken connection the commit may or may not have happened, so a
    /// repeat first looks for the group's ids. If a lock is held, the error is returned to the
    /// caller.
    pub(super) async fn persist(&self, group: &[Waiting], mut in_doubt: bool) -> Result<Committed, Failed> {
        let deadline =
            group.iter().map(|waiting| waiting.since).min().unwrap_or_else(Instant::now) + patience::PATIENCE;
        loop {
            let error = match self.insert(group, in_doubt).await {
                Ok(committed) => return Ok(committed),
                Err(error) => error,
            };
            if db::is_lock_held(&error) {
                return Err(Failed { error, in_doubt });
            }
            let broken = db::is_unavailable(&error);
            // Job ids are unique: a violation means that the first try was committed after the
            // second had looked for the ids.
            let came_through = in_doubt && error.as_database_error().is_some_and(DatabaseError::is_unique_violation);
            // The error can also be that of the look at used keys, which follows the commit.
            in_doubt = true;
            if !(broken || came_through) || Instant::now() >= deadline {
                return Err(Failed { error, in_doubt });
            }
            sleep(PAUSE).await;
        }
    }

    async fn insert(&self, group: &[Waiting], in_doubt: bool) -> Result<Committed, sqlx::Error> {
        let has_relations = group.iter().any(|waiting| related::has_relations(&waiting.request.jobs));
        let insert = async |connection: &mut PgConnection| match (has_relations, in_doubt) {
            (true, false) => related::insert(connection, group).await,
            (true, true) => related::insert_missing(connection, group).await,
            (false, false) => statements::insert(connection, group).await.map(Committed::of_all),
            (false, true) => statements::insert_missing(connection, group).await.map(Committed::of_all),
        };
        let committed = self.connections.ask(ANSWERED, insert).await?;
        faults::reach(Point::AfterCommitBeforeItsReply).await?;
        Ok(committed)
    }
}

/// Jobs without relations go together in one statement, before all others. A request with relations
/// may be refused as a whole, which frees its idempotency key. A request with the same key
/// therefore goes into a later part, so that it never replays a result that was not committed.
pub(super) fn apart(group: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    if !group.iter().any(|waiting| related::has_relations(&waiting.request.jobs)) {
        return vec![group];
    }
    let (related, plain): (Vec<_>, Vec<_>) =
        group.into_iter().partition(|waiting| related::has_relations(&waiting.request.jobs));
    let (alone, together): (Vec<_>, Vec<_>) =
        related.into_iter().partition(|waiting| related::must_be_alone(&waiting.request.jobs));
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
