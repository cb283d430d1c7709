//! `/api/v1/auth/register` and `/api/v1/auth/verify-email`: companies that register themselves.
//!
//! Invariant: the first user of a company cannot sign in before somebody followed the link in the
//! mail to the address. A GET changes nothing (mail scanners follow links), only a POST does.

use std::time::Duration;

use axum::{extract::State, response::Html};
use http::StatusCode;
use jobs::{account_links::LinkPurpose, kinds::send_account_mail::SendAccountMail};
use shared::{
    authz::Role,
    ids,
    store::{
        companies, credentials,
        users::{self, NewUser, UserState},
    },
    tenancy::TenantId,
};

use super::{
    account_link::{self, Refusal},
    registration_types::{CheckedRegistration, MailNotice, RegistrationBody, VerificationBody},
};
use crate::{
    extract::{Json, Path},
    problem::{Problem, ProblemCode},
    rate_limit::AnonymousClient,
    state::AppState,
};

const PAGE: &str = include_str!("pages/verify.html");
const DONE: &str = include_str!("pages/verified.html");

/// How many accounts with one address may wait for somebody to follow the link in a mail of the
/// last day.
const MAX_UNANSWERED_MAILS: i64 = 5;

/// Registers a company and its first user, an administrator.
///
/// The user can sign in once the address is confirmed with the link in a mail, within 3 days.
#[utoipa::path(post, path = "/api/v1/auth/register", operation_id = "create_company", tag = "auth", request_body = RegistrationBody, security(()),
    responses((status = 202, body = MailNotice, description = "The company is registered, and a mail to the address is on its way"),
        (status = 409, description = "Another company has this slug"),
        (status = 429, description = "Too many registrations by this client or with this address; `Retry-After` says when to retry")))]
pub async fn register(
    client: AnonymousClient,
    State(state): State<AppState>,
    Json(body): Json<RegistrationBody>,
) -> Result<(StatusCode, Json<MailNotice>), Problem> {
    let CheckedRegistration { slug, company, email, name, password } = body.check()?;
    state.mails.of_client(client.address).map_err(too_many_mails)?;
    bound_mails_to(&state, &email.key()).await?;
    let password_hash = Some(super::hash(&state, None, password).await?);
    let user = NewUser {
        id: ids::new_id(&state.clock),
        email_key: email.key(),
        email: email.to_string(),
        name,
        role: Role::Admin,
        password_hash,
        state: UserState::Unverified,
    };
    let tenant = TenantId::new(ids::new_id(&state.clock));
    let mut transaction = state.stores.tenants.begin_by_key(tenant).await?;
    if !companies::register(&mut transaction, &slug, &company).await? {
        return Err(Problem::new(ProblemCode::Conflict).detail("another company has this slug"));
    }
    users::add(&mut transaction, &user).await?;
    let mail = SendAccountMail { user_id: user.id, purpose: LinkPurpose::VerifyEmail };
    let job = mail.enqueue(&mut transaction, &state.clock).await?;
    transaction.commit().await?;
    state.producer.announce(&[job]);
    tracing::info!(%tenant, user = %user.id, "a company was registered");
    Ok((StatusCode::ACCEPTED, Json(MailNotice::REGISTERED)))
}

/// Confirms the address of a user.
///
/// Repeating it while the link is valid changes nothing.
#[utoipa::path(post, path = "/api/v1/auth/verify-email", operation_id = "verify_email", tag = "auth", request_body = VerificationBody, security(()),
    responses((status = 204, description = "The address is confirmed: the user can sign in")))]
pub async fn verify_email(
    _client: AnonymousClient,
    State(state): State<AppState>,
    Json(body): Json<VerificationBody>,
) -> Result<StatusCode, Problem> {
    account_link::verify_email(&state, &body.token).await.map_err(Refusal::of_body)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows a page to confirm the address of a user.
#[utoipa::path(get, path = "/api/v1/auth/verify-email/{token}", operation_id = "show_verification_page", tag = "auth", security(()),
    params(("token" = String, Path, description = "The token from the mail")),
    responses((status = 200, body = String, content_type = "text/html", description = "A page with one button")))]
pub async fn show_page(
    _client: AnonymousClient,
    State(state): State<AppState>,
    Path(token): Path<String>,
) -> Result<Html<&'static str>, Problem> {
    account_link::open(&state, &token, &[LinkPurpose::VerifyEmail]).await.map_err(Refusal::of_page)?;
    Ok(Html(PAGE))
}

/// Confirms the address of a user, for the button of the page.
#[utoipa::path(post, path = "/api/v1/auth/verify-email/{token}", operation_id = "verify_email_on_page", tag = "auth", security(()),
    params(("token" = String, Path, description = "The token from the mail")),
    responses((status = 200, body = String, content_type = "text/html", description = "The address is confirmed")))]
pub async fn confirm(
    _client: AnonymousClient,
    State(state): State<AppState>,
    Path(token): Path<String>,
) -> Result<Html<&'static str>, Problem> {
    account_link::verify_email(&state, &token).await.map_err(Refusal::of_page)?;
    Ok(Html(DONE))
}

/// Refuses another mail to an address that gets too many, or whose mails nobody follows.
pub(in super::super) async fn bound_mails_to(state: &AppState, email_key: &str) -> Result<(), Problem> {
    state.mails.of_address(email_key).map_err(too_many_mails)?;
    if credentials::unanswered_mails(&state.stores.system, email_key).await? < MAX_UNANSWERED_MAILS {
        return Ok(());
    }
    Err(too_many_mails(Duration::from_hours(1)))
}

pub(in super::super) fn too_many_mails(wait: Duration) -> Problem {
    Problem::new(ProblemCode::RateLimited)
        .detail("too many mails were requested by this client or for this address")
        .retry_after(wait.as_secs() + 1)
}
