//! The vocabulary and the walls of Rota: names, clock, configuration, tenancy, database, queue. No axum, no apalis, no workflow.

pub mod email_address;
