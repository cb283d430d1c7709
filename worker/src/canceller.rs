//! Cancelling runs of jobs that are said to be cancelled.
//!
//! Invariant: a notice may be older than the run: of a job that was cancelled, redriven and leased anew. The ledger says whether the run is
//! still waited for. While it does not answer, the run goes on; [`crate::renewer::check`] finds it later.

use shared::queue::consumer::Consumer;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::holdings::Holdings;

/// Looked up at once.
const AT_ONCE: usize = 500;

/// Looks up what is said to be cancelled, until no more is said.
pub async fn cancel(consumer: Consumer, holdings: Holdings, mut said: mpsc::UnboundedReceiver<Uuid>) {
    let mut ids = Vec::with_capacity(AT_ONCE);
    while said.recv_many(&mut ids, AT_ONCE).await > 0 {
        let held =
            ids.drain(..).filter_map(|id| holdings.said_cancelled(id).map(|(attempt, token)| (id, attempt, token)));
        let held: Vec<_> = held.collect();
        if held.is_empty() {
            continue;
        }
        let (ids, attempts): (Vec<_>, Vec<_>) = held.iter().map(|(id, attempt, _)| (*id, *attempt)).unzip();
        match consumer.unwanted(&ids, &attempts).await {
            Ok(unwanted) => {
                for (id, _, token) in held.iter().filter(|(id, ..)| unwanted.contains(id)) {
                    holdings.cancel_if(*id, *token);
                }
            }
            Err(error) => tracing::debug!(%error, "cancellations could not be looked up now"),
        }
    }
}
