//! `/api/v1/api-keys`: credentials for programs.
//!
//! Invariant: a key never holds more than its creator, neither when it is created nor later; whoever
//! rotates a key could have created it. A secret is in the response that created it and nowhere
//! else.

pub(super) mod types;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use http::{StatusCode, Uri, header::LOCATION};
use shared::{
    authz::PermissionSet,
    identity::api_key::ApiKeySecret,
    ids,
    store::api_keys::{self, ApiKey, NewApiKey},
};
use uuid::Uuid;

use self::types::{ApiKeyQuery, ApiKeyView, NewApiKeyBody};
use crate::{
    auth::{ApiKeysCreate, ApiKeysRead, ApiKeysRevoke, Permit},
    extract::{Json, Page, PageBody, PageRequest, Path, Query},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// How long a rotated key stays valid beside its successor.
const OVERLAP: TimeDelta = TimeDelta::hours(24);

/// Creates a key.
///
/// Its text is in this response and nowhere else.
#[utoipa::path(post, path = "/api/v1/api-keys", operation_id = "create_api_key", tag = "api-keys", request_body = NewApiKeyBody,
    responses((status = 201, body = ApiKeyView, description = "The key, with its text"),
        (status = 403, description = "The credential lacks `api_keys:create`, or one of the `scopes`")))]
pub async fn create(
    permit: Permit<ApiKeysCreate>,
    State(state): State<AppState>,
    Json(body): Json<NewApiKeyBody>,
) -> Result<Response, Problem> {
    let checked = body.check(state.clock.now())?;
    require_all(permit.permissions(), checked.scopes)?;
    let new = NewApiKey {
        id: ids::new_id(&state.clock),
        name: checked.name,
        scopes: checked.scopes.names().map(str::to_owned).collect(),
        expires_at: checked.expires_at,
        created_by: permit.actor().creator(),
    };
    let secret = ApiKeySecret::random();
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    api_keys::add(&mut transaction, &new, &secret).await?;
    let key = api_keys::find(&mut transaction, new.id).await?.ok_or(ProblemCode::NotFound)?;
    transaction.commit().await?;
    Ok(created(ApiKeyView::with_text(key, &secret, state.clock.now())))
}

/// Lists keys, newest first; revoked and expired ones too.
#[utoipa::path(get, path = "/api/v1/api-keys", operation_id = "list_api_keys", tag = "api-keys", params(ApiKeyQuery),
    responses((status = 200, body = PageBody<ApiKeyView>, description = "A page of keys")))]
pub async fn list(
    permit: Permit<ApiKeysRead>,
    State(state): State<AppState>,
    uri: Uri,
    Query(query): Query<ApiKeyQuery>,
) -> Result<Page<ApiKeyView>, Problem> {
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let found = api_keys::list(&mut transaction, page.before, page.fetch_limit()).await?;
    let now = state.clock.now();
    Ok(page.page(found.into_iter().map(|key| ApiKeyView::new(key, now)).collect(), |view| view.id, &uri))
}

/// Shows a key, without its text.
#[utoipa::path(get, path = "/api/v1/api-keys/{id}", operation_id = "get_api_key", tag = "api-keys",
    params(("id" = Uuid, Path, description = "The key's id")),
    responses((status = 200, body = ApiKeyView, description = "The key")))]
pub async fn show(
    permit: Permit<ApiKeysRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<ApiKeyView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let key = api_keys::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    Ok(Json(ApiKeyView::new(key, state.clock.now())))
}

/// Replaces a key by one with the same name, scopes and expiry, whose creator is the user who
/// rotates it.
///
/// The old key stays valid for 24 hours.
#[utoipa::path(post, path = "/api/v1/api-keys/{id}/rotate", operation_id = "rotate_api_key", tag = "api-keys",
    params(("id" = Uuid, Path, description = "The key's id")),
    responses((status = 201, body = ApiKeyView, description = "The new key, with its text"),
        (status = 403, description = "The credential lacks `api_keys:create`, or one of the key's scopes"),
        (status = 409, description = "The key is revoked, expired, suspended or was rotated before")))]
pub async fn rotate(
    permit: Permit<ApiKeysCreate>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let now = state.clock.now();
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let old = api_keys::find_for_update(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    require_all(permit.permissions(), PermissionSet::of_scopes(&old.scopes))?;
    must_be_current(&old, types::state_of(&old, now))?;
    let secret = ApiKeySecret::random();
    let new = NewApiKey {
        id: ids::new_id(&state.clock),
        name: old.name,
        scopes: old.scopes,
        expires_at: old.expires_at,
        // Whoever rotates a key learns its text, so from now on it is bounded by them.
        created_by: permit.actor().creator().or(old.created_by),
    };
    api_keys::add(&mut transaction, &new, &secret).await?;
    api_keys::replace(&mut transaction, id, new.id, now + OVERLAP).await?;
    let key = api_keys::find(&mut transaction, new.id).await?.ok_or(ProblemCode::NotFound)?;
    transaction.commit().await?;
    Ok(created(ApiKeyView::with_text(key, &secret, now)))
}

/// Revokes a key within 5 seconds; running event streams end too.
#[utoipa::path(delete, path = "/api/v1/api-keys/{id}", operation_id = "delete_api_key", tag = "api-keys",
    params(("id" = Uuid, Path, description = "The key's id")),
    responses((status = 204, description = "The key is revoked; it stays listed")))]
pub async fn revoke(
    permit: Permit<ApiKeysRevoke>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    api_keys::find_for_update(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    api_keys::revoke(&mut transaction, id).await?;
    transaction.commit().await?;
    tracing::info!(api_key = %id, "an API key was revoked");
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses scopes that the principal lacks.
pub(super) fn require_all(own: PermissionSet, scopes: PermissionSet) -> Result<(), Problem> {
    let lacking: Vec<&str> = scopes.without(own).names().collect();
    match lacking.first() {
        None => Ok(()),
        Some(first) => Err(Problem::new(ProblemCode::Forbidden)
            .detail(format!("nobody creates what may do more than they may, and they lack {first}"))
            .member("scopes", lacking)),
    }
}

fn must_be_current(key: &ApiKey, state: &str) -> Result<(), Problem> {
    if let Some(successor) = key.replaced_by {
        return Err(Problem::new(ProblemCode::Conflict)
            .detail("the key was rotated before; rotate its successor")
            .member("replaced_by", successor.to_string()));
    }
    match state {
        "active" => Ok(()),
        state => Err(Problem::new(ProblemCode::Conflict).detail(format!("the key is {state}")).member("state", state)),
    }
}

fn created(view: ApiKeyView) -> Response {
    let location = [(LOCATION, format!("/api/v1/api-keys/{}", view.id))];
    (StatusCode::CREATED, location, Json(view)).into_response()
}
