//! `/.well-known/jwks.json`: the public keys that verify access tokens.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    extract::Json,
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// A public key (RFC 7517).
#[derive(Serialize, Deserialize, ToSchema)]
pub struct PublicKey {
    /// The type of the key: `OKP` or `RSA`.
    kty: String,
    /// Named in the header of each token that the key signed.
    kid: String,
    /// `EdDSA` or `RS256`.
    alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    usage: String,
    /// The curve of an OKP key.
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    /// The public key of an OKP key, in base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    /// The modulus of an RSA key, in base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    /// The exponent of an RSA key, in base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
}

/// A set of public keys (RFC 7517).
#[derive(Serialize, Deserialize, ToSchema)]
pub struct PublicKeys {
    /// The keys; none if tokens are signed with a secret.
    keys: Vec<PublicKey>,
}

/// Lists the public keys that verify access tokens.
#[utoipa::path(get, path = "/.well-known/jwks.json", operation_id = "list_public_keys", tag = "auth", security(()),
    responses((status = 200, body = PublicKeys, description = "The keys, as a JWK Set")))]
pub async fn list(State(state): State<AppState>) -> Result<Json<PublicKeys>, Problem> {
    let published = serde_json::to_value(state.authenticator.access_tokens().keys().published());
    let keys = published.and_then(serde_json::from_value);
    keys.map(Json).map_err(|error| Problem::new(ProblemCode::Internal).caused_by(error))
}
