//! `/api/v1/api-clients`: programs that exchange an id and a secret for tokens, which pass systems
//! that know only bearer tokens and expire by themselves.
//!
//! Invariant: as for API keys, a client never may do more than its creator. Each request for tokens
//! with a well-formed secret of a client is in its usage log, a refused one too.

mod tokens;
mod types;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri, header::LOCATION};
use shared::{
    authz::PermissionSet,
    identity::{access_token::Subject, api_key::ApiKeySecret},
    ids,
    store::{
        api_clients::{self, NewApiClient},
        sessions::{self, EndReason},
    },
};
use uuid::Uuid;

pub use self::tokens::{__path_create_token, __path_refresh_token, create_token, refresh_token};
use self::types::{ApiClientPage, ApiClientView, ClientUseView, NewApiClientBody};
use super::api_keys::require_all;
use crate::{
    auth::{ApiClientsCreate, ApiClientsRead, ApiClientsRevoke, Permit},
    extract::{Json, Page, PageBody, PageRequest, Path, Query},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// Creates a client.
///
/// Its secret is in this response and nowhere else.
#[utoipa::path(post, path = "/api/v1/api-clients", operation_id = "create_api_client", tag = "api-clients", request_body = NewApiClientBody,
    responses((status = 201, body = ApiClientView, description = "The client, with its secret"),
        (status = 403, description = "The credential lacks `api_clients:create`, or one of the `scopes`")))]
pub async fn create(
    permit: Permit<ApiClientsCreate>,
    State(state): State<AppState>,
    Json(body): Json<NewApiClientBody>,
) -> Result<Response, Problem> {
    let (name, scopes) = body.check()?;
    require_all(permit.permissions(), scopes)?;
    let new = NewApiClient {
        id: ids::new_id(&state.clock),
        name,
        scopes: scopes.names().map(str::to_owned).collect(),
        created_by: permit.actor().creator(),
    };
    let secret = ApiKeySecret::random();
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    api_clients::add(&mut transaction, &new, &secret).await?;
    let client = api_clients::find(&mut transaction, new.id).await?.ok_or(ProblemCode::NotFound)?;
    transaction.commit().await?;
    let location = [(LOCATION, format!("/api/v1/api-clients/{}", client.id))];
    Ok((StatusCode::CREATED, location, Json(ApiClientView::with_secret(client, &secret))).into_response())
}

/// Lists clients, newest first; revoked ones too.
#[utoipa::path(get, path = "/api/v1/api-clients", operation_id = "list_api_clients", tag = "api-clients", params(ApiClientPage),
    responses((status = 200, body = PageBody<ApiClientView>, description = "A page of clients")))]
pub async fn list(
    permit: Permit<ApiClientsRead>,
    State(state): State<AppState>,
    uri: Uri,
    Query(query): Query<ApiClientPage>,
) -> Result<Page<ApiClientView>, Problem> {
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let found = api_clients::list(&mut transaction, page.before, page.fetch_limit()).await?;
    Ok(page.page(found.into_iter().map(ApiClientView::from).collect(), |view| view.client_id, &uri))
}

/// Shows a client, without its secret.
#[utoipa::path(get, path = "/api/v1/api-clients/{id}", operation_id = "get_api_client", tag = "api-clients",
    params(("id" = Uuid, Path, description = "The client's id")),
    responses((status = 200, body = ApiClientView, description = "The client")))]
pub async fn show(
    permit: Permit<ApiClientsRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<ApiClientView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let client = api_clients::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    Ok(Json(client.into()))
}

/// Replaces a client's secret, and ends its sessions.
#[utoipa::path(post, path = "/api/v1/api-clients/{id}/rotate-secret", operation_id = "rotate_api_client_secret", tag = "api-clients",
    params(("id" = Uuid, Path, description = "The client's id")),
    responses((status = 200, body = ApiClientView, description = "The client, with its new secret"),
        (status = 403, description = "The credential lacks `api_clients:create`, or one of the client's scopes"),
        (status = 409, description = "The client is revoked or suspended")))]
pub async fn rotate_secret(
    permit: Permit<ApiClientsCreate>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<ApiClientView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let client = api_clients::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    require_all(permit.permissions(), PermissionSet::of_scopes(&client.scopes))?;
    if !client.is_active() {
        return Err(Problem::new(ProblemCode::Conflict).detail("the client is revoked or suspended"));
    }
    let secret = ApiKeySecret::random();
    api_clients::set_secret(&mut transaction, id, &secret, permit.actor().creator()).await?;
    let client = api_clients::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    sessions::end_all(&mut transaction, Subject::ApiClient(id), None, EndReason::Revoked).await?;
    transaction.commit().await?;
    Ok(Json(ApiClientView::with_secret(client, &secret)))
}

/// Revokes a client and its tokens, within 5 seconds.
#[utoipa::path(delete, path = "/api/v1/api-clients/{id}", operation_id = "delete_api_client", tag = "api-clients",
    params(("id" = Uuid, Path, description = "The client's id")),
    responses((status = 204, description = "The client is revoked; it stays listed")))]
pub async fn revoke(
    permit: Permit<ApiClientsRevoke>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    api_clients::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    api_clients::revoke(&mut transaction, id).await?;
    sessions::end_all(&mut transaction, Subject::ApiClient(id), None, EndReason::Revoked).await?;
    transaction.commit().await?;
    tracing::info!(api_client = %id, "an API client was revoked");
    Ok(StatusCode::NO_CONTENT)
}

/// Lists when a client asked for tokens, newest first.
#[utoipa::path(get, path = "/api/v1/api-clients/{id}/uses", operation_id = "list_api_client_uses", tag = "api-clients",
    params(("id" = Uuid, Path, description = "The client's id"), ApiClientPage),
    responses((status = 200, body = PageBody<ClientUseView>, description = "A page of the usage log, which goes back 90 days")))]
pub async fn uses(
    permit: Permit<ApiClientsRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    uri: Uri,
    Query(query): Query<ApiClientPage>,
) -> Result<Page<ClientUseView>, Problem> {
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    api_clients::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    let found = api_clients::uses(&mut transaction, id, page.before, page.fetch_limit()).await?;
    Ok(page.page(found.into_iter().map(ClientUseView::from).collect(), |view| view.id, &uri))
}
