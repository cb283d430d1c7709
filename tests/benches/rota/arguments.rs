//! The command line.

use anyhow::{Context as _, Result, bail};

use crate::figures::{ALL, Figure};

/// What is asked for.
pub struct Arguments {
    names: Vec<String>,
    jobs: Option<usize>,
    seconds: Option<u64>,
    /// Runs of each figure.
    pub runs: usize,
    /// For programs instead of people.
    pub json: bool,
}

/// How large a figure is taken.
#[derive(Clone, Copy)]
pub struct Size {
    /// Jobs it works on.
    pub jobs: usize,
    /// How long its window of measurement is.
    pub seconds: u64,
}

impl Arguments {
    /// `None` if a list of the figures is all that is wanted.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut arguments = Self { names: Vec::new(), jobs: None, seconds: None, runs: 1, json: false };
        while let Some(word) = words.next() {
            let mut number = || words.next().unwrap_or_default().parse::<usize>().with_context(|| format!("{word} N"));
            match word.as_str() {
                // What cargo passes to every bench.
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

    /// Whether this figure is to be taken.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|asked| asked == name)
    }

    /// The figure's own size, unless another was asked for.
    pub fn size(&self, figure: &Figure) -> Size {
        Size { jobs: self.jobs.unwrap_or(figure.jobs), seconds: self.seconds.unwrap_or(figure.seconds) }
    }
}
