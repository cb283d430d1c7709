//! Any number of instances of one configuration, and the error output of a failed start.

use anyhow::Result;
use tests::{eventually::eventually, free_port::free_port, process::ProcessSpec, system::TestSystem};

use super::{PATIENCE, program, redis_url};

/// The address in the log line about listening.
fn listens(output: &str) -> Option<String> {
    let line = output.lines().find(|line| line.contains("listen="))?;
    Some(line.split("listen=").nth(1)?.split_whitespace().next()?.to_owned())
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
    assert!(open.output()?.contains("ROTA_LINK_KEY"), "{}", open.output()?);
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
