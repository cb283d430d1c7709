//! The text of an API key: `rota_key_<id>_<secret><checksum>`.
//!
//! The id (26 characters of lower-case base 32) finds the row, the secret (43 characters of base
//! 62) proves it, and the checksum (CRC-32 of all before it, 6 characters of base 62) tells a
//! mistyped or invented key without a look-up. As a regular expression, for scanners:
//! `rota_key_[a-z2-7]{26}_[0-9A-Za-z]{49}`. Keys of the first format, `rota_<id>_<secret>` with
//! both parts in base 32 and without a checksum, stay valid. The secret of an API client has the same
//! form, with `client` instead of `key`.
//!
//! Invariant: a secret has at least 256 random bits, so a plain SHA-256 hash is enough to store it.

use data_encoding::BASE32_NOPAD;
use rand::{Rng as _, distr::Alphanumeric};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

const PREFIX: &str = "rota_key_";
const CLIENT_PREFIX: &str = "rota_client_";
const FIRST_FORMAT: &str = "rota_";
const SECRET_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The secret part of a new key or client.
#[derive(Clone)]
pub struct ApiKeySecret(String);

/// A key or a client's secret as it is presented.
pub struct PresentedKey {
    /// The id of its row.
    pub id: Uuid,
    secret: Vec<u8>,
}

impl ApiKeySecret {
    /// A new random secret.
    pub fn random() -> Self {
        Self(rand::rng().sample_iter(Alphanumeric).take(SECRET_CHARS).map(char::from).collect())
    }

    /// The hash that is stored.
    pub fn hash(&self) -> Vec<u8> {
        hash(self.0.as_bytes())
    }

    /// The whole key as the client uses it. This is the only time that it is shown.
    pub fn present(&self, id: Uuid) -> String {
        self.present_with(PREFIX, id)
    }

    /// The whole secret of an API client, also shown once.
    pub fn present_as_client(&self, id: Uuid) -> String {
        self.present_with(CLIENT_PREFIX, id)
    }

    fn present_with(&self, prefix: &str, id: Uuid) -> String {
        let text = format!("{prefix}{}_{}", BASE32_NOPAD.encode(id.as_bytes()).to_lowercase(), self.0);
        let checksum = checksum(&text);
        text + &checksum
    }
}

impl PresentedKey {
    /// Parses a presented key; `None` if it does not have the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        text.strip_prefix(PREFIX).map_or_else(|| Self::parse_first_format(text), |rest| Self::parse_current(text, rest))
    }

    /// Parses the presented secret of an API client; `None` if it does not have the form of one.
    pub fn parse_client_secret(text: &str) -> Option<Self> {
        Self::parse_current(text, text.strip_prefix(CLIENT_PREFIX)?)
    }

    fn parse_current(text: &str, rest: &str) -> Option<Self> {
        let (id, tail) = rest.split_once('_')?;
        let is_base62 = tail.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if tail.len() != SECRET_CHARS + CHECKSUM_CHARS || !is_base62 {
            return None;
        }
        let (body, sum) = text.split_at(text.len() - CHECKSUM_CHARS);
        let secret = tail.as_bytes()[..SECRET_CHARS].to_vec();
        (sum == checksum(body)).then_some(Self { id: parse_id(id)?, secret })
    }

    fn parse_first_format(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(FIRST_FORMAT)?.split_once('_')?;
        let secret = base32(secret).filter(|secret| secret.len() == 32)?;
        Some(Self { id: parse_id(id)?, secret })
    }

    /// Whether the secret has this hash.
    pub fn matches(&self, stored: &[u8]) -> bool {
        stored.ct_eq(&hash(&self.secret)).into()
    }
}

fn hash(secret: &[u8]) -> Vec<u8> {
    Sha256::digest(secret).to_vec()
}

fn parse_id(text: &str) -> Option<Uuid> {
    Uuid::from_slice(&base32(text)?).ok()
}

/// Decodes lower-case base 32; one spelling only, so that a key has one text.
fn base32(text: &str) -> Option<Vec<u8>> {
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    is_lower.then(|| BASE32_NOPAD.decode(text.to_uppercase().as_bytes()).ok()).flatten()
}

/// CRC-32 (IEEE 802.3) in base 62, most significant digit first.
fn checksum(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes()) as usize;
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[rest % BASE62.len()];
        rest /= BASE62.len();
    }
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_round_trips_and_matches_its_hash_alone() {
        let (id, secret) = (Uuid::max(), ApiKeySecret::random());
        let parsed = PresentedKey::parse(&secret.present(id)).expect("has the form");
        assert_eq!(parsed.id, id);
        assert!(parsed.matches(&secret.hash()) && !parsed.matches(&ApiKeySecret::random().hash()));
    }

    #[test]
    fn a_key_has_the_published_form() {
        let form = regex::Regex::new("^rota_key_[a-z2-7]{26}_[0-9A-Za-z]{49}$").unwrap();
        for _ in 0..100 {
            assert!(form.is_match(&ApiKeySecret::random().present(Uuid::new_v4())));
        }
        // Computed with zlib's crc32 and the digits above.
        assert_eq!(checksum("123456789"), format!("{:0>6}", base62(0xcbf4_3926)));
    }

    fn base62(mut number: u64) -> String {
        let mut text = String::new();
        while number > 0 {
            let digit = usize::try_from(number % 62).unwrap();
            text.insert(0, char::from(BASE62[digit]));
            number /= 62;
        }
        text
    }

    /// Every single changed, swapped or missing character is found by the checksum.
    #[test]
    fn a_mistyped_key_has_no_form() {
        let key = ApiKeySecret::random().present(Uuid::max());
        for place in 0..key.len() {
            let mut bytes = key.clone().into_bytes();
            bytes[place] = if bytes[place] == b'a' { b'b' } else { b'a' };
            assert!(PresentedKey::parse(&String::from_utf8(bytes).unwrap()).is_none(), "changed at {place}");
            assert!(PresentedKey::parse(&key[..place]).is_none(), "cut at {place}");
        }
        let swapped: String = key
            .chars()
            .map(|one| if one.is_lowercase() { one.to_ascii_uppercase() } else { one.to_ascii_lowercase() })
            .collect();
        assert!(PresentedKey::parse(&swapped).is_none());
    }

    #[test]
    fn malformed_keys_are_refused() {
        for text in
            ["", "rota", "rota_", "rota__", "rota_aa_bb", "rota_key_", "other_aaaa_bbbb", "rota_ä_ö", "rota_key_ä_ö"]
        {
            assert!(PresentedKey::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_key_of_the_first_format_stays_valid() {
        let text = format!("rota_{}_{}", "a".repeat(26), "b".repeat(52));
        let parsed = PresentedKey::parse(&text);
        let secret = BASE32_NOPAD.decode("B".repeat(52).as_bytes());
        // 52 characters of base 32 have four bits too many, which must be zero.
        assert_eq!(parsed.is_some(), secret.is_ok());
        let (id, secret) = (Uuid::new_v4(), [7_u8; 32]);
        let encode = |bytes: &[u8]| BASE32_NOPAD.encode(bytes).to_lowercase();
        let parsed = PresentedKey::parse(&format!("rota_{}_{}", encode(id.as_bytes()), encode(&secret))).unwrap();
        assert_eq!(parsed.id, id);
        assert!(parsed.matches(&hash(&secret)));
    }
}
