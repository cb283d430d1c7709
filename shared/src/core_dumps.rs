//! No memory image of a process with secrets: a core dump would hold database passwords, keys and tenants' data.
//!
//! Invariant: unless an operator permits it (`ROTA_CORE_DUMPS=1`, to look into a crash), a crash leaves no core file, and other
//! processes of the same user can neither attach nor read the memory.

use crate::config::Env;

const PERMITTED: &str = "ROTA_CORE_DUMPS";

/// Forbids core dumps; the first thing that `main` does. Where the system does not let it, the process goes on.
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
