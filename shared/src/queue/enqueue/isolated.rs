//! Requests that would delay the shared groups: those of a tenant whose rows are locked, and those
//! that take long on their own.
//!
//! Invariant: a group with requests of several tenants waits for a lock once, for up to the
//! connection's `lock_timeout`. Then each tenant's part is written separately, and a tenant whose
//! part hits the lock is isolated: a task of its own writes its requests until no lock was hit for
//! a while. That task's queue is bounded, and a request that is still blocked at its deadline is
//! refused.

pub(super) mod queues;

use std::collections::{HashMap, HashSet};

use futures::{StreamExt as _, stream};
use tokio::task::yield_now;

use self::queues::{Held, Isolated, Known};
use super::{
    EnqueueError, Waiting,
    writer::{self, Failed, Writer},
};
use crate::{
    db,
    faults::{self, Point},
    queue::ledger::request::Committed,
    tenancy::TenantId,
};

/// Parts of a group written at the same time after the group hit a lock.
const PARTS: usize = 4;
/// Parts up to this size that hit a lock are divided into single requests at once: each further
/// try of a smaller part would cost another wait for the lock.
const FEW: usize = 8;
/// A request with more dependencies than this is not written together with others.
const HEAVY_EDGES: usize = 1_000;

impl Waiting {
    pub(super) fn tenant(&self) -> TenantId {
        self.request.jobs[0].tenant
    }

    fn key(&self) -> Option<&str> {
        self.request.idempotency.as_ref().map(|idempotency| idempotency.key.as_str())
    }

    fn is_heavy(&self) -> bool {
        let edges = |job: &crate::queue::NewJob| job.relations.as_deref().map_or(0, |relations| relations.after.len());
        self.request.jobs.iter().map(edges).sum::<usize>() > HEAVY_EDGES
    }
}

impl Writer {
    /// Removes from a group the requests that must not be written with it, and those whose clients
    /// have waited too long.
    pub(super) fn divert(&self, group: Vec<Waiting>) -> Vec<Waiting> {
        let mut kept = Vec::with_capacity(group.len());
        for waiting in group {
            if !waiting.claim.take() {
                // The client was refused already.
                continue;
            }
            if waiting.is_late() {
                let _ = waiting.answer.send(Err(EnqueueError::Unavailable));
            } else if waiting.is_heavy() || self.isolated.is_isolated(waiting.tenant()) {
                self.leave(Isolated::new(waiting, false));
            } else {
                kept.push(waiting);
            }
        }
        kept
    }

    /// Handles a group that hit a lock: writes each tenant's part separately, and isolates the
    /// tenants whose part hits a lock again.
    pub(super) async fn isolate(&self, group: Vec<Waiting>, in_doubt: bool) {
        let mut parts = HashMap::<TenantId, Vec<Waiting>>::new();
        for waiting in group {
            parts.entry(waiting.tenant()).or_default().push(waiting);
        }
        if parts.len() == 1 {
            // The only part is the group itself, which was tried already.
            for (tenant, part) in parts {
                self.isolate_tenant(tenant, part, in_doubt);
            }
            return;
        }
        let written = stream::iter(parts).map(|(tenant, part)| async move {
            match self.persist(&part, in_doubt).await {
                Ok(committed) => self.publish(part, committed).await,
                Err(Failed { error, in_doubt }) if db::is_lock_held(&error) => {
                    self.isolate_tenant(tenant, part, in_doubt);
                }
                Err(Failed { error, .. }) if db::is_unavailable(&error) => writer::refuse(part, error),
                Err(Failed { in_doubt, .. }) => {
                    for waiting in part {
                        Box::pin(self.commit(vec![waiting], in_doubt)).await;
                    }
                }
            }
        });
        written.buffer_unordered(PARTS).collect::<()>().await;
    }

    fn isolate_tenant(&self, tenant: TenantId, part: Vec<Waiting>, in_doubt: bool) {
        tracing::debug!(%tenant, requests = part.len(), "requests hit a lock and are committed separately");
        self.isolated.isolate(tenant);
        for waiting in part {
            self.leave(Isolated::new(waiting, in_doubt));
        }
    }

    fn leave(&self, request: Isolated) {
        let tenant = request.waiting.tenant();
        if self.isolated.push(tenant, request) {
            let writer = self.clone();
            self.commits.spawn(async move { writer.serve(tenant).await });
        }
    }

    async fn serve(&self, tenant: TenantId) {
        loop {
            let batch = self.isolated.take(tenant);
            if batch.is_empty() {
                return;
            }
            let turn = self.isolated.turns.acquire().await.expect("the semaphore is never closed");
            // Of several requests with one key, the result of the first decides the others.
            let mut keys = HashSet::new();
            let is_first = |request: &Isolated| request.waiting.key().is_none_or(|key| keys.insert(key.to_owned()));
            let (first, followers): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_first);
            // A request that may be committed already is written alone, so that only its own ids
            // are looked up; one whose key was in flight a moment ago, so that the others need not
            // wait for its lock and be tried again.
            let is_in_flight = |request: &Isolated| self.isolated.is_in_flight(tenant, request.waiting.key());
            let is_alone = |request: &Isolated| request.known.in_doubt || is_in_flight(request);
            let (alone, together): (Vec<_>, Vec<_>) = first.into_iter().partition(is_alone);
            for part in apart(together).chain(alone.into_iter().map(|request| vec![request])) {
                self.commit_apart(tenant, part).await;
            }
            for follower in followers {
                let is_blocked = is_in_flight(&follower);
                self.leave(if is_blocked { follower.blocked(Some(Held::Key)) } else { follower });
            }
            drop(turn);
        }
    }

    /// Divides a part that hits a lock until each blocked request is alone.
    async fn commit_apart(&self, tenant: TenantId, part: Vec<Isolated>) {
        let (part, late): (Vec<_>, Vec<_>) = part.into_iter().partition(|request| !request.is_late());
        late.into_iter().for_each(Isolated::refuse);
        let Some(in_doubt) = part.first().map(|request| request.known.in_doubt) else { return };
        let (group, known): (Vec<Waiting>, Vec<Known>) =
            part.into_iter().map(|Isolated { waiting, known }| (waiting, known)).unzip();
        let again = |group: Vec<Waiting>, in_doubt| {
            let known = known.into_iter().map(move |known| known.after_try(in_doubt));
            group.into_iter().zip(known).map(|(waiting, known)| Isolated { waiting, known })
        };
        match self.persist(&group, in_doubt).await {
            Ok(committed) => {
                self.isolated.forget_in_flight(tenant, group.iter().filter_map(Waiting::key));
                self.publish(group, committed).await;
            }
            Err(Failed { error, in_doubt }) if group.len() == 1 && db::is_lock_held(&error) => {
                self.isolated.isolate(tenant);
                let held = Held::of(&error);
                for request in again(group, in_doubt) {
                    if let Some(key) = request.waiting.key().filter(|_| held == Some(Held::Key)) {
                        self.isolated.note_in_flight(tenant, key);
                    }
                    self.leave(request.blocked(held));
                }
            }
            Err(Failed { error, in_doubt }) if group.len() > 1 && !is_outage(&error) => {
                let size = if db::is_lock_held(&error) && group.len() > FEW { group.len().div_ceil(2) } else { 1 };
                let requests: Vec<Isolated> = again(group, in_doubt).collect();
                let mut requests = requests.into_iter();
                while requests.len() > 0 {
                    let part = requests.by_ref().take(size).collect();
                    Box::pin(self.commit_apart(tenant, part)).await;
                }
            }
            Err(Failed { error, .. }) => writer::refuse(group, error),
        }
    }

    /// Pushes committed jobs and sends the results.
    async fn publish(&self, group: Vec<Waiting>, Committed { answers, idle }: Committed) {
        faults::pass(Point::AfterCommitBeforePush).await;
        let created = group.iter().zip(&answers).filter(|(_, answer)| answer.has_created());
        let jobs = created.flat_map(|(waiting, _)| &waiting.request.jobs);
        self.pusher.announce(jobs.filter(|job| !idle.contains(&job.id)));
        yield_now().await;
        for (waiting, answer) in group.into_iter().zip(answers) {
            let _ = waiting.answer.send(Ok(answer));
        }
    }
}

/// Splits requests into parts that one transaction can write, with what is known of each request.
fn apart(requests: Vec<Isolated>) -> impl Iterator<Item = Vec<Isolated>> {
    let mut known = HashMap::new();
    let mut group = Vec::with_capacity(requests.len());
    for request in requests {
        known.insert(request.waiting.request.jobs[0].id, request.known);
        group.push(request.waiting);
    }
    // A heavy request gets its own transaction.
    let (heavy, light): (Vec<_>, Vec<_>) = group.into_iter().partition(Waiting::is_heavy);
    let parts = writer::apart(light).into_iter().chain(heavy.into_iter().map(|waiting| vec![waiting]));
    parts.filter(|part| !part.is_empty()).map(move |part| {
        let with_known = |waiting: Waiting| Isolated { known: known[&waiting.request.jobs[0].id], waiting };
        part.into_iter().map(with_known).collect()
    })
}

/// Whether the requests can be refused without trying them one by one. Waiting for a lock counts as
/// unavailable too, but one request's rows may be the cause.
fn is_outage(error: &sqlx::Error) -> bool {
    db::is_unavailable(error) && !db::is_lock_held(error)
}
