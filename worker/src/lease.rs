//! The leases of this process, from the fetch until they are settled.

pub mod held_leases;
pub mod quarantine;
pub mod renewer;
