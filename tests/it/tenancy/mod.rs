//! Isolation between tenants, tested from inside the database with the role of the API and the
//! handlers.

mod reading;
mod schema;
mod world;
mod writing;
