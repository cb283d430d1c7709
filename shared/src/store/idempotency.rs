//! Idempotency keys of requests that write in a tenant's own transaction. Jobs have their own way, in `queue/producer`.

use uuid::Uuid;

use crate::{db::TenantTx, queue::producer::Idempotency};

/// Whether a request is the first of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// It is; go on.
    First,
    /// An earlier request with the same body made this.
    Replay(Uuid),
    /// An earlier request had another body.
    Reused,
}

/// Whether a request with this key was committed.
pub async fn is_used(transaction: &mut TenantTx, key: &str) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_scalar!(
        r#"select exists (select from idempotency_keys where tenant_id = $1 and key = $2) as "used!""#,
        tenant,
        key
    )
    .fetch_one(&mut **transaction)
    .await
}

/// Takes the key for what is about to be made. Waits for another transaction that is about to do the same.
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
