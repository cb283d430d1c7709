//! The permission that a handler requires, as a type in its arguments.

use std::{marker::PhantomData, sync::Arc};

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use shared::{
    authz::{Permission, PermissionSet},
    rate_limit::Subject,
    store::credentials::{Actor, Principal},
    tenancy::TenantId,
};
use uuid::Uuid;

use super::{Presented, presented::Malformed};
use crate::{
    in_flight::RequestAccount,
    problem::{Problem, ProblemCode},
    rate_limit::RequestRate,
    state::AppState,
};

/// A permission as a type.
pub trait Grant: Send + Sync + 'static {
    /// The permission; `None` if any valid credential will do.
    const PERMISSION: Option<Permission>;
}

/// Any valid credential.
pub struct Authenticated;

impl Grant for Authenticated {
    const PERMISSION: Option<Permission> = None;
}

macro_rules! grants {
    ($($name:ident),* $(,)?) => {$(
        #[doc = concat!("[`Permission::", stringify!($name), "`] as a type.")]
        pub struct $name;

        impl Grant for $name {
            const PERMISSION: Option<Permission> = Some(Permission::$name);
        }
    )*};
}

grants!(
    JobsRead,
    JobsCreate,
    JobsControl,
    CampaignsRead,
    CampaignsWrite,
    CampaignsSend,
    CompaniesRead,
    CompaniesWrite,
    QuotasRead,
    WebhooksRead,
    WebhooksWrite,
    UsersRead,
    UsersWrite,
    RolesRead,
    ApiKeysRead,
    ApiKeysCreate,
    ApiKeysRevoke,
    ApiClientsRead,
    ApiClientsCreate,
    ApiClientsRevoke,
);

/// Proof that the request's credential has a permission, with the principal of the credential.
pub struct Permit<G> {
    principal: Arc<Principal>,
    grant: PhantomData<G>,
}

impl<G> Permit<G> {
    /// The tenant of the credential.
    pub fn tenant(&self) -> TenantId {
        self.principal.tenant
    }

    /// Who acts.
    pub fn actor(&self) -> Actor {
        self.principal.actor
    }

    /// What the principal may do.
    pub fn permissions(&self) -> PermissionSet {
        self.principal.permissions
    }

    /// The user and the session; an error for a program, which has neither.
    pub fn user(&self) -> Result<(Uuid, Uuid), Problem> {
        match self.principal.actor {
            Actor::User { id, session } => Ok((id, session)),
            Actor::ApiKey { .. } | Actor::ApiClient { .. } => {
                Err(Problem::new(ProblemCode::Forbidden).detail("this is for signed-in users only"))
            }
        }
    }

    /// Whether the credential has a permission.
    pub fn allows(&self, permission: Permission) -> bool {
        self.principal.permissions.contains(permission)
    }
}

/// A credential that may control a job may also see it.
impl From<Permit<JobsControl>> for Permit<JobsRead> {
    fn from(permit: Permit<JobsControl>) -> Self {
        Self { principal: permit.principal, grant: PhantomData }
    }
}

impl<G: Grant, S: Send + Sync> FromRequestParts<S> for Permit<G>
where
    AppState: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let presented = Presented::of(&parts.headers).map_err(|Malformed(detail)| unauthenticated(detail))?;
        let state = AppState::from_ref(state);
        let principal = match G::PERMISSION {
            Some(needed) if needed.gives_access() => state.authenticator.check_now(&presented).await?,
            _ => state.authenticator.check(&presented).await?,
        };
        let principal = principal.ok_or_else(|| unauthenticated(presented.refusal()))?;
        tracing::Span::current().record("tenant", tracing::field::display(principal.tenant));
        let Principal { tenant, tier, actor, .. } = *principal;
        RequestRate::charge(&state, parts, || Subject::credential(tenant, tier, actor.id())).await?;
        if let Some(account) = parts.extensions.get::<RequestAccount>() {
            account.open(&state.in_flight, principal.tenant)?;
        }
        if principal.is_suspended {
            return Err(ProblemCode::CompanySuspended.into());
        }
        if let Some(needed) = G::PERMISSION.filter(|needed| !principal.permissions.contains(*needed)) {
            let whose = match principal.actor {
                Actor::ApiKey { .. } => "the API key lacks the scope",
                Actor::ApiClient { .. } => "the API client lacks the scope",
                Actor::User { .. } => "the user lacks the permission",
            };
            return Err(Problem::new(ProblemCode::Forbidden).detail(format!("{whose} {needed}")));
        }
        state.without_query.get().map_or(Ok(()), |operations| operations.check(parts))?;
        Ok(Self { principal, grant: PhantomData })
    }
}

/// The credential itself, for work that outlives the request.
impl<S: Send + Sync> FromRequestParts<S> for Presented {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::of(&parts.headers).map_err(|Malformed(detail)| unauthenticated(detail))
    }
}

fn unauthenticated(detail: &'static str) -> Problem {
    Problem::new(ProblemCode::Unauthenticated).detail(detail)
}
