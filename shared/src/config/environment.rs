//! The environment that the process runs in, and what is permitted only outside production.
//!
//! Invariant: production is never inferred; settings that are refused there (test-only kinds here,
//! default keys and passwords in the other sections) prevent the start instead of being disabled
//! silently.

use super::reader::{Reader, Variable};
use crate::faults::FaultPlan;

const ENVIRONMENT: Variable = Variable::new("ENVIRONMENT", "development, test or production");
const FAULT: Variable = Variable::new("ROTA_FAULT", "POINT:NTH:STRIKE, not set in production");
const CORE_DUMPS: Variable = Variable::new("ROTA_CORE_DUMPS", "0 or 1");
const TEST_KINDS: Variable = Variable::new("ROTA_TEST_KINDS", "0, 1 or many, and 0 in production");

/// Where the process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::EnumString, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum Environment {
    /// A developer's machine: default keys are accepted, mails are written to a folder.
    #[default]
    Development,
    /// Automated tests; equivalent to development.
    Test,
    /// Real tenants: no default secrets, no test-only kinds.
    Production,
}

impl Environment {
    /// Whether default secrets and test-only kinds are refused.
    pub fn is_production(self) -> bool {
        self == Self::Production
    }
}

/// Which test-only kinds exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestKinds {
    /// None of them.
    None,
    /// One of each: `noop`, `sleep`, `panic`, ….
    One,
    /// The same, plus `sleep` under a thousand names in ten queues, to simulate a large
    /// installation.
    Many,
}

/// The environment section.
#[derive(Clone, Copy, Debug)]
pub struct EnvironmentConfig {
    /// `ENVIRONMENT`; default `development`.
    pub environment: Environment,
    /// Whether `ENVIRONMENT` is not set, which is logged as a warning: an installation for real
    /// tenants must set it.
    pub assumed: bool,
    /// `ROTA_TEST_KINDS`, 0, 1 or many; default 0.
    pub test_kinds: TestKinds,
    /// `ROTA_FAULT`, `POINT:NTH:STRIKE`; default none. A fault planned by a test, see
    /// [`crate::faults`].
    pub fault: Option<FaultPlan>,
}

impl EnvironmentConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let given: Option<Environment> = reader.optional(ENVIRONMENT, |text| text.parse().ok());
        let environment = given.unwrap_or_default();
        let test_kinds = reader.or(TEST_KINDS, TestKinds::None, |text| match text {
            "0" => Some(TestKinds::None),
            "1" => Some(TestKinds::One),
            "many" => Some(TestKinds::Many),
            _ => None,
        });
        if test_kinds != TestKinds::None && environment.is_production() {
            reader.report(TEST_KINDS, "test-only kinds are refused in production");
        }
        // [`crate::core_dumps`] evaluates this before the configuration is read; here an invalid
        // value is reported.
        let _: Option<()> = reader.optional(CORE_DUMPS, |text| matches!(text, "0" | "1").then_some(()));
        let fault = reader.optional(FAULT, |text| text.parse().ok());
        if fault.is_some() && environment.is_production() {
            reader.report(FAULT, "planned faults are refused in production");
        }
        Self { environment, assumed: given.is_none(), test_kinds, fault }
    }

    /// Logs a warning if `ENVIRONMENT` is not set. Call this once logging is initialised.
    pub fn warn_if_assumed(&self) {
        if self.assumed {
            tracing::warn!(
                "ENVIRONMENT is not set: running as development, which accepts built-in secrets; set ENVIRONMENT=production to serve real tenants"
            );
        }
    }
}
