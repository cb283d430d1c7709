//! Chains of dependent jobs that are longer than one step of a cascade.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::json;
use shared::{
    queue::{NewJob, ledger::relations::Relations},
    tenancy::TenantId,
};
use tests::{eventually::eventually, system::TestSystem};
use uuid::Uuid;

use super::{Ledger, PATIENCE};

/// More jobs than a cascade handles in several steps.
pub const CHAIN: usize = 900;

/// A job that depends on this one.
pub fn after(system: &TestSystem, tenant: TenantId, id: Uuid) -> NewJob {
    let relations = Relations { after: vec![id], ..Relations::default() };
    NewJob { relations: Some(Box::new(relations)), ..system.job(tenant, "noop", &json!({})) }
}

/// A chain of jobs in which each depends on the previous one and the first on none.
pub async fn chain(system: &TestSystem, tenant: TenantId, kind: &str) -> Result<Vec<Uuid>> {
    let mut jobs = vec![NewJob { max_attempts: 1, ..system.job(tenant, kind, &json!({})) }];
    for _ in 1..CHAIN {
        let last = jobs[jobs.len() - 1].id;
        jobs.push(after(system, tenant, last));
    }
    system.enqueue(jobs).await
}

/// The number of jobs in each state.
pub async fn states(system: &TestSystem) -> Result<BTreeMap<String, i64>> {
    let mut ledger = Ledger::open(system).await?;
    let counts = "select state::text, count(*) from jobs group by 1";
    Ok(sqlx::query_as(counts).fetch_all(&mut ledger.0).await?.into_iter().collect())
}

/// Waits until this many jobs are in each state, and checks that no cascade or dependency is left.
pub async fn all_are(system: &TestSystem, expected: &[(&str, usize)]) -> Result<()> {
    let expected: BTreeMap<String, i64> =
        expected.iter().map(|(state, count)| ((*state).to_owned(), i64::try_from(*count).expect("few"))).collect();
    eventually(PATIENCE, &format!("{expected:?}"), async || (states(system).await.ok()? == expected).then_some(()))
        .await;
    let mut ledger = Ledger::open(system).await?;
    let left = "select (select count(*) from job_cascades), (select count(*) from job_dependencies)";
    let left: (i64, i64) = sqlx::query_as(left).fetch_one(&mut ledger.0).await?;
    assert_eq!(left, (0, 0));
    Ok(())
}
