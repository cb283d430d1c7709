//! `api`: see [`api`] for what it does.

use clap::Parser as _;

/// Most allocations are small, short-lived and made by many threads: see
/// docs/decisions/0010-speed.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    shared::error_text::exit(run())
}

fn run() -> anyhow::Result<()> {
    let command = api::cli::Arguments::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command.run())
}
