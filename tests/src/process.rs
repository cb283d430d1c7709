//! One of our binaries under test: explicit environment, signals, restarts, captured output.
//!
//! Invariants: the child sees only variables set by the test (and `PATH`, `HOME`, `RUST_LOG`,
//! `RUST_BACKTRACE`). The tail of its output is printed if the test panics or the process ended
//! unexpectedly. The process is dead once the handle is dropped.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::child::ManagedChild;
use crate::eventually::poll_until;
use crate::tls::install_crypto_provider;

const INHERITED: [&str; 4] = ["PATH", "HOME", "RUST_LOG", "RUST_BACKTRACE"];
const TAIL_LINES: usize = 60;
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// What to start. The last value of a repeated variable wins.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
}

impl ProcessSpec {
    /// A binary of this workspace, from the target directory of the running test.
    pub fn binary(name: &str) -> Result<Self> {
        Ok(Self::program(built(name)?))
    }

    /// An example of this workspace, such as `smtp_sink`.
    pub fn example(name: &str) -> Result<Self> {
        Ok(Self::program(built(&format!("examples/{name}"))?))
    }

    pub fn program(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new() }
    }

    /// Starts the program through another one: `sh -c 'ulimit …; exec "$@"' sh`, `strace …`.
    /// Signals then go to that one.
    #[must_use]
    pub fn under<A: Into<OsString>>(mut self, program: &str, args: impl IntoIterator<Item = A>) -> Self {
        let inner = std::mem::replace(&mut self.program, program.into());
        let mut words: Vec<OsString> = args.into_iter().map(Into::into).collect();
        words.push(inner.into());
        words.append(&mut self.args);
        Self { args: words, ..self }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub fn start(self) -> Result<ProcessUnderTest> {
        ProcessUnderTest::start(self)
    }

    fn command(&self, output: &File) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        Ok(command)
    }
}

/// A started process. `restart` starts it again with the same arguments and environment.
#[derive(Debug)]
pub struct ProcessUnderTest {
    spec: ProcessSpec,
    child: ManagedChild,
    output: PathBuf,
    directory: TempDir,
    /// The test ended the process, so its exit is expected.
    ended: bool,
}

impl ProcessUnderTest {
    fn start(spec: ProcessSpec) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let output = directory.path().join("output");
        let child = spawn(&spec, &output)?;
        Ok(Self { spec, child, output, directory, ended: false })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A private directory that lasts as long as this handle, across restarts.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sends SIGKILL and waits for the exit.
    pub async fn kill9(&mut self) -> Result<ExitStatus> {
        self.ended = true;
        self.child.end(Signal::SIGKILL, KILL_TIMEOUT).await
    }

    /// Sends SIGTERM without waiting: follow with `wait_exit`.
    pub fn sigterm(&mut self) -> Result<()> {
        self.ended = true;
        self.child.signal(Signal::SIGTERM)
    }

    pub fn sigstop(&mut self) -> Result<()> {
        self.child.signal(Signal::SIGSTOP)
    }

    pub fn sigcont(&mut self) -> Result<()> {
        self.child.signal(Signal::SIGCONT)
    }

    /// Returns `None` while the process runs.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.exit_status()
    }

    pub async fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let status = self.child.wait(timeout).await?;
        self.ended = true;
        status.with_context(|| format!("{} still runs after {timeout:?}\n{}", self.name(), self.tail()))
    }

    /// Waits for a 200 from `url`; fails if the process ends first.
    pub async fn wait_ready(&mut self, url: &str, timeout: Duration) -> Result<()> {
        install_crypto_provider();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(1)).no_proxy().build()?;
        let outcome = poll_until(timeout, async || {
            if let Some(status) = self.child.exit_status().transpose() {
                return Some(status.map(Some));
            }
            let answer = client.get(url).send().await.ok()?;
            (answer.status() == reqwest::StatusCode::OK).then_some(Ok(None))
        });
        match outcome.await.transpose()? {
            Some(None) => Ok(()),
            Some(Some(status)) => {
                self.ended = true;
                bail!("{} ended with {status}\n{}", self.name(), self.tail())
            }
            None => bail!("{} not ready at {url} within {timeout:?}\n{}", self.name(), self.tail()),
        }
    }

    /// Kills the process if it still runs and starts it again; output is appended to the same file.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill9().await?;
        self.child = spawn(&self.spec, &self.output)?;
        self.ended = false;
        Ok(())
    }

    /// Standard output and error so far, across restarts.
    pub fn output(&self) -> Result<String> {
        let bytes = std::fs::read(&self.output).context("read a process's output")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The peak resident set size of the process (`VmHWM`).
    pub fn peak_rss_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM: has it ended?")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
        Ok(kib * 1024)
    }

    fn name(&self) -> String {
        self.spec.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn tail(&self) -> String {
        let output = self.output().unwrap_or_default();
        let lines: Vec<_> = output.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn report(&mut self) {
        let died = !self.ended && !matches!(self.child.exit_status(), Ok(None));
        if died || std::thread::panicking() {
            let state = if died { "ended unexpectedly" } else { "ran" };
            let _ = writeln!(std::io::stderr(), "--- {} {} {state} ---\n{}", self.name(), self.id(), self.tail());
        }
    }
}

impl Drop for ProcessUnderTest {
    fn drop(&mut self) {
        self.report();
    }
}

fn spawn(spec: &ProcessSpec, output: &Path) -> Result<ManagedChild> {
    let output = OpenOptions::new().create(true).append(true).open(output)?;
    ManagedChild::spawn(&mut spec.command(&output)?, Signal::SIGKILL)
}

/// Tests run from `target/<profile>/deps`, examples from `…/examples`; binaries are one level up.
fn built(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let is_build_folder = |path: &&Path| path.ends_with("deps") || path.ends_with("examples");
    let profile = match test.ancestors().find(is_build_folder).and_then(Path::parent) {
        Some(profile) => profile,
        None => test.parent().context("an executable lies in a folder")?,
    };
    let path = profile.join(name);
    ensure!(path.is_file(), "{} is not built: run cargo build --workspace --examples first", path.display());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually::eventually;
    use crate::http_sink::HttpSink;
    use std::os::unix::process::ExitStatusExt;

    const SECONDS: Duration = Duration::from_secs(5);

    fn shell(script: &str) -> ProcessSpec {
        ProcessSpec::program("/bin/sh").args(["-c", script])
    }

    async fn said(process: &ProcessUnderTest, text: &str) {
        eventually(SECONDS, text, async || process.output().unwrap().contains(text).then_some(())).await;
    }

    #[tokio::test]
    async fn sees_only_the_given_environment() {
        let mut process = shell("env; echo oops >&2; exit 3").env("GIVEN", "1").start().unwrap();
        assert_eq!(process.wait_exit(SECONDS).await.unwrap().code(), Some(3));
        let output = process.output().unwrap();
        assert!(output.contains("GIVEN=1") && output.contains("oops"), "{output}");
        assert!(!output.contains("CARGO"), "{output}");
    }

    #[tokio::test]
    async fn is_killed_terminated_and_restarted() {
        let mut process = shell("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done").start().unwrap();
        said(&process, "up").await;
        assert!(process.peak_rss_bytes().unwrap() > 100_000);
        assert_eq!(process.kill9().await.unwrap().signal(), Some(9));
        process.restart().await.unwrap();
        said(&process, "up\nup").await;
        process.sigterm().unwrap();
        assert_eq!(process.wait_exit(SECONDS).await.unwrap().code(), Some(7));
    }

    #[tokio::test]
    async fn stands_still_while_stopped() {
        let mut process = shell("sleep 30 & trap 'echo woken; exit' TERM; echo up; wait; wait").start().unwrap();
        said(&process, "up").await;
        process.sigstop().unwrap();
        process.sigterm().unwrap();
        assert!(process.wait_exit(Duration::from_millis(50)).await.is_err());
        process.sigcont().unwrap();
        said(&process, "woken").await;
    }

    #[tokio::test]
    async fn readiness_is_a_200_from_a_living_process() {
        let sink = HttpSink::start().await.unwrap();
        shell("sleep 60").start().unwrap().wait_ready(&sink.url(), SECONDS).await.unwrap();
        let mut dying = shell("echo broken configuration; exit 1").start().unwrap();
        let error = dying.wait_ready("http://127.0.0.1:9/", SECONDS).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 1\nbroken configuration"), "{error}");
    }

    #[test]
    fn a_missing_binary_is_named() {
        let error = ProcessSpec::binary("no_such_binary").unwrap_err().to_string();
        assert!(error.contains("no_such_binary is not built"), "{error}");
    }
}
