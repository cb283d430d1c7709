//! The permission that a handler requires, as a type in its arguments.

use std::{marker::PhantomData, sync::Arc};

use axum::extract::{FromRef, FromRequestParts};
use http::{HeaderMap, request::Parts};
use shared::{authz::Permission, store::credentials::VerifiedKey, tenancy::TenantId};

use crate::{
    in_flight::RequestAccount,
    problem::{Problem, ProblemCode},
    state::AppState,
};

const HEADER: &str = "x-api-key";

/// A permission as a type.
pub trait Grant: Send + Sync + 'static {
    /// The permission.
    const PERMISSION: Permission;
}

macro_rules! grants {
    ($($name:ident),* $(,)?) => {$(
        #[doc = concat!("[`Permission::", stringify!($name), "`] as a type.")]
        pub struct $name;

        impl Grant for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    )*};
}

grants!(JobsRead, JobsCreate, JobsControl, CampaignsRead, CampaignsWrite, CampaignsSend, WebhooksRead, WebhooksWrite);

/// Proof that the request's credential has a permission, with the tenant of the credential.
pub struct Permit<G> {
    key: Arc<VerifiedKey>,
    grant: PhantomData<G>,
}

impl<G> Permit<G> {
    /// The tenant of the credential.
    pub fn tenant(&self) -> TenantId {
        self.key.tenant
    }

    /// Whether the credential has a permission.
    pub fn allows(&self, permission: Permission) -> bool {
        self.key.scopes.iter().any(|scope| Permission::parse(scope) == Some(permission))
    }

    /// Whether the credential also has the permission `H`.
    pub fn has<H: Grant>(&self) -> bool {
        self.allows(H::PERMISSION)
    }
}

/// A credential that may control a job may also see it.
impl From<Permit<JobsControl>> for Permit<JobsRead> {
    fn from(permit: Permit<JobsControl>) -> Self {
        Self { key: permit.key, grant: PhantomData }
    }
}

impl<G: Grant, S: Send + Sync> FromRequestParts<S> for Permit<G>
where
    AppState: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if !parts.headers.contains_key(HEADER) {
            return Err(unauthenticated("send an API key in X-API-Key"));
        }
        let presented = presented_key(&parts.headers).ok_or_else(|| unauthenticated("X-API-Key is not an API key"))?;
        let state = AppState::from_ref(state);
        let key = state.keys.check(presented).await?;
        let key = key.ok_or_else(|| unauthenticated("the API key is unknown, revoked or expired"))?;
        tracing::Span::current().record("tenant", tracing::field::display(key.tenant));
        if let Some(account) = parts.extensions.get::<RequestAccount>() {
            account.open(&state.in_flight, key.tenant)?;
        }
        let permit = Self { key, grant: PhantomData };
        if !permit.has::<G>() {
            let detail = format!("the API key lacks the scope {}", G::PERMISSION);
            return Err(Problem::new(ProblemCode::Forbidden).detail(detail));
        }
        state.without_query.get().map_or(Ok(()), |operations| operations.check(parts))?;
        Ok(permit)
    }
}

/// The API key as the client sent it, for work that outlives the request and must check the key
/// again.
pub fn presented_key(headers: &HeaderMap) -> Option<&str> {
    headers.get(HEADER)?.to_str().ok()
}

fn unauthenticated(detail: &'static str) -> Problem {
    Problem::new(ProblemCode::Unauthenticated).detail(detail)
}
