//! Message authentication codes.

use hmac::{Hmac, KeyInit as _};
use sha2::Sha256;

/// An HMAC-SHA-256 with this key, without text yet.
///
/// # Panics
/// Never: HMAC takes a key of any length.
pub fn hmac_sha256(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}
