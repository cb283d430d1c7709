//! Recovers jobs from dead workers.
//!
//! Invariant: a lease is claimed in the index before the attempt is raised in the ledger, so that
//! no late renewal revives it under the new attempt. The attempt is raised before the index makes
//! the job available, so that from then on the previous holder's finish matches no row. A crash
//! between two steps leaves the lease expired, and the next leader repeats the rescue. Only a job
//! whose exclusive run (quarantine) had begun under the expired lease is discarded as poison.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::queue::{
    complete,
    index::{Index, MAX_BATCH},
    job::{JobState, Priority, QueueName},
    lease::{Lease, LeaseToken, Settlement},
    ledger::{
        follow_up::{self, FollowUp, Locked, final_of},
        rows,
    },
    shard::Shard,
    store_error::StoreError,
    waiting_job::WaitingJob,
};
use crate::{
    db::SystemDb,
    faults::{self, Point},
    leadership::Term,
    tenancy::TenantId,
};

/// Crashes after which a job is poison, whatever its `max_attempts`: each one killed a worker.
pub const MAX_CRASHES: i16 = 3;

/// Result of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RescueReport {
    /// Jobs that wait again.
    pub rescued: u64,
    /// Jobs discarded as poison.
    pub poisoned: u64,
    /// Leases of jobs that were already final: the worker died between ledger and index.
    pub finished: u64,
}

/// Records that a job one crash short of [`MAX_CRASHES`] begins its exclusive run: the process
/// holds no other lease, so if it dies now, this job is the cause. `false` if the lease is lost.
pub async fn begin_quarantine(db: &SystemDb, lease: &Lease) -> Result<bool, sqlx::Error> {
    let noted = sqlx::query!(
        "update jobs set quarantine_token = $3 where id = $1 and attempt = $2 and state not in ('completed', 'cancelled', 'discarded')",
        lease.id,
        lease.attempt,
        lease.token.bytes()
    );
    Ok(noted.execute(db.pool()).await?.rows_affected() == 1)
}

/// Rescues the jobs of a queue whose leases have expired.
pub async fn rescue(db: &SystemDb, index: &Index, queue: &QueueName, term: &Term) -> Result<RescueReport, StoreError> {
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
) -> Result<(), StoreError> {
    loop {
        let Some(begun) = begin(db, index, shard, term).await? else { return Ok(()) };
        faults::reach(Point::RescueAfterLedger).await?;
        let is_last = begun.is_last;
        begun.end(index, report).await?;
        if is_last {
            return Ok(());
        }
    }
}

/// A rescue recorded in the ledger, but not yet in the index.
pub struct Begun {
    shard: Shard,
    expired: Vec<(Uuid, Option<LeaseToken>)>,
    rows: HashMap<Uuid, Raised>,
    follow_up: FollowUp,
    /// Whether this pass can rescue no more leases.
    is_last: bool,
}

/// Claims expired leases and raises the attempts of their jobs; `None` if there are none, or this
/// term is over. Rows locked by another transaction are left to the next pass, with their leases
/// claimed, so that they do not delay other jobs.
pub async fn begin(db: &SystemDb, index: &Index, shard: &Shard, term: &Term) -> Result<Option<Begun>, StoreError> {
    let mut expired = index.claim_expired(shard, MAX_BATCH).await?;
    let is_full = expired.len() >= MAX_BATCH;
    let ids: Vec<Uuid> = expired.iter().map(|(id, _)| *id).collect();
    let locked = rows::locked(db.pool(), &ids).await?;
    expired.retain(|(id, _)| !locked.contains(id));
    if expired.is_empty() {
        return Ok(None);
    }
    let is_last = !is_full || !locked.is_empty();
    let raised = raise_attempts(db, &expired, term).await?;
    Ok(raised.map(|(rows, follow_up)| Begun { shard: shard.clone(), expired, rows, follow_up, is_last }))
}

impl Begun {
    /// Makes the jobs available again, and adds to the report.
    pub async fn end(self, index: &Index, report: &mut RescueReport) -> Result<(), StoreError> {
        let Self { shard, expired, rows, mut follow_up, is_last: _ } = self;
        let mut settlements = Vec::with_capacity(expired.len());
        for &(id, token) in &expired {
            let row = rows.get(&id);
            match row {
                Some(row) if row.again.is_none() => report.poisoned += u64::from(row.poisoned),
                Some(_) => report.rescued += 1,
                None => report.finished += 1,
            }
            let again = row.and_then(|row| row.again);
            if let (None, Some((run_at_ms, priority)), Some(row)) = (token, again, row) {
                // The index lost its tenant together with the holder.
                let job = WaitingJob { id, tenant: row.tenant, priority, run_at_ms: Some(run_at_ms) };
                follow_up.waiting.push((shard.queue().clone(), job));
            }
            let token = token.unwrap_or(LeaseToken::NONE);
            settlements.push(Settlement { id, token, ran: None, again, rescued: true });
        }
        complete::settle(index, vec![(shard, settlements)], &follow_up).await?;
        Ok(())
    }
}

struct Raised {
    tenant: TenantId,
    again: Option<(i64, Priority)>,
    poisoned: bool,
}

/// `None` if this term is over.
async fn raise_attempts(
    db: &SystemDb,
    expired: &[(Uuid, Option<LeaseToken>)],
    term: &Term,
) -> Result<Option<(HashMap<Uuid, Raised>, FollowUp)>, sqlx::Error> {
    let ids: Vec<Uuid> = expired.iter().map(|(id, _)| *id).collect();
    let mut transaction = db.pool().begin().await?;
    if !term.hold(&mut transaction).await? {
        return Ok(None);
    }
    let mut locked = Locked::default();
    let poisoned = poisoned(&mut transaction, expired).await?;
    if poisoned.values().any(|others_care| *others_care) {
        // All rows changed below are locked in the common order.
        let fails: Vec<bool> = ids.iter().map(|id| poisoned.get(id) == Some(&true)).collect();
        locked = follow_up::lock(&mut transaction, &ids, &fails).await?;
    }
    let poison: Vec<bool> = ids.iter().map(|id| poisoned.contains_key(id)).collect();
    let rows = sqlx::query!(
        r#"update jobs j set
             attempt = j.attempt + 1,
             crashes = case when i.poison then $3 else least(j.crashes + 1, $3 - 1) end,
             state = case when i.poison then 'discarded'::job_state else j.state end,
             finalized_at = case when i.poison then now() end,
             errors = coalesce(j.errors, '[]') || jsonb_build_object('attempt', j.attempt, 'at', now(), 'error',
                 case when i.poison then 'poison: the worker was lost in this and in every attempt that counted, so it is not run again'
                      else 'the worker was lost: it crashed, was killed, or did not renew its lease' end)
           from (select id, poison from unnest($1::uuid[], $2::bool[]) as t (id, poison) order by id) i
           where j.id = i.id and j.state not in ('completed', 'cancelled', 'discarded')
           returning j.id, j.tenant_id, j.state as "state: JobState", j.run_at, j.priority, j.hooks, j.unique_key, j.batch_id, j.waits_for"#,
        &ids,
        &poison,
        i32::from(MAX_CRASHES)
    )
    .fetch_all(&mut *transaction)
    .await?;
    let (mut raised, mut ended) = (HashMap::with_capacity(rows.len()), Vec::new());
    for row in rows {
        let poisoned = row.state.is_final();
        let again = (!poisoned).then(|| (row.run_at.timestamp_millis(), Priority::from_ledger(row.priority)));
        raised.insert(row.id, Raised { tenant: TenantId::new(row.tenant_id), again, poisoned });
        if poisoned {
            ended.push(final_of!(row));
        }
    }
    let follow_up = follow_up::settle(&mut transaction, ended, &locked).await?;
    transaction.commit().await?;
    Ok(Some((raised, follow_up)))
}

/// Jobs whose exclusive run had begun under the expired lease, each with whether it has follow-up
/// flags.
async fn poisoned(
    connection: &mut PgConnection,
    expired: &[(Uuid, Option<LeaseToken>)],
) -> Result<HashMap<Uuid, bool>, sqlx::Error> {
    let with_token = expired.iter().filter_map(|(id, token)| Some((*id, (*token)?.bytes().to_vec())));
    let (ids, tokens): (Vec<Uuid>, Vec<Vec<u8>>) = with_token.unzip();
    let rows = sqlx::query!(
        r#"select j.id, j.hooks <> 0 as "others_care!" from jobs j, unnest($1::uuid[], $2::bytea[]) as i (id, token)
           where j.id = i.id and j.crashes + 1 >= $3 and j.quarantine_token = i.token
             and j.state not in ('completed', 'cancelled', 'discarded')"#,
        &ids,
        &tokens,
        i32::from(MAX_CRASHES)
    )
    .fetch_all(&mut *connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.others_care)).collect())
}
