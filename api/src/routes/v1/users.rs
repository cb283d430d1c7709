//! `/api/v1/users`: the people of a company.
//!
//! Invariant: nobody gives away what they do not hold. A user is created, changed and deactivated
//! only by a principal who has all permissions of that user's role, before and after the change. A
//! company keeps an active administrator.

mod invitation;
mod password;
mod types;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri, header::LOCATION};
use shared::{
    authz::{Permission, PermissionSet, Role},
    db::TenantTx,
    email_address::EmailAddress,
    identity::access_token::Subject,
    ids,
    store::{
        credentials::Actor,
        sessions::{self, EndReason},
        users::{self, LockedUser, NewUser, User, UserFilter, UserState},
    },
};
use uuid::Uuid;

pub(super) use self::types::check_name;
use self::types::{NewUserBody, UserChanges, UserQuery, UserView};
pub use self::{
    invitation::{__path_invite, invite},
    password::{__path_change_password, change_password},
};
use super::auth::registration::bound_mails_to;
use crate::{
    auth::{Permit, UsersRead, UsersWrite},
    extract::{Json, Page, PageBody, PageRequest, Path, Query},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// Creates a user who can sign in at once or, without a password, invites the user by mail.
///
/// The link in the mail sets the first password, within 7 days.
#[utoipa::path(post, path = "/api/v1/users", operation_id = "create_user", tag = "users", request_body = NewUserBody,
    responses((status = 201, body = UserView, description = "The user"),
        (status = 409, description = "The company has a user with this address, or too many open invitations")))]
pub async fn create(
    permit: Permit<UsersWrite>,
    State(state): State<AppState>,
    Json(body): Json<NewUserBody>,
) -> Result<Response, Problem> {
    let checked = body.check()?;
    require_may_create(&permit)?;
    require_all_of(permit.permissions(), Some(checked.role))?;
    let password_hash = match checked.password {
        Some(password) => Some(super::auth::hash(&state, Some(permit.tenant()), password).await?),
        None => None,
    };
    let new = NewUser {
        id: ids::new_id(&state.clock),
        email_key: checked.email.key(),
        email: checked.email.to_string(),
        name: checked.name,
        role: checked.role,
        state: if password_hash.is_some() { UserState::Active } else { UserState::Invited },
        password_hash,
    };
    let is_invited = new.state == UserState::Invited;
    if is_invited {
        bound_mails_to(&state, &new.email_key).await?;
    }
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    if !users::add(&mut transaction, &new).await? {
        return Err(Problem::new(ProblemCode::Conflict).detail("the company has a user with this address"));
    }
    let mail = if is_invited { Some(invitation::enqueue(&state, &mut transaction, new.id).await?) } else { None };
    let user = users::find(&mut transaction, new.id).await?.ok_or(ProblemCode::NotFound)?;
    transaction.commit().await?;
    state.producer.announce(mail.as_slice());
    let location = [(LOCATION, format!("/api/v1/users/{}", user.id))];
    Ok((StatusCode::CREATED, location, Json(UserView::from(user))).into_response())
}

/// Lists users, newest first.
#[utoipa::path(get, path = "/api/v1/users", operation_id = "list_users", tag = "users", params(UserQuery),
    responses((status = 200, body = PageBody<UserView>, description = "A page of users")))]
pub async fn list(
    permit: Permit<UsersRead>,
    State(state): State<AppState>,
    uri: Uri,
    Query(query): Query<UserQuery>,
) -> Result<Page<UserView>, Problem> {
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let email_key = query.email.as_deref().map(EmailAddress::parse).transpose();
    let email_key = email_key
        .map_err(|error| Problem::new(ProblemCode::InvalidQuery).detail(format!("email: {error}")))?
        .map(|email| email.key());
    let filter = UserFilter {
        role: query.role.map(Role::from).map(Role::as_str),
        state: query.state.map(|state| UserState::from(state).as_str()),
        email_key: email_key.as_deref(),
    };
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let found = users::list(&mut transaction, filter, page.before, page.fetch_limit()).await?;
    Ok(page.page(found.into_iter().map(UserView::from).collect(), |view| view.id, &uri))
}

/// Shows a user.
#[utoipa::path(get, path = "/api/v1/users/{id}", operation_id = "get_user", tag = "users",
    params(("id" = Uuid, Path, description = "The user's id")),
    responses((status = 200, body = UserView, description = "The user")))]
pub async fn show(
    permit: Permit<UsersRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<UserView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let user = users::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    Ok(Json(user.into()))
}

/// Changes the name or the role of a user; members that are missing stay unchanged.
///
/// A new role has effect within 5 seconds, on the keys that the user created too.
#[utoipa::path(patch, path = "/api/v1/users/{id}", operation_id = "update_user", tag = "users", request_body = UserChanges,
    params(("id" = Uuid, Path, description = "The user's id")),
    responses((status = 200, body = UserView, description = "The changed user"),
        (status = 409, description = "The company would have no active administrator")))]
pub async fn update(
    permit: Permit<UsersWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Json(changes): Json<UserChanges>,
) -> Result<Json<UserView>, Problem> {
    let (name, role) = changes.check()?;
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let LockedUser { user, has_other_admin } = find_administrable(&permit, &mut transaction, id).await?;
    if let Some(role) = role {
        if is_self(&permit, id) {
            return Err(Problem::new(ProblemCode::Forbidden).detail("nobody changes their own role"));
        }
        require_all_of(permit.permissions(), Some(role))?;
        if role != Role::Admin {
            keep_an_admin(&user, has_other_admin)?;
        }
    }
    let role = role.or(user.role()).ok_or(ProblemCode::Forbidden)?;
    users::update(&mut transaction, id, name.as_deref().unwrap_or(&user.name), role).await?;
    let changed = users::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    transaction.commit().await?;
    Ok(Json(changed.into()))
}

/// Deactivates an active or invited user, and activates a deactivated one.
///
/// Deactivation ends the user's sessions and suspends the keys that the user created, within 5
/// seconds.
#[utoipa::path(post, path = "/api/v1/users/{id}/toggle_status", operation_id = "toggle_user_status", tag = "users",
    params(("id" = Uuid, Path, description = "The user's id")),
    responses((status = 200, body = UserView, description = "The changed user"),
        (status = 409, description = "The company would have no active administrator, or the user has not confirmed the address yet")))]
pub async fn toggle_status(
    permit: Permit<UsersWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<UserView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let LockedUser { user, has_other_admin } = find_administrable(&permit, &mut transaction, id).await?;
    if is_self(&permit, id) {
        return Err(Problem::new(ProblemCode::Forbidden).detail("nobody deactivates themselves"));
    }
    if user.state == UserState::Unverified.as_str() {
        return Err(Problem::new(ProblemCode::Conflict).detail("the user has not confirmed the address yet"));
    }
    let deactivate = user.state != UserState::Deactivated.as_str();
    if deactivate {
        keep_an_admin(&user, has_other_admin)?;
        sessions::end_all(&mut transaction, Subject::User(id), None, EndReason::Deactivated).await?;
    }
    users::set_active(&mut transaction, id, !deactivate).await?;
    let changed = users::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    transaction.commit().await?;
    Ok(Json(changed.into()))
}

/// A program creates users, who are credentials, only if it may create credentials.
fn require_may_create(permit: &Permit<UsersWrite>) -> Result<(), Problem> {
    if permit.actor().is_program() && !permit.allows(Permission::ApiKeysCreate) {
        let detail = format!("a program creates users only with the scope {}", Permission::ApiKeysCreate);
        return Err(Problem::new(ProblemCode::Forbidden).detail(detail));
    }
    Ok(())
}

/// The user, locked, if the principal has all permissions of the user's role.
async fn find_administrable(
    permit: &Permit<UsersWrite>,
    transaction: &mut TenantTx,
    id: Uuid,
) -> Result<LockedUser, Problem> {
    let found = users::find_for_update(transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    require_all_of(permit.permissions(), found.user.role())?;
    Ok(found)
}

/// Refuses a role with permissions that the principal lacks; a role that this release does not know
/// might have any.
fn require_all_of(own: PermissionSet, role: Option<Role>) -> Result<(), Problem> {
    let Some(role) = role else {
        return Err(Problem::new(ProblemCode::Forbidden).detail("the user's role is not known to this release"));
    };
    let lacking: Vec<&str> = role.permissions().without(own).names().collect();
    match lacking.first() {
        None => Ok(()),
        Some(first) => Err(Problem::new(ProblemCode::Forbidden)
            .detail(format!("the role {role} holds permissions that you lack, such as {first}"))
            .member("permissions", lacking)),
    }
}

fn is_self(permit: &Permit<UsersWrite>, user: Uuid) -> bool {
    matches!(permit.actor(), Actor::User { id, .. } if id == user)
}

/// Refuses to take the last active administrator away.
fn keep_an_admin(user: &User, has_other_admin: bool) -> Result<(), Problem> {
    if user.is_active() && user.role() == Some(Role::Admin) && !has_other_admin {
        return Err(Problem::new(ProblemCode::Conflict).detail("this is the company's only active administrator"));
    }
    Ok(())
}
