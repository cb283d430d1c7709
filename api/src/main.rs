//! `api`: see [`api`] for what it does.

use clap::Parser as _;

/// Short-lived small objects of many threads are most of what is allocated: see docs/decisions/0010-speed.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    shared::error_text::exit(run())
}

fn run() -> anyhow::Result<()> {
    let command = api::cli::Arguments::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command.run())
}
