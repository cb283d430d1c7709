//! Writes a batch of finishes in several tries while the ledger is intermittently unavailable.
//!
//! Invariant: what one try has written is kept together with its follow-up, whatever fails
//! afterwards; and a finish whose reply was lost is recognised by the next try, so that it does not
//! count as a crash.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Finish, Outcome, Recorded, Records, change, complete, end_with_follow_up, explain_refusals};
use crate::{
    db::Kept,
    faults::{self, Point},
};

/// A batch that takes longer counts as lost and is written again; shorter than a lease.
const ANSWERED: Duration = Duration::from_secs(20);

/// A batch of finishes that is written in one or more tries: what one try has written is not
/// written again.
#[derive(Debug)]
pub struct Recording<'a> {
    finishes: Vec<&'a Finish>,
    records: Records,
    /// Whether an earlier try may have written more than its replies confirmed.
    in_doubt: bool,
}

impl<'a> Recording<'a> {
    /// A recording of finishes that were not tried yet, at most one for each job.
    pub fn of(finishes: &'a [Finish]) -> Self {
        Self { finishes: finishes.iter().collect(), records: Records::default(), in_doubt: false }
    }

    /// Writes what is not written yet: in one or two statements, and a transaction for jobs with
    /// follow-up.
    pub async fn advance(&mut self, connections: &Kept) -> Result<(), sqlx::Error> {
        let tried = self.write_on(connections).await;
        self.in_doubt |= tried.is_err();
        tried
    }

    /// Returns what was written, and the unwritten finishes, each in a recording of its own.
    pub fn apart(self) -> (Records, Vec<Self>) {
        let Self { finishes, records, in_doubt } = self;
        let open = finishes.into_iter().filter(|finish| !records.recorded.contains_key(&finish.id));
        let alone = |finish| Self { finishes: vec![finish], records: Records::default(), in_doubt };
        let alone = open.map(alone).collect();
        (records, alone)
    }

    /// Returns what was written, and the unwritten finishes, grouped by a key of their jobs.
    pub fn apart_by<K: Ord>(self, key: impl Fn(Uuid) -> K) -> (Records, Vec<Self>) {
        let (records, open) = self.apart();
        let mut parts = BTreeMap::<K, Self>::new();
        for one in open {
            let Some(id) = one.open().next() else { continue };
            match parts.entry(key(id)) {
                Entry::Vacant(part) => drop(part.insert(one)),
                Entry::Occupied(mut part) => part.get_mut().finishes.extend(one.finishes),
            }
        }
        (records, parts.into_values().collect())
    }

    /// Removes finishes of jobs whose rows another transaction has locked, without waiting for the
    /// locks. Returns the ids of these jobs.
    pub async fn take_locked(&mut self, connections: &Kept) -> Result<Vec<Uuid>, sqlx::Error> {
        let ids: Vec<Uuid> = self.open().collect();
        let locked = connections.ask(ANSWERED, async |connection| Self::locked(connection, &ids).await).await?;
        self.finishes.retain(|finish| !locked.contains(&finish.id));
        Ok(locked)
    }

    async fn locked(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
        sqlx::query_scalar!(
            r#"with free as (select id from jobs where id = any($1) order by id for no key update skip locked)
               select id from jobs where id = any($1) and id not in (select id from free)"#,
            ids
        )
        .fetch_all(connection)
        .await
    }

    /// The jobs whose finishes are not written yet.
    pub fn open(&self) -> impl Iterator<Item = Uuid> {
        self.finishes.iter().map(|finish| finish.id).filter(|id| !self.records.recorded.contains_key(id))
    }

    async fn write_on(&mut self, connections: &Kept) -> Result<(), sqlx::Error> {
        if !connections.asks_in_transactions() {
            return connections.ask(ANSWERED, async |connection| self.write(connection).await).await;
        }
        // Nothing is written before the commit, so nothing is recorded as written before it.
        let mut tried =
            Self { finishes: self.finishes.clone(), records: self.records.clone(), in_doubt: self.in_doubt };
        connections.ask(ANSWERED, async |connection| tried.write(connection).await).await?;
        self.records = tried.records;
        Ok(())
    }

    async fn write(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let records = &mut self.records;
        let open: Vec<&Finish> =
            self.finishes.iter().copied().filter(|finish| !records.recorded.contains_key(&finish.id)).collect();
        let (hooked, free): (Vec<&Finish>, Vec<&Finish>) =
            open.iter().copied().partition(|finish| finish.hooks != 0 && finish.outcome.is_final());
        let (plain, rest): (Vec<&Finish>, Vec<&Finish>) =
            free.into_iter().partition(|finish| matches!(finish.outcome, Outcome::Completed { result: None }));
        end_with_follow_up(connection, &hooked, records).await?;
        if !plain.is_empty() {
            complete(connection, &plain, &mut records.recorded).await?;
        }
        if !rest.is_empty() {
            let written = change(&mut *connection, &rest, false).await?;
            faults::reach(Point::AfterEndBeforeItsReply).await?;
            records.recorded.extend(written.into_iter().map(|row| (row.id, row.recorded())));
        }
        if records.recorded.len() < self.finishes.len() {
            let late = explain_refusals(connection, &open, self.in_doubt, &mut records.recorded).await?;
            end_with_follow_up(connection, &late, records).await?;
            for finish in late {
                records.recorded.entry(finish.id).or_insert(Recorded::RefusedOvertaken);
            }
        }
        Ok(())
    }
}

impl Finish {
    /// Whether a row that waits with `attempt` can be the result of this finish, if an earlier try
    /// may have written it.
    ///
    /// Until that try the row had this attempt, and this process held the lease. The attempt was
    /// raised by one by this finish, by a rescue, or by a cancellation followed by a redrive. Which
    /// of them it was need not be known: in each case this attempt is over and the job waits as its
    /// row says. The settlement that reports this to the index applies only while the index has the
    /// lease under this token. A rescue or a cancellation ends that lease or lets it expire: before
    /// that, the settlement does what they are about to do; after that, it does nothing.
    pub(super) fn is_followed_by(&self, attempt: i32) -> bool {
        self.outcome.delay().is_some() && attempt == self.attempt + 1
    }
}
