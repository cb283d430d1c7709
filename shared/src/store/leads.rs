//! Leads: the people that a tenant may write to, one per address.

use std::collections::HashMap;

use uuid::Uuid;

use crate::db::TenantTx;

/// One row of an import.
#[derive(Clone, Debug)]
pub struct NewLead {
    /// The lead's id if the address is new.
    pub id: Uuid,
    /// The address as written.
    pub email: String,
    /// The address in the form used for comparison.
    pub email_key: String,
    /// The template variables.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

/// Inserts leads, or merges them into existing leads with the same address: later non-empty values
/// win. No two of `rows` may have the same address. Returns the id of each address.
pub async fn upsert(transaction: &mut TenantTx, rows: &[NewLead]) -> Result<HashMap<String, Uuid>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let emails: Vec<String> = rows.iter().map(|row| row.email.clone()).collect();
    let keys: Vec<String> = rows.iter().map(|row| row.email_key.clone()).collect();
    let variables: Vec<serde_json::Value> =
        rows.iter().map(|row| serde_json::Value::Object(row.variables.clone())).collect();
    // Sorted, so that concurrent imports lock the rows in the same order.
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
