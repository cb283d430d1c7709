//! The doors to the world outside: what a job kind may reach beyond the stores.
//!
//! A kind never opens a socket itself; it calls a port, and a port says of each failure whether a retry can help.
//! See [`mail`] for the first of them, and [`outbound`] for requests to where tenants say.

pub mod mail;
pub mod outbound;
