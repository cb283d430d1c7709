//! Ends of runs without a worker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::value::RawValue;
use shared::queue::{
    Lease, LeaseToken, Priority, Shard,
    complete::{Finish, Outcome},
};
use tests::system::TestSystem;
use uuid::Uuid;

use super::{LEASE, queue};

/// The end of the run of a lease.
pub fn finish(lease: &Lease, outcome: Outcome) -> Finish {
    let ran = Duration::from_millis(1);
    Finish { lease: Arc::new(lease.clone()), outcome: Some(outcome), ran, follow_up_flags: lease.follow_up_flags }
}

/// The end of a run that no fetch has leased: the ledger does not see the difference.
pub fn unleased_finish(system: &TestSystem, id: Uuid, attempt: i32, follow_up_flags: i16, outcome: Outcome) -> Finish {
    let lease = Lease {
        id,
        tenant: shared::tenancy::TenantId::new(Uuid::nil()),
        shard: Shard::whole(queue()),
        kind: "noop".to_owned(),
        args: RawValue::from_string("{}".to_owned()).expect("an object"),
        attempt,
        failures: 0,
        crashes: 0,
        max_attempts: 25,
        priority: Priority::DEFAULT,
        batch_id: None,
        run_at: system.clock.now(),
        follow_up_flags,
        args_version: 1,
        token: LeaseToken::random(),
        sure_until: Instant::now() + LEASE,
        lasts: LEASE,
    };
    finish(&lease, outcome)
}
