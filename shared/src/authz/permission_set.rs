//! A set of permissions as bits: a decision is one mask, without a look-up.

use super::Permission;

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PermissionSet(u128);

impl PermissionSet {
    /// Whether the set has a permission.
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & bit(permission) != 0
    }

    /// The permissions in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The permissions of this set that `other` does not have.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The permissions that the scopes name; other texts grant nothing.
    pub fn of_scopes<S: AsRef<str>>(scopes: impl IntoIterator<Item = S>) -> Self {
        scopes.into_iter().filter_map(|scope| Permission::parse(scope.as_ref())).collect()
    }

    /// The permissions, in the order of the list.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::all().filter(move |permission| self.contains(*permission))
    }

    /// The names of the permissions, in the same order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.iter().map(Permission::as_str)
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |bits, permission| bits | bit(permission)))
    }
}

/// The list has fewer than 128 permissions, which a test ensures.
fn bit(permission: Permission) -> u128 {
    1 << (permission as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_is_a_member_of_its_own() {
        assert!((45..128).contains(&Permission::all().count()));
        for permission in Permission::all() {
            let set: PermissionSet = [permission].into_iter().collect();
            assert_eq!(set.iter().collect::<Vec<_>>(), [permission]);
            assert_eq!(Permission::parse(permission.as_str()), Some(permission));
        }
    }

    #[test]
    fn sets_intersect_and_unknown_scopes_grant_nothing() {
        let set = PermissionSet::of_scopes(["jobs:read", "jobs:create", "jobs:everything", "*", ""]);
        let other = PermissionSet::of_scopes(["jobs:create", "leads:read"]);
        assert_eq!(set.iter().map(Permission::as_str).collect::<Vec<_>>(), ["jobs:read", "jobs:create"]);
        assert_eq!(set.intersection(other).iter().map(Permission::as_str).collect::<Vec<_>>(), ["jobs:create"]);
        assert_eq!(set.without(other).iter().map(Permission::as_str).collect::<Vec<_>>(), ["jobs:read"]);
        assert_eq!(PermissionSet::of_scopes(["JOBS:READ", "jobs:read "]), PermissionSet::default());
    }
}
