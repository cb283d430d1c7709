//! Cascades: follow-up that affects too many jobs for one transaction.
//!
//! Invariant: a transaction releases or cancels a bounded number of jobs. The end of a job with
//! more dependents is recorded in `job_cascades`, in the transaction of the end, until all
//! dependents are processed. Until then none of the remaining dependents runs, because each still
//! has its row for that job in `job_dependencies`. Tenants alternate, one step each. Several
//! processes may do this at the same time.
//!
//! Next: [`crate::queue::ledger::follow_up`], which does the first step and records the rest.

use uuid::Uuid;

use crate::queue::{
    Index, JobState,
    ledger::follow_up::{self, Final, FollowUp, STEP},
    ledger::relations::follow_up_flags,
};
use crate::{
    db::{self, SystemDb, TenantTx},
    faults::{self, Point},
};

/// Ended jobs whose dependents one step processes.
const ENDS: i64 = 100;
/// Dependencies that are followed to explain one job.
const MAX_EXPLAINED: i64 = 25_000;

/// Does one step for each tenant that has a cascade; returns the number of steps.
pub async fn advance(db: &SystemDb, index: &Index) -> Result<u64, sqlx::Error> {
    let tenants = sqlx::query_scalar!("select distinct tenant_id from job_cascades").fetch_all(db.pool()).await?;
    let mut steps = 0;
    for tenant in tenants {
        let follow_up = match step(db, tenant).await {
            Ok(Some(follow_up)) => follow_up,
            Ok(None) => continue,
            // The cascades of other tenants must not wait for it.
            Err(error) if db::is_lock_held(&error) => {
                tracing::debug!(%tenant, %error, "a cascade hit a lock and will continue later");
                continue;
            }
            Err(error) => return Err(error),
        };
        faults::reach(Point::CascadeBetweenSteps).await?;
        follow_up.announce(index).await;
        steps += 1;
    }
    Ok(steps)
}

/// Returns `None` if nothing is left, or another process is doing it.
async fn step(db: &SystemDb, tenant: Uuid) -> Result<Option<FollowUp>, sqlx::Error> {
    let mut transaction = db.pool().begin().await?;
    let noted = sqlx::query!(
        "select job_id, fails from job_cascades where tenant_id = $1 order by job_id limit $2 for update skip locked",
        tenant,
        ENDS.min(STEP)
    )
    .fetch_all(&mut *transaction)
    .await?;
    if noted.is_empty() {
        return Ok(None);
    }
    let (ids, fails): (Vec<Uuid>, Vec<bool>) = noted.into_iter().map(|row| (row.job_id, row.fails)).unzip();
    let locked = follow_up::lock(&mut transaction, &ids, &fails).await?;
    // Ends that this step does not complete are recorded again.
    sqlx::query!("delete from job_cascades where tenant_id = $1 and job_id = any($2)", tenant, &ids)
        .execute(&mut *transaction)
        .await?;
    let ended = ids.into_iter().zip(fails).map(|(id, fails)| Final {
        id,
        tenant,
        state: if fails { JobState::Cancelled } else { JobState::Completed },
        hooks: follow_up_flags::DEPENDENTS,
        unique_key: None,
        batch_id: None,
        waits_for: 0,
    });
    let follow_up = follow_up::settle_latecomers(&mut transaction, ended.collect(), &locked).await?;
    transaction.commit().await?;
    Ok(Some(follow_up))
}

/// Whether a cascade in progress is going to cancel a waiting job. A job deep in a large graph may
/// be missed.
pub(in crate::queue) async fn will_cancel(transaction: &mut TenantTx, id: Uuid) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let any = sqlx::query_scalar!(
        r#"select exists (select from job_cascades where tenant_id = $1 and fails) as "any!""#,
        tenant
    );
    if !any.fetch_one(&mut **transaction).await? {
        return Ok(false);
    }
    sqlx::query_scalar!(
        r#"with recursive up (id) as (
             select depends_on from job_dependencies where tenant_id = $1 and job_id = $2 and not run_on_failure
             union
             select d.depends_on from up u
             join job_dependencies d on d.tenant_id = $1 and d.job_id = u.id and not d.run_on_failure),
           near as materialized (select id from up limit $3)
           select exists (select from near n join job_cascades c on c.tenant_id = $1 and c.job_id = n.id and c.fails) as "will!""#,
        tenant,
        id,
        MAX_EXPLAINED
    )
    .fetch_one(&mut **transaction)
    .await
}
