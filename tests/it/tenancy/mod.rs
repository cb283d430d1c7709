//! The walls between tenants, tried from inside the database as the role that the API and the handlers have.

mod reading;
mod schema;
mod world;
mod writing;
