//! `worker`: see [`worker`] for what it does.

use clap::Parser;
use shared::{
    config::{Env, WorkerConfig},
    control_runtime, core_dumps, error_text,
};
use tokio::runtime;

/// After so many polls a thread for handlers looks for tasks from outside.
const GLOBAL_QUEUE_INTERVAL: u32 = 2;
/// After so many it looks for events.
const EVENT_INTERVAL: u32 = 4;

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
    let handlers = runtime::Builder::new_multi_thread()
        .thread_name("rota-handlers")
        .enable_all()
        // A poll takes as long as a handler blocks its thread. So what came from outside the thread, and what sockets have to say, is looked
        // for after a few, not after the 31 and 61 by default.
        .global_queue_interval(GLOBAL_QUEUE_INTERVAL)
        .event_interval(EVENT_INTERVAL)
        .build()?;
    let control = control_runtime::build()?;
    // Not on the main thread: each run would begin with waking it, and no other task shares it.
    let ended = control.block_on(control.spawn(worker::assembly::run(config, handlers.handle().clone())));
    // A handler that does not let go must not keep the process: what it does is of no use any more.
    handlers.shutdown_background();
    ended?
}
