//! Bytes of request and response bodies in memory, counted per tenant and for the process.
//!
//! Invariant: bytes are counted before they are kept and until they are dropped, and a body that
//! would exceed a limit is rejected before more of it is read; so the memory of all requests is
//! bounded, and one tenant can use only a part of it. [`bytes`] counts, [`account`] attaches a
//! count to one request.

mod account;
mod bytes;

pub use self::{
    account::RequestAccount,
    bytes::{InFlightBytes, InFlightLimits},
};
