//! Makes discarded and cancelled jobs wait again, and restores what their end had released.
//!
//! Invariant: a redriven job that held a unique key holds it again, or it is not redriven. A batch
//! that is not finished counts it as pending again; a finished batch stays finished. Dependents
//! were released or cancelled when the job ended and are left unchanged. Dependencies of the job
//! itself are dropped, because a redrive runs it now. While some dependents are still to be
//! released or cancelled the job is not redriven, so that they are not mixed up with dependents of
//! the new run.

use std::collections::HashMap;

use uuid::Uuid;

use super::{ControlOutcome, position, refused};
use crate::{
    db::TenantTx,
    queue::{
        job::JobState,
        ledger::{
            follow_up::{self, Position},
            relations::follow_up_flags,
        },
    },
};

/// The result of redriving several jobs.
#[derive(Clone, Debug, Default)]
pub struct Redriven {
    /// Jobs that wait again.
    pub done: Vec<Position>,
    /// Jobs not redriven because another job holds their unique key: the job and the holder.
    pub key_held: HashMap<Uuid, Uuid>,
}

/// A job that can be redriven; its row is locked.
struct Candidate {
    id: Uuid,
    state: JobState,
    hooks: i16,
    unique_key: Option<String>,
    batch_id: Option<Uuid>,
}

/// Makes a discarded or cancelled job wait again, like a new job except for its attempt number.
/// After the commit, call [`crate::queue::announcement::redriven`].
pub async fn redrive(transaction: &mut TenantTx, id: Uuid) -> Result<ControlOutcome, sqlx::Error> {
    let mut redriven = redrive_all(transaction, &[id]).await?;
    match (redriven.done.pop(), redriven.key_held.get(&id)) {
        (Some(position), _) => Ok(ControlOutcome::Done(position)),
        (None, Some(holder)) => Ok(ControlOutcome::KeyHeld(*holder)),
        (None, None) => Ok(match refused(transaction, id).await? {
            ControlOutcome::Refused(JobState::Discarded | JobState::Cancelled) => ControlOutcome::Settling,
            refused => refused,
        }),
    }
}

/// Makes those of the jobs wait again that are discarded or cancelled. After the commit, call
/// [`crate::queue::announcement::redriven`] for them.
pub async fn redrive_all(transaction: &mut TenantTx, ids: &[Uuid]) -> Result<Redriven, sqlx::Error> {
    let candidates = sqlx::query_as!(
        Candidate,
        r#"select id, state as "state: JobState", hooks, unique_key, batch_id from jobs
           where id = any($1) and state in ('discarded', 'cancelled')
             and not exists (select from job_cascades c where c.tenant_id = jobs.tenant_id and c.job_id = jobs.id)
           order by id for no key update"#,
        ids
    )
    .fetch_all(&mut **transaction)
    .await?;
    let key_held = take_keys(transaction, &candidates).await?;
    let candidates: Vec<Candidate> = candidates.into_iter().filter(|job| !key_held.contains_key(&job.id)).collect();
    let reopened = reopen_batches(transaction, &candidates).await?;
    let ids: Vec<Uuid> = candidates.iter().map(|job| job.id).collect();
    let hooks: Vec<i16> = candidates.iter().map(|job| job.hooks_after_redrive(&reopened)).collect();
    let rows = sqlx::query!(
        "update jobs j set state = 'available', finalized_at = null, run_at = now(), attempt = j.attempt + 1, failures = 0, crashes = 0,
                waits_for = 0, hooks = i.hooks, expires_at = case when j.expires_at > now() then j.expires_at end
         from (select * from unnest($1::uuid[], $2::int2[]) as t (id, hooks) order by id) i
         where j.id = i.id and j.id = any($1) returning j.id, j.queue, j.priority, j.attempt",
        &ids,
        &hooks
    )
    .fetch_all(&mut **transaction)
    .await?;
    let tenant = transaction.tenant();
    let done = rows.iter().map(|row| position(tenant, row.id, &row.queue, row.priority, row.attempt)).collect();
    Ok(Redriven { done, key_held })
}

/// Takes the keys that are held until a job's end; returns the jobs whose key another job holds
/// now, with the holder.
async fn take_keys(transaction: &mut TenantTx, candidates: &[Candidate]) -> Result<HashMap<Uuid, Uuid>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let (mut keys, mut jobs) = (vec![], vec![]);
    for job in candidates.iter().filter(|job| job.hooks & follow_up_flags::UNIQUE_KEY != 0) {
        if let Some(key) = &job.unique_key {
            keys.push(key.clone());
            jobs.push(job.id);
        }
    }
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    // Of two redriven jobs that held the same key one after the other, the one with the lower id
    // takes it.
    sqlx::query!(
        "insert into unique_keys as k (tenant_id, key, job_id)
         select $1, key, job_id from (select distinct on (key) key, job_id from unnest($2::text[], $3::uuid[]) as t (key, job_id) order by key, job_id) i
         on conflict (tenant_id, key) do update set job_id = excluded.job_id, expires_at = null where k.expires_at <= now()",
        tenant,
        &keys,
        &jobs
    )
    .execute(&mut **transaction)
    .await?;
    let holders =
        sqlx::query!("select key, job_id from unique_keys where tenant_id = $1 and key = any($2)", tenant, &keys)
            .fetch_all(&mut **transaction)
            .await?;
    let holders: HashMap<String, Uuid> = holders.into_iter().map(|row| (row.key, row.job_id)).collect();
    let held = keys.into_iter().zip(jobs).filter_map(|(key, job)| Some((job, *holders.get(&key)?)));
    Ok(held.filter(|(job, holder)| job != holder).collect())
}

async fn reopen_batches(transaction: &mut TenantTx, candidates: &[Candidate]) -> Result<Vec<Uuid>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let members = candidates.iter().filter(|job| job.hooks & follow_up_flags::BATCH != 0);
    let members: Vec<_> = members.filter_map(|job| Some((tenant, job.batch_id?, job.state))).collect();
    follow_up::reopen(transaction, &members).await
}

impl Candidate {
    /// The follow-up flags after a redrive: no dependents, and no batch unless that counts the job
    /// again.
    fn hooks_after_redrive(&self, reopened: &[Uuid]) -> i16 {
        let counted = self.batch_id.is_some_and(|batch| reopened.contains(&batch));
        let gone = follow_up_flags::DEPENDENTS | if counted { 0 } else { follow_up_flags::BATCH };
        self.hooks & !gone
    }
}
