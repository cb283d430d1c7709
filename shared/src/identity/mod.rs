//! Credentials of principals and the cryptography behind them.
//!
//! Invariant: a secret that a client presents is stored only as a hash, or not at all. One file per
//! credential: [`api_key`], [`password`], [`access_token`] (a JWT that a process verifies alone),
//! [`refresh_token`] (which a session's row verifies). Rows are in [`crate::store::credentials`],
//! [`crate::store::users`] and [`crate::store::sessions`].

pub mod access_token;
pub mod api_key;
pub mod password;
pub mod refresh_token;
mod token_keys;

pub use token_keys::{TokenKeyError, TokenKeys};
