//! Which jobs a credential may cancel and retry.
//!
//! Invariant: `jobs:control` suffices for jobs that the tenant submitted. A job that Rota created
//! for another resource (the sending of a campaign, a message to a webhook endpoint) also requires
//! the permission for that resource: a credential that may not stop a campaign cannot cancel its
//! jobs. The kind declares this permission: [`jobs::job::Job::CONTROL`].

use jobs::{kind::Kind, registry::Registry};
use shared::{authz::Permission, db::TenantTx, queue::control};
use uuid::Uuid;

use crate::{
    auth::{JobsControl, Permit},
    problem::{Problem, ProblemCode},
};

/// The kinds whose jobs the credential may not control.
pub(super) fn closed_kinds(registry: &Registry, permit: &Permit<JobsControl>) -> Vec<String> {
    registry.iter().filter(|kind| lacking(kind, permit).is_some()).map(|kind| kind.name.to_owned()).collect()
}

/// Rejects a job whose kind the credential may not control. A credential with all permissions costs
/// no query.
pub(super) async fn require(
    registry: &Registry,
    permit: &Permit<JobsControl>,
    transaction: &mut TenantTx,
    job: Uuid,
) -> Result<(), Problem> {
    if closed_kinds(registry, permit).is_empty() {
        return Ok(());
    }
    match control::kind_of(transaction, job).await? {
        Some(kind) => require_kind(registry, permit, &kind),
        None => Err(ProblemCode::NotFound.into()),
    }
}

/// Rejects a kind whose jobs the credential may not control.
pub(super) fn require_kind(registry: &Registry, permit: &Permit<JobsControl>, kind: &str) -> Result<(), Problem> {
    match registry.get(kind).and_then(|kind| lacking(kind, permit)) {
        None => Ok(()),
        Some(permission) => Err(Problem::new(ProblemCode::Forbidden)
            .detail(format!(
                "controlling jobs of the kind {kind} also requires the scope {permission}, which the API key lacks"
            ))
            .member("scope", permission.as_str())),
    }
}

fn lacking(kind: &Kind, permit: &Permit<JobsControl>) -> Option<Permission> {
    kind.control.filter(|permission| !permit.allows(*permission))
}
