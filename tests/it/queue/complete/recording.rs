//! Recording the ends of runs. The ledger may fail in between: written ends stay written and are
//! reported.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::json;
use shared::{
    db::PinnedConnections,
    queue::{
        NewJob,
        complete::{self, MAX_ERROR_BYTES, Outcome, Recorded, Recording},
        ledger::relations::{Relations, follow_up_flags},
    },
    tenancy::TenantId,
};
use tests::system::TestSystem;
use uuid::Uuid;

use crate::queue::support::{LEASE, Ledger, errors, finishes::unleased_finish, indexed, queue, reaches, unleased};

/// Makes every statement that writes this job fail with an error code of PostgreSQL.
async fn spoil(ledger: &mut Ledger, job: Uuid, code: &str) -> Result<()> {
    let spoil = format!(
        "create function spoil() returns trigger language plpgsql as $$ begin raise exception 'spoilt' using errcode = '{code}'; end $$;
         create trigger spoil before update on jobs for each row when (new.id = '{job}') execute function spoil()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(spoil)).execute(&mut ledger.0).await?;
    Ok(())
}

async fn heal(ledger: &mut Ledger) -> Result<()> {
    sqlx::raw_sql("drop trigger spoil on jobs; drop function spoil()").execute(&mut ledger.0).await?;
    Ok(())
}

fn noop(system: &TestSystem, tenant: TenantId) -> NewJob {
    system.job(tenant, "noop", &json!({}))
}

fn retry() -> Outcome {
    Outcome::Retry { error: "once more".into(), delay: Duration::from_hours(1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_follow_up_of_a_partly_failed_write_is_kept() -> Result<()> {
    let system = TestSystem::start().await?;
    let (tenant, mut ledger) = (system.tenant("acme").await?, Ledger::open(&system).await?);
    let ids = system.enqueue(vec![noop(&system, tenant), noop(&system, tenant)]).await?;
    let waits = Relations { after: vec![ids[0]], ..Relations::default() };
    let dependent = NewJob { relations: Some(Box::new(waits)), ..noop(&system, tenant) };
    let dependent = system.enqueue(vec![dependent]).await?[0];
    let done = || Outcome::Completed { result: None };
    let finishes = [
        unleased_finish(&system, ids[0], 1, follow_up_flags::DEPENDENTS, done()),
        unleased_finish(&system, ids[1], 1, 0, done()),
    ];
    let (mut recording, connections) = (Recording::of(&finishes), PinnedConnections::new(&system.system, 1));
    spoil(&mut ledger, ids[1], "57P01").await?;
    ensure!(recording.advance(&connections).await.is_err(), "the second end cannot be written");
    assert_eq!(recording.open().collect::<Vec<_>>(), [ids[1]]);
    heal(&mut ledger).await?;
    recording.advance(&connections).await?;
    let (records, open) = recording.apart();
    assert_eq!((records.recorded[&ids[0]], records.recorded[&ids[1]]), (Recorded::Final, Recorded::Final));
    assert_eq!(records.follow_up.waiting.iter().map(|(_, job)| job.id).collect::<Vec<_>>(), [dependent]);
    assert!(open.is_empty());
    Ok(())
}

/// Both sides: after a write in doubt, the next attempt is the result of that write; without one,
/// another worker has overtaken it.
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_whose_reply_was_lost_is_recognized() -> Result<()> {
    let system = TestSystem::start().await?;
    let (tenant, mut ledger) = (system.tenant("acme").await?, Ledger::open(&system).await?);
    let id = system.enqueue(vec![noop(&system, tenant)]).await?[0];
    let finishes = [unleased_finish(&system, id, 1, 0, retry())];
    let (mut in_doubt, connections) = (Recording::of(&finishes), PinnedConnections::new(&system.system, 1));
    spoil(&mut ledger, id, "57P01").await?;
    ensure!(in_doubt.advance(&connections).await.is_err(), "nothing can be written");
    heal(&mut ledger).await?;
    let written = complete::record(&system.system, &finishes).await?.recorded[&id];
    let Recorded::Again(..) = written else { bail!("{written:?}") };
    in_doubt.advance(&connections).await?;
    assert_eq!(in_doubt.apart().0.recorded[&id], written);
    assert_eq!(complete::record(&system.system, &finishes).await?.recorded[&id], Recorded::RefusedOvertaken);

    let mut overtaken = Recording::of(&finishes);
    spoil(&mut ledger, id, "57P01").await?;
    overtaken.advance(&connections).await?;
    assert_eq!(overtaken.apart().0.recorded[&id], Recorded::RefusedOvertaken, "no row was left to write");
    Ok(())
}

/// One end exceeds the statement time-out together with other ends: the others are written and
/// their leases end, while it is retried and its lease is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_outcome_delays_no_other() -> Result<()> {
    let system = TestSystem::start().await?;
    let (tenant, other) = (system.tenant("acme").await?, system.tenant("other").await?);
    let mut ledger = Ledger::open(&system).await?;
    let slow = system.enqueue(vec![noop(&system, tenant)]).await?[0];
    spoil(&mut ledger, slow, "57014").await?;
    let others = system.enqueue((0..100).map(|_| noop(&system, other)).collect()).await?;
    let _scheduler = system.scheduler();
    indexed(&system, 101).await;
    let worker = system.worker(101, LEASE);
    assert_eq!(ledger.completed(100).await, 100);
    for id in others {
        unleased(&system, id).await;
    }
    assert_eq!(system.index.leased(&queue(), &[(slow, tenant)]).await?, [true]);
    heal(&mut ledger).await?;
    reaches(&system, tenant, slow, "completed").await;
    unleased(&system, slow).await;
    let row = ledger.row(slow).await?;
    assert_eq!(row.attempt, 1);
    assert_eq!(row.crashes, 0);
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_bounded_in_number_and_bytes() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let id = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    let connections = PinnedConnections::new(&system.system, 1);
    for attempt in 1..=25 {
        let error = format!("{attempt:02} {}", "ü".repeat(MAX_ERROR_BYTES));
        let outcome = Outcome::Retry { error, delay: Duration::from_hours(1) };
        let finish = [unleased_finish(&system, id, attempt, 0, outcome)];
        Recording::of(&finish).advance(&connections).await?;
    }
    let job = system.state(tenant, id).await?.expect("the job exists");
    let errors = errors(&job);
    let attempts: Vec<&str> = errors.iter().map(|error| &error[..2]).collect();
    let last: Vec<String> = (6..=25).map(|attempt| format!("{attempt:02}")).collect();
    assert_eq!(attempts, last);
    assert!(errors.iter().all(|error| error.len() <= MAX_ERROR_BYTES && error.len() > MAX_ERROR_BYTES - 2));
    Ok(())
}
