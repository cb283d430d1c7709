//! Stream limits: open streams per tenant and in the process.
//!
//! Invariant: a stream is counted until its [`StreamPermit`] is dropped, and neither count exceeds its
//! limit, so one tenant cannot take the connections of the others.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{telemetry::names, tenancy::TenantId};
use tokio_util::sync::CancellationToken;

use crate::tenant_counts::{Full, TenantCounts};

/// Gauges are dropped when they are not set for a minute.
const REPORT: Duration = Duration::from_secs(5);

/// The counts. Cheap to clone.
#[derive(Clone)]
pub(super) struct OpenStreams {
    taken: Arc<Mutex<TenantCounts>>,
    per_tenant: usize,
    per_process: usize,
}

/// The permit of one open stream.
pub struct StreamPermit {
    tenant: TenantId,
    open_streams: OpenStreams,
}

impl OpenStreams {
    pub(super) fn new(per_tenant: usize, per_process: usize) -> Self {
        Self { taken: Arc::default(), per_tenant, per_process }
    }

    pub(super) fn take(&self, tenant: TenantId) -> Result<StreamPermit, Full> {
        self.taken().add_within(tenant, 1, self.per_tenant, self.per_process)?;
        Ok(StreamPermit { tenant, open_streams: self.clone() })
    }

    /// Reports the number of streams as a gauge until `stop`.
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 streams")]
    pub(super) async fn report(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REPORT);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            metrics::gauge!(names::EVENT_STREAMS).set(self.taken().total() as f64);
        }
    }

    fn taken(&self) -> MutexGuard<'_, TenantCounts> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.open_streams.taken().remove(self.tenant, 1);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    #[test]
    fn both_limits_hold_and_a_closed_stream_frees_its_permit() {
        let open_streams = OpenStreams::new(2, 3);
        let first = open_streams.take(tenant(1)).ok();
        let _second = open_streams.take(tenant(1)).ok();
        assert_eq!(open_streams.take(tenant(1)).err(), Some(Full::Tenant));
        let third = open_streams.take(tenant(2)).ok();
        assert!(first.is_some() && third.is_some());
        assert_eq!(open_streams.take(tenant(2)).err(), Some(Full::Process));
        drop(first);
        let _again = open_streams.take(tenant(1)).ok();
        assert_eq!(open_streams.take(tenant(1)).err(), Some(Full::Tenant), "the released permit is taken again");
        drop(third);
        assert_eq!(open_streams.taken().total(), 2);
    }
}
