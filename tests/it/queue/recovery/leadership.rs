//! Of several schedulers one leads, another takes over, and a former leader changes nothing.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use shared::{
    ids,
    leadership::{Candidate, Term},
};
use sqlx::Connection as _;
use tests::{eventually::eventually, system::TestSystem};

use crate::queue::support::{LEASE, Ledger, PATIENCE, reaches};

async fn leader(ledger: &mut Ledger) -> Option<(i64, String)> {
    sqlx::query_as("select term, holder from leadership where expires_at > clock_timestamp()")
        .fetch_optional(&mut ledger.0)
        .await
        .ok()?
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_schedulers_one_leads_and_the_other_takes_over() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut ledger = Ledger::open(&system).await?;
    let first = system.scheduler();
    let (term, holder) = eventually(PATIENCE, "the first leads", async || leader(&mut ledger).await).await;
    assert_eq!(term, 1);
    let second = system.scheduler();
    let _worker = system.worker(1, LEASE);
    // Both schedulers run, work is done, and the first still leads.
    let id = system.enqueue(vec![system.job(tenant, "fail", &json!({ "times": 1 }))]).await?[0];
    reaches(&system, tenant, id, "completed").await;
    assert_eq!(leader(&mut ledger).await, Some((1, holder)));

    first.stop().await;
    let (term, _) = eventually(PATIENCE, "the second leads", async || leader(&mut ledger).await).await;
    assert_eq!(term, 2);
    let mut swept = system.tenants.begin(tenant).await?;
    let job = system.job(tenant, "noop", &json!({}));
    let id = job.id;
    shared::queue::enqueue::Producer::enqueue_in(&mut swept, &[job]).await?;
    swept.commit().await?;
    reaches(&system, tenant, id, "completed").await;
    second.stop().await;
    Ok(())
}

/// A leader that is frozen beyond its term and resumes in a term that is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_term_has_expired_is_refused() -> Result<()> {
    const TTL: Duration = Duration::from_secs(1);
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    let candidate = || Candidate::new(system.system.clone(), ids::new_id(&system.clock), TTL);
    let (sleeper, other) = (candidate(), candidate());
    let old = sleeper.campaign().await?.expect("there is no other candidate");
    let new = eventually(PATIENCE, "the term expires", async || other.campaign().await.ok()?).await;
    assert!(new.number() > old.number());
    assert_eq!(sleeper.campaign().await?, None, "the sleeper does not lead while the other does");
    assert_eq!((hold(&mut ledger, &old).await?, hold(&mut ledger, &new).await?), (false, true));
    other.resign().await?;
    let again = sleeper.campaign().await?.expect("the other has resigned");
    assert!(again.number() > new.number(), "leading again starts a new term");
    Ok(())
}

/// A leader's writes under its term are committed before the next term begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_waits_for_the_transactions_of_the_term() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    let candidate = |ttl| Candidate::new(system.system.clone(), ids::new_id(&system.clock), ttl);
    let term = candidate(Duration::ZERO).campaign().await?.expect("there is no other candidate");
    let mut transaction = ledger.0.begin().await?;
    assert!(term.hold(&mut transaction).await?);
    let next = candidate(Duration::from_mins(1));
    let takeover = tokio::spawn(async move { next.campaign().await });
    let mut onlooker = Ledger::open(&system).await?;
    eventually(PATIENCE, "the takeover waits for a lock", async || {
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut onlooker.0).await.ok()?;
        (count == 1).then_some(())
    })
    .await;
    transaction.commit().await?;
    let next = takeover.await??.expect("the term has expired");
    assert_eq!(next.number(), term.number() + 1);
    Ok(())
}

async fn hold(ledger: &mut Ledger, term: &Term) -> Result<bool> {
    let mut transaction = ledger.0.begin().await?;
    let held = term.hold(&mut transaction).await?;
    transaction.rollback().await?;
    Ok(held)
}
