//! Request and response types of signing in.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{identity::access_token::AccessToken, store::credentials::Principal};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::extract::{optional_storable, storable};

/// A user's address and password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInBody {
    /// The slug of the company; required if several accounts of the address have this password.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(example = "acme", pattern = r"^[^\x00]*$")]
    pub(super) company: Option<String>,
    /// The user's address, in upper or lower case.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Email, min_length = 3, max_length = 254)]
    pub(super) email: String,
    /// The user's password.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Password, max_length = 256)]
    pub(super) password: String,
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshBody {
    /// The `refresh_token` of the last pair.
    #[schema(max_length = 512)]
    pub(super) refresh_token: String,
}

/// A token to verify.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyBody {
    /// An access token.
    pub(super) token: String,
}

/// An access token and the refresh token for the next pair.
#[derive(Serialize, ToSchema)]
pub struct TokenPair {
    /// Sent with each request as `Authorization: Bearer …`.
    pub(super) access_token: String,
    /// `Bearer`.
    pub(super) token_type: &'static str,
    /// Seconds until the access token expires, from its issue on.
    #[schema(example = 1800)]
    pub(super) expires_in: i64,
    /// Exchanged for the next pair.
    pub(super) refresh_token: String,
    /// Seconds until the refresh token expires, from its issue on.
    #[schema(example = 604_800)]
    pub(super) refresh_expires_in: i64,
    /// The id of the user or of the client.
    pub(super) subject_id: Uuid,
    /// Its company.
    pub(super) company_id: Uuid,
}

/// Who acts.
#[derive(Serialize, ToSchema)]
pub struct ActorView {
    /// `user`, `api_key` or `api_client`.
    pub(super) kind: &'static str,
    /// The id of the user, the key or the client.
    pub(super) id: Uuid,
}

/// The result of verifying a token.
#[derive(Serialize, ToSchema)]
pub struct VerifiedToken {
    /// Whether the token is valid now; the other members are missing if it is not.
    active: bool,
    /// Who acts with the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<ActorView>,
    /// The company that the token works for.
    #[serde(skip_serializing_if = "Option::is_none")]
    company_id: Option<Uuid>,
    /// When the token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
}

impl VerifiedToken {
    pub(super) fn new(valid: Option<(&Principal, AccessToken)>) -> Self {
        let principal = valid.map(|(principal, _)| principal);
        Self {
            active: valid.is_some(),
            actor: principal.map(|principal| principal.actor.into()),
            company_id: principal.map(|principal| *principal.tenant.as_uuid()),
            expires_at: valid.map(|(_, token)| token.expires_at()),
        }
    }
}
