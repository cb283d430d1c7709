//! The `scheduler` binary: parses the configuration, builds both runtimes, runs [`scheduler`].

use clap::Parser;
use shared::{
    config::{Env, SchedulerConfig},
    control_runtime, core_dumps, error_text,
};
use tokio::runtime;

/// Leads or stands by. Everything is configured through the environment, see .env.sample.
#[derive(Parser)]
#[command(version)]
struct Arguments {}

fn main() -> std::process::ExitCode {
    error_text::exit(run())
}

fn run() -> anyhow::Result<()> {
    let Arguments {} = Arguments::parse();
    let env = Env::from_process();
    core_dumps::forbid_unless_permitted(&env);
    let config = SchedulerConfig::load(&env)?;
    let services = runtime::Builder::new_multi_thread().thread_name("rota-services").enable_all().build()?;
    let control = control_runtime::build()?;
    let ended = control.block_on(scheduler::assembly::run(config, services.handle().clone()));
    services.shutdown_background();
    ended
}
