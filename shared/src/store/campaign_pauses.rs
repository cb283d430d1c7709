//! Automatic pauses of campaigns, and their automatic resumption.
//!
//! Invariant: only a campaign that is being sent is paused here, and only one that was paused for
//! the relay is resumed here; a pause that a person requested stays.

use uuid::Uuid;

use crate::db::TenantTx;

/// Pauses a campaign until the relay is back. Returns the paused generation, or `None` if the
/// campaign is not being sent.
pub async fn pause_for_relay(transaction: &mut TenantTx, id: Uuid, detail: &str) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar!(
        "update campaigns set state = 'paused', pause_reason = 'relay_unavailable', pause_detail = $2
         where id = $1 and state = 'sending' returning send_generation",
        id,
        detail
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Whether the campaign has been waiting for the relay since this generation.
pub async fn waits_for_relay(transaction: &mut TenantTx, id: Uuid, generation: i32) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from campaigns where id = $1 and send_generation = $2 and state = 'paused'
           and pause_reason = 'relay_unavailable') as "waits!""#,
        id,
        generation
    )
    .fetch_one(&mut **transaction)
    .await
}

/// Resumes a campaign with this job after the relay is back. Returns the new generation, or `None`
/// if the campaign no longer waits for the relay.
pub async fn resume_after_relay(
    transaction: &mut TenantTx,
    id: Uuid,
    generation: i32,
    job: Uuid,
) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar!(
        "update campaigns set state = 'sending', pause_reason = null, pause_detail = null, refusals = 0, refusal = null,
           send_generation = send_generation + 1, send_job_id = $3
         where id = $1 and send_generation = $2 and state = 'paused' and pause_reason = 'relay_unavailable' returning send_generation",
        id,
        generation,
        job
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Records that a recipient was refused for a reason that lies with the sender, whatever its codes:
/// relays vary them. A lost reply counts as a refusal. The campaign is paused when `many` more
/// recipients were refused than mails accepted. A refusal of an earlier generation is ignored,
/// since a person may have resumed the campaign after it.
pub async fn note_refusal(
    transaction: &mut TenantTx,
    id: Uuid,
    generation: i32,
    refusal: &str,
    many: i32,
) -> Result<bool, sqlx::Error> {
    let refusals = sqlx::query_scalar!(
        "update campaigns set refusals = refusals + 1, refusal = $2
         where id = $1 and send_generation = $3 returning refusals",
        id,
        refusal,
        generation
    )
    .fetch_optional(&mut **transaction)
    .await?;
    if refusals.is_none_or(|refusals| refusals < many) {
        return Ok(false);
    }
    let paused = sqlx::query!(
        "update campaigns set state = 'paused', pause_reason = 'refused', pause_detail = $2 where id = $1 and state = 'sending'",
        id,
        refusal
    )
    .execute(&mut **transaction)
    .await?;
    Ok(paused.rows_affected() == 1)
}

/// Records an accepted mail: one refusal less. Writes nothing while there are no refusals.
pub async fn note_acceptance(transaction: &mut TenantTx, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("update campaigns set refusals = refusals - 1 where id = $1 and refusals > 0", id)
        .execute(&mut **transaction)
        .await
        .map(drop)
}
