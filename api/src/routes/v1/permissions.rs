//! `/api/v1/permissions/me` and `/api/v1/roles`: what the credential may do, and what roles hold.

use serde::Serialize;
use shared::authz::Role;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::ActorView;
use crate::{
    auth::{Authenticated, Permit, RolesRead},
    extract::Json,
};

/// What a credential may do.
#[derive(Serialize, ToSchema)]
pub struct OwnPermissions {
    /// Who acts with the credential.
    actor: ActorView,
    /// The company that the credential works for.
    company_id: Uuid,
    /// What it may do now, as `resource:action`.
    #[schema(example = json!(["jobs:read", "jobs:create"]))]
    permissions: Vec<&'static str>,
}

/// A role.
#[derive(Serialize, ToSchema)]
pub struct RoleView {
    /// The name of the role.
    name: &'static str,
    /// What users with the role may do.
    permissions: Vec<&'static str>,
}

/// The roles of a company.
#[derive(Serialize, ToSchema)]
pub struct Roles {
    items: Vec<RoleView>,
}

/// Shows what the credential may do.
#[utoipa::path(get, path = "/api/v1/permissions/me", operation_id = "get_own_permissions", tag = "permissions",
    responses((status = 200, body = OwnPermissions, description = "The permissions of the credential")))]
pub async fn mine(permit: Permit<Authenticated>) -> Json<OwnPermissions> {
    Json(OwnPermissions {
        actor: permit.actor().into(),
        company_id: *permit.tenant().as_uuid(),
        permissions: permit.permissions().names().collect(),
    })
}

/// Lists the roles that users of the company can have.
#[utoipa::path(get, path = "/api/v1/roles", operation_id = "list_roles", tag = "permissions",
    responses((status = 200, body = Roles, description = "The roles, with their permissions")))]
pub async fn roles(_permit: Permit<RolesRead>) -> Json<Roles> {
    let of_companies = Role::all().filter(|role| *role != Role::SuperAdmin);
    let view = |role: Role| RoleView { name: role.as_str(), permissions: role.permissions().names().collect() };
    Json(Roles { items: of_companies.map(view).collect() })
}
