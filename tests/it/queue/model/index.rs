//! The model of the index: the ids it may dispatch, and the holder of each lease.
//!
//! Invariant: an id is in a flow or held, never both.

use std::collections::{BTreeMap, BTreeSet};

use shared::queue::IndexState;
use uuid::Uuid;

use super::ledger::{Job, Ledger};

/// The holder according to the index: the number of a lease, and whether it has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub lease: usize,
    pub expired: bool,
    /// A rescue has claimed the lease: only the end of that rescue ends it.
    pub claimed: bool,
}

#[derive(Debug)]
pub struct Index {
    pub state: IndexState,
    /// Jobs that may be dispatched, with the time that orders them; `None` until it is read from
    /// the ledger.
    pub flows: BTreeMap<Uuid, Option<i64>>,
    pub held: BTreeMap<Uuid, Holder>,
}

impl Index {
    pub const fn lost() -> Self {
        Self { state: IndexState::Stale, flows: BTreeMap::new(), held: BTreeMap::new() }
    }

    /// Pushes a job: a held job stays held, a job that is not due soon is ignored.
    pub fn push(&mut self, id: Uuid, due: bool) {
        if due && !self.held.contains_key(&id) {
            self.flows.insert(id, None);
        }
    }

    pub fn push_waiting(&mut self, ledger: &Ledger, which: impl Fn(&Job) -> bool) {
        for job in ledger.jobs.iter().filter(|job| !job.is_final() && job.is_free() && which(job)) {
            self.push(job.id, job.due);
        }
    }

    pub fn lease(&mut self, id: Uuid, lease: usize) {
        self.held.insert(id, Holder { lease, expired: false, claimed: false });
    }

    pub fn holds(&self, id: Uuid, lease: usize) -> bool {
        self.held.get(&id).is_some_and(|holder| holder.lease == lease && !holder.claimed)
    }

    /// A renewal arrives, late or not. Returns whether the lease is still held.
    pub fn renew(&mut self, id: Uuid, lease: usize) -> bool {
        if self.state == IndexState::Grace && !self.held.contains_key(&id) {
            self.lease(id, lease);
            self.flows.remove(&id);
        }
        let holder = self.held.get_mut(&id).filter(|holder| holder.lease == lease && !holder.claimed);
        holder.map(|holder| holder.expired = false).is_some()
    }

    /// The row is read: from now on the lease has this number.
    pub fn renumber(&mut self, id: Uuid, from: usize, to: usize) {
        if let Some(holder) = self.held.get_mut(&id).filter(|holder| holder.lease == from) {
            holder.lease = to;
        }
    }

    pub fn claim(&mut self, id: Uuid) {
        if let Some(holder) = self.held.get_mut(&id) {
            holder.claimed = true;
        }
    }

    /// Ends the rescue of this lease; `again`: the time that orders the job, if it waits again and
    /// is due.
    pub fn settle_rescued(&mut self, id: Uuid, lease: usize, again: Option<i64>) {
        if self.held.get(&id).is_some_and(|holder| holder.lease == lease && holder.claimed) {
            self.held.remove(&id);
            self.push(id, again.is_some());
            if let (Some(at), Some(place)) = (again, self.flows.get_mut(&id)) {
                *place = Some(at);
            }
        }
    }

    /// Ends this lease if it is held; `again`: the job waits again and is due. Returns whether the
    /// lease was held.
    pub fn settle(&mut self, id: Uuid, lease: usize, again: bool) -> bool {
        let holds = self.holds(id, lease);
        if holds {
            self.held.remove(&id);
            self.push(id, again);
        }
        holds
    }

    /// Expires this lease. Returns whether it was held.
    pub fn expire(&mut self, id: Uuid, lease: usize) -> bool {
        let holder = self.held.get_mut(&id).filter(|holder| holder.lease == lease && !holder.claimed);
        holder.map(|holder| holder.expired = true).is_some()
    }

    pub fn expired(&self) -> Vec<Uuid> {
        self.held.iter().filter(|(_, holder)| holder.expired).map(|(id, _)| *id).collect()
    }

    /// Begins a rebuild.
    pub fn clear(&mut self) {
        *self = Self { state: IndexState::Grace, ..Self::lost() };
    }

    pub fn ids(&self) -> BTreeSet<Uuid> {
        self.flows.keys().copied().collect()
    }
}
