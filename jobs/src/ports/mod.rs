//! The doors to the world outside: what a job kind may reach beyond the stores.
//!
//! A kind never opens a socket itself; it calls a port, and a port says of each failure whether a retry can help.
//! See [`mail`] for the first of them.

pub mod mail;
