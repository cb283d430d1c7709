//! The account of a user as the mails about it see it, before and after their links are used.
//!
//! Invariant: a user gets at most one mail about the account in [`MAIL_PAUSE_MINUTES`], whichever
//! API enqueues it, because the row of the user records the last one.

use uuid::Uuid;

use crate::db::TenantTx;

/// The least time between two mails about one account, in minutes.
pub const MAIL_PAUSE_MINUTES: i32 = 5;

/// A user's account.
#[derive(Clone)]
pub struct Account {
    /// The slug of the company.
    pub company: String,
    /// The address as it was given.
    pub email: String,
    /// Display name.
    pub name: String,
    /// The state of the user.
    pub state: String,
    /// The hash of the password, if there is one.
    pub password_hash: Option<String>,
}

/// The account of a user.
pub async fn find(transaction: &mut TenantTx, user: Uuid) -> Result<Option<Account>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        Account,
        "select t.slug as company, u.email, u.name, u.state, u.password_hash
         from users u join tenants t on t.id = u.tenant_id where u.tenant_id = $1 and u.id = $2",
        tenant,
        user
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Notes that a mail about the account is enqueued with this transaction; `false` if the last one
/// was less than [`MAIL_PAUSE_MINUTES`] ago.
pub async fn note_mail(transaction: &mut TenantTx, user: Uuid) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let result = sqlx::query!(
        "update users set account_mail_at = now() where tenant_id = $1 and id = $2
           and (account_mail_at is null or account_mail_at <= now() - make_interval(mins => $3))",
        tenant,
        user,
        MAIL_PAUSE_MINUTES
    )
    .execute(&mut **transaction)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// Activates a user who has proved to read the mails to the address. Other states stay as they are.
pub async fn activate(transaction: &mut TenantTx, user: Uuid) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update users set state = 'active', updated_at = now()
         where tenant_id = $1 and id = $2 and state in ('unverified', 'invited')",
        tenant,
        user
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// The number of the tenant's users who have not accepted their invitation.
pub async fn open_invitations(transaction: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_scalar!(r#"select count(*) as "count!" from users where tenant_id = $1 and state = 'invited'"#, tenant)
        .fetch_one(&mut **transaction)
        .await
}
