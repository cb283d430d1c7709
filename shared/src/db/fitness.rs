//! Whether the database is usable, and the last finding.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a failure is reported while later checks have not finished.
const REMEMBERED: Duration = Duration::from_secs(15);

/// State of the database for a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// Usable.
    Fit,
    /// Usable, with a flaw that an operator should know about.
    Flawed(Cow<'static, str>),
    /// Not usable.
    Unfit(Cow<'static, str>),
}

/// Result of the last check that finished.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings(Arc<Mutex<Option<(Instant, Fitness)>>>);

impl Findings {
    pub(super) fn note(&self, found: Fitness) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), found));
    }

    pub(super) fn last_failure(&self) -> Option<Fitness> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, found) = last.as_ref()?;
        (at.elapsed() < REMEMBERED && matches!(found, Fitness::Unfit(_))).then(|| found.clone())
    }
}
