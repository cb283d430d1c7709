//! The life of one stream: it sends the job's current state, then each change, and ends after the
//! final state.
//!
//! Invariant: a stream subscribes before it reads, so it misses no change. It ends when the job is
//! final, the process stops, or the credential is no longer valid.

use std::{convert::Infallible, time::Duration};

use axum::response::sse::Event;
use chrono::{DateTime, Utc};
use futures::{Stream, stream};
use shared::{
    authz::Permission,
    queue::{
        JobState, QueueName,
        observe::inspect::{self, JobRecord, ShownState},
    },
    tenancy::TenantId,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::{Following, Snapshot, StreamPermit};
use crate::{auth::Presented, state::AppState};

/// How long browsers wait before they reconnect.
const RETRY: Duration = Duration::from_secs(3);
/// How long the index announces the job's changes after a `watch` call.
const WATCHED: Duration = Duration::from_mins(1);
/// Timeout of the `watch` call: an unreachable Redis must not delay a read.
const INDEX_PATIENCE: Duration = Duration::from_millis(250);
/// Minimum time between two reads: faster progress is merged.
const PAUSE: Duration = Duration::from_millis(100);

/// The sender of one stream.
pub struct Follower {
    state: AppState,
    tenant: TenantId,
    presented: Presented,
    job: Uuid,
    queue: QueueName,
    following: Following,
    sent_version: Option<String>,
    /// When the state changes with the passage of time alone, which is not announced.
    due_at: Option<DateTime<Utc>>,
    ended: bool,
    _stream: StreamPermit,
}

/// The result of a read.
enum Look {
    Changed(Snapshot),
    Same,
    Gone,
}

impl Follower {
    /// Follows a job as long as the presented credential is valid; `sent_version` is the version that the
    /// client already has.
    pub fn new(
        state: AppState,
        stream: StreamPermit,
        (tenant, presented): (TenantId, Presented),
        (job, queue): (Uuid, QueueName),
        sent_version: Option<String>,
    ) -> Self {
        let following = state.events.follow(job);
        Self {
            state,
            tenant,
            presented,
            job,
            queue,
            following,
            sent_version,
            due_at: None,
            ended: false,
            _stream: stream,
        }
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
                        self.sent_version = Some(snapshot.version.clone());
                        self.ended = snapshot.is_final;
                        return Some(snapshot);
                    }
                    Look::Gone => break,
                    Look::Same => {}
                }
                let until_next_look = self.until_next_look();
                tokio::select! {
                    () = self.following.changed() => sleep_until(looked + PAUSE).await,
                    () = sleep(until_next_look) => {}
                }
            }
            None
        })
        .await
        .flatten()
    }

    /// Requests announcements of the job's changes from the index, then reads the job. A failed
    /// read is repeated later.
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
                // The client already has the final state: the stream ends.
                match self.sent_version.as_ref() == Some(&snapshot.version) {
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

    /// Time until the next read without a notification: until the job is due if that is soon, and
    /// at most the polling interval.
    fn until_next_look(&self) -> Duration {
        let poll_interval = self.state.events.limits().poll_interval;
        let Some(due_at) = self.due_at else { return poll_interval };
        let until_due = (due_at - self.state.clock.now()).to_std().unwrap_or(Duration::ZERO);
        poll_interval.min(until_due + PAUSE)
    }

    /// A revoked credential ends its streams as soon as it fails other requests.
    async fn is_permitted(&self) -> bool {
        match self.state.authenticator.check(&self.presented).await {
            Ok(Some(principal)) => principal.permissions.contains(Permission::JobsRead),
            Ok(None) => false,
            // Unknown at the moment: the read will fail too.
            Err(_) => true,
        }
    }
}

/// When a scheduled job is due, if that is in the future and it waits for no other job.
fn due_at(job: &JobRecord, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let waits = job.state == ShownState::Ledger(JobState::Scheduled) && job.waits_for == 0;
    (waits && job.run_at > now).then_some(job.run_at)
}
