//! Which jobs a credential may cancel and retry.
//!
//! Invariant: `jobs:control` is enough for the tenant's own jobs. A job that Rota made for something else (the sending of a
//! campaign, a message of a webhook endpoint) is controlled with the permission for that thing too, so that nobody stops a
//! campaign who may not stop campaigns. Which permission that is, the kind says: [`jobs::job::Job::CONTROL`].

use jobs::registry::{Kind, Registry};
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

/// Refuses if the job is of a kind that the credential may not control. A credential with all permissions pays nothing.
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

/// Refuses if jobs of this kind are not the credential's to control.
pub(super) fn require_kind(registry: &Registry, permit: &Permit<JobsControl>, kind: &str) -> Result<(), Problem> {
    match registry.get(kind).and_then(|kind| lacking(kind, permit)) {
        None => Ok(()),
        Some(permission) => Err(Problem::new(ProblemCode::Forbidden)
            .detail(format!(
                "jobs of the kind {kind} belong to something else: the API key lacks the scope {permission}"
            ))
            .member("scope", permission.as_str())),
    }
}

fn lacking(kind: &Kind, permit: &Permit<JobsControl>) -> Option<Permission> {
    kind.control.filter(|permission| !permit.allows(*permission))
}
