//! Raises the process's limit of open files to the maximum that the system permits.
//!
//! Invariant: the limit is never lowered, and a failure never prevents the start. The usual soft
//! limit of 1,024 exists for programs that use `select`; a server would reach it long before
//! [`super::ServerLimits::max_connections`].

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are not client sockets: connections to PostgreSQL and Redis, listeners, logs, and new
/// clients while an idle connection is evicted.
const RESERVED: usize = 80;

/// Returns the number of files that may be open; `None` if unlimited.
pub(super) fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot raise the limit of open files");
            limit.current
        }
    }
}

/// The number of connections, up to `wanted`, that leaves enough files for everything else.
pub(super) fn connections_within(files: Option<u64>, wanted: usize) -> usize {
    let Some(files) = files.and_then(|files| usize::try_from(files).ok()) else { return wanted };
    // With very few files, at least a quarter is for clients.
    let most = files.saturating_sub(RESERVED).max(files / 4).max(1);
    if most < wanted {
        tracing::info!(files, connections = most, "the limit of open files reduces the maximum number of connections");
    }
    wanted.min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_limit_reserves_file_descriptors() {
        assert_eq!(connections_within(None, 10_000), 10_000);
        assert_eq!(connections_within(Some(20_000), 10_000), 10_000);
        assert_eq!(connections_within(Some(10_080), 10_000), 10_000);
        assert_eq!(connections_within(Some(10_079), 10_000), 9_999);
        assert_eq!(connections_within(Some(128), 10_000), 48);
        assert_eq!(connections_within(Some(64), 10_000), 16);
    }
}
