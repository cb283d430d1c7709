//! Passing on what the index announces: work to an idle fetcher, cancellations to running jobs.
//!
//! Invariant: it never waits for either, so a cancellation reaches a run also while all slots are busy.

use std::sync::Arc;

use shared::queue::{Notice, Notices};
use tokio::sync::Notify;

use crate::holdings::Holdings;

/// Listens until the notices end.
pub async fn listen(mut notices: Notices, holdings: Holdings, wake: Arc<Notify>) {
    while let Some(notice) = notices.next().await {
        match notice {
            Notice::Cancelled(id) => holdings.cancel(id),
            // A worker follows nothing.
            Notice::Changed(..) => {}
            // Which queue it is does not matter: the fetcher asks all of its queues in a few round trips.
            Notice::Wake(_) | Notice::Connected => wake.notify_one(),
        }
    }
}
