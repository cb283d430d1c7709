//! State of a mail that has failed and will be attempted again.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::TenantTx;

/// A failure that counts against a mail.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The mail's date, if it may have been accepted although no reply arrived.
    pub handed_over_at: Option<DateTime<Utc>>,
    /// The campaign's generation at the time of the attempt.
    pub generation: i32,
    /// Stage and codes, if the failure concerns the sender.
    pub refusal: Option<&'a str>,
}

/// Records a failure of a recipient's mail. The time of the first failure and the refusal belong to
/// a generation: while a campaign is paused nothing is tried, so no recipient can be given up for
/// that time. The number of unanswered mails does not: each of them may have been accepted.
pub async fn note(transaction: &mut TenantTx, id: Uuid, attempt: Attempt<'_>) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update recipients set failing_since = coalesce(case when refused_in = $5 then failing_since end, now()),
           handed_over_at = coalesce($3, handed_over_at), unanswered = unanswered + ($3::timestamptz is not null)::int::smallint,
           refusal = coalesce($4, case when refused_in = $5 then refusal end), refused_in = $5
         where tenant_id = $1 and id = $2 and state in ('queued', 'failed')",
        tenant,
        id,
        attempt.handed_over_at,
        attempt.refusal,
        attempt.generation
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}
