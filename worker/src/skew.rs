//! Jobs of another release: a kind that this process does not know, or args of a newer form.
//!
//! Invariant: such a job goes back to the index alone. The ledger is not written, no attempt is used up, nothing failed; and it
//! comes back after a pause, so that a fleet without a worker that knows it does not go round and round.

use std::time::Duration;

use jobs::registry::{Kind, Registry};
use shared::{clock::Clock, queue::consumer::Lease};

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long putting a job off keeps its slot, which is charged like a run. So a large backlog that nobody knows comes to some hundred
/// looks a second and takes no more than its tenant's share, instead of going round as fast as it can, always first.
pub const TAKES: Duration = Duration::from_millis(20);

/// The kind of a job that this process can run; otherwise why it cannot.
pub fn judge<'a>(registry: &'a Registry, lease: &Lease) -> Result<&'a Kind, &'static str> {
    let kind = registry.get(&lease.kind).ok_or("unknown_kind")?;
    if lease.args_version > kind.args_version { Err("newer_args") } else { Ok(kind) }
}

/// The lease as it is handed back: to be fetched after a pause.
pub fn put_off(lease: &Lease, clock: &Clock) -> Lease {
    let now = clock.now();
    let waited = now.signed_duration_since(lease.run_at).to_std().unwrap_or_default();
    Lease { run_at: now + pause(waited), ..lease.clone() }
}

/// The longer it has waited in vain, the less it matters to look again soon.
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
        assert!(rounds < 25, "{rounds} looks in the first minute");
    }
}
