//! Sends mails to a relay: shares, health, connections and the deadline of one dialogue.
//!
//! Invariant: a send ends within the wait for a connection plus its time-out, and its outcome is
//! recorded in [`super::health`] and [`super::share`] before it is returned.

use std::time::Duration;

use deadpool::managed::{Pool, QueueMode};
use shared::tenancy::TenantId;
use tokio::time::timeout;

use super::{
    dialogue::{Progress, deliver, lost_reply},
    error::{Blame, MailError},
    health::{Away, RelayHealth},
    message::BuiltMail,
    pool::{Connector, Lease},
    share::{Pass, Shares},
    stage::MailStage,
};

/// A relay and its connections.
pub(super) struct RelayLink {
    pool: Pool<Connector>,
    shares: Shares,
    health: RelayHealth,
    timeout: Duration,
}

impl RelayLink {
    /// The pool is last in, first out: under light load one connection stays in use and the others
    /// age out.
    pub fn new(connector: Connector, connections: usize, timeout: Duration, longest_pause: Duration) -> Self {
        let pool = Pool::builder(connector)
            .max_size(connections)
            .queue_mode(QueueMode::Lifo)
            .build()
            .expect("a pool without time-outs of its own needs no runtime");
        let (shares, health) = (Shares::new(connections, timeout), RelayHealth::new(longest_pause));
        Self { pool, shares, health, timeout }
    }

    /// Sends one mail.
    pub async fn send(&self, tenant: TenantId, mail: &BuiltMail) -> Result<String, MailError> {
        let pass = self.shares.enter(tenant, mail.to.domain()).await.map_err(|busy| {
            MailError::not_now(MailStage::Wait, "no connection is free for this mail", busy.retry_in)
        })?;
        self.health.admit().map_err(away)?;
        let mut progress = Progress::new();
        let outcome = timeout(self.timeout, deliver(&self.pool, mail, &mut progress)).await;
        let hung = outcome.is_err() && progress.stage != MailStage::Connect;
        let outcome = outcome.unwrap_or_else(|_| self.timed_out(&progress));
        self.note(outcome, &pass, hung)
    }

    /// Checks whether the relay is usable, without a mail.
    pub async fn probe(&self) -> Result<(), MailError> {
        self.health.admit().map_err(away)?;
        let found = timeout(self.timeout, Lease::take(&self.pool)).await;
        let found =
            found.unwrap_or_else(|_| Err(MailError::transient(MailStage::Connect, "the relay does not respond")));
        match found {
            Ok(_) => {
                self.health.replied();
                Ok(())
            }
            Err(error) => {
                self.health.failed();
                Err(error)
            }
        }
    }

    pub fn away_for(&self) -> Option<Duration> {
        self.health.away_for()
    }

    fn note(&self, outcome: Result<String, MailError>, pass: &Pass, hung: bool) -> Result<String, MailError> {
        match outcome {
            Err(mut error) if error.blame() == Some(Blame::Relay) => {
                if !self.health.failed() {
                    error.set_blame(Blame::Busy);
                }
                Err(error)
            }
            outcome => {
                self.health.replied();
                if hung {
                    self.shares.hung(pass);
                } else {
                    self.shares.replied(pass);
                }
                outcome
            }
        }
    }

    fn timed_out(&self, progress: &Progress) -> Result<String, MailError> {
        let ms = self.timeout.as_millis();
        match (progress.stage, progress.received_code) {
            // Only the end of the reply was missing; its code is known.
            (MailStage::Reply, Some(code)) if code / 100 == 2 => Ok(code.to_string()),
            (MailStage::Reply, code) => Err(lost_reply(code, &format!("the relay did not answer within {ms} ms"))),
            (MailStage::Connect, _) => {
                Err(MailError::transient(MailStage::Connect, format!("the relay could not be reached within {ms} ms")))
            }
            (stage, _) => Err(MailError::transient(stage, format!("the relay did not answer within {ms} ms"))),
        }
    }
}

fn away(away: Away) -> MailError {
    MailError::not_now(MailStage::Connect, "the relay is unavailable", away.retry_in)
}
