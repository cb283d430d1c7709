//! Brings the index into agreement with the ledger: the rebuild after a loss of Redis, the sweep
//! over recently inserted rows, the slow crawl over all waiting rows, and the promotion of jobs
//! that become due.
//!
//! Invariant: these passes only push waiting rows, and a push never changes a leased job, so they
//! may run at any time, repeatedly, and concurrently with live traffic.
//! Next: [`resharding`] for the steps before a rebuild when a queue's shard count changes.

mod resharding;

pub use self::resharding::Resharded;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use uuid::Uuid;

use crate::queue::{
    Index, IndexState, QueueName, WaitingJob,
    ledger::follow_up::waiting,
    limits::{LimitError, Limiter},
    waiting_job::by_queue,
};
use crate::{
    db::SystemDb,
    faults::{self, Point},
    leadership::Term,
};

/// Rows read from the ledger at a time.
pub const PAGE: i64 = 5_000;
/// Rows per crawl step. The crawl never ends, so each step is small enough not to delay other
/// statements.
pub const CRAWL_PAGE: i64 = 500;
/// Concurrent push calls of a rebuild, so that Redis does not idle between calls.
const PUSHES_UNDER_WAY: usize = 2;

/// Reconciliation failed; the caller should retry later.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Redis did not answer.
    #[error("index: {0}")]
    Index(#[from] redis::RedisError),
    /// Redis rejected the jobs of one queue; those of other queues were pushed.
    #[error("queue {queue}: index: {error}")]
    Queue {
        /// The first queue that failed.
        queue: QueueName,
        /// Its error.
        error: redis::RedisError,
    },
    /// PostgreSQL did not answer.
    #[error("ledger: {0}")]
    Ledger(#[from] sqlx::Error),
    /// This term is over, a later leader has begun a rebuild, or Redis was lost again during this
    /// one.
    #[error("the rebuild was interrupted by a later leader or a loss of Redis")]
    Overtaken,
}

/// Position of a crawl; the default is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrawlCursor {
    queue: String,
    id: Uuid,
}

/// A finished rebuild.
#[derive(Clone, Copy, Debug)]
pub struct RebuildReport {
    /// Epoch of the rebuilt index.
    pub epoch: i64,
    /// Jobs pushed.
    pub jobs: u64,
    /// Duration, including the grace.
    pub took: Duration,
}

/// Compares the ledger with the index and corrects the index.
#[derive(Clone)]
pub struct Reconciler {
    db: SystemDb,
    index: Index,
}

impl Reconciler {
    /// A reconciler over both stores.
    pub const fn new(db: SystemDb, index: Index) -> Self {
        Self { db, index }
    }

    /// Whether the queue's index was built completely, by the last rebuild, under the current
    /// `run_id` of Redis.
    pub async fn is_sound(&self, queue: &QueueName) -> Result<bool, ReconcileError> {
        let status = self.index.status(queue).await?;
        let epoch = sqlx::query_scalar!("select epoch from index_epochs where queue = $1", queue.as_ref())
            .fetch_optional(self.db.pool())
            .await?;
        Ok(status.state == IndexState::Ready && status.complete && Some(status.epoch) == epoch)
    }

    /// Rebuilds a queue's index from the ledger. During `grace` workers assert the leases they
    /// hold, so that running jobs do not run twice. After it they may fetch, while the remaining
    /// pages are still being read.
    pub async fn rebuild(
        &self,
        queue: &QueueName,
        term: &Term,
        grace: Duration,
    ) -> Result<RebuildReport, ReconcileError> {
        let started = Instant::now();
        let epoch = self.next_epoch(queue, term).await?;
        if !self.index.clear(queue, epoch).await? {
            return Err(ReconcileError::Overtaken);
        }
        faults::reach(Point::RebuildAfterClear).await?;
        let limiter = Limiter::new(self.db.clone(), self.index.clone());
        // Limits are pushed before any job is leased: no tenant may exceed its limits because of a
        // rebuild.
        let (limited, ()) = tokio::join!(limiter.reconcile(std::slice::from_ref(queue)), tokio::time::sleep(grace));
        limited?;
        if !self.index.open_for_fetching(queue, epoch).await? {
            return Err(ReconcileError::Overtaken);
        }
        let jobs = self.push_all(queue).await?;
        if !self.index.mark_complete(queue, epoch).await? {
            return Err(ReconcileError::Overtaken);
        }
        Ok(RebuildReport { epoch, jobs, took: started.elapsed() })
    }

    /// Pushes the rows inserted after `cursor` and at least `lag` ago; returns the next cursor and
    /// the number of rows.
    pub async fn sweep(&self, queue: &QueueName, cursor: Uuid, lag: Duration) -> Result<(Uuid, u64), ReconcileError> {
        let until = self.cursor_before(lag).await?;
        let (mut cursor, mut swept) = (cursor, 0);
        while cursor < until {
            let page = self.page(queue, cursor, until).await?;
            self.index.push(queue, &page.jobs).await?;
            swept += page.jobs.len() as u64;
            cursor = page.next.unwrap_or(until);
        }
        Ok((cursor, swept))
    }

    /// Pushes one small page of the waiting rows of all queues and advances `cursor`, which wraps
    /// at the end. Finds jobs that the other passes missed, such as a row whose transaction was
    /// open for longer than the sweep's lag. If a queue's push fails, its jobs are left to the next
    /// cycle.
    pub async fn crawl(&self, queues: &[QueueName], cursor: &mut CrawlCursor) -> Result<(), ReconcileError> {
        let rows = sqlx::query!(
            "select queue, id, tenant_id, priority, run_at from jobs
             where (queue, id) > ($1, $2) and state in ('scheduled', 'available', 'retryable') and waits_for = 0
             order by queue, id limit $3",
            cursor.queue,
            cursor.id,
            CRAWL_PAGE
        )
        .fetch_all(self.db.pool())
        .await?;
        let last = is_full(&rows, CRAWL_PAGE).then(|| rows.last()).flatten();
        *cursor = last.map_or_else(CrawlCursor::default, |row| CrawlCursor { queue: row.queue.clone(), id: row.id });
        let jobs = rows.iter().filter_map(|row| waiting(row.id, row.tenant_id, &row.queue, row.priority, row.run_at));
        let mut found = by_queue(jobs);
        // Jobs in a queue that is not configured stay in the ledger.
        found.retain(|queue, _| queues.contains(queue));
        let mut outcome = Ok(());
        for (queue, jobs) in found {
            let pushed = self.index.push(&queue, &jobs).await;
            outcome = outcome.and(pushed.map_err(|error| ReconcileError::Queue { queue, error }));
        }
        outcome
    }

    /// The smallest id of the time `back` before now, by PostgreSQL's clock: where a sweep begins
    /// or ends.
    pub async fn cursor_before(&self, back: Duration) -> Result<Uuid, ReconcileError> {
        Ok(sqlx::query_scalar!(r#"select uuid_at(now() - make_interval(secs => $1)) as "id!""#, back.as_secs_f64())
            .fetch_one(self.db.pool())
            .await?)
    }

    /// Pushes the jobs due after `from` and up to `ahead` from now; returns the start of the next
    /// promotion and the number of jobs. A failing queue does not delay the others; the caller then
    /// repeats the whole promotion.
    pub async fn promote(&self, from: DateTime<Utc>, ahead: Duration) -> Result<(DateTime<Utc>, u64), ReconcileError> {
        let until = sqlx::query_scalar!(r#"select now() + make_interval(secs => $1) as "until!""#, ahead.as_secs_f64())
            .fetch_one(self.db.pool())
            .await?;
        let (mut after, mut promoted, mut failed) = ((from, Uuid::nil()), 0, HashMap::new());
        loop {
            let DuePage { mut jobs, next } = self.due_page(after, until).await?;
            jobs.retain(|queue, _| !failed.contains_key(queue));
            for (queue, jobs) in jobs {
                match self.index.push(&queue, &jobs).await {
                    Ok(()) => promoted += jobs.len() as u64,
                    Err(error) => drop(failed.insert(queue, error)),
                }
            }
            // While Redis is unavailable, reading more pages is useless.
            let away = promoted == 0 && !failed.is_empty();
            match next {
                Some(next) if !away => after = next,
                _ => break,
            }
        }
        let failed = failed.into_iter().next();
        failed.map_or(Ok((until, promoted)), |(queue, error)| Err(ReconcileError::Queue { queue, error }))
    }

    async fn next_epoch(&self, queue: &QueueName, term: &Term) -> Result<i64, ReconcileError> {
        let mut transaction = self.db.pool().begin().await?;
        if !term.hold(&mut transaction).await? {
            return Err(ReconcileError::Overtaken);
        }
        let epoch = sqlx::query_scalar!(
            "insert into index_epochs as e (queue, epoch) values ($1, 1)
             on conflict (queue) do update set epoch = e.epoch + 1, rebuilt_at = now() returning epoch",
            queue.as_ref()
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(epoch)
    }

    /// Reads the next page while the last one is being pushed.
    async fn push_all(&self, queue: &QueueName) -> Result<u64, ReconcileError> {
        let (mut pushed, mut page) = (0, self.page(queue, Uuid::nil(), Uuid::max()).await?);
        loop {
            pushed += page.jobs.len() as u64;
            let Some(cursor) = page.next else {
                self.index.push_in_bulk(queue, &page.jobs).await?;
                return Ok(pushed);
            };
            let parts = page.jobs.chunks(page.jobs.len().div_ceil(PUSHES_UNDER_WAY));
            let pushes = try_join_all(parts.map(|part| self.index.push_in_bulk(queue, part)));
            let (next, pushed_all) = tokio::join!(self.page(queue, cursor, Uuid::max()), pushes);
            pushed_all?;
            faults::reach(Point::RebuildBetweenPages).await?;
            page = next?;
        }
    }

    /// The bounds include the queue so that only the index over waiting rows provides this order.
    /// With `queue = $1` and a range of ids, the planner, whose statistics were older than the
    /// backlog, chose the primary key and read every finished job in between.
    pub(in crate::queue) async fn page(
        &self,
        queue: &QueueName,
        after: Uuid,
        until: Uuid,
    ) -> Result<Page, sqlx::Error> {
        let rows = sqlx::query!(
            "select id, tenant_id, priority, run_at from jobs
             where (queue, id) > ($1, $2) and (queue, id) <= ($1, $3)
               and state in ('scheduled', 'available', 'retryable') and waits_for = 0
             order by queue, id limit $4",
            queue.as_ref(),
            after,
            until,
            PAGE
        )
        .fetch_all(self.db.pool())
        .await?;
        let next = is_full(&rows, PAGE).then(|| rows.last().map(|row| row.id)).flatten();
        let jobs = rows.iter().map(|row| WaitingJob::of_row(row.id, row.tenant_id, row.priority, row.run_at));
        Ok(Page { jobs: jobs.collect(), next })
    }

    /// In the order of `jobs_due`, which includes the id: even if many jobs share an instant, a
    /// page reads only its own rows.
    async fn due_page(&self, after: (DateTime<Utc>, Uuid), until: DateTime<Utc>) -> Result<DuePage, sqlx::Error> {
        let rows = sqlx::query!(
            "select id, tenant_id, queue, priority, run_at from jobs
             where state in ('scheduled', 'retryable') and waits_for = 0 and (run_at, id) > ($1, $2) and run_at <= $3
             order by run_at, id limit $4",
            after.0,
            after.1,
            until,
            PAGE
        )
        .fetch_all(self.db.pool())
        .await?;
        let next = is_full(&rows, PAGE).then(|| rows.last().map(|row| (row.run_at, row.id))).flatten();
        let jobs = rows.iter().filter_map(|row| waiting(row.id, row.tenant_id, &row.queue, row.priority, row.run_at));
        Ok(DuePage { jobs: by_queue(jobs), next })
    }
}

impl From<LimitError> for ReconcileError {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Index(error) | LimitError::Shard { error, .. } => Self::Index(error),
            LimitError::Ledger(error) => Self::Ledger(error),
        }
    }
}

pub(in crate::queue) struct Page {
    pub(in crate::queue) jobs: Vec<WaitingJob>,
    pub(in crate::queue) next: Option<Uuid>,
}

struct DuePage {
    jobs: HashMap<QueueName, Vec<WaitingJob>>,
    next: Option<(DateTime<Utc>, Uuid)>,
}

fn is_full<T>(rows: &[T], page: i64) -> bool {
    i64::try_from(rows.len()) == Ok(page)
}
