//! Two tenants in one database, the first with a row in every tenant table.

use anyhow::{Result, ensure};
use serde_json::json;
use shared::tenancy::TenantId;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tests::system::TestSystem;

pub struct World {
    pub system: TestSystem,
    pub owner: PgConnection,
    /// The tenant with rows.
    pub acme: TenantId,
    /// A tenant without rows.
    pub other: TenantId,
}

const ROWS: &str = "
    insert into api_keys (tenant_id, id, name, secret_hash, scopes)
      values ('{tenant}', gen_random_uuid(), 'key', '', '{{}}');
    insert into users (tenant_id, id, email, email_key, name, role)
      values ('{tenant}', '{tenant}', 'u@acme.test', 'u@acme.test', 'name', 'viewer');
    insert into api_clients (tenant_id, id, name, secret_hash, scopes)
      values ('{tenant}', '{tenant}', 'client', '', '{{}}');
    insert into api_client_uses (tenant_id, id, client_id, action, succeeded, address)
      values ('{tenant}', gen_random_uuid(), '{tenant}', 'token', true, '192.0.2.1');
    insert into sessions (tenant_id, id, user_id, secret, expires_at)
      values ('{tenant}', gen_random_uuid(), '{tenant}', decode(repeat('00', 32), 'hex'), now());
    insert into idempotency_keys (tenant_id, key, fingerprint, first_id) values ('{tenant}', 'key', '', gen_random_uuid());
    insert into campaigns (tenant_id, id, name, subject, text_body, from_address)
      values ('{tenant}', '{tenant}', 'name', 'subject', 'text', 'from@acme.test');
    insert into leads (tenant_id, id, email, email_key) values ('{tenant}', '{tenant}', 'a@b.test', 'a@b.test');
    insert into recipients (tenant_id, id, campaign_id, lead_id)
      values ('{tenant}', gen_random_uuid(), '{tenant}', '{tenant}');
    insert into suppressions (tenant_id, email_key, reason) values ('{tenant}', 'c@d.test', 'manual');
    insert into unique_keys (tenant_id, key, job_id) values ('{tenant}', 'key', '{tenant}');
    insert into batches (tenant_id, id, total, pending, completion_job) values ('{tenant}', '{tenant}', 1, 1, '{tenant}');
    insert into job_dependencies (tenant_id, job_id, depends_on, run_on_failure)
      values ('{tenant}', '{tenant}', gen_random_uuid(), false);
    insert into job_cascades (tenant_id, job_id, fails) values ('{tenant}', gen_random_uuid(), false);
    insert into tenant_limits (tenant_id, queue) values ('{tenant}', '*');
    insert into webhook_endpoints (tenant_id, id, url, events)
      values ('{tenant}', '{tenant}', 'https://e.test', array['job.completed']);
    insert into webhook_secrets (tenant_id, endpoint_id, id, secret)
      values ('{tenant}', '{tenant}', gen_random_uuid(), decode(repeat('00', 24), 'hex'));
    insert into webhook_deliveries (tenant_id, id, endpoint_id, event_type, body, delivery_job_id)
      values ('{tenant}', gen_random_uuid(), '{tenant}', 'webhook.test', '', gen_random_uuid());";

impl World {
    pub async fn new() -> Result<Self> {
        let system = TestSystem::start().await?;
        let (acme, other) = (system.tenant("acme").await?, system.tenant("other").await?);
        system.enqueue(vec![system.job(acme, "noop", &json!({}))]).await?;
        let mut owner = PgConnection::connect(&system.urls.owner).await?;
        let rows = ROWS.replace("{tenant}", &acme.to_string()).replace("{{}}", "{}");
        sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut owner).await?;
        Ok(Self { system, owner, acme, other })
    }

    /// Every tenant table, with the column that holds the tenant. Fails if a table has no row of
    /// `acme`: a new table needs its line in `ROWS`.
    pub async fn tables(&mut self) -> Result<Vec<(String, &'static str)>> {
        let names: Vec<String> = sqlx::query_scalar(
            "select c.table_name::text from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
             where c.table_schema = 'public' and c.column_name = 'tenant_id' and t.table_type = 'BASE TABLE'
               and not exists (select from pg_inherits where inhrelid = to_regclass(table_name))
             order by 1",
        )
        .fetch_all(&mut self.owner)
        .await?;
        let mut tables: Vec<_> = names.into_iter().map(|name| (name, "tenant_id")).collect();
        tables.push(("tenants".to_owned(), "id"));
        for (table, column) in &tables {
            let count = format!("select count(*) from {table} where {column} = '{}'", self.acme);
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut self.owner).await?;
            ensure!(rows > 0, "{table} has no row; add one to ROWS");
        }
        ensure!(tables.len() >= 16, "only {tables:?}");
        Ok(tables)
    }

    /// The row of `acme` in a table.
    pub async fn row(&mut self, table: &str, column: &str) -> Result<serde_json::Value> {
        let row = format!("select to_jsonb(t) from {table} t where {column} = '{}'", self.acme);
        Ok(sqlx::query_scalar(AssertSqlSafe(row)).fetch_one(&mut self.owner).await?)
    }
}

/// The number of rows of a table visible to this connection.
pub async fn visible(connection: &mut PgConnection, table: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}"))).fetch_one(connection).await
}
