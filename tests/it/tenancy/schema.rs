//! The schema itself: no table, role, function or index breaks the isolation.

use anyhow::Result;
use sqlx::{Connection as _, PgConnection};
use tests::system::TestSystem;

async fn findings(owner: &mut PgConnection) -> Result<Vec<(String, String)>> {
    Ok(sqlx::query_as(include_str!("rls_probes.sql")).fetch_all(owner).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_has_no_holes() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut owner = PgConnection::connect(&system.urls.owner).await?;
    assert_eq!(findings(&mut owner).await?, []);
    Ok(())
}

/// Proves that the probes work: each of these holes is found. Roles and partitions are probed too,
/// but not broken here.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_hole_is_found() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut owner = PgConnection::connect(&system.urls.owner).await?;
    let holes = "
        create table open_door (tenant_id uuid not null, code text unique);
        grant select, truncate on open_door to rota_app;
        create table half_open (tenant_id uuid primary key);
        alter table half_open enable row level security;
        alter table half_open force row level security;
        create policy half_open_own on half_open to rota_app using (tenant_id = current_setting('rota.tenant_id', true)::uuid);
        create view everybodys_jobs as select * from jobs;
        create materialized view old_jobs as select * from jobs;
        grant select on old_jobs to rota_app;
        create function any_job() returns bigint language sql security definer return (select count(*) from jobs);";
    sqlx::raw_sql(holes).execute(&mut owner).await?;
    let mut found: Vec<String> = findings(&mut owner).await?.into_iter().map(|(finding, _)| finding).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(
        found,
        [
            "app role may run a function with its owner's rights",
            "app role may truncate",
            "materialized view reachable",
            "no forced row level security",
            "no policy",
            "policy breaks on an empty setting",
            "unique does not lead with the tenant",
            "view runs with its owner's rights",
        ]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_cannot_create_objects() -> Result<()> {
    let system = TestSystem::start().await?;
    for url in [&system.urls.app, &system.urls.system] {
        let mut connection = PgConnection::connect(url).await?;
        let allowed: (bool, bool, bool) = sqlx::query_as(
            "select has_database_privilege(current_database(), 'temporary'), has_database_privilege(current_database(), 'create'),
                    has_schema_privilege('public', 'create')",
        )
        .fetch_one(&mut connection)
        .await?;
        assert_eq!(allowed, (false, false, false));
    }
    Ok(())
}
