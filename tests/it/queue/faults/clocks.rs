//! Clock jumps of a worker and of a scheduler. Redis's clock decides about leases, PostgreSQL's
//! about due times, so a process's own clock can never cost a job.

use std::{net::UdpSocket, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::json;
use shared::{
    clock::ManualClock,
    queue::{enqueue::Producer, ledger::request::EnqueueRequest},
};
use tests::{process::ProcessSpec, system::TestSystem};

use crate::queue::support::{
    Ledger, PATIENCE, build_index, indexed, leased, queue, reaches, scheduler_spec, skipped, worker_spec,
};

const LEASE: Duration = Duration::from_secs(2);
const JUMP: &str = "+2h";
const HOUR_NS: i64 = 3_600_000_000_000;
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// Makes the process read its date through the library, which reads its offset from `file`.
/// Durations remain true.
fn with_own_clock(spec: ProcessSpec, library: &str, file: &Path) -> ProcessSpec {
    spec.env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", file)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_costs_no_job() -> Result<()> {
    let Some(library) = LIBRARIES.into_iter().find(|path| Path::new(path).exists()) else {
        skipped("libfaketime is not installed (bin/setup installs it where apt is there)");
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let clock = directory.path().join("clock");
    std::fs::write(&clock, "+0")?;
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let _scheduler = with_own_clock(scheduler_spec(&system)?, library, &clock).start()?;
    let _worker = with_own_clock(worker_spec(&system, 4, LEASE)?, library, &clock).start()?;
    indexed(&system, 0).await;
    let long = json!({ "ms": 4 * LEASE.as_millis() });
    let ids = system.enqueue((0..3).map(|_| system.job(tenant, "sleep", &long)).collect()).await?;
    for id in &ids {
        leased(&system, *id).await;
    }
    std::fs::write(&clock, JUMP)?;
    for id in &ids {
        reaches(&system, tenant, *id, "completed").await;
        let row = Ledger::open(&system).await?.row(*id).await?;
        assert_eq!(row.attempt, 1);
        assert_eq!(row.crashes, 0, "no worker was taken for dead");
    }
    // A retry delayed by the worker with the wrong clock is still due at the right time.
    let again = system.enqueue(vec![system.job(tenant, "fail", &json!({ "times": 1 }))]).await?[0];
    reaches(&system, tenant, again, "completed").await;
    assert!(
        seen_by_a_run(&system, tenant).await? > system.clock.now_ms() * 1_000_000 + HOUR_NS,
        "the clock did not jump"
    );
    Ok(())
}

/// "At once" is measured by the clock of Redis, which dispatches the jobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_whose_clock_is_ahead_delays_nothing() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    build_index(&system).await;
    let ahead = ManualClock::new(system.clock.now() + chrono::TimeDelta::seconds(30));
    let producer = Producer::start(&system.system, system.index.clone(), ahead.clock());
    let jobs = vec![system.job(tenant, "noop", &json!({}))];
    producer.enqueue(EnqueueRequest { jobs, idempotency: None }).await?;
    indexed(&system, 1).await;
    assert_eq!(system.index.status(&queue()).await?.due, 0);
    Ok(())
}

/// The date seen by a run, in Unix nanoseconds.
async fn seen_by_a_run(system: &TestSystem, tenant: shared::tenancy::TenantId) -> Result<i64> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let stamp = json!({ "stamp": { "port": socket.local_addr()?.port(), "token": 1 } });
    system.enqueue(vec![system.job(tenant, "noop", &stamp)]).await?;
    let mut buffer = [0; 128];
    let length = tokio::task::block_in_place(|| socket.recv(&mut buffer))?;
    let stamp = std::str::from_utf8(&buffer[..length])?;
    stamp.rsplit(' ').next().and_then(|at_ns| at_ns.parse().ok()).context("a stamp ends with its time")
}
