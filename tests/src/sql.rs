//! SQL for rows that are written into the ledger directly.

/// The expression for the id of a job that was made at `time`, itself an expression: in the order of time as the producer's are,
/// and random in the rest.
pub fn id_at(time: &str) -> String {
    format!("overlay(gen_random_uuid()::text placing left(uuid_at({time})::text, 13) || '-7' from 1 for 15)::uuid")
}
