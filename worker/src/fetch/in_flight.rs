//! A job in this process, from its lease to the end of its run.

use std::sync::Arc;

use shared::queue::Lease;
use tokio_util::sync::CancellationToken;

use super::permits::FetchPermit;

/// A leased job on its way to a slot, or in it.
pub struct InFlight {
    /// The lease.
    pub lease: Arc<Lease>,
    /// Cancels the run.
    pub cancelled: CancellationToken,
    /// Held until the run has ended.
    pub permit: FetchPermit,
}
