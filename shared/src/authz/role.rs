//! The predefined roles, and the one table of who holds which permission.
//!
//! Invariant: a permission without a line in [`holders`] does not compile. `docs/PERMISSIONS.md` is
//! the table as a page, and a test compares the two.

use std::str::FromStr;

use super::{Permission, PermissionSet};

/// A predefined role. Names are stored with users, so they are never changed.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Operates the installation; holds every permission.
    SuperAdmin,
    /// Administers a company: everything within it.
    Admin,
    /// Runs the company's daily work and its people.
    Manager,
    /// Reads everything and exports what regulators ask for.
    ComplianceOfficer,
    /// Reads everything, the audit trail included.
    Auditor,
    /// Reads the company's work.
    Viewer,
    /// Does the company's work.
    User,
}

impl Role {
    /// All roles, in descending order of what they hold.
    pub fn all() -> impl Iterator<Item = Self> {
        <Self as strum::IntoEnumIterator>::iter()
    }

    /// The name of the role.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The role with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::from_str(name).ok()
    }

    /// The permissions that the role holds.
    pub fn permissions(self) -> PermissionSet {
        Permission::all().filter(|permission| self.holds(*permission)).collect()
    }

    fn holds(self, permission: Permission) -> bool {
        self == Self::SuperAdmin || holders(permission).contains(&self)
    }
}

/// The roles that hold a permission, besides [`Role::SuperAdmin`], which holds all.
#[expect(clippy::match_same_arms, reason = "a line for each area of the product")]
fn holders(permission: Permission) -> &'static [Role] {
    use Permission as P;
    use Role::{Admin, Auditor, ComplianceOfficer, Manager, User, Viewer};
    const ALL: &[Role] = &[Admin, Manager, ComplianceOfficer, Auditor, Viewer, User];
    /// Those who see the company's business, but do not take part in it.
    const READERS: &[Role] = &[Admin, Manager, ComplianceOfficer, Auditor, Viewer];
    const SUPERVISORS: &[Role] = &[Admin, Manager, ComplianceOfficer, Auditor];
    const COMPLIANCE: &[Role] = &[Admin, ComplianceOfficer, Auditor];
    const EXPORTERS: &[Role] = &[Admin, Manager, ComplianceOfficer];
    const STAFF: &[Role] = &[Admin, Manager, User];
    const MANAGERS: &[Role] = &[Admin, Manager];
    const ADMIN: &[Role] = &[Admin];
    match permission {
        P::CompaniesRead | P::JobsRead | P::CampaignsRead | P::LeadsRead | P::SchedulesRead => ALL,
        P::ProjectsRead | P::TasksRead | P::DocumentsRead => ALL,
        P::EstatesRead | P::PropertiesRead | P::AllocationsRead => ALL,
        P::AnalyticsRead | P::ReportsRead | P::QuotasRead | P::TeamsRead | P::UsersRead => ALL,
        P::PaymentsRead | P::SubscriptionsRead | P::TransactionsRead => READERS,
        P::WebhooksRead | P::SettingsRead | P::RolesRead | P::ExportsRead => READERS,
        P::ApiKeysRead | P::ApiClientsRead => SUPERVISORS,
        P::AuditRead => COMPLIANCE,
        P::AuditExport => &[Admin, ComplianceOfficer],
        P::LeadsExport | P::TransactionsExport | P::ExportsCreate | P::ReportsCreate => EXPORTERS,
        P::JobsCreate | P::CampaignsWrite | P::LeadsWrite => STAFF,
        P::ProjectsWrite | P::TasksWrite | P::DocumentsWrite => STAFF,
        P::JobsControl | P::SchedulesWrite | P::CampaignsSend | P::WebhooksWrite => MANAGERS,
        P::EstatesWrite | P::PropertiesWrite | P::AllocationsWrite => MANAGERS,
        P::PaymentsCreate | P::PaymentsRecord => MANAGERS,
        P::UsersWrite | P::TeamsWrite | P::ApiKeysCreate | P::ApiKeysRevoke => MANAGERS,
        P::CompaniesWrite | P::UsersDelete | P::RolesWrite | P::SettingsWrite | P::QuotasWrite => ADMIN,
        P::ApiClientsCreate | P::ApiClientsRevoke | P::PaymentsRefund | P::SubscriptionsWrite => ADMIN,
        P::SystemHealth | P::SystemJobs | P::SystemQueues => &[],
        P::SystemWorkers | P::SystemTenants | P::SystemSettings => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The table of the page, from the code.
    fn table() -> String {
        let mut text = String::from("| permission |");
        let names: Vec<&str> = Role::all().map(Role::as_str).collect();
        writeln!(text, " {} |\n|---|{}", names.join(" | "), ":-:|".repeat(names.len())).unwrap();
        for permission in Permission::all() {
            write!(text, "| `{permission}` |").unwrap();
            for role in Role::all() {
                text.push_str(if role.holds(permission) { " x |" } else { " |" });
            }
            text.push('\n');
        }
        text
    }

    /// A change of the table is a change of what users may do, so the page has to be changed too.
    #[test]
    fn the_page_shows_the_table() {
        let page = include_str!("../../../docs/PERMISSIONS.md");
        assert!(page.contains(&table()), "docs/PERMISSIONS.md should contain:\n{}", table());
    }

    #[test]
    fn no_role_of_a_company_holds_an_operators_permission() {
        for role in Role::all().filter(|role| *role != Role::SuperAdmin) {
            assert!(role.permissions().iter().all(|permission| !permission.is_of_operators()), "{role}");
        }
        assert_eq!(Role::SuperAdmin.permissions(), Permission::all().collect());
        assert_eq!(Role::Admin.permissions(), Permission::of_tenants().collect());
    }

    #[test]
    fn readers_change_nothing() {
        for role in [Role::Auditor, Role::Viewer] {
            for permission in role.permissions().iter() {
                assert!(permission.as_str().ends_with(":read"), "{role} holds {permission}");
            }
        }
    }

    #[test]
    fn a_role_has_one_spelling() {
        assert_eq!(Role::parse("compliance_officer"), Some(Role::ComplianceOfficer));
        for name in ["Admin", "admin ", "super-admin", "", "root"] {
            assert_eq!(Role::parse(name), None, "{name}");
        }
    }
}
