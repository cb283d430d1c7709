//! Enables, disables and tests an endpoint.

use axum::extract::State;
use http::StatusCode;
use shared::{
    ids,
    queue::{NewJob, enqueue::Producer},
    store::{
        webhook_deliveries::{self, NewDelivery},
        webhook_endpoints::{self as endpoints, DisabledReason},
    },
    webhooks::{self, delivery_job},
};
use uuid::Uuid;

use super::{super::webhook_deliveries::DeliveryView, found, types::EndpointView};
use crate::{
    auth::{Permit, WebhooksWrite},
    extract::{Json, Path},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// Held messages that one request releases; a further request releases more.
const MAX_RELEASED: i64 = 1_000;

/// Enables an endpoint.
///
/// Its held messages are sent, the oldest 1,000 of them.
#[utoipa::path(post, path = "/api/v1/webhook-endpoints/{id}/enable", operation_id = "enable_webhook_endpoint", tag = "webhooks", params(("id" = Uuid, Path, description = "The endpoint's id")),
    responses((status = 200, body = EndpointView, description = "The endpoint; `released` says how many held messages are sent")))]
pub async fn enable(
    permit: Permit<WebhooksWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<EndpointView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    if !endpoints::enable(&mut transaction, id).await? {
        return Err(ProblemCode::NotFound.into());
    }
    let held = webhook_deliveries::held(&mut transaction, id, MAX_RELEASED).await?;
    let jobs: Vec<NewJob> =
        held.iter().map(|&delivery| delivery_job(&state.clock, permit.tenant(), delivery)).collect();
    let job_ids: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
    webhook_deliveries::resend(&mut transaction, &held, &job_ids).await?;
    Producer::enqueue_in(&mut transaction, &jobs).await?;
    let endpoint = endpoints::find(&mut transaction, id).await?;
    transaction.commit().await?;
    state.producer.announce(&jobs);
    let Json(mut view) = found(endpoint)?;
    view.released = Some(jobs.len());
    Ok(Json(view))
}

/// Disables an endpoint.
///
/// Its pending messages are held; events from now on are not kept for it.
#[utoipa::path(post, path = "/api/v1/webhook-endpoints/{id}/disable", operation_id = "disable_webhook_endpoint", tag = "webhooks", params(("id" = Uuid, Path, description = "The endpoint's id")),
    responses((status = 200, body = EndpointView, description = "The endpoint")))]
pub async fn disable(
    permit: Permit<WebhooksWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<EndpointView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    endpoints::disable(&mut transaction, id, DisabledReason::Manual).await?;
    let endpoint = endpoints::find(&mut transaction, id).await?;
    transaction.commit().await?;
    found(endpoint)
}

/// Sends a test message of the type `webhook.test`.
#[utoipa::path(post, path = "/api/v1/webhook-endpoints/{id}/test", operation_id = "test_webhook_endpoint", tag = "webhooks", params(("id" = Uuid, Path, description = "The endpoint's id")),
    responses((status = 202, body = DeliveryView, description = "The delivery, which is pending"), (status = 409, description = "The endpoint is disabled")))]
pub async fn test(
    permit: Permit<WebhooksWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<(StatusCode, Json<DeliveryView>), Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let endpoint = endpoints::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    super::must_be_enabled(&endpoint)?;
    let delivery = ids::new_id(&state.clock);
    let job = delivery_job(&state.clock, permit.tenant(), delivery);
    let (event_type, body) = webhooks::test_body(id, state.clock.now());
    let new =
        NewDelivery { id: delivery, endpoint_id: id, event_type: event_type.to_owned(), body, delivery_job_id: job.id };
    webhook_deliveries::create(&mut transaction, &new).await?;
    let jobs = [job];
    Producer::enqueue_in(&mut transaction, &jobs).await?;
    let view = DeliveryView::read(&mut transaction, id, delivery).await?;
    transaction.commit().await?;
    state.producer.announce(&jobs);
    Ok((StatusCode::ACCEPTED, Json(view)))
}
