//! `/api/v1/auth/api-client/token`: tokens of API clients.
//!
//! Invariant: a refusal is one text for every cause. It is logged for a client that exists, so that
//! its owner sees guesses.

use std::net::IpAddr;

use axum::extract::State;
use shared::{
    db::TenantTx,
    identity::{access_token::Subject, api_key::PresentedKey},
    ids,
    store::{
        api_clients::{self, ApiClient, ClientAction},
        credentials, sessions,
    },
};

use super::{
    super::auth::{self, RefreshBody, TokenPair},
    types::ClientSecretBody,
};
use crate::{
    extract::Json,
    problem::{Problem, ProblemCode},
    rate_limit::AnonymousClient,
    state::AppState,
};

/// Exchanges a client's id and secret for a pair of tokens.
#[utoipa::path(post, path = "/api/v1/auth/api-client/token", operation_id = "create_api_client_token", tag = "auth", request_body = ClientSecretBody, security(()),
    responses((status = 200, body = TokenPair, description = "The tokens; the access token names the client's scopes"),
        (status = 401, description = "The client is unknown, revoked or suspended, or the secret is another"),
        (status = 403, description = "The company is suspended"),
        (status = 429, description = "Too many attempts for this client; `Retry-After` says when to retry")))]
pub async fn create_token(
    from: AnonymousClient,
    State(state): State<AppState>,
    Json(body): Json<ClientSecretBody>,
) -> Result<Json<TokenPair>, Problem> {
    let presented = PresentedKey::parse_client_secret(&body.client_secret);
    let presented = presented.filter(|secret| secret.id == body.client_id).ok_or_else(refused)?;
    auth::limit_attempts(&state, from.address, &presented.id.to_string())?;
    let tenant = credentials::tenant_of_client(&state.stores.system, presented.id).await?.ok_or_else(refused)?;
    let mut transaction = state.stores.tenants.begin_by_key(tenant).await?;
    let client = api_clients::find(&mut transaction, presented.id).await?.ok_or_else(refused)?;
    let stored = api_clients::secret_hash(&mut transaction, presented.id).await?.ok_or_else(refused)?;
    let is_right = presented.matches(&stored) && client.is_active();
    log(&state, &mut transaction, &client, ClientAction::Token, is_right, from.address).await?;
    if !is_right {
        transaction.commit().await?;
        return Err(refused());
    }
    auth::refuse_suspended(&mut transaction).await?;
    let session = sessions::open(&mut transaction, ids::new_id(&state.clock), Subject::ApiClient(client.id)).await?;
    transaction.commit().await?;
    Ok(Json(auth::pair(&state, tenant, &session, &client.scopes)))
}

/// Exchanges a client's refresh token for the next pair of tokens, as `refresh_token` does for
/// users.
#[utoipa::path(post, path = "/api/v1/auth/api-client/token/refresh", operation_id = "refresh_api_client_token", tag = "auth", request_body = RefreshBody, security(()),
    responses((status = 200, body = TokenPair, description = "The next pair of tokens"),
        (status = 401, description = "The token is unknown, expired or replaced, or its session has ended"),
        (status = 403, description = "The company is suspended")))]
pub async fn refresh_token(
    from: AnonymousClient,
    State(state): State<AppState>,
    Json(body): Json<RefreshBody>,
) -> Result<Json<TokenPair>, Problem> {
    let (mut transaction, session) = auth::refresh(&state, &body).await?;
    let Subject::ApiClient(id) = session.subject else { return Err(auth::refresh_refused()) };
    let client = api_clients::find(&mut transaction, id).await?.filter(ApiClient::is_active);
    let client = client.ok_or_else(auth::refresh_refused)?;
    log(&state, &mut transaction, &client, ClientAction::Refresh, true, from.address).await?;
    let tenant = transaction.tenant();
    transaction.commit().await?;
    Ok(Json(auth::pair(&state, tenant, &session, &client.scopes)))
}

async fn log(
    state: &AppState,
    transaction: &mut TenantTx,
    client: &ApiClient,
    action: ClientAction,
    succeeded: bool,
    address: IpAddr,
) -> Result<(), sqlx::Error> {
    let id = ids::new_id(&state.clock);
    api_clients::note_use(transaction, id, client.id, action, succeeded, address).await
}

fn refused() -> Problem {
    Problem::new(ProblemCode::Unauthenticated).detail("the client is unknown or inactive, or the secret is another")
}
