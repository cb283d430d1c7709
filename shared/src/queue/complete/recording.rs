//! Writes a batch of finishes in several tries while the ledger is intermittently unavailable.
//!
//! Invariant: what one try has written is kept together with its follow-up, whatever fails
//! afterwards; and a finish whose reply was lost is recognised by the next try, so that it does not
//! count as a crash.

use std::{collections::BTreeMap, time::Duration};

use foldhash::HashSet;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Finish, Outcome, Recorded, Records,
    statements::{Open, change, complete_plain, end_with_follow_up, explain_refusals},
};
use crate::{
    db::PinnedConnections,
    faults::{self, Point},
    queue::ledger::rows,
    tenancy::TenantId,
};

/// A batch that takes longer counts as lost and is written again; shorter than a lease.
const ANSWERED: Duration = Duration::from_secs(20);

/// A batch of finishes that is written in one or more tries: what one try has written is not
/// written again.
#[derive(Debug)]
pub struct Recording<'a> {
    finishes: Vec<Open<'a>>,
    records: Records,
    /// Whether an earlier try may have written more than its replies confirmed.
    in_doubt: bool,
}

impl<'a> Recording<'a> {
    /// A recording of finishes that were not tried yet, at most one for each job. Finishes without
    /// an outcome are not written.
    pub fn of(finishes: &'a [Finish]) -> Self {
        let finishes = finishes.iter().filter_map(|finish| Some((finish, finish.outcome.as_ref()?)));
        Self { finishes: finishes.collect(), records: Records::default(), in_doubt: false }
    }

    /// Writes what is not written yet: in one or two statements, and a transaction for jobs with
    /// follow-up.
    pub async fn advance(&mut self, connections: &PinnedConnections) -> Result<(), sqlx::Error> {
        let tried = self.write_on(connections).await;
        self.in_doubt |= tried.is_err();
        tried
    }

    /// Returns what was written, and the unwritten finishes, each in a recording of its own.
    pub fn apart(self) -> (Records, Vec<Self>) {
        let Self { finishes, records, in_doubt } = self;
        let open = finishes.into_iter().filter(|(finish, _)| !records.recorded.contains_key(&finish.lease.id));
        let alone = |finish| Self { finishes: vec![finish], records: Records::default(), in_doubt };
        let alone = open.map(alone).collect();
        (records, alone)
    }

    /// Returns what was written, and the unwritten finishes by tenant.
    pub fn apart_by_tenant(self) -> (Records, Vec<Self>) {
        let in_doubt = self.in_doubt;
        let (records, open) = self.apart();
        let mut parts = BTreeMap::<TenantId, Vec<Open<'a>>>::new();
        for (finish, outcome) in open.into_iter().flat_map(|one| one.finishes) {
            parts.entry(finish.lease.tenant).or_default().push((finish, outcome));
        }
        let part = |finishes| Self { finishes, records: Records::default(), in_doubt };
        (records, parts.into_values().map(part).collect())
    }

    /// Removes finishes of jobs whose rows another transaction has locked, without waiting for the
    /// locks. Returns the ids of these jobs.
    pub async fn take_locked(&mut self, connections: &PinnedConnections) -> Result<HashSet<Uuid>, sqlx::Error> {
        let ids: Vec<Uuid> = self.open().collect();
        let locked = async |connection: &mut PgConnection| rows::locked(connection, &ids).await;
        let locked = connections.run(ANSWERED, locked).await?;
        self.finishes.retain(|(finish, _)| !locked.contains(&finish.lease.id));
        Ok(locked)
    }

    /// The jobs whose finishes are not written yet.
    pub fn open(&self) -> impl Iterator<Item = Uuid> {
        self.finishes.iter().map(|(finish, _)| finish.lease.id).filter(|id| !self.records.recorded.contains_key(id))
    }

    async fn write_on(&mut self, connections: &PinnedConnections) -> Result<(), sqlx::Error> {
        if !connections.runs_in_transactions() {
            return connections.run(ANSWERED, async |connection| self.write(connection).await).await;
        }
        // Nothing is written before the commit, so nothing is recorded as written before it.
        let mut tried =
            Self { finishes: self.finishes.clone(), records: self.records.clone(), in_doubt: self.in_doubt };
        connections.run(ANSWERED, async |connection| tried.write(connection).await).await?;
        self.records = tried.records;
        Ok(())
    }

    async fn write(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let records = &mut self.records;
        let open: Vec<Open<'_>> = self
            .finishes
            .iter()
            .copied()
            .filter(|(finish, _)| !records.recorded.contains_key(&finish.lease.id))
            .collect();
        let (hooked, free): (Vec<Open<'_>>, Vec<Open<'_>>) =
            open.iter().copied().partition(|(finish, outcome)| finish.follow_up_flags != 0 && outcome.is_final());
        let (plain, rest): (Vec<Open<'_>>, Vec<Open<'_>>) =
            free.into_iter().partition(|(_, outcome)| matches!(outcome, Outcome::Completed { result: None }));
        end_with_follow_up(connection, &hooked, records).await?;
        if !plain.is_empty() {
            complete_plain(connection, &plain, &mut records.recorded).await?;
        }
        if !rest.is_empty() {
            let written = change(&mut *connection, &rest, false).await?;
            faults::reach(Point::AfterEndBeforeItsReply).await?;
            records.recorded.extend(written.into_iter().map(|row| (row.id, row.recorded())));
        }
        if records.recorded.len() < self.finishes.len() {
            let late = explain_refusals(connection, &open, self.in_doubt, &mut records.recorded).await?;
            end_with_follow_up(connection, &late, records).await?;
            for (finish, _) in late {
                records.recorded.entry(finish.lease.id).or_insert(Recorded::RefusedOvertaken);
            }
        }
        Ok(())
    }
}
