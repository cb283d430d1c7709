//! Writes requests: takes those that wait, commits them as one group, pushes their jobs and sends
//! the results.

use std::{sync::Arc, time::Duration};

use sqlx::{PgConnection, error::DatabaseError};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::{
    Waiting,
    intake::{Group, Intake},
    writer::{Failed, Writer, apart, refuse},
};
use crate::{
    db,
    faults::{self, Point},
    patience,
    queue::ledger::{
        insert, insert_related,
        request::{Committed, EnqueueRequest},
    },
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
                Ok(committed) => {
                    self.last_commit.note();
                    return Ok(committed);
                }
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
        let requests: Vec<&EnqueueRequest> = group.iter().map(|waiting| &waiting.request).collect();
        let has_relations = requests.iter().any(|request| insert_related::has_relations(&request.jobs));
        let insert = async |connection: &mut PgConnection| match (has_relations, in_doubt) {
            (true, false) => insert_related::insert(connection, &requests).await,
            (true, true) => insert_related::insert_missing(connection, &requests).await,
            (false, false) => insert::insert(connection, &requests).await.map(Committed::of_all),
            (false, true) => insert::insert_missing(connection, &requests).await.map(Committed::of_all),
        };
        let committed = self.connections.run(ANSWERED, insert).await?;
        faults::reach(Point::AfterCommitBeforeItsReply).await?;
        Ok(committed)
    }
}
