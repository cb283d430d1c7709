//! The model of the index: which ids it may hand out, and whom it believes to hold what.
//!
//! Invariant: an id is in a lane or held, never both.

use std::collections::{BTreeMap, BTreeSet};

use shared::queue::IndexState;
use uuid::Uuid;

use super::ledger::{Job, Ledger};

/// Whom the index believes: the number of a lease, and whether it has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub lease: usize,
    pub expired: bool,
    /// A rescue has claimed it: only that ends it.
    pub claimed: bool,
}

#[derive(Debug)]
pub struct Index {
    pub state: IndexState,
    /// What may be handed out, with the time by which it is ordered; `None` until that is read from the ledger.
    pub lanes: BTreeMap<Uuid, Option<i64>>,
    pub held: BTreeMap<Uuid, Holder>,
}

impl Index {
    pub const fn lost() -> Self {
        Self { state: IndexState::Stale, lanes: BTreeMap::new(), held: BTreeMap::new() }
    }

    /// A job is made known: what is held stays held, what is not due soon stays away.
    pub fn push(&mut self, id: Uuid, due: bool) {
        if due && !self.held.contains_key(&id) {
            self.lanes.insert(id, None);
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

    /// A renewal arrives, late or not. Returns whether it held.
    pub fn renew(&mut self, id: Uuid, lease: usize) -> bool {
        if self.state == IndexState::Grace && !self.held.contains_key(&id) {
            self.lease(id, lease);
            self.lanes.remove(&id);
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

    /// The end of a rescue of this lease; `again`: the time by which it is ordered, if it waits again and is due.
    pub fn settle_rescued(&mut self, id: Uuid, lease: usize, again: Option<i64>) {
        if self.held.get(&id).is_some_and(|holder| holder.lease == lease && holder.claimed) {
            self.held.remove(&id);
            self.push(id, again.is_some());
            if let (Some(at), Some(place)) = (again, self.lanes.get_mut(&id)) {
                *place = Some(at);
            }
        }
    }

    /// The end of a lease, if this one holds; `again`: it waits again, and is due. Returns whether it held.
    pub fn settle(&mut self, id: Uuid, lease: usize, again: bool) -> bool {
        let holds = self.holds(id, lease);
        if holds {
            self.held.remove(&id);
            self.push(id, again);
        }
        holds
    }

    /// Whether this lease held, and so has run out.
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
        self.lanes.keys().copied().collect()
    }
}
