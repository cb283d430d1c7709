//! Recording the ends of runs while the ledger fails in between: written ends stay written and are
//! reported.

use anyhow::{Result, bail, ensure};
use serde_json::json;
use shared::{
    db::Kept,
    queue::{
        NewJob,
        complete::{self, Finish, Outcome, Recorded, Recording},
        ledger::relations::{Relations, hooks},
    },
    tenancy::TenantId,
};
use tests::system::TestSystem;
use uuid::Uuid;

use super::support::{LEASE, Ledger, indexed, queue, reaches, unleased};

/// Makes every statement that writes this job fail with an error code of PostgreSQL.
pub async fn spoil(ledger: &mut Ledger, job: Uuid, code: &str) -> Result<()> {
    let spoil = format!(
        "create function spoil() returns trigger language plpgsql as $$ begin raise exception 'spoilt' using errcode = '{code}'; end $$;
         create trigger spoil before update on jobs for each row when (new.id = '{job}') execute function spoil()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(spoil)).execute(&mut ledger.0).await?;
    Ok(())
}

pub async fn heal(ledger: &mut Ledger) -> Result<()> {
    sqlx::raw_sql("drop trigger spoil on jobs; drop function spoil()").execute(&mut ledger.0).await?;
    Ok(())
}

fn noop(system: &TestSystem, tenant: TenantId) -> NewJob {
    system.job(tenant, "noop", &json!({}))
}

fn end(id: Uuid, hooks: i16, outcome: Outcome) -> Finish {
    Finish { id, attempt: 1, hooks, outcome }
}

fn retry() -> Outcome {
    Outcome::Retry { error: "once more".into(), delay: std::time::Duration::from_hours(1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_follow_up_of_a_try_that_failed_later_is_kept() -> Result<()> {
    let system = TestSystem::start().await?;
    let (tenant, mut ledger) = (system.tenant("acme").await?, Ledger::open(&system).await?);
    let ids = system.enqueue(vec![noop(&system, tenant), noop(&system, tenant)]).await?;
    let waits = Relations { after: vec![ids[0]], ..Relations::default() };
    let dependent = NewJob { relations: Some(Box::new(waits)), ..noop(&system, tenant) };
    let dependent = system.enqueue(vec![dependent]).await?[0];
    let done = || Outcome::Completed { result: None };
    let finishes = [end(ids[0], hooks::DEPENDENTS, done()), end(ids[1], 0, done())];
    let (mut recording, connections) = (Recording::of(&finishes), Kept::new(&system.system, 1));
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
async fn an_end_whose_reply_was_lost_is_known_again() -> Result<()> {
    let system = TestSystem::start().await?;
    let (tenant, mut ledger) = (system.tenant("acme").await?, Ledger::open(&system).await?);
    let id = system.enqueue(vec![noop(&system, tenant)]).await?[0];
    let finishes = [end(id, 0, retry())];
    let (mut in_doubt, connections) = (Recording::of(&finishes), Kept::new(&system.system, 1));
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
async fn an_end_that_takes_too_long_holds_up_no_other() -> Result<()> {
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
    assert_eq!((row.attempt, row.crashes), (1, 0));
    worker.stop().await
}
