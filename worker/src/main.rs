//! The `worker` binary: parses arguments and configuration, builds both runtimes, runs [`worker`].

use clap::Parser;
use shared::{
    config::{Env, WorkerConfig},
    control_runtime, core_dumps, error_text,
};
use tokio::runtime;

/// Polls after which a handler thread checks the global queue for tasks from other threads.
const GLOBAL_QUEUE_INTERVAL: u32 = 2;
/// Polls after which a handler thread checks for I/O events.
const EVENT_INTERVAL: u32 = 4;

/// Leases jobs and runs them. Everything else is configured through the environment, see
/// .env.sample.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Queues to serve, separated by commas; all queues if omitted.
    #[arg(long)]
    queues: Option<String>,
    /// Number of jobs that run at the same time.
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
        // A poll takes as long as a handler blocks its thread. So a thread checks for tasks from
        // other threads and for socket events after a few polls, not after tokio's defaults of 31
        // and 61.
        .global_queue_interval(GLOBAL_QUEUE_INTERVAL)
        .event_interval(EVENT_INTERVAL)
        .build()?;
    let control = control_runtime::build()?;
    // Not on the main thread: waking the main thread would precede each run, and it shares no tasks
    // with the worker threads.
    let ended = control.block_on(control.spawn(worker::setup::run(config, handlers.handle().clone())));
    // Do not wait for a handler that ignores cancellation: its result can no longer be recorded.
    handlers.shutdown_background();
    ended?
}
