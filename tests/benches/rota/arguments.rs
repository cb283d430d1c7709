//! The command line.

use anyhow::{Context as _, Result, bail};

use crate::figures::{ALL, Figure};

/// The parsed command line.
pub struct Arguments {
    names: Vec<String>,
    jobs: Option<usize>,
    seconds: Option<u64>,
    /// Runs of each figure.
    pub runs: usize,
    /// JSON output.
    pub json: bool,
}

/// The size of a figure.
#[derive(Clone, Copy)]
pub struct Size {
    /// Number of jobs.
    pub jobs: usize,
    /// Length of the measurement window.
    pub seconds: u64,
}

impl Arguments {
    /// Returns `None` if only the list of figures was requested.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut arguments = Self { names: Vec::new(), jobs: None, seconds: None, runs: 1, json: false };
        while let Some(word) = words.next() {
            let mut number = || words.next().unwrap_or_default().parse::<usize>().with_context(|| format!("{word} N"));
            match word.as_str() {
                // Cargo passes this to every bench.
                "--bench" => {}
                "--help" => return Ok(None),
                "--json" => arguments.json = true,
                "--jobs" => arguments.jobs = Some(number()?),
                "--seconds" => arguments.seconds = Some(number()? as u64),
                "--runs" => arguments.runs = number()?.max(1),
                name if ALL.iter().any(|figure| figure.name == name) => arguments.names.push(word),
                other => bail!("there is no figure {other:?}; there are:\n{}", crate::figures::list()),
            }
        }
        Ok(Some(arguments))
    }

    /// Whether this figure was requested.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|asked| asked == name)
    }

    /// The figure's own size, unless the command line overrides it.
    pub fn size(&self, figure: &Figure) -> Size {
        Size { jobs: self.jobs.unwrap_or(figure.jobs), seconds: self.seconds.unwrap_or(figure.seconds) }
    }
}
