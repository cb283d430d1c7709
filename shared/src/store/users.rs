//! The users of a tenant.
//!
//! Invariant: an address is in a tenant once. What a change means for the user's sessions is in
//! [`super::sessions`]; callers end them in the same transaction.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{authz::Role, db::TenantTx};

/// The data of a new user.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The user's id.
    pub id: Uuid,
    /// The address as it was given.
    pub email: String,
    /// The address in the form used for comparison.
    pub email_key: String,
    /// Display name.
    pub name: String,
    /// The role.
    pub role: Role,
    /// The hash of the password, if there is one.
    pub password_hash: Option<String>,
    /// Whether the user can sign in. A user who cannot yet gets a mail with a link.
    pub state: UserState,
}

/// Whether a user can sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum UserState {
    /// Can sign in.
    Active,
    /// An administrator excluded the user.
    Deactivated,
    /// Was invited by mail, and has not set a password yet.
    Invited,
    /// Registered, and has not confirmed the address yet.
    Unverified,
}

impl UserState {
    /// The text of this state.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the user has yet to follow a link in a mail.
    pub fn awaits_mail(self) -> bool {
        matches!(self, Self::Invited | Self::Unverified)
    }
}

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// The user's id.
    pub id: Uuid,
    /// The address.
    pub email: String,
    /// Display name.
    pub name: String,
    /// The name of the role.
    pub role: String,
    /// The name of a [`UserState`].
    pub state: String,
    /// Creation time.
    pub created_at: DateTime<Utc>,
    /// The time of the last change.
    pub updated_at: DateTime<Utc>,
    /// When the user last signed in.
    pub last_sign_in_at: Option<DateTime<Utc>>,
}

impl User {
    /// Whether the user may sign in.
    pub fn is_active(&self) -> bool {
        self.state == UserState::Active.as_str()
    }

    /// The role; `None` if a later release knows it.
    pub fn role(&self) -> Option<Role> {
        Role::parse(&self.role)
    }
}

/// Filter of a list.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserFilter<'a> {
    /// Only this role.
    pub role: Option<&'a str>,
    /// Only this state.
    pub state: Option<&'a str>,
    /// Only this address, in the form used for comparison.
    pub email_key: Option<&'a str>,
}

/// Adds a user; `false` if the tenant has one with this address. The mail to a user who awaits one is
/// noted with the row.
pub async fn add(transaction: &mut TenantTx, user: &NewUser) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let result = sqlx::query!(
        "insert into users (tenant_id, id, email, email_key, name, role, password_hash, state, account_mail_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, case when $9 then now() end)
         on conflict (tenant_id, email_key) do nothing",
        tenant,
        user.id,
        user.email,
        user.email_key,
        user.name,
        user.role.as_str(),
        user.password_hash,
        user.state.as_str(),
        user.state.awaits_mail()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// A page of users older than `before`, newest first.
pub async fn list(
    transaction: &mut TenantTx,
    filter: UserFilter<'_>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<User>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        User,
        "select id, email, name, role, state, created_at, updated_at, last_sign_in_at from users
         where tenant_id = $1 and id < $2 and ($3::text is null or role = $3) and ($4::text is null or state = $4)
           and ($5::text is null or email_key = $5)
         order by id desc limit $6",
        tenant,
        before.unwrap_or(Uuid::max()),
        filter.role,
        filter.state,
        filter.email_key,
        limit
    )
    .fetch_all(&mut **transaction)
    .await
}

/// The user with this id.
pub async fn find(transaction: &mut TenantTx, id: Uuid) -> Result<Option<User>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        User,
        "select id, email, name, role, state, created_at, updated_at, last_sign_in_at from users where tenant_id = $1 and id = $2",
        tenant,
        id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// A user, locked until the transaction ends, and whether the tenant has another active
/// administrator.
#[derive(Clone, Debug)]
pub struct LockedUser {
    /// The user.
    pub user: User,
    /// Whether the tenant has an active administrator besides this user.
    pub has_other_admin: bool,
}

/// The user with this id. The rows of the tenant's administrators are locked with it, in the order
/// of their ids, so that two requests neither wait for each other nor each rely on the administrator
/// that the other removes.
pub async fn find_for_update(transaction: &mut TenantTx, id: Uuid) -> Result<Option<LockedUser>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let found = sqlx::query_as!(
        User,
        "select id, email, name, role, state, created_at, updated_at, last_sign_in_at from users
         where tenant_id = $1 and (id = $2 or (role = 'admin' and state = 'active')) order by id for update",
        tenant,
        id
    )
    .fetch_all(&mut **transaction)
    .await?;
    let is_admin = |user: &User| user.is_active() && user.role() == Some(Role::Admin);
    let has_other_admin = found.iter().any(|user| user.id != id && is_admin(user));
    Ok(found.into_iter().find(|user| user.id == id).map(|user| LockedUser { user, has_other_admin }))
}

/// Changes the name and the role of a user.
pub async fn update(transaction: &mut TenantTx, id: Uuid, name: &str, role: Role) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update users set name = $3, role = $4, updated_at = now() where tenant_id = $1 and id = $2",
        tenant,
        id,
        name,
        role.as_str()
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// Activates or deactivates a user.
pub async fn set_active(transaction: &mut TenantTx, id: Uuid, is_active: bool) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let state = if is_active { UserState::Active } else { UserState::Deactivated }.as_str();
    sqlx::query!("update users set state = $3, updated_at = now() where tenant_id = $1 and id = $2", tenant, id, state)
        .execute(&mut **transaction)
        .await
        .map(drop)
}

/// The hash of the password of an active user: `None` if there is no such user, `Some(None)` if it has no
/// password.
pub async fn password_hash(transaction: &mut TenantTx, id: Uuid) -> Result<Option<Option<String>>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_scalar!(
        "select password_hash from users where tenant_id = $1 and id = $2 and state = 'active'",
        tenant,
        id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Replaces a user's password, unless it was changed since `present` was read; `false` if it was.
pub async fn set_password(
    transaction: &mut TenantTx,
    id: Uuid,
    present: Option<&str>,
    hash: &str,
) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let result = sqlx::query!(
        "update users set password_hash = $4, updated_at = now()
         where tenant_id = $1 and id = $2 and password_hash is not distinct from $3",
        tenant,
        id,
        present,
        hash
    )
    .execute(&mut **transaction)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// Notes that a user signed in with the password whose hash is `hash`; `false` if the user was
/// deactivated or the password changed since it was read.
pub async fn note_sign_in(transaction: &mut TenantTx, id: Uuid, hash: &str) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let result = sqlx::query!(
        "update users set last_sign_in_at = now()
         where tenant_id = $1 and id = $2 and state = 'active' and password_hash = $3",
        tenant,
        id,
        hash
    )
    .execute(&mut **transaction)
    .await?;
    Ok(result.rows_affected() == 1)
}
