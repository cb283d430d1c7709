//! Disables memory dumps: a core dump would hold database passwords, keys and tenants' data.
//!
//! Invariant: unless an operator sets `ROTA_CORE_DUMPS=1` to analyse a crash, a crash leaves no
//! core file, and other processes of the same user can neither attach to the process nor read its
//! memory.

use crate::config::Env;

const PERMITTED: &str = "ROTA_CORE_DUMPS";

/// Disables core dumps. `main` calls this first. If the system refuses, the process continues.
pub fn forbid_unless_permitted(env: &Env) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if env.get(PERMITTED) == Some("1") {
        return;
    }
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}
