//! The form in which PostgreSQL stores a password: a SCRAM-SHA-256 verifier (RFC 5802, RFC 7677),
//! as accepted by `create role`.
//!
//! Invariant: no statement that is sent contains a password, so no statement log does.

use data_encoding::BASE64;
use hmac::Mac as _;
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};

use crate::mac::hmac_sha256;

/// PostgreSQL's default.
const ITERATIONS: u32 = 4_096;
const SALT_BYTES: usize = 16;

/// A verifier of the password, with a random salt.
pub(super) fn verifier(password: &str) -> String {
    let mut salt = [0; SALT_BYTES];
    rand::rng().fill_bytes(&mut salt);
    verifier_with(password, &salt)
}

/// RFC 5802 section 3. A password that is not ASCII is used unchanged, which equals the result of
/// `SASLprep` for normalised text.
fn verifier_with(password: &str, salt: &[u8]) -> String {
    let salted = salted(password.as_bytes(), salt);
    let stored = Sha256::digest(keyed(&salted, b"Client Key"));
    let server = keyed(&salted, b"Server Key");
    let (salt, stored, server) = (BASE64.encode(salt), BASE64.encode(&stored), BASE64.encode(&server));
    format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored}:{server}")
}

/// The function `Hi` of RFC 5802: one block of PBKDF2.
fn salted(password: &[u8], salt: &[u8]) -> [u8; 32] {
    let mut block = keyed(password, &[salt, &1_u32.to_be_bytes()].concat());
    let mut sum = block;
    for _ in 1..ITERATIONS {
        block = keyed(password, &block);
        sum.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

fn keyed(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = hmac_sha256(key);
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Generated with Python's `hashlib.pbkdf2_hmac` and `hmac` from the password `pencil` and the
    /// salt of RFC 7677's example.
    #[test]
    fn the_verifier_matches_the_example_of_the_rfc() {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(
            verifier_with("pencil", &salt),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn each_verifier_has_its_own_salt() {
        assert_ne!(verifier("hunter2"), verifier("hunter2"));
        assert!(!verifier("hunter2").contains("hunter2"));
    }
}
