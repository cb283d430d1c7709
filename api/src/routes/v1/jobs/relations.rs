//! The relations of a submitted job, as clients write them: `unique`, `after`,
//! `on_dependency_failure`, `expires_at`.
//!
//! Invariant: everything that can be checked without the ledger is checked here, with its position
//! in the body; the ledger's rejections result from the commit and are reported in the same form.

use std::time::Duration;

use serde::Deserialize;
use shared::queue::ledger::relations::{DependencyFailure, MAX_DEPENDENTS, Refusal, Relations, UniqueKey, UniqueUntil};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    extract::parse_id,
    problem::{FieldError, Problem, ProblemCode},
};

const MAX_KEY_LENGTH: usize = 255;
const MAX_PERIOD_SECONDS: u32 = 30 * 24 * 60 * 60;
const MAX_DEPENDENCIES: usize = 100;

/// A key that only one of the tenant's jobs holds at a time.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UniqueSubmission {
    /// 1 to 255 characters.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00]*$")]
    pub key: String,
    /// How long the key is held.
    #[serde(default)]
    pub until: Until,
}

/// How long a unique key is held.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Until {
    /// Until the job is completed, discarded or cancelled.
    #[default]
    Final,
    /// For this many seconds from now, at most 30 days, whatever happens to the job.
    Seconds(PeriodSeconds),
}

/// 1 second to 30 days.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(minimum = 1, maximum = 2_592_000)]
pub struct PeriodSeconds(u32);

/// A job to wait for: its id, or in a batch `#` and the index of an earlier job of the batch, from
/// 0.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(pattern = r"^(#(0|[1-9][0-9]{0,2})|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$", example = "#0")]
pub struct JobReference(String);

/// What happens to a job when one that it waits for is discarded or cancelled.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// It is cancelled too.
    Cancel,
    /// It runs when all are final.
    Run,
}

/// The relations of a submission. `earlier` has the ids of the jobs before it in its batch, `None`
/// for a rejected one.
pub(super) fn relations(
    unique: Option<&UniqueSubmission>,
    after: Option<&[JobReference]>,
    on_dependency_failure: Option<FailurePolicy>,
    earlier: &[Option<Uuid>],
) -> Result<Option<Box<Relations>>, Problem> {
    let unique = unique.map(unique_key).transpose()?;
    let after = match after {
        Some(texts) => dependencies(texts, earlier)?,
        None => Vec::new(),
    };
    if unique.is_none() && after.is_empty() {
        return Ok(None);
    }
    let on_dependency_failure = match on_dependency_failure {
        Some(FailurePolicy::Run) => DependencyFailure::Run,
        Some(FailurePolicy::Cancel) | None => DependencyFailure::Cancel,
    };
    Ok(Some(Box::new(Relations { unique, after, on_dependency_failure, batch: None })))
}

fn unique_key(unique: &UniqueSubmission) -> Result<UniqueKey, Problem> {
    let length = unique.key.chars().count();
    if !(1..=MAX_KEY_LENGTH).contains(&length) || unique.key.contains('\0') {
        return Err(Problem::invalid("/unique/key", "a key has 1 to 255 characters, none of them NUL"));
    }
    let until = match unique.until {
        Until::Final => UniqueUntil::Final,
        Until::Seconds(PeriodSeconds(seconds)) if (1..=MAX_PERIOD_SECONDS).contains(&seconds) => {
            UniqueUntil::Elapsed(Duration::from_secs(seconds.into()))
        }
        Until::Seconds(_) => {
            let detail = format!("a key is held for 1 to {MAX_PERIOD_SECONDS} seconds");
            return Err(Problem::invalid("/unique/until/seconds", detail));
        }
    };
    Ok(UniqueKey { key: unique.key.clone(), until })
}

fn dependencies(texts: &[JobReference], earlier: &[Option<Uuid>]) -> Result<Vec<Uuid>, Problem> {
    if texts.len() > MAX_DEPENDENCIES {
        return Err(Problem::invalid("/after", format!("a job waits for at most {MAX_DEPENDENCIES} jobs")));
    }
    let (mut ids, mut errors) = (Vec::with_capacity(texts.len()), Vec::new());
    for (at, JobReference(text)) in texts.iter().enumerate() {
        match dependency(text, earlier) {
            Ok(id) => ids.push(id),
            Err(detail) => errors.push(FieldError { pointer: format!("/after/{at}"), detail: detail.into() }),
        }
    }
    if errors.is_empty() { Ok(ids) } else { Err(Problem::new(ProblemCode::InvalidBody).errors(errors)) }
}

fn dependency(text: &str, earlier: &[Option<Uuid>]) -> Result<Uuid, &'static str> {
    match text.strip_prefix('#') {
        Some(place) => {
            let place: usize = Some(place)
                .filter(|place| place.len() <= 3 && place.bytes().all(|byte| byte.is_ascii_digit()))
                .filter(|place| place.len() == 1 || !place.starts_with('0'))
                .and_then(|place| place.parse().ok())
                .ok_or("expected the index of an earlier job of the batch after #")?;
            let id = earlier.get(place).ok_or("the batch has no earlier job at that index")?;
            id.ok_or("the job at that index of the batch was rejected")
        }
        None => parse_id(text).ok_or("expected the id of a job, or # and the index of an earlier job of the batch"),
    }
}

/// The problem if another job holds the key.
pub(super) fn duplicate(holder: Uuid) -> Problem {
    Problem::new(ProblemCode::Duplicate)
        .detail(format!("job {holder} holds the unique key"))
        .member("job_id", holder.to_string())
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Duplicate { holder } => duplicate(holder),
            Refusal::UnknownDependencies { places } => wrong_dependencies(&places, "there is no such job"),
            Refusal::TooManyDependents { places } => wrong_dependencies(
                &places,
                &format!("{MAX_DEPENDENTS} jobs wait for that job already, which is the limit"),
            ),
            Refusal::DependencyRefused { place } => {
                Problem::invalid(format!("/after/{place}"), "that job was rejected")
            }
        }
    }
}

fn wrong_dependencies(places: &[usize], detail: &str) -> Problem {
    let error = |place: &usize| FieldError { pointer: format!("/after/{place}"), detail: detail.into() };
    Problem::new(ProblemCode::InvalidBody).errors(places.iter().map(error).collect())
}
