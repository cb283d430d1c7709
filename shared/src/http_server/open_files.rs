//! Lifts the number of files this process may open to what the system permits.
//!
//! Invariant: it never lowers the limit and never fails the start. The usual soft limit of 1,024 is for programs that
//! call `select`; a server would run into it long before [`super::ServerLimits::max_connections`].

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = &error as &dyn std::error::Error, "the limit of open files stays as it is");
    }
}
