//! Settings of access tokens: the keys that sign them, and whom they are for.
//!
//! Invariant: all APIs of an installation share them. The built-in secret, which is public in this
//! source, is refused in production, and elsewhere accepted on loopback addresses only.

use super::environment::Environment;
use super::http::api_address;
use super::reader::{Reader, Variable};
use super::secret::Secret;
use crate::identity::{TokenKeys, access_token::AccessTokens};

const SECRET: Variable = Variable::secret(
    "JWT_SECRET",
    "at least 32 random characters; this or JWT_PRIVATE_KEY is required in production and where HOST is not a loopback address",
);
const PRIVATE_KEY: Variable = Variable::secret("JWT_PRIVATE_KEY", "an Ed25519 or RSA private key in PEM (PKCS#8)");
const OTHER_SECRET: Variable = Variable::secret("JWT_OTHER_SECRET", "at least 32 random characters");
const OTHER_PUBLIC_KEY: Variable = Variable::new("JWT_OTHER_PUBLIC_KEY", "an Ed25519 or RSA public key in PEM");
const ISSUER: Variable = Variable::new("JWT_ISSUER", "1 to 200 printable characters");
const AUDIENCE: Variable = Variable::new("JWT_AUDIENCE", "1 to 200 printable characters");

const MIN_SECRET_CHARS: usize = 32;
const MAX_NAME_CHARS: usize = 200;
const DEVELOPMENT_SECRET: &str = "for-development-only-not-a-secret-jwt-key";

/// The tokens section.
#[derive(Clone)]
pub struct TokenConfig {
    /// Issues and verifies access tokens.
    ///
    /// `JWT_PRIVATE_KEY` signs with `EdDSA` or RS256, by its type, otherwise `JWT_SECRET` with HS256;
    /// default: a well-known secret, which is refused in production and unless `HOST` is a loopback
    /// address. Tokens signed with `JWT_OTHER_SECRET` or by the owner of `JWT_OTHER_PUBLIC_KEY` are
    /// accepted too. `JWT_ISSUER` and `JWT_AUDIENCE`, both `rota` by default, are the claims `iss`
    /// and `aud`.
    pub access_tokens: AccessTokens,
}

impl TokenConfig {
    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Self {
        let secret = reader.optional(SECRET, parse_secret);
        let pair = reader
            .optional_or_reason(PRIVATE_KEY, |text| TokenKeys::of_private_key(text).map_err(|error| error.to_string()));
        if secret.is_some() && pair.is_some() {
            reader
                .report(SECRET, "JWT_PRIVATE_KEY is also set, and one key signs; the other secret is JWT_OTHER_SECRET");
        }
        if !reader.is_set(SECRET) && !reader.is_set(PRIVATE_KEY) {
            refuse_development_secret(reader, environment);
        }
        let secret = secret.unwrap_or_else(|| Secret::new(DEVELOPMENT_SECRET));
        let mut keys = pair.unwrap_or_else(|| TokenKeys::of_secret(secret.expose().as_bytes()));
        if let Some(other) = reader.optional(OTHER_SECRET, parse_secret) {
            keys = keys.and_secret(other.expose().as_bytes());
        }
        let with_other = reader.optional_or_reason(OTHER_PUBLIC_KEY, |pem| {
            keys.clone().and_public_key(pem).map_err(|error| error.to_string())
        });
        let issuer = reader.or(ISSUER, "rota".to_owned(), parse_name);
        let audience = reader.or(AUDIENCE, "rota".to_owned(), parse_name);
        Self { access_tokens: AccessTokens::new(with_other.unwrap_or(keys), issuer, audience) }
    }
}

/// Debug output names the section only: it is made of keys.
impl std::fmt::Debug for TokenConfig {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("TokenConfig")
    }
}

fn refuse_development_secret(reader: &mut Reader<'_>, environment: Environment) {
    if environment.is_production() {
        reader.report(SECRET, "the development secret is refused in production");
    } else if !api_address(reader).is_loopback() {
        reader.report(SECRET, "the development secret is refused where HOST is not a loopback address");
    }
}

fn parse_secret(text: &str) -> Option<Secret> {
    (text.chars().count() >= MIN_SECRET_CHARS && text != DEVELOPMENT_SECRET).then(|| Secret::new(text))
}

fn parse_name(text: &str) -> Option<String> {
    let fits = (1..=MAX_NAME_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}
