//! `/api/v1/users/me/password`: a user's own password.
//!
//! Invariant: whoever changes a password knows the present one, and the user's other sessions end
//! with the change.

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use shared::{
    identity::{access_token::Subject, password::Password},
    store::{
        sessions::{self, EndReason},
        users,
    },
};
use utoipa::ToSchema;

use super::super::auth;
use crate::{
    auth::{Authenticated, Permit},
    client_address::ClientAddress,
    extract::{Json, storable},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// The present and the new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The present password.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Password, max_length = 256)]
    current_password: String,
    /// The new password: 12 characters to 256 bytes, and not easily guessed.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Password, min_length = 12, max_length = 256)]
    new_password: String,
}

/// Changes the own password.
///
/// The user's other sessions end within 5 seconds.
#[utoipa::path(put, path = "/api/v1/users/me/password", operation_id = "update_own_password", tag = "users", request_body = PasswordChange,
    responses((status = 204, description = "The password is changed"),
        (status = 409, description = "The present password is another, or was changed meanwhile"),
        (status = 429, description = "Too many attempts; `Retry-After` says when to retry")))]
pub async fn change_password(
    permit: Permit<Authenticated>,
    ClientAddress(client): ClientAddress,
    State(state): State<AppState>,
    Json(change): Json<PasswordChange>,
) -> Result<StatusCode, Problem> {
    let (user, session) = permit.user()?;
    auth::limit_attempts(&state, client, &user.to_string())?;
    let mut transaction = state.stores.tenants.begin_by_key(permit.tenant()).await?;
    let known = users::find(&mut transaction, user).await?.ok_or(ProblemCode::NotFound)?;
    let stored = users::password_hash(&mut transaction, user).await?.flatten();
    drop(transaction);
    let new = Password::new(&change.new_password, &[&known.email, &known.name])
        .map_err(|error| Problem::invalid("/new_password", error.to_string()))?;
    if !auth::matches(&state, Some(permit.tenant()), &change.current_password, stored.clone()).await? {
        return Err(Problem::new(ProblemCode::Conflict).detail("the present password is another"));
    }
    let hash = auth::hash(&state, Some(permit.tenant()), new).await?;
    let mut transaction = state.stores.tenants.begin_by_key(permit.tenant()).await?;
    if !users::set_password(&mut transaction, user, stored.as_deref(), &hash).await? {
        return Err(Problem::new(ProblemCode::Conflict).detail("the password was changed meanwhile"));
    }
    sessions::end_all(&mut transaction, Subject::User(user), Some(session), EndReason::PasswordChanged).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
