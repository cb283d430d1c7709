//! `/api/v1/auth`: signing in with a password, refreshing and verifying tokens, signing out.
//!
//! Invariant: what a stranger is told does not depend on whether an address has an account, and how
//! long it takes only on whether it has more than one. A password is hashed on a pool of its own,
//! without a database connection.

mod account_link;
pub mod password_reset;
pub mod registration;
mod registration_types;
mod types;

pub use self::types::{ActorView, RefreshBody, TokenPair};

use std::net::IpAddr;

use axum::extract::State;
use http::StatusCode;
use metrics::counter;
use shared::{
    db::TenantTx,
    email_address::EmailAddress,
    identity::{
        access_token::{LIFETIME_MINUTES, Subject},
        password::Password,
        refresh_token::PresentedRefreshToken,
    },
    ids,
    store::{
        companies,
        credentials::{self, Actor, SignInCandidate},
        sessions::{self, EndReason, OpenSession, Refreshed},
        users,
    },
    telemetry::names::{RATE_LIMITED_TOTAL, label},
    tenancy::TenantId,
};
use uuid::Uuid;

use self::types::{SignInBody, VerifiedToken, VerifyBody};
use crate::{
    auth::{Authenticated, Permit, Presented},
    extract::Json,
    problem::{Problem, ProblemCode},
    rate_limit::AnonymousClient,
    state::AppState,
};

/// The maximum size of a body, in bytes. Requests without a credential are not charged to a tenant.
pub const MAX_BYTES: usize = 16 * 1024;

/// Signs a user in.
///
/// The access token is sent as `Authorization: Bearer …` for 30 minutes; the refresh token gets the
/// next pair, within 7 days.
#[utoipa::path(post, path = "/api/v1/auth/token", operation_id = "create_token", tag = "auth", request_body = SignInBody, security(()),
    responses((status = 200, body = TokenPair, description = "The user is signed in"),
        (status = 401, description = "Address and password do not belong together, the user is deactivated, or several accounts of the address have this password and the request names no company"),
        (status = 403, description = "The company is suspended"),
        (status = 429, description = "Too many attempts for this account; `Retry-After` says when to retry")))]
pub async fn create_token(
    client: AnonymousClient,
    State(state): State<AppState>,
    Json(body): Json<SignInBody>,
) -> Result<Json<TokenPair>, Problem> {
    let email = EmailAddress::parse(&body.email).map_err(|error| Problem::invalid("/email", error.to_string()))?;
    limit_attempts(&state, client.address, &email.key())?;
    let candidates =
        credentials::sign_in_candidates(&state.stores.system, body.company.as_deref(), &email.key()).await?;
    let (candidate, stored) = only_match(&state, &candidates, &body.password).await?.ok_or_else(wrong_credentials)?;
    let mut transaction = state.stores.tenants.begin_by_key(candidate.tenant).await?;
    if !users::note_sign_in(&mut transaction, candidate.user, &stored).await? {
        return Err(wrong_credentials());
    }
    refuse_suspended(&mut transaction).await?;
    let session = sessions::open(&mut transaction, ids::new_id(&state.clock), Subject::User(candidate.user)).await?;
    transaction.commit().await?;
    Ok(Json(pair(&state, candidate.tenant, &session, &[])))
}

/// Exchanges a user's refresh token for the next pair of tokens.
///
/// Concurrent requests with one token get the same pair, and so does a repetition within 30 seconds.
/// A token that was replaced twice ends its session, since somebody has a copy of it.
#[utoipa::path(post, path = "/api/v1/auth/token/refresh", operation_id = "refresh_token", tag = "auth", request_body = RefreshBody, security(()),
    responses((status = 200, body = TokenPair, description = "The next pair of tokens"),
        (status = 401, description = "The token is unknown, expired or replaced, or its session has ended"),
        (status = 403, description = "The company is suspended")))]
pub async fn refresh_token(
    _client: AnonymousClient,
    State(state): State<AppState>,
    Json(body): Json<RefreshBody>,
) -> Result<Json<TokenPair>, Problem> {
    let (mut transaction, session) = refresh(&state, &body).await?;
    let Subject::User(user) = session.subject else { return Err(refresh_refused()) };
    let is_active = users::find(&mut transaction, user).await?.is_some_and(|user| user.is_active());
    if !is_active {
        return Err(refresh_refused());
    }
    let pair = pair(&state, transaction.tenant(), &session, &[]);
    transaction.commit().await?;
    Ok(Json(pair))
}

/// Uses a refresh token of a user or a client; whether that one is still active is for the caller
/// to check before it commits.
pub(super) async fn refresh(state: &AppState, body: &RefreshBody) -> Result<(TenantTx, OpenSession), Problem> {
    let token = PresentedRefreshToken::parse(&body.refresh_token).ok_or_else(refresh_refused)?;
    let mut transaction = state.stores.tenants.begin_by_key(token.tenant).await?;
    match sessions::refresh(&mut transaction, &state.refresh_tokens, &token).await? {
        Refreshed::Tokens(session) => {
            refuse_suspended(&mut transaction).await?;
            Ok((transaction, session))
        }
        Refreshed::Reused { subject } => {
            transaction.commit().await?;
            tracing::warn!(tenant = %token.tenant, ?subject, session = %token.session, "a replaced refresh token was used: the session was ended");
            Err(refresh_refused())
        }
        Refreshed::Refused => Err(refresh_refused()),
    }
}

/// Refuses the transaction's tenant while it is suspended. Call it after the credential was verified.
pub(super) async fn refuse_suspended(transaction: &mut TenantTx) -> Result<(), Problem> {
    if companies::is_suspended(transaction).await? { Err(ProblemCode::CompanySuspended.into()) } else { Ok(()) }
}

pub(super) fn refresh_refused() -> Problem {
    Problem::new(ProblemCode::Unauthenticated).detail("the refresh token is not valid; sign in again")
}

/// Verifies an access token.
#[utoipa::path(post, path = "/api/v1/auth/token/verify", operation_id = "verify_token", tag = "auth", request_body = VerifyBody, security(()),
    responses((status = 200, body = VerifiedToken, description = "Whether the token is valid, and whom it names")))]
pub async fn verify_token(
    _client: AnonymousClient,
    State(state): State<AppState>,
    Json(body): Json<VerifyBody>,
) -> Result<Json<VerifiedToken>, Problem> {
    let token = state.authenticator.access_tokens().verify(&body.token, state.clock.now());
    let principal = state.authenticator.check(&Presented::AccessToken(body.token)).await?;
    let principal = principal.filter(|principal| !principal.is_suspended);
    Ok(Json(VerifiedToken::new(principal.as_deref().zip(token))))
}

/// Signs out: ends the session of the access token.
#[utoipa::path(post, path = "/api/v1/auth/logout", operation_id = "delete_session", tag = "auth",
    responses((status = 204, description = "The session has ended; its tokens are refused within 5 seconds")))]
pub async fn logout(
    permit: Permit<Authenticated>,
    presented: Presented,
    State(state): State<AppState>,
) -> Result<StatusCode, Problem> {
    let session = permit
        .actor()
        .session()
        .ok_or_else(|| Problem::new(ProblemCode::Forbidden).detail("an API key has no session; revoke it instead"))?;
    let mut transaction = state.stores.tenants.begin_by_key(permit.tenant()).await?;
    sessions::end(&mut transaction, session, EndReason::SignedOut).await?;
    transaction.commit().await?;
    state.authenticator.forget(&presented);
    Ok(StatusCode::NO_CONTENT)
}

/// The candidate whose password this is, with its hash; `None` if there is none or more than one.
/// The accounts of an address are compared one by one, so an account that another company created
/// for the address does not stand in the way of its person.
async fn only_match(
    state: &AppState,
    candidates: &[SignInCandidate],
    password: &str,
) -> Result<Option<(SignInCandidate, String)>, Problem> {
    if candidates.is_empty() {
        matches(state, None, password, None).await?;
    }
    let mut found = None;
    for candidate in candidates {
        let mut transaction = state.stores.tenants.begin_by_key(candidate.tenant).await?;
        let stored = users::password_hash(&mut transaction, candidate.user).await?.flatten();
        drop(transaction);
        if matches(state, Some(candidate.tenant), password, stored.clone()).await?
            && found.replace((*candidate, stored.unwrap_or_default())).is_some()
        {
            return Ok(None);
        }
    }
    Ok(found)
}

/// Refuses further attempts of a client to sign in to an account.
pub(super) fn limit_attempts(state: &AppState, client: IpAddr, account: &str) -> Result<(), Problem> {
    state.sign_ins.attempt(client, account).map_err(|wait| {
        counter!(RATE_LIMITED_TOTAL, label::POLICY => "sign_in").increment(1);
        Problem::new(ProblemCode::RateLimited)
            .detail("too many attempts to sign in to this account")
            .retry_after(wait.as_secs() + 1)
    })
}

/// Compares a password with a stored hash.
pub(super) async fn matches(
    state: &AppState,
    tenant: Option<TenantId>,
    password: &str,
    stored: Option<String>,
) -> Result<bool, Problem> {
    let password = Password::presented(password).ok_or_else(wrong_credentials)?;
    compute(state, tenant, "verify_password", move || password.matches(stored.as_deref())).await
}

/// The hash of a password to be stored.
pub(super) async fn hash(state: &AppState, tenant: Option<TenantId>, password: Password) -> Result<String, Problem> {
    compute(state, tenant, "hash_password", move || password.hash()).await
}

/// Runs work on a password in the tenant's turn. Without a tenant, all strangers share one turn.
async fn compute<T: Send + 'static>(
    state: &AppState,
    tenant: Option<TenantId>,
    task: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let turn = tenant.unwrap_or(TenantId::new(Uuid::nil()));
    let too_many = |_| Problem::new(ProblemCode::RateLimited).detail("too many users are signing in").retry_after(1);
    state.passwords.run(turn, task, work).await.map_err(too_many)
}

fn wrong_credentials() -> Problem {
    let detail = "address and password do not belong together, or several accounts of the address have this password: then name the company";
    Problem::new(ProblemCode::Unauthenticated).detail(detail)
}

pub(super) fn pair(state: &AppState, tenant: TenantId, session: &OpenSession, scopes: &[String]) -> TokenPair {
    let (Subject::User(subject_id) | Subject::ApiClient(subject_id)) = session.subject;
    TokenPair {
        access_token: state.authenticator.access_tokens().issue(&session.access_token(tenant), scopes),
        token_type: "Bearer",
        expires_in: 60 * LIFETIME_MINUTES,
        refresh_token: session.refresh_token(&state.refresh_tokens, tenant),
        refresh_expires_in: (session.expires_at - session.issued_at).num_seconds(),
        subject_id,
        company_id: *tenant.as_uuid(),
    }
}

impl From<Actor> for ActorView {
    fn from(actor: Actor) -> Self {
        match actor {
            Actor::ApiKey { id, .. } => Self { kind: "api_key", id },
            Actor::ApiClient { id, .. } => Self { kind: "api_client", id },
            Actor::User { id, .. } => Self { kind: "user", id },
        }
    }
}
