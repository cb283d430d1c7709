//! Writing down what became of jobs, many in one statement.
//!
//! Invariant: a finish counts only if the row still waits with the attempt that was leased. Whoever was rescued, cancelled
//! or overtaken in the meantime matches no row and changes nothing.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{JobState, Priority};
use crate::db::SystemDb;

/// How a run ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The work is done.
    Completed {
        /// What the kind wants to be readable afterwards.
        result: Option<Box<RawValue>>,
    },
    /// The run failed and another is due after the delay.
    Retry {
        /// What went wrong, for the tenant to read.
        error: String,
        /// How long to wait.
        delay: Duration,
    },
    /// Not now: again after the delay, and it counts as no failure.
    Snoozed {
        /// How long to wait.
        delay: Duration,
    },
    /// Given up for good.
    Discarded {
        /// What went wrong, for the tenant to read.
        error: String,
    },
    /// The kind found that the work is not wanted any more.
    Cancelled {
        /// Why, for the tenant to read.
        reason: String,
    },
}

impl Outcome {
    const fn state(&self) -> JobState {
        match self {
            Self::Completed { .. } => JobState::Completed,
            Self::Retry { .. } => JobState::Retryable,
            Self::Snoozed { .. } => JobState::Scheduled,
            Self::Discarded { .. } => JobState::Discarded,
            Self::Cancelled { .. } => JobState::Cancelled,
        }
    }

    /// The word for logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Completed { .. } => "completed",
            Self::Retry { .. } => "retried",
            Self::Snoozed { .. } => "snoozed",
            Self::Discarded { .. } => "discarded",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    const fn delay(&self) -> Option<Duration> {
        match self {
            Self::Retry { delay, .. } | Self::Snoozed { delay } => Some(*delay),
            _ => None,
        }
    }

    fn error(&self) -> Option<&str> {
        match self {
            Self::Retry { error, .. } | Self::Discarded { error } => Some(error),
            Self::Cancelled { reason } => Some(reason),
            _ => None,
        }
    }

    fn result(&self) -> Option<&str> {
        match self {
            Self::Completed { result } => result.as_deref().map(RawValue::get),
            _ => None,
        }
    }
}

/// The end of one run.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The job.
    pub id: Uuid,
    /// The attempt that ran.
    pub attempt: i32,
    /// How it ended.
    pub outcome: Outcome,
}

/// What the ledger made of a finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Written; the job is final.
    Final,
    /// Written; the job waits again from this time (Unix milliseconds) on.
    Again(i64, Priority),
    /// Refused, the job is final already: it was cancelled, or another holder was faster.
    RefusedFinal,
    /// Refused, the job was rescued and is somebody else's now.
    RefusedOvertaken,
}

/// Writes a batch of finishes, at most one for each job, in one or two statements.
/// The answer has an entry for every id.
pub async fn record(db: &SystemDb, finishes: &[Finish]) -> Result<HashMap<Uuid, Recorded>, sqlx::Error> {
    let (plain, rest): (Vec<&Finish>, Vec<&Finish>) =
        finishes.iter().partition(|finish| matches!(finish.outcome, Outcome::Completed { result: None }));
    let mut recorded = HashMap::with_capacity(finishes.len());
    if !plain.is_empty() {
        complete(db, &plain, &mut recorded).await?;
    }
    if !rest.is_empty() {
        change(db, &rest, &mut recorded).await?;
    }
    if recorded.len() < finishes.len() {
        explain_refusals(db, finishes, &mut recorded).await?;
    }
    Ok(recorded)
}

/// The common case carries two columns instead of seven.
async fn complete(
    db: &SystemDb,
    finishes: &[&Finish],
    recorded: &mut HashMap<Uuid, Recorded>,
) -> Result<(), sqlx::Error> {
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = finishes.iter().map(|finish| (finish.id, finish.attempt)).unzip();
    let written = sqlx::query_scalar!(
        "update jobs j set state = 'completed', finalized_at = now()
         from (select * from unnest($1::uuid[], $2::int[]) as t (id, attempt) order by id) i
         where j.id = i.id and j.attempt = i.attempt and j.state in ('scheduled', 'available', 'retryable')
         returning j.id",
        &ids,
        &attempts
    )
    .fetch_all(db.pool())
    .await?;
    recorded.extend(written.into_iter().map(|id| (id, Recorded::Final)));
    Ok(())
}

async fn change(
    db: &SystemDb,
    finishes: &[&Finish],
    recorded: &mut HashMap<Uuid, Recorded>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = finishes.iter().map(|finish| finish.id).collect();
    let attempts: Vec<i32> = finishes.iter().map(|finish| finish.attempt).collect();
    let states: Vec<String> = finishes.iter().map(|finish| finish.outcome.state().as_str().to_owned()).collect();
    let delays: Vec<Option<f64>> =
        finishes.iter().map(|finish| finish.outcome.delay().map(|delay| delay.as_secs_f64())).collect();
    let errors: Vec<Option<String>> = finishes.iter().map(|finish| finish.outcome.error().map(ledger_text)).collect();
    let results: Vec<Option<String>> =
        finishes.iter().map(|finish| finish.outcome.result().map(str::to_owned)).collect();
    let failed: Vec<bool> = finishes
        .iter()
        .map(|finish| matches!(finish.outcome, Outcome::Retry { .. } | Outcome::Discarded { .. }))
        .collect();
    // A run that is to be repeated gets the next attempt number, so that this run's holder can finish it no second time.
    let rows = sqlx::query!(
        r#"update jobs j set
             state = i.state::job_state,
             attempt = case when i.delay is null then j.attempt else j.attempt + 1 end,
             failures = case when i.failed then j.failures + 1 else j.failures end,
             run_at = case when i.delay is null then j.run_at else now() + make_interval(secs => i.delay) end,
             finalized_at = case when i.delay is null then now() end,
             errors = case when i.error is null then j.errors
                           else coalesce(j.errors, '[]') || jsonb_build_object('attempt', j.attempt, 'at', now(), 'error', i.error) end,
             result = coalesce(i.result::json, j.result)
           from (select * from unnest($1::uuid[], $2::int[], $3::text[], $4::float8[], $5::text[], $6::text[], $7::bool[])
                   as t (id, attempt, state, delay, error, result, failed) order by id) i
           where j.id = i.id and j.attempt = i.attempt and j.state in ('scheduled', 'available', 'retryable')
           returning j.id, j.state as "state: JobState", j.run_at, j.priority"#,
        &ids,
        &attempts,
        &states,
        &delays as &[Option<f64>],
        &errors as &[Option<String>],
        &results as &[Option<String>],
        &failed
    )
    .fetch_all(db.pool())
    .await?;
    recorded.extend(rows.into_iter().map(|row| (row.id, after(row.state, row.run_at, row.priority))));
    Ok(())
}

async fn explain_refusals(
    db: &SystemDb,
    finishes: &[Finish],
    recorded: &mut HashMap<Uuid, Recorded>,
) -> Result<(), sqlx::Error> {
    let refused: Vec<Uuid> = finishes.iter().map(|finish| finish.id).filter(|id| !recorded.contains_key(id)).collect();
    let overtaken = sqlx::query_scalar!(
        "select id from jobs where id = any($1) and state in ('scheduled', 'available', 'retryable')",
        &refused
    )
    .fetch_all(db.pool())
    .await?;
    for id in refused {
        let why = if overtaken.contains(&id) { Recorded::RefusedOvertaken } else { Recorded::RefusedFinal };
        recorded.insert(id, why);
    }
    Ok(())
}

fn after(state: JobState, run_at: DateTime<Utc>, priority: i16) -> Recorded {
    if state.is_final() {
        Recorded::Final
    } else {
        Recorded::Again(run_at.timestamp_millis(), Priority::from_ledger(priority))
    }
}

/// PostgreSQL's text and jsonb hold no NUL; and an error message is for reading, not for storing dumps.
fn ledger_text(text: &str) -> String {
    text.chars().filter(|&character| character != '\0').take(2_000).collect()
}
