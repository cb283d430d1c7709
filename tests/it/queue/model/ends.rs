//! Ends of runs: recorded in the ledger first, then settled in the index with the recorded result, by
//! the function that workers use; or by its two halves, with the second one late or lost.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use shared::queue::{
    Settlement,
    complete::{self, Finish, Outcome, Recorded, Records},
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
            let lease = Arc::new(self.leases[number].lease.clone());
            let (follow_up_flags, ran) = (lease.follow_up_flags, Duration::from_millis(ran_ms));
            Finish { lease, outcome: Some(outcome(end)), ran, follow_up_flags }
        };
        let finishes: Vec<Finish> = ends.iter().map(finish).collect();
        let system = &self.world.system.system;
        let Records { recorded, .. } = if settled {
            complete::complete(system, &self.index, &finishes).await?
        } else {
            complete::record(system, &finishes).await?
        };
        for (&(number, end), finish) in ends.iter().zip(&finishes) {
            let id = finish.lease.id;
            let result = recorded.get(&id).context("a result for every id")?;
            let verdict = self.model.ledger.finish(id, finish.lease.attempt, end);
            ensure!(verdict_of(*result) == verdict, "the ledger returned {result:?}, the model {verdict:?}");
            self.leases[number].alive = false;
            if let Some(settlement) = finish.settlement(Some(result)) {
                let due = settlement.again.is_some() && self.model.ledger.job(id).due;
                self.messages.settlements.push((number, settlement, due));
                if settled {
                    self.settled(number, settlement, due)?;
                }
            }
        }
        if settled {
            self.announced();
        } else {
            self.unannounced();
        }
        Ok(())
    }

    /// Delivers a settlement to the index.
    pub(super) async fn deliver(&mut self, number: usize, settlement: Settlement, due: bool) -> Result<()> {
        self.index.settle(&shard(), &[settlement]).await?;
        self.settled(number, settlement, due)
    }

    /// A settlement has reached the index.
    fn settled(&mut self, number: usize, settlement: Settlement, due: bool) -> Result<()> {
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

fn verdict_of(recorded: Recorded) -> Verdict {
    match recorded {
        Recorded::Final => Verdict::Final,
        Recorded::Again(..) => Verdict::Again,
        Recorded::RefusedFinal => Verdict::RefusedFinal,
        Recorded::RefusedOvertaken => Verdict::RefusedOvertaken,
        Recorded::Locked | Recorded::TimedOut => unreachable!("one try waits for locks"),
    }
}
