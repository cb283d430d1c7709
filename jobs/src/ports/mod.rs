//! Ports to external systems: what a job kind may access besides the stores.
//!
//! A kind never opens a socket itself. It calls a port, and each failure of a port says whether a
//! retry can succeed. See [`mail`] for mails and [`outbound`] for requests to URLs that tenants
//! choose.

pub mod mail;
pub mod outbound;
