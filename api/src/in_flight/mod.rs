//! Bytes of bodies and answers that are in memory, counted per tenant and for the process.
//!
//! Invariant: bytes are counted before they are kept and until they are dropped, and a body that would pass a limit is refused before
//! it is read further; so the memory of all requests together is bounded, and one tenant has a part of it. [`bytes`] counts,
//! [`account`] ties a count to one request.

mod account;
mod bytes;

pub use self::{
    account::{RequestAccount, handle},
    bytes::{Full, InFlightBytes, InFlightLimits},
};
