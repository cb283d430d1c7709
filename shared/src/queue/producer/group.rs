//! One writer: takes what waits, commits it as one group, answers, and has it pushed.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc},
    time::{Instant, sleep},
};

use super::{EnqueueError, Enqueued, Waiting, pusher::Pusher, statements};
use crate::{
    db::{self, SystemDb},
    faults::{self, Point},
};

const MAX_REQUESTS: usize = 500;
const MAX_JOBS: usize = 1_000;
/// How long a group is tried again while PostgreSQL restarts. Clients wait this long at the most before they hear 503.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn write(db: SystemDb, pusher: Pusher, receiver: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    loop {
        let group = next_group(&mut *receiver.lock().await).await;
        if group.is_empty() {
            return;
        }
        commit(&db, &pusher, group).await;
    }
}

async fn next_group(receiver: &mut mpsc::Receiver<Waiting>) -> Vec<Waiting> {
    let Some(first) = receiver.recv().await else { return Vec::new() };
    let mut jobs = first.request.jobs.len();
    let mut group = vec![first];
    while group.len() < MAX_REQUESTS && jobs < MAX_JOBS {
        let Ok(next) = receiver.try_recv() else { break };
        jobs += next.request.jobs.len();
        group.push(next);
    }
    group
}

async fn commit(db: &SystemDb, pusher: &Pusher, group: Vec<Waiting>) {
    match persist(db, &group).await {
        Ok(answers) => {
            faults::pass(Point::AfterCommitBeforePush).await;
            for (waiting, answer) in group.into_iter().zip(answers) {
                if matches!(answer, Enqueued::Created) {
                    pusher.announce(&waiting.request.jobs);
                }
                // The client may have gone; its jobs are committed all the same.
                let _ = waiting.answer.send(Ok(answer));
            }
        }
        // One request's rows can spoil a statement for all: find out whose, so that the others get through.
        Err(error) if group.len() > 1 && !db::is_unavailable(&error) => {
            for waiting in group {
                Box::pin(commit(db, pusher, vec![waiting])).await;
            }
        }
        Err(error) => refuse(group, error),
    }
}

fn refuse(group: Vec<Waiting>, error: sqlx::Error) {
    let unavailable = db::is_unavailable(&error);
    tracing::error!(requests = group.len(), %error, "jobs could not be committed");
    let error = Arc::new(error);
    for waiting in group {
        let told = if unavailable { EnqueueError::Unavailable } else { EnqueueError::Ledger(Arc::clone(&error)) };
        let _ = waiting.answer.send(Err(told));
    }
}

/// Inserts the group. A connection that broke may have committed or not, so a repeat first looks for the group's ids.
async fn persist(db: &SystemDb, group: &[Waiting]) -> Result<Vec<Enqueued>, sqlx::Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut result = statements::insert(db, group).await;
    while let Err(error) = &result {
        if !db::is_unavailable(error) || Instant::now() >= deadline {
            break;
        }
        sleep(PAUSE).await;
        result = statements::insert_missing(db, group).await;
    }
    result
}
