//! Whether the index is usable, and the size of its queues.

use serde::Serialize;

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
    fn counts_of_shards_are_summed_but_workers_are_not() {
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
    fn the_state_of_a_queue_is_that_of_its_worst_shard() {
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
