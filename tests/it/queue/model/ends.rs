//! Ends of runs: recorded in the ledger first, then settled in the index with the recorded result,
//! as in `worker::finisher`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shared::queue::{
    Settlement,
    complete::{self, Finish, Outcome, Recorded, Records},
    dispatch::Lease,
};

use super::{
    ledger::Verdict,
    scene::{LATER, Scene},
    step::End,
};
use crate::queue::support::shard;

impl Scene<'_> {
    /// `discards`: the first job is discarded; the others are completed in the same batch.
    pub async fn work_off(&mut self, wanted: usize, ran_ms: u64, discards: bool) -> Result<()> {
        let leases = self.fetch(wanted).await?;
        let end = |at| if discards && at == 0 { End::Discarded } else { End::Completed };
        let ends: Vec<_> = leases.into_iter().enumerate().map(|(at, number)| (number, end(at))).collect();
        self.end(&ends, ran_ms, true).await
    }

    pub async fn finish(&mut self, pick: usize, end: End, ran_ms: u64, settled: bool) -> Result<()> {
        if self.leases.is_empty() {
            return Ok(());
        }
        self.end(&[(pick % self.leases.len(), end)], ran_ms, settled).await
    }

    async fn end(&mut self, ends: &[(usize, End)], ran_ms: u64, settled: bool) -> Result<()> {
        let finish = |&(number, end): &(usize, End)| {
            let lease = &self.leases[number].lease;
            Finish { id: lease.id, attempt: lease.attempt, hooks: lease.hooks, outcome: outcome(end) }
        };
        let finishes: Vec<Finish> = ends.iter().map(finish).collect();
        let Records { recorded, follow_up } = complete::record(&self.world.system.system, &finishes).await?;
        for &(number, end) in ends {
            let lease = self.leases[number].lease.clone();
            let recorded = *recorded.get(&lease.id).context("a result for every id")?;
            let verdict = self.model.ledger.finish(lease.id, lease.attempt, end);
            ensure!(said(recorded) == verdict, "the ledger returned {recorded:?}, the model {verdict:?}");
            self.leases[number].alive = false;
            if let Some((settlement, due)) = self.settlement(number, recorded, ran_ms) {
                self.messages.settlements.push((number, settlement, due));
                if settled {
                    self.deliver(number, settlement, due).await?;
                }
            }
        }
        if settled {
            follow_up.announce(&self.index).await;
            self.announced();
        } else {
            self.unannounced();
        }
        Ok(())
    }

    /// The settlement of a lease, and whether a job that waits again is due; `None` if another
    /// worker has overtaken the lease.
    fn settlement(&self, number: usize, recorded: Recorded, ran_ms: u64) -> Option<(Settlement, bool)> {
        let &Lease { id, token, .. } = &self.leases[number].lease;
        let again = match recorded {
            Recorded::Final | Recorded::RefusedFinal => None,
            Recorded::Again(run_at_ms, priority) => Some((run_at_ms, priority)),
            Recorded::RefusedOvertaken => return None,
        };
        let due = again.is_some() && self.model.ledger.job(id).due;
        Some((Settlement { id, token, ran: Some(Duration::from_millis(ran_ms)), again }, due))
    }

    /// Delivers a settlement to the index.
    pub(super) async fn deliver(&mut self, number: usize, settlement: Settlement, due: bool) -> Result<()> {
        self.index.settle(&shard(), &[settlement]).await?;
        let Settlement { id, ran, again, .. } = settlement;
        if self.model.index.settle(id, number, due) {
            let ran_ms = u64::try_from(ran.unwrap_or_default().as_millis())?;
            self.model.fairness.charge(self.model.ledger.job(id).tenant, ran_ms);
            if let (Some((run_at_ms, _)), Some(at)) = (again, self.model.index.flows.get_mut(&id)) {
                *at = Some(run_at_ms);
            }
        }
        Ok(())
    }
}

fn outcome(end: End) -> Outcome {
    let (error, later) = ("as asked".to_owned(), LATER.to_std().unwrap_or_default());
    match end {
        End::Completed => Outcome::Completed { result: None },
        End::RetryNow => Outcome::Retry { error, delay: Duration::ZERO },
        End::RetryLater => Outcome::Retry { error, delay: later },
        End::Snoozed => Outcome::Snoozed { delay: later },
        End::Discarded => Outcome::Discarded { error },
        End::Cancelled => Outcome::Cancelled { reason: error },
    }
}

fn said(recorded: Recorded) -> Verdict {
    match recorded {
        Recorded::Final => Verdict::Final,
        Recorded::Again(..) => Verdict::Again,
        Recorded::RefusedFinal => Verdict::RefusedFinal,
        Recorded::RefusedOvertaken => Verdict::RefusedOvertaken,
    }
}
