//! State of a mail that has failed and will be attempted again.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::TenantTx;

/// A failure that counts against a mail.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The mail's date, if octets of it have been sent.
    pub handed_over_at: Option<DateTime<Utc>>,
    /// Whether the mail may have been accepted.
    pub unanswered: bool,
    /// The campaign's generation at the time of the attempt.
    pub generation: i32,
    /// Stage and codes, if the refusal concerns the sender.
    pub refusal: Option<&'a str>,
}

/// Records a failure of a recipient's mail; the first date is kept. The time of the first failure
/// and the refusal belong to a generation: while a campaign is paused nothing is tried, so no
/// recipient can be given up for that time.
pub async fn note(transaction: &mut TenantTx, id: Uuid, attempt: Attempt<'_>) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update recipients set failing_since = coalesce(case when refused_in = $6 then failing_since end, now()),
           handed_over_at = coalesce(handed_over_at, $3), unanswered = unanswered + $4::boolean::int::smallint,
           refusal = coalesce($5, case when refused_in = $6 then refusal end), refused_in = $6
         where tenant_id = $1 and id = $2 and state in ('queued', 'failed')",
        tenant,
        id,
        attempt.handed_over_at,
        attempt.unanswered,
        attempt.refusal,
        attempt.generation
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}
