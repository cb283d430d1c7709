//! Taking jobs from holders that died.
//!
//! Invariant: the attempt is raised in the ledger before the index makes the job available, so from then on the old holder's
//! finish matches no row. A crash between the two steps leaves the lease expired, and the next leader repeats the rescue.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Index, JobState, LeaseToken, Priority, QueueName, Settlement, Shard,
    aftermath::{self, Aftermath, final_of},
};
use crate::{
    db::SystemDb,
    faults::{self, Point},
    leadership::Term,
};

/// Crashes after which a job is poison: it has cost that many workers their life, whatever its `max_attempts`.
pub const MAX_CRASHES: i16 = 3;
const MAX_BATCH: usize = 500;

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RescueReport {
    /// Jobs that wait again.
    pub rescued: u64,
    /// Jobs discarded as poison.
    pub poisoned: u64,
    /// Leases of jobs that were final already: their holder died between ledger and index.
    pub finished: u64,
}

/// Why a pass could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RescueError {
    /// Redis did not answer.
    #[error("index: {0}")]
    Index(#[from] redis::RedisError),
    /// PostgreSQL did not answer.
    #[error("ledger: {0}")]
    Ledger(#[from] sqlx::Error),
}

/// Rescues the jobs of a queue whose leases ran out.
pub async fn rescue(db: &SystemDb, index: &Index, queue: &QueueName, term: &Term) -> Result<RescueReport, RescueError> {
    let mut report = RescueReport::default();
    for shard in index.shards(queue) {
        rescue_from(db, index, &shard, term, &mut report).await?;
    }
    Ok(report)
}

async fn rescue_from(
    db: &SystemDb,
    index: &Index,
    shard: &Shard,
    term: &Term,
    report: &mut RescueReport,
) -> Result<(), RescueError> {
    loop {
        let expired = index.expired(shard, MAX_BATCH).await?;
        if expired.is_empty() {
            return Ok(());
        }
        let Some((rows, aftermath)) = raise_attempts(db, &expired, term).await? else { return Ok(()) };
        faults::reach(Point::RescueAfterLedger).await?;
        let settlements: Vec<Settlement> = expired
            .iter()
            .map(|&(id, token)| {
                let again = rows.get(&id).and_then(|row| row.again);
                match rows.get(&id) {
                    Some(row) if row.again.is_none() => report.poisoned += u64::from(row.poisoned),
                    Some(_) => report.rescued += 1,
                    None => report.finished += 1,
                }
                Settlement { id, token, ran: None, again }
            })
            .collect();
        index.settle(shard, &settlements).await?;
        aftermath.announce(index).await;
        if expired.len() < MAX_BATCH {
            return Ok(());
        }
    }
}

struct Raised {
    again: Option<(i64, Priority)>,
    poisoned: bool,
}

/// `None` if this term is over.
async fn raise_attempts(
    db: &SystemDb,
    expired: &[(Uuid, LeaseToken)],
    term: &Term,
) -> Result<Option<(HashMap<Uuid, Raised>, Aftermath)>, sqlx::Error> {
    let ids: Vec<Uuid> = expired.iter().map(|(id, _)| *id).collect();
    let mut transaction = db.pool().begin().await?;
    if !term.hold(&mut transaction).await? {
        return Ok(None);
    }
    lock_poisoned(&mut transaction, &ids).await?;
    let rows = sqlx::query!(
        r#"update jobs j set
             attempt = j.attempt + 1,
             crashes = j.crashes + 1,
             state = case when j.crashes + 1 >= $2 then 'discarded'::job_state else j.state end,
             finalized_at = case when j.crashes + 1 >= $2 then now() end,
             errors = coalesce(j.errors, '[]') || jsonb_build_object('attempt', j.attempt, 'at', now(), 'error',
                 case when j.crashes + 1 >= $2 then 'poison: the worker was lost in this and in every attempt that counted, so it is not run again'
                      else 'the worker was lost: it crashed, was killed, or did not renew its lease' end)
           from (select id from unnest($1::uuid[]) as t (id) order by id) i
           where j.id = i.id and j.state not in ('completed', 'cancelled', 'discarded')
           returning j.id, j.tenant_id, j.state as "state: JobState", j.run_at, j.priority, j.hooks, j.unique_key, j.batch_id, j.waits_for"#,
        &ids,
        i32::from(MAX_CRASHES)
    )
    .fetch_all(&mut *transaction)
    .await?;
    let (mut raised, mut ended) = (HashMap::with_capacity(rows.len()), Vec::new());
    for row in rows {
        let poisoned = row.state.is_final();
        let again = (!poisoned).then(|| (row.run_at.timestamp_millis(), Priority::from_ledger(row.priority)));
        raised.insert(row.id, Raised { again, poisoned });
        if poisoned {
            ended.push(final_of!(row));
        }
    }
    let aftermath = aftermath::settle(&mut transaction, ended).await?;
    transaction.commit().await?;
    Ok(Some((raised, aftermath)))
}

/// Where one of the jobs is about to end as poison and others care, all rows that this touches are locked in the common order.
async fn lock_poisoned(connection: &mut PgConnection, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    let poisoned = sqlx::query_scalar!(
        "select id from jobs where id = any($1) and hooks <> 0 and crashes + 1 >= $2 and state not in ('completed', 'cancelled', 'discarded')",
        ids,
        i32::from(MAX_CRASHES)
    )
    .fetch_all(&mut *connection)
    .await?;
    if poisoned.is_empty() {
        return Ok(());
    }
    let fails: Vec<bool> = ids.iter().map(|id| poisoned.contains(id)).collect();
    aftermath::lock(connection, ids, &fails).await
}
