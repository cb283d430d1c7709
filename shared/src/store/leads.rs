//! Leads: the people a tenant may write to, one for each address.

use std::collections::HashMap;

use uuid::Uuid;

use crate::db::TenantTx;

/// A row of an import.
#[derive(Clone, Debug)]
pub struct NewLead {
    /// The id it gets if the address is new.
    pub id: Uuid,
    /// The address as written.
    pub email: String,
    /// The address as compared.
    pub email_key: String,
    /// What templates may use.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

/// Adds leads, or merges them into those of the same address: later non-empty values win. No two of `rows` may have one
/// address. Returns the id of each address.
pub async fn upsert(transaction: &mut TenantTx, rows: &[NewLead]) -> Result<HashMap<String, Uuid>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let emails: Vec<String> = rows.iter().map(|row| row.email.clone()).collect();
    let keys: Vec<String> = rows.iter().map(|row| row.email_key.clone()).collect();
    let variables: Vec<serde_json::Value> =
        rows.iter().map(|row| serde_json::Value::Object(row.variables.clone())).collect();
    // Sorted, so that two imports at once take the rows in one order.
    let written = sqlx::query!(
        "insert into leads as l (tenant_id, id, email, email_key, variables)
         select $1, id, email, email_key, variables
         from unnest($2::uuid[], $3::text[], $4::text[], $5::jsonb[]) as t (id, email, email_key, variables)
         order by email_key
         on conflict (tenant_id, email_key) do update
           set variables = l.variables || excluded.variables, updated_at = now()
         returning id, email_key",
        tenant,
        &ids,
        &emails,
        &keys,
        &variables
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(written.into_iter().map(|row| (row.email_key, row.id)).collect())
}
