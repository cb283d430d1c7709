//! The SMTP sink as a process of its own, for runs that outlive one test and kill everything else.
//!
//! Invariant: every message answered with 250 is in the journal, one JSON line `{to, message_id,
//! at}` per recipient. The process prints its URL once it listens and ends on SIGINT or SIGTERM.
//! The server is `tests::smtp_sink`.

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use tests::smtp_sink::{SinkOptions, SmtpSink};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "Accept mail on 127.0.0.1 and record its recipients")]
struct Arguments {
    /// Port; 0 lets the kernel choose
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// File for one JSON line per recipient of each accepted message
    #[arg(long)]
    journal: Option<PathBuf>,
    /// Maximum number of messages accepted per second
    #[arg(long)]
    rate_limit: Option<u32>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let sink = SmtpSink::start_with(SinkOptions {
        port: arguments.port,
        journal: arguments.journal,
        accept_per_second: arguments.rate_limit,
        ..SinkOptions::default()
    })
    .await?;
    writeln!(std::io::stdout(), "{}", sink.url())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
