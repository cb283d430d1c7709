//! Lifts the number of files this process may open to what the system permits.
//!
//! Invariant: it never lowers the limit and never fails the start. The usual soft limit of 1,024 is for programs that
//! call `select`; a server would run into it long before [`super::ServerLimits::max_connections`].

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are not clients' sockets: connections to PostgreSQL and Redis, listeners, logs, and new clients while an idle one makes room.
const RESERVED: usize = 80;

/// Returns how many files may be open; `None` for any number.
pub(super) fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the limit of open files stays as it is");
            limit.current
        }
    }
}

/// How many of the wanted connections leave enough files for everything else.
pub(super) fn connections_within(files: Option<u64>, wanted: usize) -> usize {
    let Some(files) = files.and_then(|files| usize::try_from(files).ok()) else { return wanted };
    // Of very few files at least a quarter is for clients.
    let most = files.saturating_sub(RESERVED).max(files / 4).max(1);
    if most < wanted {
        tracing::info!(files, connections = most, "the limit of open files bounds the number of connections");
    }
    wanted.min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        assert_eq!(connections_within(None, 10_000), 10_000);
        assert_eq!(connections_within(Some(20_000), 10_000), 10_000);
        assert_eq!(connections_within(Some(10_080), 10_000), 10_000);
        assert_eq!(connections_within(Some(10_079), 10_000), 9_999);
        assert_eq!(connections_within(Some(128), 10_000), 48);
        assert_eq!(connections_within(Some(64), 10_000), 16);
    }
}
