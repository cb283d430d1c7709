//! Idempotency keys of requests that write in a tenant's own transaction. Job submissions handle
//! theirs in `queue/producer`.

use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    db::TenantTx,
    queue::{ledger::relations::Refused, ledger::request::Idempotency},
};

/// Whether a request is the first with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// It is the first and may proceed.
    First,
    /// An earlier request with the same body created this id.
    Replay(Uuid),
    /// An earlier request with this key had another body.
    Reused,
}

/// An earlier request with a key.
#[derive(Debug)]
pub struct KeyUse {
    /// The hash of its method, path and body.
    pub fingerprint: Vec<u8>,
    /// The first id that it created.
    pub first_id: Uuid,
    /// Its stored response, if there is one.
    pub response: Option<Box<RawValue>>,
    /// The jobs of the request that were refused.
    pub refused: Vec<Refused>,
}

/// The request that used a key, if any. A request whose transaction is still open is not visible.
pub async fn find(transaction: &mut TenantTx, key: &str) -> Result<Option<KeyUse>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let used = sqlx::query!(
        r#"select fingerprint, first_id, response as "response: Json<Box<RawValue>>", refused as "refused: Json<Vec<Refused>>"
           from idempotency_keys where tenant_id = $1 and key = $2"#,
        tenant,
        key
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(used.map(|used| KeyUse {
        fingerprint: used.fingerprint,
        first_id: used.first_id,
        response: used.response.map(|Json(response)| response),
        refused: used.refused.map_or_else(Vec::new, |Json(refused)| refused),
    }))
}

/// Reserves the key for what the transaction is about to create. Waits for another transaction that
/// is reserving the same key.
pub async fn reserve(
    transaction: &mut TenantTx,
    idempotency: &Idempotency,
    first_id: Uuid,
) -> Result<Reservation, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let inserted = sqlx::query!(
        "insert into idempotency_keys (tenant_id, key, fingerprint, first_id) values ($1, $2, $3, $4) on conflict (tenant_id, key) do nothing",
        tenant,
        idempotency.key,
        idempotency.fingerprint,
        first_id
    )
    .execute(&mut **transaction)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Reservation::First);
    }
    let earlier = sqlx::query!(
        "select fingerprint, first_id from idempotency_keys where tenant_id = $1 and key = $2",
        tenant,
        idempotency.key
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(if earlier.fingerprint == idempotency.fingerprint {
        Reservation::Replay(earlier.first_id)
    } else {
        Reservation::Reused
    })
}
