//! Jobs of another release: of a kind that this process does not know, or with args of a newer
//! version.
//!
//! Invariant: such a job only returns to the index. The ledger is not written, no attempt is used
//! up, and no failure is recorded. The job becomes due again after a pause, so a fleet without a
//! worker that knows its kind does not fetch it in a tight loop.

use std::time::Duration;

use jobs::{kind::Kind, registry::Registry};
use shared::{clock::Clock, queue::Lease};

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long requeuing a job occupies its slot, charged like a run. This limits a large backlog of
/// unknown kinds to a few hundred fetches per second and to its tenant's share. Without the charge,
/// such jobs would be fetched in a tight loop, and always first.
pub const REQUEUE_TIME: Duration = Duration::from_millis(20);

/// Resolves the kind of a job, or returns the reason why this process cannot run it.
pub fn resolve<'a>(registry: &'a Registry, lease: &Lease) -> Result<&'a Kind, &'static str> {
    let kind = registry.get(&lease.kind).ok_or("unknown_kind")?;
    if lease.args_version > kind.args_version { Err("newer_args") } else { Ok(kind) }
}

/// The lease to release, with a later `run_at`.
pub fn requeued(lease: &Lease, clock: &Clock) -> Lease {
    let now = clock.now();
    let waited = now.signed_duration_since(lease.run_at).to_std().unwrap_or_default();
    Lease { run_at: now + pause(waited), ..lease.clone() }
}

/// The longer the job has waited in vain, the longer the pause.
fn pause(waited: Duration) -> Duration {
    (waited / 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_up_to_its_limit() {
        let mut waited = Duration::ZERO;
        let mut rounds = 0;
        while waited < Duration::from_mins(1) {
            let next = pause(waited);
            assert!((SHORTEST_PAUSE..=LONGEST_PAUSE).contains(&next) && next >= pause(waited / 2));
            waited += next;
            rounds += 1;
        }
        assert!(rounds < 25, "{rounds} fetches in the first minute");
    }
}
