//! The statements that write outcomes.
//!
//! Statements that find jobs by id exclude the final states instead of listing the waiting ones. A
//! list of waiting states would match the partial index of waiting jobs. The planner prefers that
//! index for lookups while it is empty, and then keeps scanning all of it for each job when it is
//! not.

use chrono::{DateTime, Utc};
use foldhash::HashMap;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{Finish, MAX_ERRORS, Outcome, Recorded, Records, bounded_text};
use crate::{
    faults::{self, Point},
    queue::{
        job::{JobState, Priority},
        lease::Lease,
        ledger::follow_up::{self, Final, final_of},
    },
};

/// A finish with the outcome to write.
pub(super) type Open<'a> = (&'a Finish, &'a Outcome);

/// Ends jobs that have follow-up flags.
pub(super) async fn end_with_follow_up(
    connection: &mut PgConnection,
    finishes: &[Open<'_>],
    records: &mut Records,
) -> Result<(), sqlx::Error> {
    if finishes.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = finishes.iter().map(|(finish, _)| finish.lease.id).collect();
    let fails: Vec<bool> = finishes.iter().map(|(_, outcome)| outcome.state() != JobState::Completed).collect();
    let mut transaction = connection.begin().await?;
    let locked = follow_up::lock(&mut transaction, &ids, &fails).await?;
    let written = change(&mut *transaction, finishes, true).await?;
    let recorded: Vec<_> = written.iter().map(|row| (row.id, row.recorded())).collect();
    let ended = written.into_iter().filter_map(Written::into_final).collect();
    let follow_up = follow_up::settle(&mut transaction, ended, &locked).await?;
    transaction.commit().await?;
    records.follow_up.extend(follow_up);
    records.recorded.extend(recorded);
    Ok(())
}

/// Completes jobs without result and follow-up flags, the common case: two columns instead of seven.
pub(super) async fn complete_plain(
    connection: &mut PgConnection,
    finishes: &[Open<'_>],
    recorded: &mut HashMap<Uuid, Recorded>,
) -> Result<(), sqlx::Error> {
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) =
        finishes.iter().map(|(finish, _)| (finish.lease.id, finish.lease.attempt)).unzip();
    let written = sqlx::query_scalar!(
        "update jobs j set state = 'completed', finalized_at = now()
         from (select * from unnest($1::uuid[], $2::int[]) as t (id, attempt) order by id) i
         where j.id = i.id and j.attempt = i.attempt and j.state not in ('completed', 'cancelled', 'discarded') and j.hooks = 0
         returning j.id",
        &ids,
        &attempts
    )
    .fetch_all(connection)
    .await?;
    faults::reach(Point::AfterEndBeforeItsReply).await?;
    recorded.extend(written.into_iter().map(|id| (id, Recorded::Final)));
    Ok(())
}

/// A row that a finish wrote.
pub(super) struct Written {
    pub(super) id: Uuid,
    tenant_id: Uuid,
    state: JobState,
    run_at: DateTime<Utc>,
    priority: i16,
    hooks: i16,
    unique_key: Option<String>,
    batch_id: Option<Uuid>,
    waits_for: i16,
}

/// Writes any outcome. Jobs with follow-up flags are made final only if the caller does the
/// follow-up.
pub(super) async fn change(
    executor: impl sqlx::PgExecutor<'_>,
    finishes: &[Open<'_>],
    with_follow_up: bool,
) -> Result<Vec<Written>, sqlx::Error> {
    let ids: Vec<Uuid> = finishes.iter().map(|(finish, _)| finish.lease.id).collect();
    let attempts: Vec<i32> = finishes.iter().map(|(finish, _)| finish.lease.attempt).collect();
    let states: Vec<String> = finishes.iter().map(|(_, outcome)| outcome.state().as_str().to_owned()).collect();
    let delays: Vec<Option<f64>> =
        finishes.iter().map(|(_, outcome)| outcome.delay().map(|delay| delay.as_secs_f64())).collect();
    let errors: Vec<Option<String>> = finishes.iter().map(|(_, outcome)| outcome.error().map(bounded_text)).collect();
    let results: Vec<Option<String>> =
        finishes.iter().map(|(_, outcome)| outcome.result().map(str::to_owned)).collect();
    let failed: Vec<bool> = finishes
        .iter()
        .map(|(_, outcome)| matches!(outcome, Outcome::Retry { .. } | Outcome::Discarded { .. }))
        .collect();
    // A run that is repeated gets the next attempt number, so that this run's holder cannot finish
    // it again.
    sqlx::query_as!(
        Written,
        r#"update jobs j set
             state = i.state::job_state,
             attempt = case when i.delay is null then j.attempt else j.attempt + 1 end,
             failures = case when i.failed then j.failures + 1 else j.failures end,
             run_at = case when i.delay is null then j.run_at else now() + make_interval(secs => i.delay) end,
             finalized_at = case when i.delay is null then now() end,
             errors = case when i.error is null then j.errors
                           else case when jsonb_array_length(j.errors) >= $9 then j.errors - 0 else coalesce(j.errors, '[]') end
                             || jsonb_build_object('attempt', j.attempt, 'at', now(), 'error', i.error) end,
             result = coalesce(i.result::json, j.result)
           from (select * from unnest($1::uuid[], $2::int[], $3::text[], $4::float8[], $5::text[], $6::text[], $7::bool[])
                   as t (id, attempt, state, delay, error, result, failed) order by id) i
           where j.id = i.id and j.attempt = i.attempt and j.state not in ('completed', 'cancelled', 'discarded')
             and (j.hooks = 0 or $8 or i.delay is not null)
           returning j.id, j.tenant_id, j.state as "state: JobState", j.run_at, j.priority, j.hooks, j.unique_key, j.batch_id, j.waits_for"#,
        &ids,
        &attempts,
        &states,
        &delays as &[Option<f64>],
        &errors as &[Option<String>],
        &results as &[Option<String>],
        &failed,
        with_follow_up,
        MAX_ERRORS
    )
    .fetch_all(executor)
    .await
}

/// Determines why the remaining finishes were refused, and returns those held up by follow-up flags
/// that were added during the run.
pub(super) async fn explain_refusals<'a>(
    connection: &mut PgConnection,
    finishes: &[Open<'a>],
    in_doubt: bool,
    recorded: &mut HashMap<Uuid, Recorded>,
) -> Result<Vec<Open<'a>>, sqlx::Error> {
    let refused: Vec<Open<'a>> =
        finishes.iter().copied().filter(|(finish, _)| !recorded.contains_key(&finish.lease.id)).collect();
    let ids: Vec<Uuid> = refused.iter().map(|(finish, _)| finish.lease.id).collect();
    let rows = sqlx::query!(
        "select id, attempt, hooks, run_at, priority from jobs where id = any($1) and state not in ('completed', 'cancelled', 'discarded')",
        &ids
    )
    .fetch_all(connection)
    .await?;
    let waiting: HashMap<Uuid, _> = rows.into_iter().map(|row| (row.id, row)).collect();
    let mut late = Vec::new();
    for (finish, outcome) in refused {
        let Lease { id, attempt, .. } = *finish.lease;
        let refusal = match waiting.get(&id) {
            Some(row) if row.attempt == attempt && row.hooks != 0 => {
                late.push((finish, outcome));
                continue;
            }
            Some(row) if in_doubt && is_result_of(row.attempt, attempt, outcome) => {
                Recorded::Again(row.run_at.timestamp_millis(), Priority::from_ledger(row.priority))
            }
            Some(_) => Recorded::RefusedOvertaken,
            None => Recorded::RefusedFinal,
        };
        recorded.insert(id, refusal);
    }
    Ok(late)
}

/// Whether a row that waits with the attempt `now` can be the result of a finish of `attempt`, if an
/// earlier try may have written it.
///
/// Until that try the row had this attempt, and this process held the lease. The attempt was raised
/// by one by this finish, by a rescue, or by a cancellation followed by a redrive. Which of them it
/// was need not be known: in each case this attempt is over and the job waits as its row says. The
/// settlement that reports this to the index applies only while the index has the lease under this
/// token. A rescue or a cancellation ends that lease or lets it expire: before that, the settlement
/// does what they are about to do; after that, it does nothing.
const fn is_result_of(now: i32, attempt: i32, outcome: &Outcome) -> bool {
    outcome.delay().is_some() && now == attempt + 1
}

impl Written {
    pub(super) fn recorded(&self) -> Recorded {
        if self.state.is_final() {
            Recorded::Final
        } else {
            Recorded::Again(self.run_at.timestamp_millis(), Priority::from_ledger(self.priority))
        }
    }

    fn into_final(self) -> Option<Final> {
        self.state.is_final().then_some(final_of!(self))
    }
}
