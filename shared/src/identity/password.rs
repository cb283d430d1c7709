//! Passwords: what is accepted, and their hashes.
//!
//! Invariant: a hash is argon2id with the parameters that OWASP recommends (19 MiB, two passes, one
//! lane), in PHC format, so that later parameters can differ. Hashing takes tens of milliseconds of
//! a processor: callers run it on a bounded pool, never on a thread of the runtime.

use std::sync::LazyLock;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use rand::{Rng as _, distr::Alphanumeric};
use unicode_normalization::UnicodeNormalization as _;

/// The minimum length in characters (NIST SP 800-63B recommends at least 8; 15 without another factor).
pub const MIN_CHARS: usize = 12;
/// The maximum length in bytes, so that hashing a text cannot be made costly.
pub const MAX_BYTES: usize = 256;

/// A password in the form that is hashed: Unicode NFKC, as different keyboards and systems compose
/// the same characters differently.
#[derive(Clone)]
pub struct Password(String);

/// Why a new password is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("a password has at least {MIN_CHARS} characters")]
    TooShort,
    #[error("a password has at most {MAX_BYTES} bytes")]
    TooLong,
    #[error("a password contains no NUL character")]
    Nul,
    #[error("this password is among the first that are guessed; choose another")]
    Guessable,
}

/// A random text of 130 bits, for a user whom a program creates.
pub fn random_text() -> String {
    rand::rng().sample_iter(Alphanumeric).take(22).map(char::from).collect()
}

impl Password {
    /// A password that somebody presents; `None` if it is too long to be one.
    pub fn presented(text: &str) -> Option<Self> {
        (text.len() <= MAX_BYTES).then(|| Self(text.nfkc().collect()))
    }

    /// A password to be set, for a person with this address and name.
    pub fn new(text: &str, personal: &[&str]) -> Result<Self, PasswordError> {
        let password = Self::presented(text).ok_or(PasswordError::TooLong)?;
        if password.0.contains('\0') {
            return Err(PasswordError::Nul);
        }
        if password.0.chars().count() < MIN_CHARS {
            return Err(PasswordError::TooShort);
        }
        if password.is_guessable(personal) { Err(PasswordError::Guessable) } else { Ok(password) }
    }

    /// Whether an attacker finds it within some thousand million guesses, by the estimate of zxcvbn
    /// (Wheeler 2016): common passwords and words, repeated and sequential characters, keyboard
    /// patterns, and the person's own data.
    fn is_guessable(&self, personal: &[&str]) -> bool {
        // zxcvbn's time grows with the square of the length; 100 characters are its own bound.
        let start: String = self.0.chars().take(100).collect();
        let words = personal.iter().flat_map(|text| text.split(|one: char| !one.is_alphanumeric()));
        let own: Vec<&str> = personal.iter().copied().chain(words).filter(|word| word.len() > 2).collect();
        u8::from(zxcvbn::zxcvbn(&start, &own).score()) < 3
    }

    /// The hash to store, under a random salt.
    ///
    /// # Panics
    /// Never: the parameters are constants that argon2 accepts.
    pub fn hash(&self) -> String {
        Argon2::default().hash_password(self.0.as_bytes()).expect("the parameters are valid").to_string()
    }

    /// Whether the stored hash is this password's. Without a hash a constant one is compared, so
    /// that the time does not tell whether there is one.
    pub fn matches(&self, stored: Option<&str>) -> bool {
        /// The hash of an unknown random text.
        static NOBODYS: LazyLock<String> = LazyLock::new(|| Password(uuid::Uuid::new_v4().to_string()).hash());
        let parsed = PasswordHash::new(stored.unwrap_or(&NOBODYS));
        let is_right = parsed.is_ok_and(|hash| Argon2::default().verify_password(self.0.as_bytes(), &hash).is_ok());
        is_right && stored.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_hash_alone() {
        let password = Password::new("correct horse battery staple", &[]).unwrap();
        let hash = password.hash();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(password.matches(Some(&hash)));
        assert!(!Password::presented("correct horse battery stapl").unwrap().matches(Some(&hash)));
        assert!(!password.matches(None) && !password.matches(Some("")));
        assert_ne!(hash, password.hash(), "the salt is random");
    }

    #[test]
    fn both_sides_of_each_limit() {
        let of = |text: &str| Password::new(text, &["ada@example.com", "Ada Lovelace"]).map(drop);
        assert_eq!(of("x7#Kq9!vZ2p"), Err(PasswordError::TooShort));
        assert_eq!(of("x7#Kq9!vZ2pW"), Ok(()));
        let long = |bytes: usize| "x7#Kq9!vZ2pW-".chars().cycle().take(bytes).collect::<String>();
        assert_eq!(of(&long(MAX_BYTES)), Ok(()));
        assert_eq!(of(&long(MAX_BYTES + 1)), Err(PasswordError::TooLong));
        assert_eq!(of("x7#Kq9!v\0Z2pW"), Err(PasswordError::Nul));
        assert_eq!(of(&"ä".repeat(11)), Err(PasswordError::TooShort), "characters, not bytes");
    }

    #[test]
    fn a_guessable_password_is_refused() {
        for text in
            ["password1234", "qwertyuiop123", "aaaaaaaaaaaaaa", "123456789012", "lovelacelovelace", "ada@example.com"]
        {
            let refused = Password::new(text, &["ada@example.com", "Ada Lovelace"]).map(drop);
            assert_eq!(refused, Err(PasswordError::Guessable), "{text}");
        }
    }

    #[test]
    fn two_spellings_of_one_text_are_one_password() {
        let hash = Password::presented("\u{e9}1 \u{e9}2 \u{e9}3").unwrap().hash();
        assert!(Password::presented("e\u{301}1 e\u{301}2 e\u{301}3").unwrap().matches(Some(&hash)));
    }
}
