//! Records the outcomes of runs, many in one statement.
//!
//! Invariant: a finish counts only if the row still waits with the leased attempt. The finish of a
//! job that was rescued, cancelled or overtaken in the meantime matches no row and changes nothing.
//! A job with follow-up flags ends in a transaction with its follow-up; all others, nearly all
//! jobs, end in one statement for many.
//!
//! Statements that find jobs by id exclude the final states instead of listing the waiting ones. A
//! list of waiting states would match the partial index of waiting jobs. The planner prefers that
//! index for lookups while it is empty, and then keeps scanning all of it for each job when it is
//! not.

pub mod effects;
mod error_text;
mod outcome;
mod recording;

use chrono::{DateTime, Utc};
use foldhash::HashMap;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

pub use self::error_text::{MAX_ERROR_BYTES, bounded_text};
pub use self::outcome::{MAX_RESULT_BYTES, Outcome};
pub use self::recording::Recording;
use crate::queue::{
    JobState, Priority,
    ledger::follow_up::{self, Final, FollowUp, final_of},
};
use crate::{
    db::{Kept, SystemDb},
    faults::{self, Point},
};

/// Errors kept per job, the latest ones: each failure rewrites all of them.
pub const MAX_ERRORS: i32 = 20;

/// The end of one run.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The job's id.
    pub id: Uuid,
    /// The attempt that ran.
    pub attempt: i32,
    /// Follow-up flags at the time of the lease: see [`crate::queue::ledger::relations::hooks`]. Flags added since then
    /// are in the ledger only.
    pub hooks: i16,
    /// How it ended.
    pub outcome: Outcome,
}

/// How the ledger treated a finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Written; the job is final.
    Final,
    /// Written; the job waits again from this time (Unix milliseconds) on.
    Again(i64, Priority),
    /// Refused, the job is already final: it was cancelled, or another holder finished it first.
    RefusedFinal,
    /// Refused, the job has a later attempt: it was rescued or redriven.
    RefusedOvertaken,
}

/// How the ledger treated a batch of finishes.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// An entry for each id.
    pub recorded: HashMap<Uuid, Recorded>,
    /// Follow-up to announce to the index.
    pub follow_up: FollowUp,
}

/// Writes a batch of finishes, at most one for each job, in one try.
pub async fn record(db: &SystemDb, finishes: &[Finish]) -> Result<Records, sqlx::Error> {
    let mut recording = Recording::of(finishes);
    recording.advance(&Kept::new(db, 1)).await?;
    Ok(recording.apart().0)
}

impl Records {
    /// Adds records that were written separately.
    pub fn extend(&mut self, other: Self) {
        self.recorded.extend(other.recorded);
        self.follow_up.extend(other.follow_up);
    }
}

/// Ends jobs that have follow-up flags.
async fn end_with_follow_up(
    connection: &mut PgConnection,
    finishes: &[&Finish],
    records: &mut Records,
) -> Result<(), sqlx::Error> {
    if finishes.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = finishes.iter().map(|finish| finish.id).collect();
    let fails: Vec<bool> = finishes.iter().map(|finish| finish.outcome.state() != JobState::Completed).collect();
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

/// The common case, with two columns instead of seven.
async fn complete(
    connection: &mut PgConnection,
    finishes: &[&Finish],
    recorded: &mut HashMap<Uuid, Recorded>,
) -> Result<(), sqlx::Error> {
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = finishes.iter().map(|finish| (finish.id, finish.attempt)).unzip();
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
struct Written {
    id: Uuid,
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
async fn change(
    executor: impl sqlx::PgExecutor<'_>,
    finishes: &[&Finish],
    with_follow_up: bool,
) -> Result<Vec<Written>, sqlx::Error> {
    let ids: Vec<Uuid> = finishes.iter().map(|finish| finish.id).collect();
    let attempts: Vec<i32> = finishes.iter().map(|finish| finish.attempt).collect();
    let states: Vec<String> = finishes.iter().map(|finish| finish.outcome.state().as_str().to_owned()).collect();
    let delays: Vec<Option<f64>> =
        finishes.iter().map(|finish| finish.outcome.delay().map(|delay| delay.as_secs_f64())).collect();
    let errors: Vec<Option<String>> = finishes.iter().map(|finish| finish.outcome.error().map(bounded_text)).collect();
    let results: Vec<Option<String>> =
        finishes.iter().map(|finish| finish.outcome.result().map(str::to_owned)).collect();
    let failed: Vec<bool> = finishes
        .iter()
        .map(|finish| matches!(finish.outcome, Outcome::Retry { .. } | Outcome::Discarded { .. }))
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
async fn explain_refusals<'a>(
    connection: &mut PgConnection,
    finishes: &[&'a Finish],
    in_doubt: bool,
    recorded: &mut HashMap<Uuid, Recorded>,
) -> Result<Vec<&'a Finish>, sqlx::Error> {
    let refused: Vec<&Finish> = finishes.iter().copied().filter(|finish| !recorded.contains_key(&finish.id)).collect();
    let ids: Vec<Uuid> = refused.iter().map(|finish| finish.id).collect();
    let rows = sqlx::query!(
        "select id, attempt, hooks, run_at, priority from jobs where id = any($1) and state not in ('completed', 'cancelled', 'discarded')",
        &ids
    )
    .fetch_all(connection)
    .await?;
    let waiting: HashMap<Uuid, _> = rows.into_iter().map(|row| (row.id, row)).collect();
    let mut late = Vec::new();
    for finish in refused {
        let refusal = match waiting.get(&finish.id) {
            Some(row) if row.attempt == finish.attempt && row.hooks != 0 => {
                late.push(finish);
                continue;
            }
            Some(row) if in_doubt && finish.is_followed_by(row.attempt) => {
                Recorded::Again(row.run_at.timestamp_millis(), Priority::from_ledger(row.priority))
            }
            Some(_) => Recorded::RefusedOvertaken,
            None => Recorded::RefusedFinal,
        };
        recorded.insert(finish.id, refusal);
    }
    Ok(late)
}

impl Written {
    fn recorded(&self) -> Recorded {
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
