//! What goes into the index and what comes out of it.

use std::{collections::HashMap, hash::Hash, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::{queue::Priority, tenancy::TenantId};

/// As in `prelude.lua`: a lane's score is priority times this plus `run_at` in ms.
const PRIORITY_SPAN: i64 = 1 << 43;
/// Bytes of a record that `packed.lua` takes apart: for a push and for a settlement the same.
const PACKED: usize = 41;
/// Run times that are none, as `settle.lua` has them.
const UNRUN: f64 = -1.0;
const RESCUED: f64 = -2.0;

/// Whether the index can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexState {
    /// Built in this life of Redis; jobs are handed out.
    Ready,
    /// Being rebuilt: holders may assert their leases, nothing is handed out.
    Grace,
    /// Built in another life of Redis, or not at all: waits for the leader.
    Stale,
    /// Redis came to the question when nobody listened any more, or so it seemed; nothing was handed out.
    Late,
}

impl IndexState {
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "ready" => Self::Ready,
            "grace" => Self::Grace,
            "late" => Self::Late,
            _ => Self::Stale,
        }
    }
}

/// Proves who leased a job: random, new for each fetch, so that even the same worker's earlier lease does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseToken([u8; 8]);

impl LeaseToken {
    /// Where nobody's is known. No fetch has it.
    pub(in crate::queue) const NONE: Self = Self([0; 8]);

    /// A token nobody else has.
    pub fn random() -> Self {
        Self(rand::random())
    }

    pub(in crate::queue) const fn bytes(&self) -> &[u8; 8] {
        &self.0
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// What happened to a job that somebody follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobChange {
    /// A worker holds it.
    Leased,
    /// Its lease ended and it waits again: a retry, a snooze, a hand-back or a rescue.
    WaitsAgain,
    /// Its lease ended and it is final.
    Finished,
    /// It was cancelled, whether it waited or ran.
    Cancelled,
    /// Something else that is shown of it changed: its progress, what it waits for, that it waits again or that its time was over.
    Updated,
}

impl JobChange {
    /// Reads a message of the events channel: the id's 16 bytes, then one that says what happened.
    pub fn parse(message: &[u8]) -> Option<(Uuid, Self)> {
        let (id, happened) = message.split_at_checked(16)?;
        let change = match happened {
            b"l" => Self::Leased,
            b"a" => Self::WaitsAgain,
            b"f" => Self::Finished,
            b"c" => Self::Cancelled,
            b"u" => Self::Updated,
            _ => return None,
        };
        Some((Uuid::from_slice(id).ok()?, change))
    }
}

/// A job as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingJob {
    /// The job's id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its place among the tenant's jobs.
    pub priority: Priority,
    /// Unix milliseconds from which it may run; `None` is at once by the clock of Redis, whatever other clocks say.
    pub run_at_ms: Option<i64>,
}

impl WaitingJob {
    /// As a row of the ledger has it.
    pub(in crate::queue) fn of_row(id: Uuid, tenant: Uuid, priority: i16, run_at: DateTime<Utc>) -> Self {
        let (tenant, priority) = (TenantId::new(tenant), Priority::from_ledger(priority));
        Self { id, tenant, priority, run_at_ms: Some(run_at.timestamp_millis()) }
    }

    /// As `push.lua` unpacks it.
    pub(super) fn pack(&self) -> [u8; PACKED] {
        let run_at = self.run_at_ms.map_or(f64::NEG_INFINITY, double);
        let tenant = self.tenant.as_uuid().as_bytes();
        packed([self.id.as_bytes(), tenant, &[packed_priority(self.priority)], &run_at.to_le_bytes()])
    }
}

/// What is told queue by queue, in its order.
pub(in crate::queue) fn by_queue<Q: Eq + Hash, J>(jobs: impl IntoIterator<Item = (Q, J)>) -> HashMap<Q, Vec<J>> {
    let mut queues: HashMap<Q, Vec<J>> = HashMap::new();
    for (queue, job) in jobs {
        queues.entry(queue).or_default().push(job);
    }
    queues
}

/// A leased id with what is needed to give it back unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) struct LeasedId {
    pub(in crate::queue) id: Uuid,
    pub(in crate::queue) priority: Priority,
    pub(in crate::queue) run_at_ms: i64,
}

/// To take one job more than a fetch brings, as soon as it is there.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) struct Offer<'a> {
    /// Where the worker hears of it: the name of a `Subscription`.
    pub(in crate::queue) subscription: &'a str,
    /// Of the lease that would come of it.
    pub(in crate::queue) token: LeaseToken,
}

/// A job that was cancelled, for the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelledJob {
    /// The job.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its place among the tenant's jobs.
    pub priority: Priority,
    /// The last attempt that is not to go on: a redrive makes a later one.
    pub attempt: i32,
}

/// Whose jobs a fetch takes, and to whom it offers to take another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Welcome {
    /// Whoever is next. If they have fewer than were wanted, the offer is made to whoever comes.
    Next,
    /// The same; and if they have all that was wanted, the offer is made to a tenant that has nothing waiting now.
    NextAndNewcomers,
    /// Only tenants that have nothing running, one job each.
    Newcomers,
}

impl Welcome {
    /// As `lua/fetch.lua` is told.
    pub(in crate::queue) const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::NextAndNewcomers => "next+newcomers",
            Self::Newcomers => "newcomers",
        }
    }
}

/// A job that was leased to a worker because of its offer, unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub(in crate::queue) leased: LeasedId,
    pub(in crate::queue) token: LeaseToken,
    /// When, by the clock of Redis, in Unix milliseconds.
    pub(in crate::queue) at_ms: i64,
}

impl Grant {
    /// Reads a message: the token's 8 bytes, the id's 16, then the time and the lane's score as text.
    pub(in crate::queue) fn parse(message: &[u8]) -> Option<Self> {
        let (token, rest) = message.split_at_checked(8)?;
        let (id, rest) = rest.split_at_checked(16)?;
        let (at_ms, score) = std::str::from_utf8(rest).ok()?.split_once(' ')?;
        let (token, leased) = (LeaseToken::parse(token)?, LeasedId::parse(id, score)?);
        Some(Self { leased, token, at_ms: at_ms.parse().ok()? })
    }

    /// Which job it is.
    pub const fn job(&self) -> Uuid {
        self.leased.id
    }

    /// Takes it for so much older than it is, as if the message had been under way for that long.
    #[must_use]
    pub fn delayed(self, by: Duration) -> Self {
        Self { at_ms: self.at_ms - i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 4), ..self }
    }

    /// The message that [`Self::parse`] reads, as `granting.lua` writes it.
    #[cfg(test)]
    fn message(&self) -> Vec<u8> {
        let LeasedId { id, priority, run_at_ms } = &self.leased;
        let lane_score = i64::from(priority.get()) * PRIORITY_SPAN + run_at_ms;
        [self.token.bytes(), id.as_bytes().as_slice(), format!("{} {lane_score}", self.at_ms).as_bytes()].concat()
    }
}

/// A lease as its holder asserts it.
#[derive(Clone, Copy, Debug)]
pub struct HeldLease {
    /// The job.
    pub id: Uuid,
    /// The lease's token.
    pub token: LeaseToken,
    /// Whose job it is.
    pub tenant: TenantId,
    /// Which run of the job it is for.
    pub attempt: i32,
    /// How long its handler has been running, which is charged to the tenant where it is longer than was estimated.
    pub held_for: Duration,
}

/// What became of leases that were to be renewed.
#[derive(Debug)]
pub struct Renewed {
    /// Whether the index can be trusted.
    pub state: IndexState,
    /// Somebody else's now, or claimed by a rescue.
    pub lost: Vec<Uuid>,
    /// Nobody's: they were settled, rescued, or forgotten by the index. The ledger knows.
    pub unheld: Vec<Uuid>,
}

/// What one fetch brought.
#[derive(Debug)]
pub(in crate::queue) struct FetchedIds {
    pub(in crate::queue) state: IndexState,
    pub(in crate::queue) ids: Vec<LeasedId>,
    pub(in crate::queue) next: Option<Duration>,
    /// The time of Redis, in Unix milliseconds.
    pub(in crate::queue) now_ms: i64,
}

/// The end of a lease.
#[derive(Clone, Copy, Debug)]
pub struct Settlement {
    /// The job.
    pub id: Uuid,
    /// The lease's token; a settlement with another token changes nothing.
    pub token: LeaseToken,
    /// Worker time used, charged to the tenant; `None` if the job did not run: then only its start is charged.
    pub ran: Option<Duration>,
    /// Where it waits again, if it does: from these Unix milliseconds on, with this priority.
    pub again: Option<(i64, Priority)>,
}

impl Settlement {
    /// As `settle.lua` unpacks it.
    pub(super) fn pack(&self) -> [u8; PACKED] {
        self.packed(self.ran.map_or(UNRUN, |ran| ran.as_secs_f64() * 1_000.0))
    }

    /// The end of a lease that a rescue has claimed.
    pub(super) fn pack_rescued(&self) -> [u8; PACKED] {
        self.packed(RESCUED)
    }

    fn packed(&self, ran_ms: f64) -> [u8; PACKED] {
        let (run_at, priority) = self.again.map_or((0.0, 0), |(ms, priority)| (double(ms), packed_priority(priority)));
        let (ran_ms, run_at) = (ran_ms.to_le_bytes(), run_at.to_le_bytes());
        packed([self.id.as_bytes(), self.token.bytes(), &ran_ms, &[priority], &run_at])
    }
}

/// What the index says of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IndexStatus {
    /// Whether it can be trusted.
    pub state: IndexState,
    /// The rebuild it comes from.
    pub epoch: i64,
    /// Whether that rebuild reached the last page of the ledger.
    pub complete: bool,
    /// Tenants that have work waiting.
    pub tenants_waiting: u64,
    /// Jobs whose time comes within the look-ahead.
    pub due: u64,
    /// Jobs leased.
    pub leased: u64,
    /// Tenants whose work may not run now: a cap, a rate or a pause holds it off.
    pub tenants_parked: u64,
    /// Whether the queue hands out nothing.
    pub paused: bool,
    /// Processes that serve it.
    pub workers: u64,
    /// How many jobs they can run at once; they may serve other queues too.
    pub slots: u64,
}

impl IndexStatus {
    /// One status of two shards: as sound as the worse of them, and not sound at all when they come from different rebuilds. A worker
    /// serves all shards, so workers and slots are not added up.
    pub(super) fn beside(self, other: Self) -> Self {
        let state = match (self.state, other.state) {
            _ if self.epoch != other.epoch => IndexState::Stale,
            (IndexState::Ready, state) | (state, IndexState::Ready) => state,
            (IndexState::Grace, IndexState::Grace) => IndexState::Grace,
            _ => IndexState::Stale,
        };
        Self {
            state,
            epoch: self.epoch.min(other.epoch),
            complete: self.complete && other.complete,
            tenants_waiting: self.tenants_waiting + other.tenants_waiting,
            due: self.due + other.due,
            leased: self.leased + other.leased,
            tenants_parked: self.tenants_parked + other.tenants_parked,
            paused: self.paused && other.paused,
            workers: self.workers.max(other.workers),
            slots: self.slots.max(other.slots),
        }
    }
}

/// How many jobs of a queue wait in lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneDepth {
    /// Jobs that a worker could start now.
    pub available: u64,
    /// The earliest `run_at` (Unix milliseconds) at the head of a lane.
    pub oldest_run_at_ms: Option<i64>,
}

impl LaneDepth {
    /// Both together.
    pub(super) fn beside(self, other: Self) -> Self {
        Self {
            available: self.available + other.available,
            oldest_run_at_ms: [self.oldest_run_at_ms, other.oldest_run_at_ms].into_iter().flatten().min(),
        }
    }
}

/// The fields of a record, one after the other.
fn packed<const FIELDS: usize>(fields: [&[u8]; FIELDS]) -> [u8; PACKED] {
    let (mut record, mut end) = ([0; PACKED], 0);
    for field in fields {
        let begin = end;
        end += field.len();
        record[begin..end].copy_from_slice(field);
    }
    debug_assert_eq!(end, PACKED, "as long as the formats of `push.lua` and `settle.lua`");
    record
}

fn packed_priority(priority: Priority) -> u8 {
    u8::try_from(priority.get()).expect("a priority is 1 to 4")
}

#[expect(clippy::cast_precision_loss, reason = "a time in ms is far below 2^53, and one beyond is in no lane")]
const fn double(ms: i64) -> f64 {
    ms as f64
}

impl LeasedId {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a score is priority * 2^43 + ms, exact in a double by construction"
    )]
    pub(super) fn parse(id: &[u8], lane_score: &str) -> Option<Self> {
        let score = lane_score.parse::<f64>().ok()? as i64;
        // It is leased by now: whatever its score says, it must not be dropped.
        let priority = Priority::from_ledger((score / PRIORITY_SPAN) as i16);
        Some(Self { id: Uuid::from_slice(id).ok()?, priority, run_at_ms: score % PRIORITY_SPAN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: IndexStatus = IndexStatus {
        state: IndexState::Ready,
        epoch: 7,
        complete: true,
        tenants_waiting: 3,
        due: 2,
        leased: 5,
        tenants_parked: 1,
        paused: true,
        workers: 2,
        slots: 40,
    };

    #[test]
    fn counts_of_shards_are_added_and_workers_are_not() {
        let both = READY.beside(IndexStatus { workers: 3, slots: 60, ..READY });
        let sum =
            IndexStatus { tenants_waiting: 6, due: 4, leased: 10, tenants_parked: 2, workers: 3, slots: 60, ..READY };
        assert_eq!(both, sum);
    }

    #[test]
    fn a_grant_is_read_as_it_was_written() {
        for priority in 1..=4 {
            let priority = Priority::from_ledger(priority);
            let leased = LeasedId { id: Uuid::from_u128(7), priority, run_at_ms: 1_795_337_988_365 };
            let grant = Grant { leased, token: LeaseToken::random(), at_ms: 1_795_337_988_366 };
            assert_eq!(Grant::parse(&grant.message()), Some(grant));
        }
        assert_eq!(Grant::parse(b"too short"), None);
    }

    #[test]
    fn a_queue_is_as_sound_as_its_worst_shard() {
        use IndexState::{Grace, Ready, Stale};
        for (first, second, both) in [
            (Ready, Ready, Ready),
            (Ready, Grace, Grace),
            (Grace, Grace, Grace),
            (Ready, Stale, Stale),
            (Grace, Stale, Stale),
        ] {
            let (first, second) = (IndexStatus { state: first, ..READY }, IndexStatus { state: second, ..READY });
            assert_eq!((first.beside(second).state, second.beside(first).state), (both, both));
        }
        assert!(!READY.beside(IndexStatus { complete: false, ..READY }).complete);
        assert!(!READY.beside(IndexStatus { paused: false, ..READY }).paused);
        let torn = READY.beside(IndexStatus { epoch: 6, ..READY });
        assert_eq!((torn.state, torn.epoch), (Stale, 6), "of two rebuilds");
    }
}
