//! SQL fragments for rows that tests write directly into the ledger.

/// The expression for the id of a job created at `time`, which is an SQL expression itself. Ids
/// sort by time, like those of the producer, and are random otherwise.
pub fn id_at(time: &str) -> String {
    format!("overlay(gen_random_uuid()::text placing left(uuid_at({time})::text, 13) || '-7' from 1 for 15)::uuid")
}
