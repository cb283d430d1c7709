//! Any number of instances of one configuration, and the error output of a failed start.

use std::{
    collections::BTreeSet,
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::{
    eventually::eventually,
    free_port::free_port,
    postgres::{PostgresOptions, PrivatePostgres},
    process::{ProcessSpec, ProcessUnderTest},
    redis_server::{PrivateRedis, RedisOptions},
    system::TestSystem,
};

use super::{PATIENCE, program, redis_url};
use crate::queue::support::skipped;

/// The formation of deploy/prometheus/targets.yml, and its numbers of processes and of addresses:
/// an API has two addresses, the services have none.
const FORMATION: &str = "all=1,api=2,worker=3,scheduler=2";
const PROCESSES: usize = 8;
const ADDRESSES: usize = 9;

/// The addresses in the log lines about listening.
fn addresses(output: &str) -> Vec<String> {
    let listening = output.lines().filter_map(|line| line.split("listen=").nth(1)?.split_whitespace().next());
    listening.map(str::to_owned).collect()
}

/// The first of them.
fn listens(output: &str) -> Option<String> {
    addresses(output).into_iter().next()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instance_takes_its_own_port_and_logs_it() -> Result<()> {
    let system = TestSystem::start().await?;
    let first = free_port()?.min(u16::MAX - 40);
    let range = format!("{first}-{}", first + 40);
    let mut processes = Vec::new();
    for name in ["api", "api", "worker", "worker", "worker", "scheduler", "scheduler"] {
        let (spec, _) = program(name, &system.urls, &redis_url()?)?;
        let spec = spec.env("PORT", &range).env("METRICS_PORT", &range).env("ROTA_REDIS_PREFIX", &system.prefix);
        processes.push(spec.start()?);
    }
    let mut addresses = Vec::new();
    for process in &mut processes {
        let address = eventually(PATIENCE, "its address is logged", async || listens(&process.output().ok()?)).await;
        process.wait_ready(&format!("http://{address}/api/health/readiness"), PATIENCE).await?;
        addresses.push(address);
    }
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), processes.len(), "{addresses:?}");
    Ok(())
}

/// Foreman with its processes, which it stops unless it is killed.
struct Foreman(ProcessUnderTest);

impl Drop for Foreman {
    fn drop(&mut self) {
        let _ = self.0.sigterm();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.0.exit_status(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A checkout with the Procfile, its scripts and the programs of this build: the scripts keep their
/// state in their checkout, and that of the developer must not change.
fn checkout() -> Result<TempDir> {
    let (directory, root) = (tempfile::tempdir()?, Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let mut copy = Command::new("cp");
    copy.arg("-R").args([root.join("bin"), root.join("Procfile")]).arg(directory.path());
    ensure!(copy.status()?.success(), "bin and Procfile cannot be copied");
    let test = std::env::current_exe()?;
    let programs = test.ancestors().nth(2).context("a test lies in target/PROFILE/deps")?;
    std::fs::create_dir(directory.path().join("target"))?;
    std::os::unix::fs::symlink(programs, directory.path().join("target/debug"))?;
    Ok(directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn foreman_runs_a_formation_and_stops_all_of_it() -> Result<()> {
    if !Command::new("foreman").arg("version").output().is_ok_and(|output| output.status.success()) {
        skipped("foreman is not installed (bin/setup installs it where apt is there)");
        return Ok(());
    }
    let postgres = PrivatePostgres::new(PostgresOptions { fsync: false, ..PostgresOptions::default() }).await?;
    let (redis, urls) = (PrivateRedis::new(RedisOptions::default()).await?, postgres.urls());
    shared::db::migrate::migrate(&urls.owner, &urls.app, &urls.system).await?;
    let checkout = checkout()?;
    let mut spec = ProcessSpec::program("foreman")
        .args(["start", "-m", FORMATION, "-t", "30", "-f"])
        .arg(checkout.path().join("Procfile"))
        .env("DATABASE_OWNER_URL", &urls.owner)
        .env("DATABASE_URL", &urls.app)
        .env("DATABASE_SYSTEM_URL", &urls.system)
        .env("REDIS_URL", redis.url())
        .env("ENVIRONMENT", "test")
        .env("RUST_BACKTRACE", "1");
    // All processes compete for the same ports.
    let first = free_port()?.min(u16::MAX - 50).to_string();
    for variable in ["API_PORT", "API_METRICS_PORT", "WORKER_METRICS_PORT", "SCHEDULER_METRICS_PORT"] {
        spec = spec.env(variable, &first);
    }
    let mut foreman = Foreman(spec.start()?);
    let all = async || Some(addresses(&foreman.0.output().ok()?)).filter(|found| found.len() >= ADDRESSES);
    let found = eventually(PATIENCE, "all addresses are logged", all).await;
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), ADDRESSES, "{found:?}");
    tests::tls::install_crypto_provider();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut metrics = 0;
    for address in &found {
        foreman.0.wait_ready(&format!("http://{address}/api/health/readiness"), PATIENCE).await?;
        metrics += usize::from(client.get(format!("http://{address}/metrics")).send().await?.status() == 200);
    }
    assert_eq!(metrics, PROCESSES - 1, "every process but the services has metrics");

    foreman.0.sigterm()?;
    assert_eq!(foreman.0.wait_exit(PATIENCE).await?.code(), Some(0));
    let output = foreman.0.output()?;
    assert_eq!(output.matches("exited with code 0").count(), PROCESSES, "{output}");
    for trouble in ["panicked", "backtrace", "SIGKILL", "error:"] {
        assert!(!output.contains(trouble), "{trouble} in {output}");
    }
    for address in &found {
        assert!(TcpStream::connect(address.as_str()).is_err(), "{address} is still served");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_taken_for_port_0_is_logged_without_colours() -> Result<()> {
    let system = TestSystem::start().await?;
    for (name, variable) in [("api", "PORT"), ("worker", "METRICS_PORT"), ("scheduler", "METRICS_PORT")] {
        let (spec, _) = program(name, &system.urls, &redis_url()?)?;
        let mut process = spec.env(variable, "0").env("ROTA_REDIS_PREFIX", &system.prefix).start()?;
        let address = eventually(PATIENCE, "its address is logged", async || listens(&process.output().ok()?)).await;
        assert!(!address.ends_with(":0"), "{address}");
        process.wait_ready(&format!("http://{address}/api/health/readiness"), PATIENCE).await?;
        assert!(!process.output()?.contains('\u{1b}'), "no colours in a file");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_gives_its_reason_on_one_line() -> Result<()> {
    let system = TestSystem::start().await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    for (name, variable) in [("api", "PORT"), ("worker", "METRICS_PORT"), ("scheduler", "METRICS_PORT")] {
        let (spec, _) = program(name, &system.urls, &redis_url()?)?;
        let mut process = spec.env(variable, &port).env("RUST_BACKTRACE", "1").start()?;
        assert_eq!(process.wait_exit(PATIENCE).await?.code(), Some(1));
        let output = process.output()?;
        let told: Vec<_> = output.lines().skip_while(|line| !line.starts_with("error: ")).collect();
        assert_eq!(told.len(), 1, "{output}");
        assert_eq!(told[0].matches("in use").count(), 1, "{output}");
        assert!(told[0].contains(variable) && told[0].contains(&port), "{output}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unset_environment_is_warned_about() -> Result<()> {
    let system = TestSystem::start().await?;
    for name in ["api", "worker", "scheduler"] {
        let (spec, _) = program(name, &system.urls, &redis_url()?)?;
        let process = spec.env("ENVIRONMENT", "").env("ROTA_REDIS_PREFIX", &system.prefix).start()?;
        let warned = async || process.output().ok()?.contains("ENVIRONMENT is not set").then_some(());
        eventually(PATIENCE, "the warning", warned).await;
    }
    let (spec, _) = program("api", &system.urls, &redis_url()?)?;
    let mut open = spec.env("ENVIRONMENT", "").env("HOST", "0.0.0.0").start()?;
    assert_eq!(open.wait_exit(PATIENCE).await?.code(), Some(1));
    for secret in ["ROTA_LINK_KEY", "JWT_SECRET"] {
        assert!(open.output()?.contains(secret), "{}", open.output()?);
    }
    Ok(())
}

/// A tenant's key never appears in a process list.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_reads_its_key_only_from_a_file() -> Result<()> {
    let mut refused =
        ProcessSpec::binary("api")?.args(["demo", "--campaign", "leads.csv", "--api-key", "rota_x"]).start()?;
    assert_eq!(refused.wait_exit(PATIENCE).await?.code(), Some(2));
    let missing = ["demo", "--campaign", "leads.csv", "--api-key-file", "/nonexistent/key"];
    let mut missing = ProcessSpec::binary("api")?.args(missing).start()?;
    assert_eq!(missing.wait_exit(PATIENCE).await?.code(), Some(1));
    assert!(missing.output()?.contains("/nonexistent/key"), "{}", missing.output()?);
    Ok(())
}
