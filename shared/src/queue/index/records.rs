//! Inputs and results of the index.

use std::{collections::HashMap, hash::Hash, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::{queue::Priority, tenancy::TenantId};

/// As in `prelude.lua`: a score in a flow is priority times this plus `run_at` in ms.
const PRIORITY_SPAN: i64 = 1 << 43;
/// Size of a record that `packed.lua` splits, in bytes; equal for pushes and settlements.
const PACKED: usize = 41;
/// Special run times in a settlement, as in `settle.lua`.
const UNRUN: f64 = -1.0;
const RESCUED: f64 = -2.0;

/// Whether the index is usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexState {
    /// Built under the current `run_id` of Redis; jobs are leased.
    Ready,
    /// Being rebuilt: holders may assert their leases, no job is leased.
    Grace,
    /// Built under another `run_id`, retired, or not built: waits for the leader.
    Stale,
    /// Redis executed the fetch after its deadline, when the caller may have timed out; no job was
    /// leased.
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

/// Proves which fetch leased a job: random per fetch, so that an earlier lease of the same worker
/// does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseToken([u8; 8]);

impl LeaseToken {
    /// For a lease whose holder is unknown. No fetch uses it.
    pub(in crate::queue) const NONE: Self = Self([0; 8]);

    /// A unique token.
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

/// A change of a followed job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobChange {
    /// A worker leased it.
    Leased,
    /// Its lease ended and it waits again: a retry, a snooze, a release or a rescue.
    WaitsAgain,
    /// Its lease ended and it is final.
    Finished,
    /// It was cancelled while waiting or running.
    Cancelled,
    /// Another visible property changed: its progress or dependencies, or it was redriven or
    /// expired.
    Updated,
}

impl JobChange {
    /// Parses a message of the events channel: 16 bytes of id, then one byte for the change.
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

/// A waiting job in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingJob {
    /// The job's id.
    pub id: Uuid,
    /// The job's tenant.
    pub tenant: TenantId,
    /// Its order among the tenant's jobs.
    pub priority: Priority,
    /// Earliest start in Unix milliseconds; `None` means at once by Redis's clock, independent of
    /// other clocks.
    pub run_at_ms: Option<i64>,
}

impl WaitingJob {
    /// From a row of the ledger.
    pub(in crate::queue) fn of_row(id: Uuid, tenant: Uuid, priority: i16, run_at: DateTime<Utc>) -> Self {
        let (tenant, priority) = (TenantId::new(tenant), Priority::from_ledger(priority));
        Self { id, tenant, priority, run_at_ms: Some(run_at.timestamp_millis()) }
    }

    /// In the format that `push.lua` unpacks.
    pub(super) fn pack(&self) -> [u8; PACKED] {
        let run_at = self.run_at_ms.map_or(f64::NEG_INFINITY, double);
        let tenant = self.tenant.as_uuid().as_bytes();
        packed([self.id.as_bytes(), tenant, &[packed_priority(self.priority)], &run_at.to_le_bytes()])
    }
}

/// Groups jobs by queue, in their order.
pub(in crate::queue) fn by_queue<Q: Eq + Hash, J>(jobs: impl IntoIterator<Item = (Q, J)>) -> HashMap<Q, Vec<J>> {
    let mut queues: HashMap<Q, Vec<J>> = HashMap::new();
    for (queue, job) in jobs {
        queues.entry(queue).or_default().push(job);
    }
    queues
}

/// A leased id with the values needed to release it without reading its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) struct LeasedId {
    pub(in crate::queue) id: Uuid,
    pub(in crate::queue) priority: Priority,
    pub(in crate::queue) run_at_ms: i64,
}

/// A ready mark: the worker takes one more job than the fetch returned, as soon as one is
/// available.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) struct Offer<'a> {
    /// Name of the [`Subscription`](crate::queue::Subscription) that receives the dispatched job.
    pub(in crate::queue) subscription: &'a str,
    /// Token of the lease that a direct dispatch creates.
    pub(in crate::queue) token: LeaseToken,
}

/// A cancelled job, for the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelledJob {
    /// The job's id.
    pub id: Uuid,
    /// The job's tenant.
    pub tenant: TenantId,
    /// Its order among the tenant's jobs.
    pub priority: Priority,
    /// The last cancelled attempt; a redrive starts a later one.
    pub attempt: i32,
}

/// Which tenants a fetch serves, and which its ready mark accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Welcome {
    /// Tenants in fair order. If they have fewer jobs than requested, the ready mark accepts any
    /// tenant.
    Next,
    /// The same; and if they have all requested jobs, the ready mark accepts a newly active tenant.
    NextAndNewlyActive,
    /// Only tenants that have nothing running, one job each.
    NewlyActive,
}

impl Welcome {
    /// Value of the argument in `lua/fetch.lua`.
    pub(in crate::queue) const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::NextAndNewlyActive => "next+newly_active",
            Self::NewlyActive => "newly_active",
        }
    }
}

/// A job leased to a worker by direct dispatch, its row not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub(in crate::queue) leased: LeasedId,
    pub(in crate::queue) token: LeaseToken,
    /// Time of the dispatch by Redis's clock, in Unix milliseconds.
    pub(in crate::queue) at_ms: i64,
}

impl Grant {
    /// Parses a message: 8 bytes of token, 16 bytes of id, then the time and the score in the flow
    /// as text.
    pub(in crate::queue) fn parse(message: &[u8]) -> Option<Self> {
        let (token, rest) = message.split_at_checked(8)?;
        let (id, rest) = rest.split_at_checked(16)?;
        let (at_ms, score) = std::str::from_utf8(rest).ok()?.split_once(' ')?;
        let (token, leased) = (LeaseToken::parse(token)?, LeasedId::parse(id, score)?);
        Some(Self { leased, token, at_ms: at_ms.parse().ok()? })
    }

    /// The job's id.
    pub const fn job(&self) -> Uuid {
        self.leased.id
    }

    /// Treats the dispatch as older by this span, as if the message had been in transit that long.
    #[must_use]
    pub fn delayed(self, by: Duration) -> Self {
        Self { at_ms: self.at_ms - i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 4), ..self }
    }

    /// The message that [`Self::parse`] reads, as written by `granting.lua`.
    #[cfg(test)]
    fn message(&self) -> Vec<u8> {
        let LeasedId { id, priority, run_at_ms } = &self.leased;
        let flow_score = i64::from(priority.get()) * PRIORITY_SPAN + run_at_ms;
        [self.token.bytes(), id.as_bytes().as_slice(), format!("{} {flow_score}", self.at_ms).as_bytes()].concat()
    }
}

/// A lease as renewed or asserted by its holder.
#[derive(Clone, Copy, Debug)]
pub struct HeldLease {
    /// The job's id.
    pub id: Uuid,
    /// The lease's token.
    pub token: LeaseToken,
    /// The job's tenant.
    pub tenant: TenantId,
    /// The attempt it was granted for.
    pub attempt: i32,
    /// Run time of its handler so far, charged to the tenant where it exceeds the estimate.
    pub held_for: Duration,
}

/// Result of a renewal.
#[derive(Debug)]
pub struct Renewed {
    /// Whether the index is usable.
    pub state: IndexState,
    /// Held under another token, or claimed by a rescue.
    pub lost: Vec<Uuid>,
    /// Without a holder: settled, rescued, or lost by the index. The ledger decides which.
    pub unheld: Vec<Uuid>,
}

/// Result of one fetch.
#[derive(Debug)]
pub(in crate::queue) struct FetchedIds {
    pub(in crate::queue) state: IndexState,
    pub(in crate::queue) ids: Vec<LeasedId>,
    pub(in crate::queue) next: Option<Duration>,
    /// Redis's time in Unix milliseconds.
    pub(in crate::queue) now_ms: i64,
}

/// The end of a lease.
#[derive(Clone, Copy, Debug)]
pub struct Settlement {
    /// The job's id.
    pub id: Uuid,
    /// The lease's token; a settlement with another token changes nothing.
    pub token: LeaseToken,
    /// Worker time used, charged to the tenant; `None` if the job did not run: then only its start
    /// is charged.
    pub ran: Option<Duration>,
    /// If the job waits again: earliest start in Unix milliseconds, and priority.
    pub again: Option<(i64, Priority)>,
}

impl Settlement {
    /// In the format that `settle.lua` unpacks.
    pub(super) fn pack(&self) -> [u8; PACKED] {
        self.packed(self.ran.map_or(UNRUN, |ran| ran.as_secs_f64() * 1_000.0))
    }

    /// As [`Self::pack`], for a lease that a rescue has claimed.
    pub(super) fn pack_rescued(&self) -> [u8; PACKED] {
        self.packed(RESCUED)
    }

    fn packed(&self, ran_ms: f64) -> [u8; PACKED] {
        let (run_at, priority) = self.again.map_or((0.0, 0), |(ms, priority)| (double(ms), packed_priority(priority)));
        let (ran_ms, run_at) = (ran_ms.to_le_bytes(), run_at.to_le_bytes());
        packed([self.id.as_bytes(), self.token.bytes(), &ran_ms, &[priority], &run_at])
    }
}

/// Status of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IndexStatus {
    /// Whether the index is usable.
    pub state: IndexState,
    /// Epoch of the rebuild that created it.
    pub epoch: i64,
    /// Whether that rebuild pushed the last page of the ledger.
    pub complete: bool,
    /// Tenants with waiting jobs, throttled ones included.
    pub tenants_waiting: u64,
    /// Jobs due within the look-ahead.
    pub due: u64,
    /// Leased jobs.
    pub leased: u64,
    /// Tenants throttled by a cap, a rate or a pause.
    pub tenants_throttled: u64,
    /// Whether the queue is paused.
    pub paused: bool,
    /// Worker processes that serve the queue.
    pub workers: u64,
    /// Sum of their slots; workers may serve other queues too.
    pub slots: u64,
}

impl IndexStatus {
    /// Combines two shards: the state is the worse of both, and stale if they come from different
    /// rebuilds. A worker serves all shards, so workers and slots are not added up.
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
            tenants_throttled: self.tenants_throttled + other.tenants_throttled,
            paused: self.paused && other.paused,
            workers: self.workers.max(other.workers),
            slots: self.slots.max(other.slots),
        }
    }
}

/// Number of jobs in a queue's flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowDepth {
    /// Jobs that a worker could start now.
    pub available: u64,
    /// The earliest `run_at` at the head of a flow, in Unix milliseconds.
    pub oldest_run_at_ms: Option<i64>,
}

impl FlowDepth {
    /// Adds the counts, and takes the earlier time.
    pub(super) fn beside(self, other: Self) -> Self {
        Self {
            available: self.available + other.available,
            oldest_run_at_ms: [self.oldest_run_at_ms, other.oldest_run_at_ms].into_iter().flatten().min(),
        }
    }
}

/// Concatenates the fields of a record.
fn packed<const FIELDS: usize>(fields: [&[u8]; FIELDS]) -> [u8; PACKED] {
    let (mut record, mut end) = ([0; PACKED], 0);
    for field in fields {
        let begin = end;
        end += field.len();
        record[begin..end].copy_from_slice(field);
    }
    debug_assert_eq!(end, PACKED, "the length must match the formats of `push.lua` and `settle.lua`");
    record
}

fn packed_priority(priority: Priority) -> u8 {
    u8::try_from(priority.get()).expect("a priority is 1 to 4")
}

#[expect(clippy::cast_precision_loss, reason = "a time in ms is far below 2^53, and a later one is in no flow")]
const fn double(ms: i64) -> f64 {
    ms as f64
}

impl LeasedId {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a score is priority * 2^43 + ms, exact in a double by construction"
    )]
    pub(super) fn parse(id: &[u8], flow_score: &str) -> Option<Self> {
        let score = flow_score.parse::<f64>().ok()? as i64;
        // The job is already leased, so an invalid score must not drop it.
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
        tenants_throttled: 1,
        paused: true,
        workers: 2,
        slots: 40,
    };

    #[test]
    fn counts_of_shards_are_added_and_workers_are_not() {
        let both = READY.beside(IndexStatus { workers: 3, slots: 60, ..READY });
        let sum = IndexStatus {
            tenants_waiting: 6,
            due: 4,
            leased: 10,
            tenants_throttled: 2,
            workers: 3,
            slots: 60,
            ..READY
        };
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
        assert_eq!((torn.state, torn.epoch), (Stale, 6), "shards of two rebuilds are stale");
    }
}
