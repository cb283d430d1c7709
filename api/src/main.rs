//! `api`: see [`api`] for what it does.

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    let command = api::cli::Arguments::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command.run())
}
