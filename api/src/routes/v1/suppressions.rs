//! `/api/v1/suppressions`: addresses that the tenant's campaigns do not write to.
//!
//! Invariant: the entry of a recipient who unsubscribed is removed only by a request that confirms
//! it; a removed address receives the mails that are queued from then on.

mod types;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri, header::LOCATION};
use shared::{
    db::TenantTx,
    email_address::EmailAddress,
    ids,
    store::suppressions::{self, Filter, NewSuppression, Suppression, SuppressionReason},
};
use uuid::Uuid;

use self::types::{NewSuppressionBody, SuppressionQuery, SuppressionRemoval, SuppressionView, address_key};
use crate::{
    auth::{CampaignsRead, CampaignsWrite, Permit},
    extract::{Json, Page, PageBody, PageRequest, Path, Query},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// Lists suppressed addresses, newest first.
#[utoipa::path(get, path = "/api/v1/suppressions", operation_id = "list_suppressions", tag = "suppressions", params(SuppressionQuery),
    responses((status = 200, body = PageBody<SuppressionView>, description = "A page of suppressed addresses")))]
pub async fn list(
    permit: Permit<CampaignsRead>,
    State(state): State<AppState>,
    uri: Uri,
    Query(query): Query<SuppressionQuery>,
) -> Result<Page<SuppressionView>, Problem> {
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let key = query.address.as_deref().map(address_key).transpose()?;
    let filter = Filter { reason: query.reason.map(SuppressionReason::as_str), email_key: key.as_deref() };
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let found = suppressions::list(&mut transaction, filter, page.before, page.fetch_limit()).await?;
    Ok(page.page(found.into_iter().map(SuppressionView::from).collect(), |view| view.id, &uri))
}

/// Suppresses an address.
///
/// An address that is already on the list keeps its first reason.
#[utoipa::path(post, path = "/api/v1/suppressions", operation_id = "create_suppression", tag = "suppressions", request_body = NewSuppressionBody,
    responses((status = 201, body = SuppressionView, description = "The address is suppressed"),
        (status = 200, body = SuppressionView, description = "The address was already suppressed")))]
pub async fn create(
    permit: Permit<CampaignsWrite>,
    State(state): State<AppState>,
    Json(body): Json<NewSuppressionBody>,
) -> Result<Response, Problem> {
    let key = body.key()?;
    let new = NewSuppression {
        id: ids::new_id(&state.clock),
        email_key: &key,
        reason: body.reason.unwrap_or(SuppressionReason::Manual),
        source: "api",
        detail: body.detail.as_deref(),
        stage: None,
        code: None,
        campaign: None,
    };
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let is_new = suppressions::add(&mut transaction, &new).await?;
    let entry = find(&mut transaction, &key).await?;
    transaction.commit().await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = [(LOCATION, format!("/api/v1/suppressions/{}", entry.id))];
    Ok((status, location, Json(SuppressionView::from(entry))).into_response())
}

/// Shows why an address is suppressed.
#[utoipa::path(get, path = "/api/v1/suppressions/{id}", operation_id = "show_suppression", tag = "suppressions",
    params(("id" = String, Path, description = "The entry's id, or the address")),
    responses((status = 200, body = SuppressionView, description = "The entry")))]
pub async fn show(
    permit: Permit<CampaignsRead>,
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<SuppressionView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    find(&mut transaction, &id).await.map(|entry| Json(entry.into()))
}

/// Removes an address from the list; the next campaign writes to it again.
#[utoipa::path(delete, path = "/api/v1/suppressions/{id}", operation_id = "delete_suppression", tag = "suppressions",
    params(("id" = String, Path, description = "The entry's id, or the address"), SuppressionRemoval),
    responses((status = 204, description = "The address is no longer on the list"),
        (status = 409, description = "The recipient unsubscribed, and the request does not confirm that they want mail again")))]
pub async fn delete(
    permit: Permit<CampaignsWrite>,
    State(state): State<AppState>,
    Path(id): Path<String>,
    Query(removal): Query<SuppressionRemoval>,
) -> Result<StatusCode, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let entry = find(&mut transaction, &id).await?;
    if entry.reason == SuppressionReason::Unsubscribed.as_str() && !removal.confirm_unsubscribed {
        let detail = "the recipient unsubscribed; repeat with ?confirm_unsubscribed=true if they want mail again";
        return Err(Problem::new(ProblemCode::Conflict).detail(detail).member("reason", entry.reason));
    }
    suppressions::remove(&mut transaction, entry.id).await?;
    transaction.commit().await?;
    tracing::info!(suppression = %entry.id, reason = entry.reason, "an address was removed from the suppression list");
    Ok(StatusCode::NO_CONTENT)
}

/// Finds an entry by id or address; any other text is not found.
async fn find(transaction: &mut TenantTx, id_or_address: &str) -> Result<Suppression, Problem> {
    let id: Option<Uuid> = id_or_address.parse().ok();
    let key = EmailAddress::parse(id_or_address).ok().map(|address| address.key());
    let found = suppressions::find_for_update(transaction, id, key.as_deref()).await?;
    found.ok_or_else(|| ProblemCode::NotFound.into())
}
