//! Secrets that must not leave the processes: in a memory dump, or in PostgreSQL's log of
//! statements.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Uid;
use sqlx::{Connection as _, PgConnection};
use tests::{
    postgres::{PostgresOptions, PrivatePostgres},
    process::ProcessSpec,
    system::TestSystem,
};

use super::{PATIENCE, program, redis_url};
use crate::queue::support::skipped;

/// The limits on core files, soft and hard.
fn core_limits(process: &str) -> Result<String> {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    Ok(line.context("no limit on core files")?.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

/// The kernel gives the files of a process that cannot be dumped to root.
fn is_dumpable(process: &str) -> Result<bool> {
    Ok(std::fs::metadata(format!("/proc/{process}/environ"))?.uid() == Uid::effective().as_raw())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_leaves_a_core_dump_unless_it_is_permitted() -> Result<()> {
    if !Path::new("/proc/self/limits").exists() {
        skipped("the limits of a process are read from /proc");
        return Ok(());
    }
    let system = TestSystem::start().await?;
    for name in ["api", "worker", "scheduler"] {
        for permitted in [false, true] {
            let (spec, ready) = program(name, &system.urls, &redis_url()?)?;
            let spec = spec.env("ROTA_REDIS_PREFIX", &system.prefix);
            let mut process = spec.env("ROTA_CORE_DUMPS", if permitted { "1" } else { "0" }).start()?;
            process.wait_ready(&ready, PATIENCE).await?;
            let id = process.id().to_string();
            let expected = if permitted { core_limits("self")? } else { "0 0".to_owned() };
            assert_eq!(core_limits(&id)?, expected, "{name}");
            if !Uid::effective().is_root() {
                assert_eq!(is_dumpable(&id)?, permitted, "{name}");
            }
        }
    }
    Ok(())
}

async fn run(spec: ProcessSpec) -> Result<String> {
    let mut process = spec.start()?;
    let status = process.wait_exit(PATIENCE).await?;
    ensure!(status.success(), "{status}: {}", process.output()?);
    process.output()
}

/// The log has every statement with its parameters. `shop` is a login that becomes a member of
/// `rota_app`; `rota_system` is the role itself.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_of_the_operators_commands_contains_a_secret() -> Result<()> {
    let settings = vec![("log_statement".to_owned(), "all".to_owned())];
    let postgres = PrivatePostgres::new(PostgresOptions { fsync: false, settings }).await?;
    let owner = &postgres.urls().owner;
    postgres.require_passwords().await?;
    let mut connection = PgConnection::connect(owner).await?;
    sqlx::raw_sql("drop role rota_app, rota_system").execute(&mut connection).await?;
    let url = |role: &str, password: &str| format!("postgres://{role}:{password}@127.0.0.1:{}/rota", postgres.port());
    let (app, system) = (url("shop", "first-secret"), url("rota_system", "second-secret"));
    let command = || -> Result<ProcessSpec> {
        let spec = ProcessSpec::binary("api")?.env("ENVIRONMENT", "test").env("DATABASE_OWNER_URL", owner);
        Ok(spec.env("DATABASE_URL", &app).env("DATABASE_SYSTEM_URL", &system))
    };
    run(command()?.arg("migrate")).await?;
    let demo = run(command()?.args(["demo", "--tenants", "1", "--json"])).await?;
    let key = demo.split('"').find(|text| text.starts_with("rota_")).context("the demo prints a key")?;
    let key_secret = key.rsplit('_').next().unwrap_or_default();

    let log = postgres.log()?;
    assert_eq!(log.matches(" login password 'SCRAM-SHA-256$").count(), 2, "the log has the statements");
    assert!(log.contains("insert into api_keys") || log.contains("INSERT INTO api_keys"), "and those of the key");
    for secret in ["first-secret", "second-secret", key_secret] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    for (role, password) in [("shop", "first-secret"), ("rota_system", "second-secret")] {
        PgConnection::connect(&url(role, password)).await.context("the password is accepted")?.close().await?;
        assert!(PgConnection::connect(&url(role, "another")).await.is_err(), "{role}");
    }
    Ok(())
}
