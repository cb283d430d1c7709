//! A grant in two steps: leased while the job is being committed, told when it is there.

use redis::RedisError;

use super::{Grant, Index, LeaseToken, LeasedId, WaitingJob, scripts::RESERVE};
use crate::queue::{QueueName, Settlement, Shard, keys};

/// A lease of a job that is not committed yet, for a worker that has not been told.
#[derive(Debug)]
pub(in crate::queue) struct Reservation {
    shard: Shard,
    subscription: String,
    grant: Grant,
    /// Unix milliseconds until which the worker expects to hold it.
    until_ms: i64,
}

impl Index {
    /// Leases a job to a worker that offers to take one, if it may start at once and nobody else waits. It is to be committed and
    /// [granted](Self::grant), or [released](Self::release); of one that is forgotten the lease runs out soon.
    pub(in crate::queue) async fn reserve(
        &self,
        queue: &QueueName,
        job: &WaitingJob,
    ) -> Result<Option<Reservation>, RedisError> {
        let shard = self.shard_of(queue, job.tenant);
        let mut call = self.call(&RESERVE, &shard);
        call.arg(job.id.as_bytes()).arg(job.tenant.as_uuid().as_bytes());
        let reserved: Option<(String, Vec<u8>, i64, i64)> = call.invoke_async(&mut self.connection()).await?;
        Ok(reserved.and_then(|(subscription, token, at_ms, until_ms)| {
            let leased = LeasedId { id: job.id, priority: job.priority, run_at_ms: at_ms };
            let grant = Grant { leased, token: LeaseToken::parse(&token)?, at_ms };
            Some(Reservation { shard, subscription, grant, until_ms })
        }))
    }

    /// Tells the worker. `false` if it is gone: then the reservation is released.
    pub(in crate::queue) async fn grant(&self, reservation: Reservation) -> Result<bool, RedisError> {
        let Reservation { shard, subscription, grant, until_ms } = &reservation;
        let (leases, id) = (keys::leases(&self.prefix, shard), grant.leased.id.as_bytes());
        let channel = keys::granted_channel(&self.prefix, shard, subscription);
        // The lease first: who is told must not lose it while it believes to hold it.
        let mut told = redis::pipe();
        told.cmd("ZADD").arg(leases).arg("XX").arg(until_ms).arg(id).ignore();
        told.cmd("PUBLISH").arg(channel).arg(grant.message());
        let (heard,): (u32,) = told.query_async(&mut self.connection()).await?;
        if heard == 0 {
            self.release(reservation).await?;
        }
        Ok(heard > 0)
    }

    /// Ends the lease of a job that does not come to be, or comes by another way.
    pub(in crate::queue) async fn release(&self, reservation: Reservation) -> Result<(), RedisError> {
        let Reservation { shard, grant, .. } = &reservation;
        let end = Settlement { id: grant.leased.id, token: grant.token, ran: None, again: None };
        self.settle(shard, &[end]).await
    }
}
