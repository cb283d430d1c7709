//! `/api/v1/unsubscribe/{token}`: the target of the links in mails. The token is the credential.
//!
//! Invariant: a GET changes nothing (mail scanners follow links), only a POST does; and every
//! invalid token gets the same 404.

use axum::{extract::State, response::Html};
use jobs::unsubscribe::Unsubscriber;
use shared::{
    ids,
    store::{
        recipients,
        suppressions::{self, NewSuppression, SuppressionReason},
    },
};

use crate::{
    extract::Path,
    problem::{Problem, ProblemCode},
    state::AppState,
};

const PAGE: &str = include_str!("unsubscribe/ask.html");
const DONE: &str = include_str!("unsubscribe/done.html");

/// Shows a page to confirm the end of all mail from this sender.
#[utoipa::path(get, path = "/api/v1/unsubscribe/{token}", operation_id = "show_unsubscribe_page", tag = "unsubscribe", security(()), params(("token" = String, Path, description = "The token from the mail")),
    responses((status = 200, body = String, content_type = "text/html", description = "A page with one button")))]
pub async fn show_page(
    State(state): State<AppState>,
    Path(token): Path<String>,
) -> Result<Html<&'static str>, Problem> {
    verify(&state, &token).map(|_| Html(PAGE))
}

/// Ends all mail from this sender to this address.
///
/// Used by the button of the page and by one-click unsubscription in mail programs (RFC 8058).
#[utoipa::path(post, path = "/api/v1/unsubscribe/{token}", operation_id = "unsubscribe", tag = "unsubscribe", security(()), params(("token" = String, Path, description = "The token from the mail")),
    responses((status = 200, body = String, content_type = "text/html", description = "The address is on the suppression list")))]
pub async fn confirm(State(state): State<AppState>, Path(token): Path<String>) -> Result<Html<&'static str>, Problem> {
    let unsubscriber = verify(&state, &token)?;
    let mut transaction = state.stores.tenants.begin(unsubscriber.tenant).await?;
    let addressee =
        recipients::addressee(&mut transaction, unsubscriber.recipient).await?.ok_or(ProblemCode::NotFound)?;
    let entry = NewSuppression {
        id: ids::new_id(&state.clock),
        email_key: &addressee.email_key,
        reason: SuppressionReason::Unsubscribed,
        source: "recipient",
        detail: None,
        stage: None,
        code: None,
        campaign: Some(addressee.campaign_id),
    };
    suppressions::add(&mut transaction, &entry).await?;
    transaction.commit().await?;
    Ok(Html(DONE))
}

fn verify(state: &AppState, token: &str) -> Result<Unsubscriber, Problem> {
    state.unsubscribe_links.check(token).ok_or_else(|| ProblemCode::NotFound.into())
}
