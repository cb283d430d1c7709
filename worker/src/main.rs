//! `worker`: see [`worker`] for what it does.

use clap::Parser;
use shared::{
    config::{Env, WorkerConfig},
    core_dumps, error_text,
};

/// Leases jobs and runs them. Everything else is configured by the environment, see .env.sample.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The queues to serve, separated by commas; all if left out.
    #[arg(long)]
    queues: Option<String>,
    /// How many jobs run at once.
    #[arg(long)]
    concurrency: Option<String>,
}

fn main() -> std::process::ExitCode {
    error_text::exit(run())
}

fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut env = Env::from_process();
    core_dumps::forbid_unless_permitted(&env);
    for (name, value) in [("WORKER_QUEUES", arguments.queues), ("WORKER_CONCURRENCY", arguments.concurrency)] {
        if let Some(value) = value {
            env = env.with(name, &value);
        }
    }
    let config = WorkerConfig::load(&env)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Not here: each run would begin with waking the main thread, which no other task shares.
    runtime.block_on(runtime.spawn(worker::assembly::run(config)))?
}
