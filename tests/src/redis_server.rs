//! A private Redis server that can be flushed, killed, frozen and started from an earlier dump.
//!
//! Invariant: without `append_only` a restart starts empty, like a cache; only data that the test
//! chose to keep survives. `REDIS_SERVER` selects a binary other than the `redis-server` of `PATH`
//! (Valkey's, for example).

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, cmd};
use tempfile::TempDir;

use crate::child::ManagedChild;
use crate::eventually::poll_until;
use crate::free_port::free_port;

const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, Default)]
pub struct RedisOptions {
    /// Logs every write with `appendfsync always`, so it survives `kill` and `start`.
    pub append_only: bool,
    /// Runs as the only node of a cluster, which enforces slots and refuses commands across two of
    /// them.
    pub cluster: bool,
}

/// The server; killed on `Drop`, and its files removed.
#[derive(Debug)]
pub struct PrivateRedis {
    options: RedisOptions,
    port: u16,
    dumps: u32,
    child: Option<ManagedChild>,
    // After the child, which must have ended before its files are removed.
    directory: TempDir,
}

impl PrivateRedis {
    /// Starts an empty server.
    pub async fn new(options: RedisOptions) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("rota-redis-").tempdir()?;
        let mut server = Self { options, port: free_port()?, dumps: 0, child: None, directory };
        server.start().await?;
        Ok(server)
    }

    /// For `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub async fn flush_all(&self) -> Result<()> {
        self.command(cmd("FLUSHALL").arg("SYNC")).await
    }

    /// Writes above this limit fail: the policy is `noeviction`. 0 is no limit.
    pub async fn set_maxmemory(&self, bytes: u64) -> Result<()> {
        self.command(cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes)).await
    }

    /// Sends SIGKILL; data outside the append-only file is lost.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("Redis is not running")?;
        child.end(Signal::SIGKILL, STOP_TIMEOUT).await.map(drop)
    }

    /// Starts a stopped server on the same port, and returns once it responds.
    pub async fn start(&mut self) -> Result<()> {
        self.start_with(self.options.append_only).await
    }

    /// Kills the server and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.start().await
    }

    /// Writes the current data to a file that lasts as long as this handle.
    pub async fn save_dump(&mut self) -> Result<PathBuf> {
        self.command::<()>(&cmd("SAVE")).await?;
        self.dumps += 1;
        let kept = self.directory.path().join(format!("kept-{}.rdb", self.dumps));
        std::fs::rename(self.dump_path(), &kept)?;
        Ok(kept)
    }

    /// Kills the server if it runs, and starts it with the data of an earlier `save_dump`.
    pub async fn restart_from_dump(&mut self, dump: &Path) -> Result<()> {
        if self.child.is_some() {
            self.kill().await?;
        }
        let log = self.directory.path().join("appendonlydir");
        if log.exists() {
            std::fs::remove_dir_all(log)?;
        }
        std::fs::copy(dump, self.dump_path()).context("restore a dump")?;
        // A server with an append-only file does not load the dump.
        self.start_with(false).await?;
        if self.options.append_only {
            self.command::<()>(cmd("CONFIG").arg("SET").arg("appendonly").arg("yes")).await?;
        }
        std::fs::remove_file(self.dump_path()).context("forget the dump")
    }

    /// Freezes the server (SIGSTOP): connections stay open, nothing responds.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Freezes the server for this long, and returns when it runs again.
    pub async fn pause_ms(&mut self, duration_ms: u64) -> Result<()> {
        self.pause()?;
        tokio::time::sleep(Duration::from_millis(duration_ms)).await;
        self.resume()
    }

    /// Runs one command on a separate connection.
    pub async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let mut connection = connect(&self.url()).await?;
        command.query_async(&mut connection).await.context("ask Redis")
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.child.as_mut().context("Redis is not running")?.signal(signal)
    }

    async fn start_with(&mut self, append_only: bool) -> Result<()> {
        ensure!(self.child.is_none(), "Redis is running already");
        let mut child = ManagedChild::spawn(&mut self.server(append_only)?, Signal::SIGKILL)?;
        let outcome = poll_until(START_TIMEOUT, async || match child.exit_status() {
            Ok(None) => self.command::<()>(&cmd("PING")).await.ok().map(Ok),
            Ok(Some(status)) => Some(Err(anyhow::anyhow!("Redis ended with {status}"))),
            Err(error) => Some(Err(error)),
        });
        let outcome = outcome.await.unwrap_or_else(|| bail!("no answer within {START_TIMEOUT:?}"));
        outcome.with_context(|| format!("start Redis:\n{}", self.log()))?;
        self.child = Some(child);
        if self.options.cluster { self.take_all_slots().await } else { Ok(()) }
    }

    async fn take_all_slots(&self) -> Result<()> {
        let info: String = self.command(cmd("CLUSTER").arg("INFO")).await?;
        if info.contains("cluster_slots_assigned:0") {
            self.command::<()>(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16_383)).await?;
        }
        let serves = poll_until(START_TIMEOUT, async || {
            let info: String = self.command(cmd("CLUSTER").arg("INFO")).await.ok()?;
            info.contains("cluster_state:ok").then_some(())
        });
        serves.await.context("the cluster does not come up")
    }

    fn server(&self, append_only: bool) -> Result<Command> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        command.arg("--dir").arg(self.directory.path()).args(["--port", &self.port.to_string()]);
        command.args(["--bind", "127.0.0.1", "--save", "", "--maxmemory-policy", "noeviction"]);
        command.args(["--appendfsync", "always", "--appendonly", if append_only { "yes" } else { "no" }]);
        if self.options.cluster {
            command.args(["--cluster-enabled", "yes", "--cluster-port", &free_port()?.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn dump_path(&self) -> PathBuf {
        self.directory.path().join("dump.rdb")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

/// A connection that waits for as long as a busy machine may take to respond; the client's default
/// is half a second.
pub async fn connect(url: &str) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    Ok(Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    async fn set(server: &PrivateRedis, value: &str) -> Result<()> {
        server.command(cmd("SET").arg("key").arg(value)).await
    }

    async fn get(server: &PrivateRedis) -> Option<String> {
        server.command(cmd("GET").arg("key")).await.unwrap()
    }

    #[tokio::test]
    async fn forgets_at_a_restart_and_a_flush() {
        let mut server = PrivateRedis::new(RedisOptions::default()).await.unwrap();
        set(&server, "1").await.unwrap();
        server.restart().await.unwrap();
        assert_eq!(get(&server).await, None);
        set(&server, "2").await.unwrap();
        server.flush_all().await.unwrap();
        assert_eq!(get(&server).await, None);
        server.kill().await.unwrap();
        assert!(set(&server, "3").await.is_err());
        assert!(server.kill().await.is_err());
        server.start().await.unwrap();
    }

    #[tokio::test]
    async fn remembers_in_an_append_only_file() {
        let mut server = PrivateRedis::new(RedisOptions { append_only: true, cluster: false }).await.unwrap();
        set(&server, "1").await.unwrap();
        server.restart().await.unwrap();
        assert_eq!(get(&server).await.as_deref(), Some("1"));
    }

    #[tokio::test]
    async fn comes_back_from_an_old_dump() {
        for append_only in [false, true] {
            let mut server = PrivateRedis::new(RedisOptions { append_only, cluster: false }).await.unwrap();
            set(&server, "old").await.unwrap();
            let dump = server.save_dump().await.unwrap();
            set(&server, "new").await.unwrap();
            server.restart_from_dump(&dump).await.unwrap();
            assert_eq!(get(&server).await.as_deref(), Some("old"), "{append_only}");
            server.restart_from_dump(&dump).await.unwrap();
            assert_eq!(get(&server).await.as_deref(), Some("old"), "{append_only}");
        }
    }

    #[tokio::test]
    async fn stalls_and_goes_on() {
        let mut server = PrivateRedis::new(RedisOptions::default()).await.unwrap();
        server.pause().unwrap();
        timeout(Duration::from_millis(100), set(&server, "1")).await.unwrap_err();
        server.resume().unwrap();
        set(&server, "2").await.unwrap();
        server.pause_ms(20).await.unwrap();
        assert_eq!(get(&server).await.as_deref(), Some("2"));
    }

    #[tokio::test]
    async fn refuses_writes_when_full() {
        let server = PrivateRedis::new(RedisOptions::default()).await.unwrap();
        server.set_maxmemory(1).await.unwrap();
        let error = set(&server, "1").await.unwrap_err();
        assert!(format!("{error:#}").contains("OOM"), "{error:#}");
        server.set_maxmemory(0).await.unwrap();
        set(&server, "1").await.unwrap();
    }
}
