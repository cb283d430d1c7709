//! Sessions of users and API clients, and the rotation of their refresh tokens.
//!
//! Invariant: of a session's refresh tokens the newest may be used. Its predecessor returns the
//! same successor again: for [`GRACE`] after the newest was issued, as concurrent requests and a
//! client that lost the answer need it, and once in a session's life later. A token two generations old shows that
//! somebody has a copy, so it ends the session. Times are the database's.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::{
    db::TenantTx,
    identity::{
        access_token::{AccessToken, Subject},
        refresh_token::{PresentedRefreshToken, RefreshTokens, SessionSecret},
    },
    tenancy::TenantId,
};

/// How long the predecessor of the newest refresh token returns the newest again.
pub const GRACE: TimeDelta = TimeDelta::seconds(30);
/// How long a refresh token may be used, in days.
pub const LIFETIME_DAYS: i32 = 7;

/// A session after a sign-in or a refresh.
#[derive(Clone)]
pub struct OpenSession {
    /// The session's id.
    pub id: Uuid,
    /// Whose it is.
    pub subject: Subject,
    /// The random part of its refresh tokens.
    pub secret: SessionSecret,
    /// The number of the newest refresh token.
    pub number: i64,
    /// When the newest refresh token was issued.
    pub issued_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: DateTime<Utc>,
}

impl OpenSession {
    /// The access token that belongs to the newest refresh token.
    pub fn access_token(&self, tenant: TenantId) -> AccessToken {
        let Self { id, subject, issued_at, number, .. } = *self;
        AccessToken { tenant, subject, session: id, issued_at, number }
    }

    /// The newest refresh token.
    pub fn refresh_token(&self, tokens: &RefreshTokens, tenant: TenantId) -> String {
        tokens.token(&self.secret, tenant, self.id, self.number)
    }
}

/// The result of presenting a refresh token.
pub enum Refreshed {
    /// The session's newest tokens.
    Tokens(OpenSession),
    /// The token is not accepted: it is unknown, expired, or of a session that ended.
    Refused,
    /// The token is two generations old: its session has ended with this.
    Reused {
        /// Whose session it was.
        subject: Subject,
    },
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum EndReason {
    /// The user signed out.
    SignedOut,
    /// A refresh token was used again.
    TokenReused,
    /// The password changed.
    PasswordChanged,
    /// The user was deactivated.
    Deactivated,
    /// The client was revoked or got a new secret.
    Revoked,
}

/// Opens a session.
pub async fn open(transaction: &mut TenantTx, id: Uuid, subject: Subject) -> Result<OpenSession, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let (user, client) = columns(subject);
    let secret = SessionSecret::random();
    let row = sqlx::query!(
        "insert into sessions (tenant_id, id, user_id, client_id, secret, issued_at, expires_at)
         values ($1, $2, $3, $4, $5, date_trunc('second', now()), date_trunc('second', now()) + make_interval(days => $6))
         returning counter, issued_at, expires_at",
        tenant,
        id,
        user,
        client,
        secret.as_bytes(),
        LIFETIME_DAYS
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(OpenSession { id, subject, secret, number: row.counter, issued_at: row.issued_at, expires_at: row.expires_at })
}

fn columns(subject: Subject) -> (Option<Uuid>, Option<Uuid>) {
    match subject {
        Subject::User(id) => (Some(id), None),
        Subject::ApiClient(id) => (None, Some(id)),
    }
}

/// Uses a refresh token. Whether its user or client is still active is for the caller to check. The
/// session's row is locked meanwhile, so of concurrent uses of one token the first advances the
/// session and the others return the same tokens.
pub async fn refresh(
    transaction: &mut TenantTx,
    tokens: &RefreshTokens,
    token: &PresentedRefreshToken,
) -> Result<Refreshed, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let row = sqlx::query!(
        r#"select s.user_id, s.client_id, s.secret, s.counter, s.issued_at, s.expires_at, s.parent_used_late,
                  clock_timestamp() as "now!"
           from sessions s
           where s.tenant_id = $1 and s.id = $2 and s.ended_at is null for update"#,
        tenant,
        token.session
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some((row, secret)) = row.and_then(|row| SessionSecret::from_bytes(&row.secret).map(|secret| (row, secret)))
    else {
        return Ok(Refreshed::Refused);
    };
    if !tokens.verifies(&secret, token) || row.expires_at <= row.now {
        return Ok(Refreshed::Refused);
    }
    let subject = match (row.user_id, row.client_id) {
        (Some(user), _) => Subject::User(user),
        (None, Some(client)) => Subject::ApiClient(client),
        // A constraint of the table excludes this.
        (None, None) => return Ok(Refreshed::Refused),
    };
    let present = OpenSession {
        id: token.session,
        subject,
        secret,
        number: row.counter,
        issued_at: row.issued_at,
        expires_at: row.expires_at,
    };
    let in_grace = row.now < row.issued_at + GRACE;
    match row.counter - token.number {
        0 => issue(transaction, present, row.counter + 1, row.parent_used_late).await.map(Refreshed::Tokens),
        1 if in_grace => Ok(Refreshed::Tokens(present)),
        // The newest token was never used: its answer was lost, or the client was away. A session
        // gets away with this once: whoever follows it one token behind is a second client.
        1 if !row.parent_used_late => issue(transaction, present, row.counter, true).await.map(Refreshed::Tokens),
        // Within the grace it is a delayed request of a client that has refreshed twice since.
        2.. if !in_grace => {
            end(transaction, token.session, EndReason::TokenReused).await?;
            Ok(Refreshed::Reused { subject })
        }
        _ => Ok(Refreshed::Refused),
    }
}

/// Makes the token with this number the newest, issued now.
async fn issue(
    transaction: &mut TenantTx,
    session: OpenSession,
    number: i64,
    parent_used_late: bool,
) -> Result<OpenSession, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let row = sqlx::query!(
        "update sessions set counter = $3, parent_used_late = $4, issued_at = date_trunc('second', clock_timestamp()),
             expires_at = date_trunc('second', clock_timestamp()) + make_interval(days => $5)
         where tenant_id = $1 and id = $2 returning issued_at, expires_at",
        tenant,
        session.id,
        number,
        parent_used_late,
        LIFETIME_DAYS
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(OpenSession { number, issued_at: row.issued_at, expires_at: row.expires_at, ..session })
}

/// Ends a session, unless it has ended.
pub async fn end(transaction: &mut TenantTx, id: Uuid, reason: EndReason) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update sessions set ended_at = now(), end_reason = $3 where tenant_id = $1 and id = $2 and ended_at is null",
        tenant,
        id,
        <&str>::from(reason)
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// Ends the sessions of a user or a client, except one.
pub async fn end_all(
    transaction: &mut TenantTx,
    subject: Subject,
    except: Option<Uuid>,
    reason: EndReason,
) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let (user, client) = columns(subject);
    sqlx::query!(
        "update sessions set ended_at = now(), end_reason = $5
         where tenant_id = $1 and (user_id = $2 or client_id = $3) and ended_at is null and id is distinct from $4",
        tenant,
        user,
        client,
        except,
        <&str>::from(reason)
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}
