//! `scheduler`: see [`scheduler`] for what it does.

use clap::Parser;
use shared::config::{Env, SchedulerConfig};

/// Leads or stands by. Everything is configured by the environment, see .env.sample.
#[derive(Parser)]
#[command(version)]
struct Arguments {}

fn main() -> anyhow::Result<()> {
    let Arguments {} = Arguments::parse();
    let config = SchedulerConfig::load(&Env::from_process())?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(scheduler::assembly::run(config))
}
