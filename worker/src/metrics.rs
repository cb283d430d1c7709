//! The Prometheus metrics of the worker.

use std::{
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use foldhash::{HashMap, HashMapExt as _};
use metrics::{Counter, Histogram, counter, gauge, histogram};
use shared::{
    queue::{JobState, Lease, QueueName, complete::Outcome},
    telemetry::names::{self, label},
};
use tokio_util::sync::CancellationToken;

use crate::{capacity::slots::Slots, fetch::in_flight::InFlight};

/// How often the gauges are set; a gauge that is not set for a minute is dropped.
const INTERVAL: Duration = Duration::from_secs(2);
/// The slots of a process are shared by the queues that it serves.
const ALL_QUEUES: &str = "all";

/// The metric handles of each queue and kind that was seen. Looking up a handle by its labels costs
/// small allocations, keeping it costs none. There are no more handles than kinds that this process
/// runs.
static METERS: LazyLock<Mutex<HashMap<QueueName, QueueMeters>>> = LazyLock::new(Mutex::default);

struct QueueMeters {
    wait: Histogram,
    kinds: HashMap<String, KindMeters>,
}

struct KindMeters {
    duration: Histogram,
    completed: Counter,
}

/// Records that a job was leased, and how long it waited after it became eligible to run.
pub fn started(lease: &Lease, waited: Duration) {
    of_queue(lease.shard.queue(), |meters| meters.wait.record(waited.as_secs_f64()));
}

/// Records the end of a run.
pub fn ended(lease: &Lease, outcome: Option<&Outcome>, ran: Duration) {
    let (queue, kind) = (lease.shard.queue(), &lease.kind);
    let is_completed = matches!(outcome, Some(Outcome::Completed { .. }));
    of_queue(queue, |meters| {
        let meters = meters.of_kind(queue, kind);
        meters.duration.record(ran.as_secs_f64());
        meters.completed.increment(u64::from(is_completed));
    });
    if !is_completed {
        jobs_total(queue, kind, outcome.map_or("handed_back", Outcome::as_str)).increment(1);
    }
}

fn of_queue(queue: &QueueName, record: impl FnOnce(&mut QueueMeters)) {
    let mut queues = METERS.lock().unwrap_or_else(PoisonError::into_inner);
    record(queues.entry(queue.clone()).or_insert_with(|| QueueMeters::of(queue)));
}

impl QueueMeters {
    fn of(queue: &QueueName) -> Self {
        let wait = histogram!(names::JOB_WAIT_SECONDS, label::QUEUE => queue.to_string());
        Self { wait, kinds: HashMap::new() }
    }

    fn of_kind(&mut self, queue: &QueueName, kind: &str) -> &KindMeters {
        if !self.kinds.contains_key(kind) {
            self.kinds.insert(kind.to_owned(), KindMeters::of(queue, kind));
        }
        &self.kinds[kind]
    }
}

impl KindMeters {
    fn of(queue: &QueueName, kind: &str) -> Self {
        let (queue_label, kind_label) = (queue.to_string(), kind.to_owned());
        Self {
            duration: histogram!(names::JOB_DURATION_SECONDS, label::QUEUE => queue_label, label::KIND => kind_label),
            completed: jobs_total(queue, kind, JobState::Completed.as_str()),
        }
    }
}

fn jobs_total(queue: &QueueName, kind: &str, outcome: &'static str) -> Counter {
    let (queue, kind) = (queue.to_string(), kind.to_owned());
    counter!(names::JOBS_TOTAL, label::QUEUE => queue, label::KIND => kind, label::OUTCOME => outcome)
}

/// Counts a job that was left to a worker of another release.
pub fn left(lease: &Lease, reason: &'static str) {
    counter!(names::JOBS_LEFT_TOTAL, label::QUEUE => lease.shard.queue().to_string(), label::REASON => reason)
        .increment(1);
}

/// Reports the number of busy and free slots, until `stop`.
pub async fn report_slots(slots: Arc<Slots<InFlight>>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let (busy, free) = slots.busy_and_free();
        set_slots("busy", busy);
        set_slots("free", free);
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 slots")]
fn set_slots(state: &'static str, count: usize) {
    gauge!(names::WORKER_SLOTS, label::QUEUE => ALL_QUEUES, label::STATE => state).set(count as f64);
}
