//! What a principal may do: [`Permission`]s, the predefined [`Role`]s that hold them, and sets of
//! them.
//!
//! Invariant: permissions only allow, nothing denies; a text that names no permission or role
//! grants nothing. `role.rs` is the table of roles and permissions.

mod permission;
mod permission_set;
mod role;

pub use permission::Permission;
pub use permission_set::PermissionSet;
pub use role::Role;
