//! The figures of Rota, measured from outside: release binaries, real stores with fsync on, HTTP
//! over loopback.
//!
//!     cargo build --release --workspace --bins
//!     cargo bench -p tests --bench rota -- [FIGURE]... [OPTION]...
//!
//! Options are `--json`, `--runs N`, `--jobs N` and `--seconds N`. Without names all figures are
//! measured; `--help` lists them. Each run has new stores and new processes, and the value of a
//! figure is the median of its runs. Absolute figures depend on the machine and its other load;
//! compare within one run. Next: [`figures`] for the list, [`bed`] for the environment of a run.

mod arguments;
mod backlog;
mod bed;
mod client;
mod figure;
mod figures;
mod load;
mod scrape;
mod stamps;

use std::io::Write as _;

use anyhow::{Context as _, Result};
use arguments::Arguments;
use bed::Bed;
use figure::{Measured, Series};
use figures::{ALL, Figure};

fn main() -> Result<()> {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1))? else {
        say(&figures::list());
        return Ok(());
    };
    tests::tls::install_crypto_provider();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    let mut all = Vec::new();
    for figure in ALL.iter().filter(|figure| arguments.wants(figure.name)) {
        let mut runs = Vec::new();
        for _ in 0..arguments.runs {
            runs.push(take(figure, arguments).await.with_context(|| figure.name)?);
        }
        let series = Series::of(&runs);
        if !arguments.json {
            for series in &series {
                say(&series.line());
            }
        }
        all.extend(series);
    }
    if arguments.json {
        say(&serde_json::to_string(&all)?);
    }
    Ok(())
}

async fn take(figure: &Figure, arguments: &Arguments) -> Result<Vec<Measured>> {
    let mut bed = Bed::make(figure).await?;
    (figure.take)(&mut bed, arguments.size(figure)).await
}

fn say(text: &str) {
    // A closed pipe ends the bench anyway.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
