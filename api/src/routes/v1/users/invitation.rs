//! `/api/v1/users/{id}/invite`: the mail with which a user sets the first password.
//!
//! Invariant: who invites a user could have created the user, and mails are bounded: one to a user
//! in 5 minutes, and a number of open invitations for each company and each address.

use axum::extract::State;
use http::StatusCode;
use jobs::{account_links::LinkPurpose, kinds::send_account_mail::SendAccountMail};
use shared::{
    db::TenantTx,
    queue::NewJob,
    store::{
        accounts::{self, MAIL_PAUSE_MINUTES},
        users::UserState,
    },
};
use uuid::Uuid;

use super::{super::auth::registration::too_many_mails, UserView, find_administrable, require_may_create};
use crate::{
    auth::{Permit, UsersWrite},
    extract::{Json, Path},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// The maximum number of a company's users who have not accepted their invitation.
const MAX_OPEN: i64 = 100;

/// Sends an invited user the mail with the link to set the first password again.
#[utoipa::path(post, path = "/api/v1/users/{id}/invite", operation_id = "send_invitation", tag = "users",
    params(("id" = Uuid, Path, description = "The user's id")),
    responses((status = 202, body = UserView, description = "The mail is on its way"),
        (status = 409, description = "The user is not invited, or has accepted the invitation"),
        (status = 429, description = "The last mail to the user was sent less than 5 minutes ago; `Retry-After` says when to retry")))]
pub async fn invite(
    permit: Permit<UsersWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<(StatusCode, Json<UserView>), Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let user = find_administrable(&permit, &mut transaction, id).await?.user;
    require_may_create(&permit)?;
    if user.state != UserState::Invited.as_str() {
        return Err(Problem::new(ProblemCode::Conflict).detail(format!("the user is {}", user.state)));
    }
    state.mails.of_address(&user.email.to_ascii_lowercase()).map_err(too_many_mails)?;
    if !accounts::note_mail(&mut transaction, id).await? {
        return Err(Problem::new(ProblemCode::RateLimited)
            .detail(format!("a user is sent one mail in {MAIL_PAUSE_MINUTES} minutes"))
            .retry_after(60 * u64::from(MAIL_PAUSE_MINUTES.unsigned_abs())));
    }
    let job = enqueue(&state, &mut transaction, id).await?;
    transaction.commit().await?;
    state.producer.announce(&[job]);
    Ok((StatusCode::ACCEPTED, Json(user.into())))
}

/// Enqueues the mail to an invited user of the transaction, which includes the user's own row.
pub(super) async fn enqueue(state: &AppState, transaction: &mut TenantTx, user: Uuid) -> Result<NewJob, Problem> {
    if accounts::open_invitations(transaction).await? > MAX_OPEN {
        let detail = format!("{MAX_OPEN} users have not accepted their invitation yet");
        return Err(Problem::new(ProblemCode::Conflict).detail(detail));
    }
    let mail = SendAccountMail { user_id: user, purpose: LinkPurpose::AcceptInvitation };
    Ok(mail.enqueue(transaction, &state.clock).await?)
}
