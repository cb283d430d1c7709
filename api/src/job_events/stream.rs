//! The life of one stream: tells the job as it is, then each time it has changed, and ends with its end.
//!
//! Invariant: it follows before it looks, so no change falls between; and it ends when the job is final, the process stops, or the
//! credential is not good any more.

use std::{convert::Infallible, time::Duration};

use axum::response::sse::Event;
use chrono::{DateTime, Utc};
use futures::{Stream, stream};
use shared::{
    authz::Permission,
    queue::{
        JobState, QueueName,
        inspect::{self, JobRecord, ShownState},
    },
    tenancy::TenantId,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::{Following, Seat, Snapshot};
use crate::state::AppState;

/// How long browsers wait before they come back after a break.
const RETRY: Duration = Duration::from_secs(3);
/// How long the index announces the job's changes after it was last asked to.
const WATCHED: Duration = Duration::from_mins(1);
/// Asking it must not hold up a look while Redis is away.
const INDEX_PATIENCE: Duration = Duration::from_millis(250);
/// Between two looks: progress that comes faster is folded.
const PAUSE: Duration = Duration::from_millis(100);

/// One stream.
pub struct Follower {
    state: AppState,
    tenant: TenantId,
    presented_key: String,
    job: Uuid,
    queue: QueueName,
    following: Following,
    told: Option<String>,
    /// When the job's state changes by the passing of time alone, which nobody announces.
    due_at: Option<DateTime<Utc>>,
    ended: bool,
    _seat: Seat,
}

/// What a look came to.
enum Look {
    Changed(Snapshot),
    Same,
    Gone,
}

impl Follower {
    /// Follows a job for whoever presented this key; `told` is the version that they have.
    pub fn new(
        state: AppState,
        seat: Seat,
        (tenant, presented_key): (TenantId, String),
        (job, queue): (Uuid, QueueName),
        told: Option<String>,
    ) -> Self {
        let following = state.events.follow(job);
        Self { state, tenant, presented_key, job, queue, following, told, due_at: None, ended: false, _seat: seat }
    }

    /// The events, in order.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            let snapshot = follower.next().await?;
            Some((Ok(snapshot.event(RETRY)), follower))
        })
    }

    async fn next(&mut self) -> Option<Snapshot> {
        let stop = self.state.events.stop().clone();
        stop.run_until_cancelled(async {
            while !self.ended && self.is_permitted().await {
                let looked = Instant::now();
                match Box::pin(self.look()).await {
                    Look::Changed(snapshot) => {
                        self.told = Some(snapshot.version.clone());
                        self.ended = snapshot.is_final;
                        return Some(snapshot);
                    }
                    Look::Gone => break,
                    Look::Same => {}
                }
                let look_again = self.until_next_look();
                tokio::select! {
                    () = self.following.changed() => sleep_until(looked + PAUSE).await,
                    () = sleep(look_again) => {}
                }
            }
            None
        })
        .await
        .flatten()
    }

    /// Reads the job, after asking the index to announce what happens to it from now on. What cannot be read now is read later.
    async fn look(&mut self) -> Look {
        let index = &self.state.stores.index;
        let watching = index.watch(&self.queue, self.tenant, self.job, WATCHED);
        if !matches!(timeout(INDEX_PATIENCE, watching).await, Ok(Ok(()))) {
            tracing::debug!(job_id = %self.job, "the index does not announce changes now");
        }
        let read = async {
            let mut transaction = self.state.stores.tenants.begin(self.tenant).await?;
            inspect::find(&mut transaction, index, self.job).await
        };
        match read.await {
            Ok(None) => Look::Gone,
            Ok(Some(job)) => {
                self.due_at = due_at(&job, self.state.clock.now());
                let snapshot = Snapshot::of(&job);
                // A final job that the client knows is told of no more: the stream ends.
                match self.told.as_ref() == Some(&snapshot.version) {
                    true if snapshot.is_final => Look::Gone,
                    true => Look::Same,
                    false => Look::Changed(snapshot),
                }
            }
            Err(error) => {
                tracing::debug!(job_id = %self.job, %error, "a followed job could not be read");
                Look::Same
            }
        }
    }

    /// Until the job is due, if that is soon, and never longer than without a notice.
    fn until_next_look(&self) -> Duration {
        let look_again = self.state.events.limits().look_again;
        let Some(due_at) = self.due_at else { return look_again };
        let until_due = (due_at - self.state.clock.now()).to_std().unwrap_or(Duration::ZERO);
        look_again.min(until_due + PAUSE)
    }

    /// A key that was revoked ends its streams as soon as it ends other requests.
    async fn is_permitted(&self) -> bool {
        match self.state.keys.check(&self.presented_key).await {
            Ok(Some(key)) => key.scopes.iter().any(|scope| Permission::parse(scope) == Some(Permission::JobsRead)),
            Ok(None) => false,
            // Not known now: the look will not succeed either.
            Err(_) => true,
        }
    }
}

/// When a job that waits for its time is due, if that is still to come.
fn due_at(job: &JobRecord, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let waits = job.state == ShownState::Ledger(JobState::Scheduled) && job.waits_for == 0;
    (waits && job.run_at > now).then_some(job.run_at)
}
