//! The keys that sign and verify access tokens.
//!
//! Invariant: the algorithm belongs to the key, never to the token: a token names a key by `kid`,
//! and its `alg` must be that key's. An HMAC secret is never published. One key signs; others may be
//! accepted too, so that keys can be exchanged without refusing tokens: first every process accepts
//! the new key, then it signs, then the old one is dropped.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use hmac::Mac as _;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};

use crate::mac::hmac_sha256;

/// 2,048 bits in base 64: the least that RFC 7518 §3.3 permits.
const MIN_RSA_MODULUS_CHARS: usize = 342;

/// Why a text is not a key. The texts contain nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeyError {
    #[error("expected an Ed25519 or RSA private key in PEM (PKCS#8)")]
    NotAPrivateKey,
    #[error("expected an Ed25519 or RSA public key in PEM")]
    NotAPublicKey,
    #[error("the RSA key is shorter than 2048 bits")]
    ShortRsaKey,
}

/// The keys of an installation.
#[derive(Clone)]
pub struct TokenKeys {
    pub(super) signer: Signer,
    verifiers: BTreeMap<String, Verifier>,
}

#[derive(Clone)]
pub(super) struct Signer {
    pub(super) kid: String,
    pub(super) algorithm: Algorithm,
    pub(super) key: EncodingKey,
}

#[derive(Clone)]
pub(super) struct Verifier {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// The key as it is published; a secret has none.
    published: Option<Jwk>,
}

impl TokenKeys {
    /// Signs with HS256, for one installation whose processes share the secret.
    ///
    /// # Panics
    /// If the secret is empty; the configuration requires 32 characters.
    pub fn of_secret(secret: &[u8]) -> Self {
        let (kid, verifier) = Verifier::of_secret(secret);
        let key = EncodingKey::from_secret(secret).expect("a secret is not empty");
        let signer = Signer { kid: kid.clone(), algorithm: Algorithm::HS256, key };
        Self { signer, verifiers: BTreeMap::from([(kid, verifier)]) }
    }

    /// Signs with `EdDSA` or RS256, by the type of the private key in `pem`.
    pub fn of_private_key(pem: &str) -> Result<Self, TokenKeyError> {
        let ed = EncodingKey::from_ed_pem(pem.as_bytes()).map(|key| (Algorithm::EdDSA, key));
        let (algorithm, key) = ed
            .or_else(|_| EncodingKey::from_rsa_pem(pem.as_bytes()).map(|key| (Algorithm::RS256, key)))
            .map_err(|_| TokenKeyError::NotAPrivateKey)?;
        let jwk = Jwk::from_encoding_key(&key, algorithm).map_err(|_| TokenKeyError::NotAPrivateKey)?;
        let (kid, verifier) = Verifier::of_jwk(jwk, algorithm).map_err(|error| match error {
            TokenKeyError::ShortRsaKey => error,
            _ => TokenKeyError::NotAPrivateKey,
        })?;
        let signer = Signer { kid: kid.clone(), algorithm, key };
        Ok(Self { signer, verifiers: BTreeMap::from([(kid, verifier)]) })
    }

    /// Also accepts tokens that another secret signed.
    #[must_use]
    pub fn and_secret(mut self, secret: &[u8]) -> Self {
        self.verifiers.extend([Verifier::of_secret(secret)]);
        self
    }

    /// Also accepts, and publishes, another public key.
    pub fn and_public_key(mut self, pem: &str) -> Result<Self, TokenKeyError> {
        let ed = DecodingKey::from_ed_pem(pem.as_bytes()).map(|key| (Algorithm::EdDSA, key));
        let (algorithm, key) = ed
            .or_else(|_| DecodingKey::from_rsa_pem(pem.as_bytes()).map(|key| (Algorithm::RS256, key)))
            .map_err(|_| TokenKeyError::NotAPublicKey)?;
        let jwk = Jwk::from_decoding_key(&key, Some(algorithm)).map_err(|_| TokenKeyError::NotAPublicKey)?;
        self.verifiers.extend([Verifier::of_jwk(jwk, algorithm)?]);
        Ok(self)
    }

    /// The public keys as a JWK Set (RFC 7517).
    pub fn published(&self) -> JwkSet {
        JwkSet { keys: self.verifiers.values().filter_map(|verifier| verifier.published.clone()).collect() }
    }

    pub(super) fn verifier(&self, kid: &str) -> Option<&Verifier> {
        self.verifiers.get(kid)
    }
}

impl Verifier {
    /// The id is derived from the secret, so all processes that share it agree on it.
    fn of_secret(secret: &[u8]) -> (String, Self) {
        let tag = hmac_sha256(secret).chain_update(b"kid").finalize().into_bytes();
        let key = DecodingKey::from_secret(secret).expect("a secret is not empty");
        (HEXLOWER.encode(&tag[..8]), Self { algorithm: Algorithm::HS256, key, published: None })
    }

    /// The id is the key's thumbprint (RFC 7638).
    fn of_jwk(mut jwk: Jwk, algorithm: Algorithm) -> Result<(String, Self), TokenKeyError> {
        if matches!(&jwk.algorithm, AlgorithmParameters::RSA(rsa) if rsa.n.len() < MIN_RSA_MODULUS_CHARS) {
            return Err(TokenKeyError::ShortRsaKey);
        }
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| TokenKeyError::NotAPublicKey)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| TokenKeyError::NotAPublicKey)?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok((kid, Self { algorithm, key, published: Some(jwk) }))
    }
}
