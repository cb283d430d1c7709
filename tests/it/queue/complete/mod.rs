//! The end of a run: its outcome in the ledger, and the follow-up work for batches, dependents and
//! unique keys.

mod cascades;
mod outcomes;
mod recording;
mod relations;
