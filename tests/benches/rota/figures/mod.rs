//! The list of all figures: one line here, and one file each, or one for a few related ones.

mod cancel;
mod depth;
mod drain;
mod enqueue;
mod floods;
mod jain;
mod memory;
mod pickup;
mod quiet;
mod rebuild;
mod recovery;

use std::{future::Future, pin::Pin, time::Duration};

use anyhow::Result;

use crate::{arguments::Size, bed::Bed, figure::Measured};

type Take = for<'a> fn(&'a mut Bed, Size) -> Pin<Box<dyn Future<Output = Result<Vec<Measured>>> + 'a>>;

/// How a figure is measured.
pub struct Figure {
    /// The name on the command line.
    pub name: &'static str,
    about: &'static str,
    /// Number of jobs, unless overridden on the command line.
    pub jobs: usize,
    /// Seconds of the window, unless overridden on the command line.
    pub seconds: u64,
    /// Number of tenants.
    pub tenants: u16,
    /// The duration of leases, if not the default.
    pub lease: Option<Duration>,
    /// `ROTA_TEST_KINDS`.
    pub kinds: &'static str,
    /// Measures the figure.
    pub take: Take,
}

impl Figure {
    const fn new(name: &'static str, about: &'static str, jobs: usize, seconds: u64, take: Take) -> Self {
        Self { name, about, jobs, seconds, tenants: 1, lease: None, kinds: "1", take }
    }

    const fn tenants(self, tenants: u16) -> Self {
        Self { tenants, ..self }
    }

    const fn many_kinds(self) -> Self {
        Self { kinds: "many", ..self }
    }

    const fn lease(self, lease: Duration) -> Self {
        Self { lease: Some(lease), ..self }
    }
}

/// All figures.
pub const ALL: &[Figure] = &[
    Figure::new("enqueue", "HTTP enqueue, one job per request, 64 connections", 50_000, 0, |bed, size| {
        Box::pin(enqueue::single(bed, size))
    }),
    Figure::new("batch", "HTTP enqueue, batches of 100", 100_000, 0, |bed, size| Box::pin(enqueue::batch(bed, size))),
    Figure::new("drain", "noop jobs, one worker", 200_000, 0, |bed, size| Box::pin(drain::take(bed, size))),
    Figure::new("pickup", "idle system: from the HTTP request to the handler's start", 0, 20, |bed, size| {
        Box::pin(pickup::take(bed, size))
    }),
    Figure::new("quiet", "pick-up of a quiet tenant beside a flood, over its value alone", 200_000, 25, |bed, size| {
        Box::pin(quiet::one_kind(bed, size))
    })
    .tenants(2),
    Figure::new(
        "quiet-split",
        "as quiet, the flood split over 1,000 kinds, 4 priorities and 11 queues",
        200_000,
        25,
        |bed, size| Box::pin(quiet::split(bed, size)),
    )
    .tenants(2)
    .many_kinds(),
    Figure::new("floods", "pick-up of a quiet tenant beside jobs that take no worker time", 40_000, 15, |bed, size| {
        Box::pin(floods::take(bed, size))
    })
    .tenants(2),
    Figure::new("jain", "worker-seconds over weight, 20 tenants, jobs of 1 to 100 ms", 0, 20, |bed, size| {
        Box::pin(jain::take(bed, size))
    })
    .tenants(20),
    Figure::new(
        "depth-scaling",
        "drain rate at 1M waiting over 10k, and at 10k tenants over 10",
        1_000_000,
        0,
        |bed, size| Box::pin(depth::take(bed, size)),
    ),
    Figure::new("memory", "Redis bytes per waiting job", 1_000_000, 0, |bed, size| Box::pin(memory::take(bed, size))),
    Figure::new("rebuild", "the index rebuilt while enqueueing continues", 1_000_000, 0, |bed, size| {
        Box::pin(rebuild::take(bed, size))
    }),
    Figure::new("recovery", "from kill -9 of a worker until its jobs run again", 20, 0, |bed, size| {
        Box::pin(recovery::take(bed, size))
    })
    .lease(Duration::from_secs(2)),
    Figure::new("cancel", "from the request until the run has stopped", 200, 0, |bed, size| {
        Box::pin(cancel::take(bed, size))
    }),
];

/// The human-readable list.
pub fn list() -> String {
    let lines: Vec<String> = ALL.iter().map(|figure| format!("  {:14} {}", figure.name, figure.about)).collect();
    lines.join("\n")
}
