//! Looks up what a credential stands for, before the tenant is known.
//!
//! Invariant: the answer is what the ledger says now. A key whose creator left, and a session that
//! ended, stand for nobody.

use uuid::Uuid;

use crate::{
    authz::{Permission, PermissionSet, Role},
    db::SystemDb,
    identity::{
        access_token::{AccessToken, Subject},
        api_key::PresentedKey,
    },
    tenancy::TenantId,
};

/// Who acts, and what they may do.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The tenant of the credential.
    pub tenant: TenantId,
    /// Who acts.
    pub actor: Actor,
    /// What the principal may do now.
    pub permissions: PermissionSet,
}

/// Who acts for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A program with an API key.
    ApiKey {
        /// The key.
        id: Uuid,
        /// The user who created the key; a command of an operator did if there is none.
        creator: Option<Uuid>,
    },
    /// A program with the tokens of an API client.
    ApiClient {
        /// The client.
        id: Uuid,
        /// The session.
        session: Uuid,
        /// The user who created the client; a command of an operator did if there is none.
        creator: Option<Uuid>,
    },
    /// A person who signed in.
    User {
        /// The user.
        id: Uuid,
        /// The session.
        session: Uuid,
    },
}

impl Actor {
    /// Whether a program acts, not a person.
    pub fn is_program(&self) -> bool {
        !matches!(self, Self::User { .. })
    }

    /// The user whose permissions bound what the actor creates: the user, or the creator of the key
    /// or client.
    pub fn creator(&self) -> Option<Uuid> {
        match *self {
            Self::ApiKey { creator, .. } | Self::ApiClient { creator, .. } => creator,
            Self::User { id, .. } => Some(id),
        }
    }

    /// The session of the actor's access token.
    pub fn session(&self) -> Option<Uuid> {
        match *self {
            Self::ApiKey { .. } => None,
            Self::ApiClient { session, .. } | Self::User { session, .. } => Some(session),
        }
    }
}

/// The user that an address stands for at sign-in.
#[derive(Clone, Copy, Debug)]
pub struct SignInCandidate {
    /// The tenant of the user.
    pub tenant: TenantId,
    /// The user.
    pub user: Uuid,
}

/// The principal of an API key. `None` if the key is unknown, revoked or expired, if its secret is
/// wrong, or if its creator is not active. The key has those of its scopes that its creator has.
pub async fn of_api_key(db: &SystemDb, key: &PresentedKey) -> Result<Option<Principal>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select k.tenant_id, k.secret_hash, k.scopes, k.created_by, u.role as "role?", u.state as "state?"
           from api_keys k left join users u on u.tenant_id = k.tenant_id and u.id = k.created_by
           where k.id = $1 and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())"#,
        key.id
    )
    .fetch_optional(db.pool())
    .await?;
    let Some(row) = row.filter(|row| key.matches(&row.secret_hash)) else { return Ok(None) };
    let ceiling = ceiling(row.created_by, row.role.as_deref(), row.state.as_deref());
    Ok(ceiling.map(|ceiling| Principal {
        tenant: TenantId::new(row.tenant_id),
        actor: Actor::ApiKey { id: key.id, creator: row.created_by },
        permissions: PermissionSet::of_scopes(&row.scopes).intersection(ceiling),
    }))
}

/// The principal of an access token. `None` if its session ended, its user is not active, or its
/// client is revoked or has no active creator.
pub async fn of_access_token(db: &SystemDb, token: &AccessToken) -> Result<Option<Principal>, sqlx::Error> {
    match token.subject {
        Subject::User(user) => of_user(db, token, user).await,
        Subject::ApiClient(client) => of_client(db, token, client).await,
    }
}

async fn of_user(db: &SystemDb, token: &AccessToken, user: Uuid) -> Result<Option<Principal>, sqlx::Error> {
    let role = sqlx::query_scalar!(
        "select u.role from sessions s join users u on u.tenant_id = s.tenant_id and u.id = s.user_id
         where s.tenant_id = $1 and s.id = $2 and s.user_id = $3 and s.ended_at is null and s.expires_at > now()
           and u.state = 'active'",
        token.tenant.as_uuid(),
        token.session,
        user
    )
    .fetch_optional(db.pool())
    .await?;
    Ok(role.map(|role| Principal {
        tenant: token.tenant,
        actor: Actor::User { id: user, session: token.session },
        permissions: permissions_of(Some(&role)),
    }))
}

async fn of_client(db: &SystemDb, token: &AccessToken, client: Uuid) -> Result<Option<Principal>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select c.scopes, c.created_by, u.role as "role?", u.state as "state?"
           from sessions s join api_clients c on c.tenant_id = s.tenant_id and c.id = s.client_id
           left join users u on u.tenant_id = c.tenant_id and u.id = c.created_by
           where s.tenant_id = $1 and s.id = $2 and s.client_id = $3 and s.ended_at is null and s.expires_at > now()
             and c.revoked_at is null"#,
        token.tenant.as_uuid(),
        token.session,
        client
    )
    .fetch_optional(db.pool())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let ceiling = ceiling(row.created_by, row.role.as_deref(), row.state.as_deref());
    Ok(ceiling.map(|ceiling| Principal {
        tenant: token.tenant,
        actor: Actor::ApiClient { id: client, session: token.session, creator: row.created_by },
        permissions: PermissionSet::of_scopes(&row.scopes).intersection(ceiling),
    }))
}

/// The tenant of an API client.
pub async fn tenant_of_client(db: &SystemDb, client: Uuid) -> Result<Option<TenantId>, sqlx::Error> {
    let tenant = sqlx::query_scalar!("select tenant_id from api_clients where id = $1", client);
    Ok(tenant.fetch_optional(db.pool()).await?.map(TenantId::new))
}

/// The most that a key or a client may do: what its creator may. `None` if the creator is not
/// active.
fn ceiling(creator: Option<Uuid>, role: Option<&str>, state: Option<&str>) -> Option<PermissionSet> {
    match creator {
        None => Some(Permission::of_tenants().collect()),
        Some(_) => (state == Some("active")).then(|| permissions_of(role)),
    }
}

/// The active user with this address, in the company with this slug or, without a slug, in the only
/// company that has one. `None` if there is none or more than one.
pub async fn sign_in_candidate(
    db: &SystemDb,
    company: Option<&str>,
    email_key: &str,
) -> Result<Option<SignInCandidate>, sqlx::Error> {
    let rows = sqlx::query!(
        "select u.tenant_id, u.id from users u join tenants t on t.id = u.tenant_id
         where u.email_key = $1 and u.state = 'active' and ($2::text is null or t.slug = $2) limit 2",
        email_key,
        company
    )
    .fetch_all(db.pool())
    .await?;
    let [row] = rows.as_slice() else { return Ok(None) };
    Ok(Some(SignInCandidate { tenant: TenantId::new(row.tenant_id), user: row.id }))
}

/// A role of a later release grants nothing to this one.
fn permissions_of(role: Option<&str>) -> PermissionSet {
    role.and_then(Role::parse).map(Role::permissions).unwrap_or_default()
}
