//! Every signal whose default action ends a process: some start a drain, the others are ignored and
//! logged.

use std::time::Duration;

use anyhow::Result;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    eventually::eventually,
    http_sink::{Behaviour, HttpSink},
    process::ProcessUnderTest,
    system::TestSystem,
};

use super::{PATIENCE, program, redis_url};
use crate::queue::support::{LEASE, callback, reaches, worker_process};

const DRAINING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
const IGNORED: [Signal; 7] = [
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
];

fn send(process: &ProcessUnderTest, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(process.id())?), signal)?)
}

/// Waits until the process has logged at least `times` lines with this text.
async fn logged(process: &ProcessUnderTest, text: &str, times: usize) {
    eventually(PATIENCE, text, async || {
        (process.output().ok()?.lines().filter(|line| line.contains(text)).count() >= times).then_some(())
    })
    .await;
}

async fn ignores_all(process: &mut ProcessUnderTest) -> Result<()> {
    for (at, signal) in IGNORED.into_iter().enumerate() {
        send(process, signal)?;
        logged(process, "ignoring a signal", at + 1).await;
        logged(process, signal.as_str(), 1).await;
    }
    assert_eq!(process.exit_status()?, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_finishes_its_job_whatever_signal_stops_it() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    for signal in DRAINING {
        let sink = HttpSink::start().await?;
        sink.set("running", Behaviour::Hang);
        let mut worker = worker_process(&system, 1, LEASE)?;
        let id = system.enqueue(vec![callback(&system, tenant, &sink, "running")]).await?[0];
        sink.wait_for("running", PATIENCE).await;
        ignores_all(&mut worker).await?;
        send(&worker, signal)?;
        logged(&worker, "stop requested, draining", 1).await;
        // A terminal and a supervisor may each send a signal; closing a terminal never shortens a
        // drain.
        send(&worker, Signal::SIGHUP)?;
        logged(&worker, "draining already", 1).await;
        assert_eq!(worker.exit_status()?, None, "{signal}");
        sink.release("running");
        assert_eq!(worker.wait_exit(PATIENCE).await?.code(), Some(0), "{signal}");
        assert_eq!(reaches(&system, tenant, id, "completed").await.attempt, 1, "{signal}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_a_drain_at_once() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    let sink = HttpSink::start().await?;
    sink.set("running", Behaviour::Hang);
    let mut worker = worker_process(&system, 1, LEASE)?;
    system.enqueue(vec![callback(&system, tenant, &sink, "running")]).await?;
    sink.wait_for("running", PATIENCE).await;
    send(&worker, Signal::SIGTERM)?;
    logged(&worker, "stop requested, draining", 1).await;
    // An earlier signal would count as the same request.
    tokio::time::sleep(shared::shutdown::SAME_REQUEST + Duration::from_millis(100)).await;
    send(&worker, Signal::SIGTERM)?;
    assert_eq!(worker.wait_exit(PATIENCE).await?.code(), Some(130));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn api_and_scheduler_treat_signals_like_a_worker() -> Result<()> {
    let system = TestSystem::start().await?;
    for name in ["api", "scheduler"] {
        for signal in DRAINING {
            let (spec, ready) = program(name, &system.urls, &redis_url()?)?;
            let mut process = spec.env("ROTA_REDIS_PREFIX", &system.prefix).start()?;
            process.wait_ready(&ready, PATIENCE).await?;
            ignores_all(&mut process).await?;
            send(&process, signal)?;
            assert_eq!(process.wait_exit(PATIENCE).await?.code(), Some(0), "{name} {signal}");
        }
    }
    Ok(())
}
