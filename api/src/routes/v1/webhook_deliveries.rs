//! `/api/v1/webhook-endpoints/{id}/deliveries`: the messages to an endpoint, the responses to them,
//! and redelivery.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    db::TenantTx,
    queue::enqueue::Producer,
    store::{
        webhook_deliveries::{self as deliveries, DeliverySummary, LoggedAttempt},
        webhook_endpoints,
    },
    webhooks::delivery_job,
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::webhook_endpoints::must_be_enabled;
use crate::{
    auth::{Permit, WebhooksRead, WebhooksWrite},
    extract::{Json, Page, PageBody, PageRequest, Path, Query},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// A delivery.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryView {
    /// The `webhook-id` of every attempt.
    id: Uuid,
    /// The `type` of the message.
    event_type: String,
    /// The job whose end the message reports; `null` in a test.
    job_id: Option<Uuid>,
    /// `pending`, `delivered`, `failed` (given up) or `held` (the endpoint is disabled).
    state: String,
    /// Attempts so far.
    attempt_count: i32,
    /// When the next attempt is due.
    next_attempt_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    delivered_at: Option<DateTime<Utc>>,
    /// The message; omitted in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    body: Option<Box<RawValue>>,
    /// The newest 20 attempts: at, status, `duration_ms`, error, and the first KiB of the response;
    /// omitted in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<LoggedAttempt>>)]
    attempts: Option<serde_json::Value>,
}

/// The state of a delivery.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryState {
    /// The message will be sent.
    Pending,
    /// The endpoint responded with success.
    Delivered,
    /// The delivery was given up.
    Failed,
    /// The delivery waits for its endpoint to be enabled.
    Held,
}

/// The filter and the page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveryQuery {
    /// Only deliveries in this state: pending, delivered, failed, held.
    #[param(inline)]
    state: Option<DeliveryState>,
    /// Maximum number of items, 1 to 200; default 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u16>,
    /// Start of the page: `next_cursor` of the previous page.
    #[param(pattern = r"^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: Option<String>,
}

/// Lists an endpoint's deliveries, newest first.
///
/// Deliveries are kept for 30 days.
#[utoipa::path(get, path = "/api/v1/webhook-endpoints/{id}/deliveries", operation_id = "list_webhook_deliveries", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The endpoint's id"), DeliveryQuery),
    responses((status = 200, body = PageBody<DeliveryView>, description = "A page of deliveries")))]
pub async fn list(
    permit: Permit<WebhooksRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    uri: Uri,
    Query(query): Query<DeliveryQuery>,
) -> Result<Page<DeliveryView>, Problem> {
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let only = query.state.map(<&str>::from);
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    webhook_endpoints::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    let found = deliveries::list(&mut transaction, id, only, page.before, page.fetch_limit()).await?;
    Ok(page.page(found.into_iter().map(DeliveryView::from).collect(), |view| view.id, &uri))
}

/// Shows a delivery with its message and the responses to it.
#[utoipa::path(get, path = "/api/v1/webhook-endpoints/{id}/deliveries/{delivery_id}", operation_id = "get_webhook_delivery", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The endpoint's id"), ("delivery_id" = Uuid, Path, description = "The delivery's id")),
    responses((status = 200, body = DeliveryView, description = "The delivery")))]
pub async fn show(
    permit: Permit<WebhooksRead>,
    State(state): State<AppState>,
    Path((id, delivery_id)): Path<(Uuid, Uuid)>,
) -> Result<Json<DeliveryView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    webhook_endpoints::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    Ok(Json(DeliveryView::read(&mut transaction, id, delivery_id).await?))
}

/// Sends a message again, with the same `webhook-id`, unless its delivery is pending.
#[utoipa::path(post, path = "/api/v1/webhook-endpoints/{id}/deliveries/{delivery_id}/redeliver", operation_id = "redeliver_webhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The endpoint's id"), ("delivery_id" = Uuid, Path, description = "The delivery's id")),
    responses((status = 202, body = DeliveryView, description = "The delivery, which is pending again"),
        (status = 409, description = "The delivery is already pending, or the endpoint is disabled")))]
pub async fn redeliver(
    permit: Permit<WebhooksWrite>,
    State(state): State<AppState>,
    Path((id, delivery_id)): Path<(Uuid, Uuid)>,
) -> Result<(StatusCode, Json<DeliveryView>), Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let endpoint = webhook_endpoints::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    DeliveryView::read(&mut transaction, id, delivery_id).await?;
    must_be_enabled(&endpoint)?;
    let jobs = [delivery_job(&state.clock, permit.tenant(), delivery_id)];
    if deliveries::resend(&mut transaction, &[delivery_id], &[jobs[0].id]).await? == 0 {
        return Err(Problem::new(ProblemCode::Conflict).detail("the delivery is pending").member("state", "pending"));
    }
    Producer::enqueue_in(&mut transaction, &jobs).await?;
    let view = DeliveryView::read(&mut transaction, id, delivery_id).await?;
    transaction.commit().await?;
    state.producer.announce(&jobs);
    Ok((StatusCode::ACCEPTED, Json(view)))
}

impl DeliveryView {
    /// A delivery with all its members, as the transaction sees it.
    pub(super) async fn read(transaction: &mut TenantTx, endpoint: Uuid, id: Uuid) -> Result<Self, Problem> {
        let summary = deliveries::find(transaction, endpoint, id).await?.ok_or(ProblemCode::NotFound)?;
        let log = deliveries::log(transaction, id).await?.ok_or(ProblemCode::NotFound)?;
        Ok(Self { body: Some(log.body), attempts: Some(log.attempts), ..Self::from(summary) })
    }
}

impl From<DeliverySummary> for DeliveryView {
    fn from(delivery: DeliverySummary) -> Self {
        Self {
            id: delivery.id,
            event_type: delivery.event_type,
            job_id: delivery.job_id,
            state: delivery.state,
            attempt_count: delivery.attempt_count,
            next_attempt_at: delivery.next_attempt_at,
            created_at: delivery.created_at,
            delivered_at: delivery.delivered_at,
            body: None,
            attempts: None,
        }
    }
}
