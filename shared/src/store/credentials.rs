//! Looks up what a credential stands for, before the tenant is known.
//!
//! Invariant: the answer is what the ledger says now. A key whose creator left, and a session that
//! ended, stand for nobody. A principal of a suspended company may do nothing.

use uuid::Uuid;

use crate::{
    authz::{Permission, PermissionSet, Role},
    db::SystemDb,
    identity::{
        access_token::{AccessToken, Subject},
        api_key::PresentedKey,
    },
    tenancy::TenantId,
    tiers::Tier,
};

/// Who acts, and what they may do.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The tenant of the credential.
    pub tenant: TenantId,
    /// The tier of the tenant.
    pub tier: Tier,
    /// Who acts.
    pub actor: Actor,
    /// What the principal may do now.
    pub permissions: PermissionSet,
    /// Whether an operator has suspended the company.
    pub is_suspended: bool,
}

impl Principal {
    fn new((tenant, tier): (Uuid, &str), actor: Actor, permissions: PermissionSet, is_suspended: bool) -> Self {
        let permissions = if is_suspended { PermissionSet::default() } else { permissions };
        Self { tenant: TenantId::new(tenant), tier: Tier::of(tier), actor, permissions, is_suspended }
    }
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

    /// The key, client or user.
    pub fn id(&self) -> Uuid {
        match *self {
            Self::ApiKey { id, .. } | Self::ApiClient { id, .. } | Self::User { id, .. } => id,
        }
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
        r#"select k.tenant_id, t.tier, k.secret_hash, k.scopes, k.created_by, u.role as "role?", u.state as "state?",
                  t.suspended_at is not null as "is_suspended!"
           from api_keys k join tenants t on t.id = k.tenant_id
           left join users u on u.tenant_id = k.tenant_id and u.id = k.created_by
           where k.id = $1 and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())"#,
        key.id
    )
    .fetch_optional(db.pool())
    .await?;
    let Some(row) = row.filter(|row| key.matches(&row.secret_hash)) else { return Ok(None) };
    let ceiling = ceiling(row.created_by, row.role.as_deref(), row.state.as_deref());
    let actor = Actor::ApiKey { id: key.id, creator: row.created_by };
    Ok(ceiling.map(|ceiling| {
        let permissions = PermissionSet::of_scopes(&row.scopes).intersection(ceiling);
        Principal::new((row.tenant_id, &row.tier), actor, permissions, row.is_suspended)
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
    let row = sqlx::query!(
        r#"select u.role, t.tier, t.suspended_at is not null as "is_suspended!"
           from sessions s join users u on u.tenant_id = s.tenant_id and u.id = s.user_id
           join tenants t on t.id = s.tenant_id
           where s.tenant_id = $1 and s.id = $2 and s.user_id = $3 and s.ended_at is null and s.expires_at > now()
             and u.state = 'active'"#,
        token.tenant.as_uuid(),
        token.session,
        user
    )
    .fetch_optional(db.pool())
    .await?;
    let actor = Actor::User { id: user, session: token.session };
    let tenant = *token.tenant.as_uuid();
    Ok(row.map(|row| Principal::new((tenant, &row.tier), actor, permissions_of(Some(&row.role)), row.is_suspended)))
}

async fn of_client(db: &SystemDb, token: &AccessToken, client: Uuid) -> Result<Option<Principal>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select c.scopes, c.created_by, t.tier, u.role as "role?", u.state as "state?",
                  t.suspended_at is not null as "is_suspended!"
           from sessions s join api_clients c on c.tenant_id = s.tenant_id and c.id = s.client_id
           join tenants t on t.id = s.tenant_id
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
    let actor = Actor::ApiClient { id: client, session: token.session, creator: row.created_by };
    Ok(ceiling.map(|ceiling| {
        let permissions = PermissionSet::of_scopes(&row.scopes).intersection(ceiling);
        Principal::new((*token.tenant.as_uuid(), &row.tier), actor, permissions, row.is_suspended)
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

/// Accounts of one address that are considered at sign-in, oldest first.
const MAX_CANDIDATES: i64 = 8;

/// The active users with this address, in the company with this slug or, without a slug, in any.
pub async fn sign_in_candidates(
    db: &SystemDb,
    company: Option<&str>,
    email_key: &str,
) -> Result<Vec<SignInCandidate>, sqlx::Error> {
    let rows = sqlx::query!(
        "select u.tenant_id, u.id from users u join tenants t on t.id = u.tenant_id
         where u.email_key = $1 and u.state = 'active' and ($2::text is null or t.slug = $2) order by u.id limit $3",
        email_key,
        company,
        MAX_CANDIDATES
    )
    .fetch_all(db.pool())
    .await?;
    let candidate = |tenant, user| SignInCandidate { tenant: TenantId::new(tenant), user };
    Ok(rows.into_iter().map(|row| candidate(row.tenant_id, row.id)).collect())
}

/// The user whose password a person with this address asks to reset: the only one that
/// [`sign_in_candidates`] finds or, in the named company, one whose address is not confirmed yet.
/// Strangers can register companies with any address, so those count only where they are named.
pub async fn reset_candidate(
    db: &SystemDb,
    company: Option<&str>,
    email_key: &str,
) -> Result<Option<SignInCandidate>, sqlx::Error> {
    let Some(slug) = company else {
        let candidates = sign_in_candidates(db, None, email_key).await?;
        let [only] = candidates.as_slice() else { return Ok(None) };
        return Ok(Some(*only));
    };
    let row = sqlx::query!(
        "select u.tenant_id, u.id from users u join tenants t on t.id = u.tenant_id
         where u.email_key = $1 and u.state in ('active', 'unverified') and t.slug = $2",
        email_key,
        slug
    )
    .fetch_optional(db.pool())
    .await?;
    Ok(row.map(|row| SignInCandidate { tenant: TenantId::new(row.tenant_id), user: row.id }))
}

/// How many accounts with this address, in all companies, got a mail within a day that nobody has
/// followed.
pub async fn unanswered_mails(db: &SystemDb, email_key: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from users
           where email_key = $1 and state in ('invited', 'unverified') and account_mail_at > now() - interval '1 day'"#,
        email_key
    )
    .fetch_one(db.pool())
    .await
}

/// A role of a later release grants nothing to this one.
fn permissions_of(role: Option<&str>) -> PermissionSet {
    role.and_then(Role::parse).map(Role::permissions).unwrap_or_default()
}
