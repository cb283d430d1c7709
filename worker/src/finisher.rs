//! Writing down how runs ended: the ledger first, then the index, many at a time.
//!
//! Invariant: nothing is forgotten while PostgreSQL or Redis is away. A batch is tried until the ledger has it, and its leases
//! are renewed meanwhile, because they stay in [`Holdings`] until they are settled.

use std::{collections::HashMap, fmt::Display, sync::Arc, time::Duration};

use futures::future::join_all;
use shared::{
    db::{self, Kept, SystemDb},
    faults::{self, Point},
    queue::{
        Index, Settlement, Shard,
        consumer::Lease,
        finish::{Finish, Outcome, Recorded, Recording, Records},
        ties::hooks,
        webhooks::{self, Watchers},
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};
use uuid::Uuid;

use crate::holdings::Holdings;

const MAX_BATCH: usize = 500;
/// Runs whose end waits to be written; beyond that, handlers wait, and with them the fetcher.
const WAITING: usize = 2_000;
const PAUSE: Duration = Duration::from_millis(100);
/// Before an end that took too long is tried again.
const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// Batches that are written at the same time.
const WRITERS: usize = 2;
/// The shortest time between the beginnings of two batches that are not full.
const PACE: Duration = Duration::from_millis(3);

/// A run that ended.
pub struct Ended {
    /// What was leased.
    pub lease: Arc<Lease>,
    /// How it ended; `None` hands the job back as if it had not been fetched.
    pub outcome: Option<Outcome>,
    /// Worker time used.
    pub ran: Duration,
}

/// Where handlers leave the ends of their runs. Cheap to clone.
#[derive(Clone)]
pub struct Finisher {
    sender: mpsc::Sender<Ended>,
}

impl Finisher {
    /// Starts the writers, which overlap so that one fills a batch while another waits for the disk. The handle ends when every
    /// clone is dropped and everything is written.
    pub fn start(
        db: &SystemDb,
        index: Index,
        watchers: Watchers,
        holdings: Holdings,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let ledger = Kept::new(db, WRITERS);
        let writer = tokio::spawn(async move {
            let slots = Arc::new(tokio::sync::Semaphore::new(WRITERS));
            let mut writers = tokio::task::JoinSet::new();
            let mut pace = Instant::now();
            loop {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
                let mut batch = Vec::with_capacity(MAX_BATCH);
                if receiver.recv_many(&mut batch, MAX_BATCH).await == 0 {
                    break;
                }
                gather(&mut receiver, &mut batch, pace).await;
                pace = Instant::now() + PACE;
                let (ledger, index, holdings) = (ledger.clone(), index.clone(), holdings.clone());
                let watchers = watchers.clone();
                writers.spawn(async move {
                    write(&ledger, &index, &watchers, &holdings, batch).await;
                    drop(slot);
                });
                while writers.try_join_next().is_some() {}
            }
            while writers.join_next().await.is_some() {}
        });
        (Self { sender }, writer)
    }

    /// Leaves the end of a run to be written.
    pub async fn ended(&self, ended: Ended) {
        // The writer outlives every handler, so this fails only when the process is being torn down.
        let _ = self.sender.send(ended).await;
    }
}

/// Adds what ends until the last batch is [`PACE`] old, so that a busy worker writes few large batches; a lone end is written at once.
async fn gather(receiver: &mut mpsc::Receiver<Ended>, batch: &mut Vec<Ended>, until: Instant) {
    while batch.len() < MAX_BATCH {
        let room = MAX_BATCH - batch.len();
        match timeout_at(until, receiver.recv_many(batch, room)).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

async fn write(ledger: &Kept, index: &Index, watchers: &Watchers, holdings: &Holdings, batch: Vec<Ended>) {
    let finishes: Vec<Finish> = batch
        .iter()
        .filter_map(|ended| {
            let Lease { id, attempt, hooks, tenant, ref kind, .. } = *ended.lease;
            let told = if webhooks::may_be_told(watchers, tenant, kind) { hooks::WEBHOOKS } else { 0 };
            Some(Finish { id, attempt, hooks: hooks | told, outcome: ended.outcome.clone()? })
        })
        .collect();
    let Tried { records: Records { recorded, aftermath }, slow } =
        record_patiently(ledger, Recording::of(&finishes)).await;
    faults::pass(Point::AfterLedgerBeforeSettle).await;
    let mut by_shard: HashMap<&Shard, Vec<Settlement>> = HashMap::new();
    for ended in &batch {
        if let Some(settlement) = ended.settlement(&recorded) {
            holdings.settles(settlement.id, settlement.token);
            by_shard.entry(&ended.lease.shard).or_default().push(settlement);
        }
    }
    let settle = async |(shard, settlements): (&Shard, Vec<Settlement>)| {
        if let Err(error) = index.settle(shard, &settlements).await {
            // The lease will run out; the rescuer then finds the row final, or waiting with its next attempt.
            tracing::debug!(%shard, %error, "leases could not be settled");
        }
    };
    join_all(by_shard.into_iter().map(settle)).await;
    aftermath.announce(index).await;
    for ended in batch {
        if slow.contains(&ended.lease.id) {
            write_later(ledger.clone(), index.clone(), watchers.clone(), holdings.clone(), ended);
        } else {
            holdings.leave(ended.lease.id, ended.lease.token);
        }
    }
}

/// An end that takes too long is tried again by itself, beside the batches; its lease is renewed meanwhile. A worker that stops
/// does not wait for it: the lease runs out then, and the job is rescued.
fn write_later(ledger: Kept, index: Index, watchers: Watchers, holdings: Holdings, ended: Ended) {
    tokio::spawn(async move {
        sleep(SLOW_PAUSE).await;
        write(&ledger, &index, &watchers, &holdings, vec![ended]).await;
    });
}

/// What became of a batch.
#[derive(Default)]
struct Tried {
    records: Records,
    /// Jobs whose end took longer than a statement may, although it was written alone.
    slow: Vec<Uuid>,
}

/// The ledger's word is worth waiting for: the work is done, and only this process knows. What the ledger refuses for another
/// reason than being away is found one by one, so that it does not hold up the others; its lease runs out and it is rescued.
async fn record_patiently(ledger: &Kept, mut recording: Recording<'_>) -> Tried {
    let mut told = false;
    loop {
        match recording.advance(ledger).await {
            Ok(()) => return Tried { records: recording.apart().0, slow: Vec::new() },
            Err(error) if db::is_timed_out(&error) => {
                return record_apart(ledger, recording, db::sql_state(&error), true).await;
            }
            Err(error) if db::is_unavailable(&error) => {
                if !told {
                    tracing::warn!(
                        error = db::sql_state(&error),
                        "finished jobs cannot be written; trying until the ledger answers"
                    );
                    told = true;
                }
                sleep(PAUSE).await;
            }
            Err(error) => return record_apart(ledger, recording, db::sql_state(&error), false).await,
        }
    }
}

async fn record_apart(ledger: &Kept, recording: Recording<'_>, error: impl Display, timed_out: bool) -> Tried {
    let (records, mut open) = recording.apart();
    let mut all = Tried { records, slow: Vec::new() };
    if open.len() == 1 {
        let alone: Vec<Uuid> = open.remove(0).open().collect();
        tracing::error!(job_id = ?alone, %error, timed_out, "the end of a job cannot be written");
        all.slow.extend(alone.into_iter().filter(|_| timed_out));
        return all;
    }
    for alone in open {
        let one = Box::pin(record_patiently(ledger, alone)).await;
        all.records.extend(one.records);
        all.slow.extend(one.slow);
    }
    all
}

impl Ended {
    fn settlement(&self, recorded: &HashMap<Uuid, Recorded>) -> Option<Settlement> {
        if self.outcome.is_none() {
            // Cut short, but what it used is charged: cancelling long runs must not be a way to run for nothing.
            let ran = (!self.ran.is_zero()).then_some(self.ran);
            return Some(Settlement { ran, ..self.lease.hand_back() });
        }
        let again = match recorded.get(&self.lease.id)? {
            Recorded::Final | Recorded::RefusedFinal => None,
            Recorded::Again(run_at_ms, priority) => Some((*run_at_ms, *priority)),
            // Somebody else's now, and so is the lease.
            Recorded::RefusedOvertaken => return None,
        };
        Some(Settlement { id: self.lease.id, token: self.lease.token, ran: Some(self.ran), again })
    }
}
