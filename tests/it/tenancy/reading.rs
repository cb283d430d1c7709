//! Another tenant's rows cannot be read, whatever the transaction sets.

use anyhow::Result;
use shared::queue::observe::inspect;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::world::{World, visible};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_rows_and_no_others() -> Result<()> {
    let mut world = World::new().await?;
    for (table, _) in world.tables().await? {
        let (mut own, mut foreign) =
            (world.system.tenants.begin(world.acme).await?, world.system.tenants.begin(world.other).await?);
        assert_eq!(visible(&mut own, &table).await?, 1, "{table}: the tenant's own row");
        // In `tenants` the other tenant has a row, too; everywhere else it has none.
        let expected = i64::from(table == "tenants");
        assert_eq!(visible(&mut foreign, &table).await?, expected, "{table}: another's rows");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tenant_no_row_is_visible_and_no_query_fails() -> Result<()> {
    let mut world = World::new().await?;
    let mut app = PgConnection::connect(&world.system.urls.app).await?;
    for (table, _) in world.tables().await? {
        assert_eq!(visible(&mut app, &table).await?, 0, "{table}: the setting is missing");
        // The value of the setting after the transaction of a `set local`.
        let mut empty = app.begin().await?;
        sqlx::query("select set_config('rota.tenant_id', '', true)").execute(&mut *empty).await?;
        assert_eq!(visible(&mut empty, &table).await?, 0, "{table}: the setting is empty");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connections_tenant_ends_with_the_transaction() -> Result<()> {
    let world = World::new().await?;
    let mut app = PgConnection::connect(&world.system.urls.app).await?;
    let mut transaction = app.begin().await?;
    let tenant = "select set_config('rota.tenant_id', $1, true)";
    sqlx::query(tenant).bind(world.acme.to_string()).execute(&mut *transaction).await?;
    assert_eq!(visible(&mut transaction, "jobs").await?, 1);
    transaction.commit().await?;
    assert_eq!(visible(&mut app, "jobs").await?, 0);
    Ok(())
}

/// A partition named directly is not covered by the row level security of its parent.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_cannot_be_queried_directly() -> Result<()> {
    let mut world = World::new().await?;
    let partitions: Vec<String> =
        sqlx::query_scalar("select inhrelid::regclass::text from pg_inherits where inhparent = 'jobs'::regclass")
            .fetch_all(&mut world.owner)
            .await?;
    assert!(partitions.len() >= 3, "{partitions:?}");
    for partition in partitions {
        let mut transaction = world.system.tenants.begin(world.acme).await?;
        let refused = visible(&mut transaction, &partition).await;
        let code = refused.as_ref().err().and_then(|error| error.as_database_error()?.code());
        assert_eq!(code.as_deref(), Some("42501"), "{partition}: {refused:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_job_is_not_found_and_not_listed() -> Result<()> {
    let mut world = World::new().await?;
    let id = sqlx::query_scalar("select id from jobs").fetch_one(&mut world.owner).await?;
    assert!(world.system.state(world.acme, id).await?.is_some());
    assert!(world.system.state(world.other, id).await?.is_none());
    let mut transaction = world.system.tenants.begin(world.other).await?;
    let filter = inspect::JobFilter::default();
    assert!(inspect::list(&mut transaction, &world.system.index, &filter, None, 100).await?.is_empty());
    Ok(())
}

/// The system role reads what it was granted, and none of the tenants' business data: a further
/// table is listed here, unless the queue or the scheduler needs it.
#[tokio::test(flavor = "multi_thread")]
async fn the_system_role_cannot_read_tenant_data() -> Result<()> {
    let mut world = World::new().await?;
    let mut system = PgConnection::connect(&world.system.urls.system).await?;
    let mut refused = Vec::new();
    for (table, _) in world.tables().await? {
        let read = sqlx::query(AssertSqlSafe(format!("select * from {table}"))).fetch_all(&mut system).await;
        let code = read.as_ref().err().and_then(|error| error.as_database_error()?.code());
        assert!(matches!(code.as_deref(), None | Some("42501")), "{table}: {read:?}");
        refused.extend(read.is_err().then_some(table));
    }
    assert_eq!(
        refused,
        ["api_client_uses", "api_clients", "campaigns", "leads", "recipients", "sessions", "suppressions", "users"]
    );
    Ok(())
}
