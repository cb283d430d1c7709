//! `/api/v1/auth/forgot-password` and `/api/v1/auth/reset-password`: a new password by a link in a
//! mail, and the first one of a user who was invited.
//!
//! Invariant: what a stranger is told and how long it takes does not depend on whether an address
//! has an account.

use std::time::Duration;

use axum::{extract::State, response::Html};
use http::StatusCode;
use jobs::{account_links::LinkPurpose, kinds::send_account_mail::SendAccountMail};
use shared::{
    email_address::EmailAddress,
    store::{accounts, credentials},
};
use tokio::time::{Instant, sleep_until};

use super::{
    account_link::{self, Refusal},
    registration::too_many_mails,
    registration_types::{ForgottenPasswordBody, MailNotice, NewPasswordBody, NewPasswordForm},
};
use crate::{
    extract::{Form, Json, Path},
    problem::Problem,
    rate_limit::AnonymousClient,
    state::AppState,
};

const PAGE: &str = include_str!("pages/password.html");
const DONE: &str = include_str!("pages/password_set.html");
/// The place in the page for why a password is not accepted.
const REASON: &str = "<!-- reason -->";

/// Requests are answered after a multiple of this time: more than any of them takes unless the
/// database is slow.
const ANSWER_STEP: Duration = Duration::from_millis(250);

/// Sends a link with which the user can set a new password.
///
/// The answer is the same whether or not the address has an account. The link is valid for an hour.
/// A user gets at most one such mail in 5 minutes.
#[utoipa::path(post, path = "/api/v1/auth/forgot-password", operation_id = "send_reset_link", tag = "auth", request_body = ForgottenPasswordBody, security(()),
    responses((status = 202, body = MailNotice, description = "If the address has an account, a mail is on its way"),
        (status = 429, description = "Too many requests of this client; `Retry-After` says when to retry")))]
pub async fn forgot_password(
    client: AnonymousClient,
    State(state): State<AppState>,
    Json(body): Json<ForgottenPasswordBody>,
) -> Result<(StatusCode, Json<MailNotice>), Problem> {
    let begun = Instant::now();
    let email = EmailAddress::parse(&body.email).map_err(|error| Problem::invalid("/email", error.to_string()))?;
    state.mails.of_client(client.address).map_err(too_many_mails)?;
    // Requests of others for the same address are no reason for another answer.
    let requested = match state.mails.of_address(&email.key()) {
        Ok(()) => request(&state, body.company.as_deref(), &email).await,
        Err(_) => Ok(()),
    };
    let steps = begun.elapsed().as_millis() / ANSWER_STEP.as_millis() + 1;
    sleep_until(begun + ANSWER_STEP * u32::try_from(steps).unwrap_or(1)).await;
    requested?;
    Ok((StatusCode::ACCEPTED, Json(MailNotice::RESET_REQUESTED)))
}

async fn request(state: &AppState, company: Option<&str>, email: &EmailAddress) -> Result<(), Problem> {
    let candidate = credentials::reset_candidate(&state.stores.system, company, &email.key()).await?;
    let Some(candidate) = candidate else { return Ok(()) };
    let mut transaction = state.stores.tenants.begin_by_key(candidate.tenant).await?;
    if !accounts::note_mail(&mut transaction, candidate.user).await? {
        return Ok(());
    }
    let mail = SendAccountMail { user_id: candidate.user, purpose: LinkPurpose::ResetPassword };
    let job = mail.enqueue(&mut transaction, &state.clock).await?;
    transaction.commit().await?;
    state.producer.announce(&[job]);
    Ok(())
}

/// Sets the password of the user whom a link names: one to reset the password, or an invitation.
///
/// The user's sessions end within 5 seconds. A link works once.
#[utoipa::path(post, path = "/api/v1/auth/reset-password", operation_id = "update_forgotten_password", tag = "auth", request_body = NewPasswordBody, security(()),
    responses((status = 204, description = "The password is set: the user can sign in with it")))]
pub async fn reset_password(
    _client: AnonymousClient,
    State(state): State<AppState>,
    Json(body): Json<NewPasswordBody>,
) -> Result<StatusCode, Problem> {
    account_link::set_password(&state, &body.token, &body.new_password).await.map_err(Refusal::of_body)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows a page to set a password.
#[utoipa::path(get, path = "/api/v1/auth/reset-password/{token}", operation_id = "show_password_page", tag = "auth", security(()),
    params(("token" = String, Path, description = "The token from the mail")),
    responses((status = 200, body = String, content_type = "text/html", description = "A page with a form")))]
pub async fn show_page(
    _client: AnonymousClient,
    State(state): State<AppState>,
    Path(token): Path<String>,
) -> Result<Html<&'static str>, Problem> {
    account_link::open(&state, &token, account_link::OF_PASSWORDS).await.map_err(Refusal::of_page)?;
    Ok(Html(PAGE))
}

/// Sets the password, for the form of the page.
#[utoipa::path(post, path = "/api/v1/auth/reset-password/{token}", operation_id = "update_password_on_page", tag = "auth", security(()),
    params(("token" = String, Path, description = "The token from the mail")),
    request_body(content = NewPasswordForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = String, content_type = "text/html", description = "The password is set, or a page that says why it is not accepted")))]
pub async fn submit_page(
    _client: AnonymousClient,
    State(state): State<AppState>,
    Path(token): Path<String>,
    Form(form): Form<NewPasswordForm>,
) -> Result<Html<String>, Problem> {
    match account_link::set_password(&state, &token, &form.new_password).await {
        Ok(()) => Ok(Html(DONE.to_owned())),
        // The texts are constants, so nothing in them needs escaping.
        Err(Refusal::Password(error)) => Ok(Html(PAGE.replace(REASON, &format!("<p role=\"alert\">{error}</p>")))),
        Err(refusal) => Err(refusal.of_page()),
    }
}
