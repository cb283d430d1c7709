//! The figures of Rota, taken from outside: release binaries, real stores with fsync on, HTTP over loopback.
//!
//!     cargo build --release --workspace --bins
//!     cargo bench -p tests --bench rota -- [enqueue|batch|drain|pickup|memory|rebuild]... [--json] [--jobs N]
//!
//! Without names all figures are taken. Absolute figures depend on the machine and on what else it does; compare within one run.

mod bed;
mod client;
mod figures;

use anyhow::{Result, bail};
use bed::Bed;
use figures::Figure;

/// Jobs that the figures work on, unless `--jobs` says otherwise.
const JOBS: usize = 100_000;

struct Arguments {
    names: Vec<String>,
    jobs: usize,
    json: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    tests::tls::install_crypto_provider();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    let mut all = Vec::new();
    for (name, take) in figures::ALL {
        if arguments.names.is_empty() || arguments.names.iter().any(|asked| asked == name) {
            let mut bed = Bed::make().await?;
            let figures = take(&mut bed, arguments.jobs).await?;
            if !arguments.json {
                figures.iter().for_each(Figure::print);
            }
            all.extend(figures);
        }
    }
    if arguments.json {
        figures::print_json(&all);
    }
    Ok(())
}

impl Arguments {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = Self { names: Vec::new(), jobs: JOBS, json: false };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            match word.as_str() {
                // What cargo passes to every bench.
                "--bench" => {}
                "--json" => arguments.json = true,
                "--jobs" => arguments.jobs = words.next().unwrap_or_default().parse()?,
                name if figures::ALL.iter().any(|(known, _)| *known == name) => arguments.names.push(word),
                other => {
                    bail!("there is no figure {other:?}; there are: {}", figures::ALL.map(|(name, _)| name).join(", "))
                }
            }
        }
        Ok(arguments)
    }
}
