//! A private PostgreSQL cluster that can be stopped, crashed and started again.
//!
//! Invariant: the data directory survives every stop, so everything committed before
//! `stop_immediate` must be present after `start`. With `fsync` off (never the default) this does
//! not cover power failures. Binaries are searched in `PG_BIN`, in `/usr/lib/postgresql/*/bin` and
//! in `PATH`. PostgreSQL refuses to run as root; it then runs as user `postgres`.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::Url;

use super::{Credentials, DatabaseUrls, admin};
use crate::child::ManagedChild;
use crate::eventually::poll_until;
use crate::free_port::free_port;

const START_TIMEOUT: Duration = Duration::from_mins(1);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const DATABASE: &str = "rota";

/// The output of `initdb`, which takes a second, kept while a cluster of this process uses it.
static TEMPLATE: Mutex<Weak<TempDir>> = Mutex::const_new(Weak::new());

#[derive(Clone, Debug)]
pub struct PostgresOptions {
    pub fsync: bool,
    /// Additional settings, such as `("max_connections", "20")`.
    pub settings: Vec<(String, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { fsync: true, settings: Vec::new() }
    }
}

/// The cluster; crashed on `Drop`, and its files removed.
#[derive(Debug)]
pub struct PrivatePostgres {
    options: PostgresOptions,
    port: u16,
    urls: DatabaseUrls,
    child: Option<ManagedChild>,
    // After the child, which must have ended before its files are removed.
    directory: TempDir,
    _template: Arc<TempDir>,
}

impl PrivatePostgres {
    /// Starts a cluster with an empty database `rota` and the roles `rota_app` and `rota_system`.
    pub async fn new(options: PostgresOptions) -> Result<Self> {
        let template = template().await?;
        let directory = directory()?;
        run(Command::new("cp").arg("-a").arg(template.path().join("data")).arg(directory.path())).await?;
        let port = free_port()?;
        let server_url = Url::parse(&format!("postgres://postgres@127.0.0.1:{port}/postgres"))?;
        let (app, system) = (Credentials::for_tests("rota_app"), Credentials::for_tests("rota_system"));
        let urls = DatabaseUrls::new(&server_url, DATABASE, &app, &system)?;
        let mut cluster = Self { options, port, urls, child: None, directory, _template: template };
        cluster.start_until_answers(server_url.as_str()).await?;
        for credentials in [&app, &system] {
            admin::ensure_role(server_url.as_str(), credentials).await?;
        }
        admin::create_database(server_url.as_str(), DATABASE).await?;
        Ok(cluster)
    }

    pub fn urls(&self) -> &DatabaseUrls {
        &self.urls
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts a stopped cluster on the same port and data, and returns once it accepts queries.
    pub async fn start(&mut self) -> Result<()> {
        let url = self.urls.owner.clone();
        self.start_until_answers(&url).await
    }

    /// Like `pg_ctl stop -m immediate`: a crash from the point of view of the data.
    pub async fn stop_immediate(&mut self) -> Result<()> {
        self.stop(Signal::SIGQUIT).await
    }

    /// Like `pg_ctl stop -m fast`: transactions are rolled back, the shutdown is clean.
    pub async fn stop_fast(&mut self) -> Result<()> {
        self.stop(Signal::SIGINT).await
    }

    pub async fn restart_immediate(&mut self) -> Result<()> {
        self.stop_immediate().await?;
        self.start().await
    }

    /// From now on every role but the owner needs its password. Open connections stay.
    pub async fn require_passwords(&self) -> Result<()> {
        let rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(self.directory.path().join("data/pg_hba.conf"), rules)?;
        admin::execute(&self.urls.owner, "select pg_reload_conf()".to_owned()).await?;
        let wrong = self.urls.app.replace(":rota_test@", ":wrong@");
        let refused = poll_until(START_TIMEOUT, async || PgConnection::connect(&wrong).await.err());
        refused.await.map(drop).context("PostgreSQL still accepts a wrong password")
    }

    /// The server's log so far.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(self.log_path()).context("read PostgreSQL's log")
    }

    async fn stop(&mut self, signal: Signal) -> Result<()> {
        let mut child = self.child.take().context("PostgreSQL is not running")?;
        child.end(signal, STOP_TIMEOUT).await.map(drop)
    }

    async fn start_until_answers(&mut self, url: &str) -> Result<()> {
        ensure!(self.child.is_none(), "PostgreSQL is running already");
        let mut child = ManagedChild::spawn(&mut self.command()?, Signal::SIGQUIT)?;
        let outcome = poll_until(START_TIMEOUT, async || match child.exit_status() {
            Ok(None) => answers(url).await.then_some(Ok(())),
            Ok(Some(status)) => Some(Err(anyhow::anyhow!("PostgreSQL ended with {status}"))),
            Err(error) => Some(Err(error)),
        });
        let outcome = outcome.await.unwrap_or_else(|| bail!("no answer within {START_TIMEOUT:?}"));
        outcome.with_context(|| format!("start PostgreSQL:\n{}", self.log().unwrap_or_default()))?;
        self.child = Some(child);
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = unprivileged(&tool("postgres")?, self.directory.path());
        command.arg("-D").arg(self.directory.path().join("data"));
        command.args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        command.args(["-c", if self.options.fsync { "fsync=on" } else { "fsync=off" }]);
        for (name, value) in &self.options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

async fn answers(url: &str) -> bool {
    let connecting = PgConnection::connect(url);
    matches!(timeout(Duration::from_secs(1), connecting).await, Ok(Ok(_)))
}

async fn template() -> Result<Arc<TempDir>> {
    let mut kept = TEMPLATE.lock().await;
    if let Some(template) = kept.upgrade() {
        return Ok(template);
    }
    let template = directory()?;
    let mut initdb = unprivileged(&tool("initdb")?, template.path());
    initdb.arg("-D").arg(template.path().join("data"));
    // Trust authentication, because each SCRAM login costs tens of milliseconds in a debug build;
    // the server listens only on loopback.
    run(initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])).await?;
    let template = Arc::new(template);
    *kept = Arc::downgrade(&template);
    Ok(template)
}

/// A temporary directory owned by the server's user.
fn directory() -> Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("rota-postgres-").tempdir()?;
    if Uid::effective().is_root() {
        let user = User::from_name("postgres")?.context("no user postgres to run PostgreSQL as")?;
        std::os::unix::fs::chown(directory.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    Ok(directory)
}

/// `setpriv` rather than `runuser`: it execs the program, so signals reach the right process.
fn unprivileged(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    if Uid::effective().is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]).arg(program);
    }
    command.current_dir(directory).stdin(Stdio::null());
    command
}

async fn run(command: &mut Command) -> Result<()> {
    let mut command = std::mem::replace(command, Command::new(""));
    let program = command.get_program().to_string_lossy().into_owned();
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    let output = output.with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn tool(name: &str) -> Result<PathBuf> {
    let configured = std::env::var_os("PG_BIN").map(PathBuf::from).into_iter();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = configured.chain(debian_folders()).chain(std::env::split_paths(&path));
    let mut candidates = folders.map(|folder| folder.join(name));
    candidates.find(|file| file.is_file()).with_context(|| format!("no {name} in PG_BIN, /usr/lib/postgresql or PATH"))
}

/// The binary folders, newest version first.
fn debian_folders() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions.map(|entry| entry.path()).collect();
    let number = |path: &PathBuf| path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse::<u32>().ok());
    versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
    versions.into_iter().map(|version| version.join("bin")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn count(url: &str) -> i64 {
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::query_scalar("select count(*) from kept").fetch_one(&mut connection).await.unwrap()
    }

    #[tokio::test]
    async fn commits_survive_a_crash_and_a_clean_stop() {
        let mut cluster = PrivatePostgres::new(PostgresOptions::default()).await.unwrap();
        let url = cluster.urls().owner.clone();
        admin::execute(&url, "create table kept (); insert into kept default values".to_owned()).await.unwrap();

        cluster.restart_immediate().await.unwrap();
        assert_eq!(count(&url).await, 1);
        assert!(cluster.log().unwrap().contains("was not properly shut down"));

        cluster.stop_fast().await.unwrap();
        PgConnection::connect(&url).await.unwrap_err();
        assert!(cluster.stop_fast().await.is_err());
        cluster.start().await.unwrap();
        assert_eq!(count(&url).await, 1);
        assert_eq!(cluster.urls().app, format!("postgres://rota_app:rota_test@127.0.0.1:{}/rota", cluster.port()));
    }

    #[tokio::test]
    async fn settings_and_start_errors_are_seen() {
        let settings = vec![("max_connections".to_owned(), "no number".to_owned())];
        let error = PrivatePostgres::new(PostgresOptions { fsync: false, settings }).await.unwrap_err();
        assert!(format!("{error:#}").contains("max_connections"), "{error:#}");
    }
}
