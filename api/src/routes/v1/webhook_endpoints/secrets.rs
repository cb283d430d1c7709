//! A new secret for an endpoint; the old one stays valid for a day.

use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use shared::{
    ids,
    store::{webhook_endpoints, webhook_secrets},
    webhooks::WebhookSecret,
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{Permit, WebhooksWrite},
    extract::{Json, Path},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// How long messages are signed with both the old and the new secret.
const OVERLAP: Duration = Duration::from_hours(24);
/// Each secret adds a signature to every message.
const MAX_SECRETS: i64 = 5;

/// A secret, shown once.
#[derive(Serialize, ToSchema)]
pub struct RotatedSecret {
    /// The endpoint's id.
    id: Uuid,
    /// The new secret.
    #[schema(example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    secret: String,
    /// How many seconds messages also carry a signature of the old secret.
    old_secret_valid_seconds: u64,
}

/// Creates a new secret.
///
/// Messages carry signatures of the old and the new secret for 24 hours.
#[utoipa::path(post, path = "/api/v1/webhook-endpoints/{id}/rotate-secret", operation_id = "rotate_webhook_secret", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The endpoint's id")),
    responses((status = 200, body = RotatedSecret, description = "The new secret, shown once"),
        (status = 409, description = "The secret was rotated too often within a day")))]
pub async fn rotate_secret(
    permit: Permit<WebhooksWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<RotatedSecret>, Problem> {
    let secret = WebhookSecret::random();
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    // Locked: of two concurrent rotations, the second must see the secret of the first.
    webhook_endpoints::find_for_update(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    if !webhook_secrets::retire(&mut transaction, id, OVERLAP, MAX_SECRETS).await? {
        let detail = format!("{MAX_SECRETS} secrets of this endpoint are valid; the oldest must expire first");
        return Err(Problem::new(ProblemCode::Conflict).detail(detail).member("limit", MAX_SECRETS));
    }
    webhook_secrets::add(&mut transaction, id, ids::new_id(&state.clock), &secret).await?;
    transaction.commit().await?;
    Ok(Json(RotatedSecret { id, secret: secret.present(), old_secret_valid_seconds: OVERLAP.as_secs() }))
}
