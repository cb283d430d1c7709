//! `/api/v1/webhook-endpoints`: URLs that receive a message when jobs of the tenant end.
//!
//! A secret is shown once, in the response to the request that created it.
//! [`super::webhook_deliveries`] shows the messages.

mod secrets;
mod switches;
mod types;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri, header::LOCATION};
use shared::{
    db::TenantTx,
    ids,
    store::{
        webhook_endpoints::{self as endpoints, Endpoint, NewEndpoint},
        webhook_secrets,
    },
    webhooks::WebhookSecret,
};
use uuid::Uuid;

use self::types::{EndpointChanges, EndpointQuery, EndpointView, NewEndpointBody};
pub use self::{
    secrets::{__path_rotate_secret, rotate_secret},
    switches::{__path_disable, __path_enable, __path_test, disable, enable, test},
};
use crate::{
    auth::{Permit, WebhooksRead, WebhooksWrite},
    extract::{Json, Page, PageBody, PageRequest, Path, Query},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// Maximum number of endpoints of a tenant.
const MAX_ENDPOINTS: i64 = 20;

/// Creates an endpoint.
///
/// Its secret is in this response and nowhere else.
#[utoipa::path(post, path = "/api/v1/webhook-endpoints", operation_id = "create_webhook_endpoint", tag = "webhooks", request_body = NewEndpointBody,
    responses((status = 201, body = EndpointView, description = "The endpoint, with its secret"),
        (status = 409, description = "The tenant has reached its limit of endpoints, or another endpoint, `endpoint_id`, has this URL")))]
pub async fn create(
    permit: Permit<WebhooksWrite>,
    State(state): State<AppState>,
    Json(body): Json<NewEndpointBody>,
) -> Result<Response, Problem> {
    let new = body.check(&state)?;
    let secret = WebhookSecret::random();
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    must_be_only_one(&mut transaction, &new).await?;
    if !endpoints::create(&mut transaction, &new, MAX_ENDPOINTS).await? {
        let detail = format!("a tenant has at most {MAX_ENDPOINTS} webhook endpoints");
        return Err(Problem::new(ProblemCode::Conflict).detail(detail).member("limit", MAX_ENDPOINTS));
    }
    webhook_secrets::add(&mut transaction, new.id, ids::new_id(&state.clock), &secret).await?;
    let endpoint = endpoints::find(&mut transaction, new.id).await?.ok_or(ProblemCode::NotFound)?;
    transaction.commit().await?;
    let location = [(LOCATION, format!("/api/v1/webhook-endpoints/{}", endpoint.id))];
    Ok((StatusCode::CREATED, location, Json(EndpointView::with_secret(endpoint, &secret))).into_response())
}

/// Lists endpoints, newest first.
#[utoipa::path(get, path = "/api/v1/webhook-endpoints", operation_id = "list_webhook_endpoints", tag = "webhooks", params(EndpointQuery),
    responses((status = 200, body = PageBody<EndpointView>, description = "A page of endpoints")))]
pub async fn list(
    permit: Permit<WebhooksRead>,
    State(state): State<AppState>,
    uri: Uri,
    Query(query): Query<EndpointQuery>,
) -> Result<Page<EndpointView>, Problem> {
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let found = endpoints::list(&mut transaction, page.before, page.fetch_limit()).await?;
    Ok(page.page(found.into_iter().map(EndpointView::from).collect(), |view| view.id, &uri))
}

/// Shows an endpoint.
#[utoipa::path(get, path = "/api/v1/webhook-endpoints/{id}", operation_id = "get_webhook_endpoint", tag = "webhooks", params(("id" = Uuid, Path, description = "The endpoint's id")),
    responses((status = 200, body = EndpointView, description = "The endpoint")))]
pub async fn show(
    permit: Permit<WebhooksRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<EndpointView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    found(endpoints::find(&mut transaction, id).await?)
}

/// Changes the members given in the body; the others stay unchanged.
#[utoipa::path(patch, path = "/api/v1/webhook-endpoints/{id}", operation_id = "update_webhook_endpoint", tag = "webhooks", request_body = EndpointChanges,
    params(("id" = Uuid, Path, description = "The endpoint's id")),
    responses((status = 200, body = EndpointView, description = "The changed endpoint"),
        (status = 409, description = "Another endpoint, `endpoint_id`, has this URL")))]
pub async fn update(
    permit: Permit<WebhooksWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Json(changes): Json<EndpointChanges>,
) -> Result<Json<EndpointView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let present = endpoints::find_for_update(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    let changed = changes.apply(present, &state)?;
    must_be_only_one(&mut transaction, &changed).await?;
    endpoints::update(&mut transaction, &changed).await?;
    let changed = endpoints::find(&mut transaction, id).await?;
    transaction.commit().await?;
    found(changed)
}

/// Deletes an endpoint.
///
/// Its pending messages are not sent.
#[utoipa::path(delete, path = "/api/v1/webhook-endpoints/{id}", operation_id = "delete_webhook_endpoint", tag = "webhooks", params(("id" = Uuid, Path, description = "The endpoint's id")),
    responses((status = 204, description = "The endpoint is deleted")))]
pub async fn delete(
    permit: Permit<WebhooksWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    if !endpoints::delete(&mut transaction, id).await? {
        return Err(ProblemCode::NotFound.into());
    }
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// With two endpoints of the same URL, every message would be sent there twice.
async fn must_be_only_one(transaction: &mut TenantTx, endpoint: &NewEndpoint) -> Result<(), Problem> {
    match endpoints::holder_of_url(transaction, endpoint).await? {
        None => Ok(()),
        Some(holder) => Err(Problem::new(ProblemCode::Conflict)
            .detail("another endpoint has this URL; change that one")
            .member("endpoint_id", holder.to_string())),
    }
}

/// Rejects a disabled endpoint, to which no message is sent.
pub(super) fn must_be_enabled(endpoint: &Endpoint) -> Result<(), Problem> {
    match &endpoint.disabled_reason {
        None => Ok(()),
        Some(reason) => Err(Problem::new(ProblemCode::Conflict)
            .detail("the endpoint is disabled")
            .member("disabled_reason", reason.as_str())),
    }
}

fn found(endpoint: Option<Endpoint>) -> Result<Json<EndpointView>, Problem> {
    endpoint.map(|endpoint| Json(endpoint.into())).ok_or_else(|| ProblemCode::NotFound.into())
}
