//! Request and response types of API clients.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    authz::PermissionSet,
    identity::api_key::ApiKeySecret,
    store::api_clients::{ApiClient, ClientUse},
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::api_keys::types::{check_name, named};
use crate::{
    extract::{few, storable},
    problem::{FieldError, Problem, ProblemCode},
};

/// A client to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiClientBody {
    /// A name for people.
    #[serde(deserialize_with = "storable")]
    #[schema(min_length = 1, max_length = 100, pattern = r"^[^\x00]*$")]
    name: String,
    /// What the client may do, as `resource:action`; nothing that its creator may not.
    #[serde(deserialize_with = "few::<100, _, _>")]
    #[schema(example = json!(["jobs:create", "jobs:read"]), min_items = 1, max_items = 100)]
    scopes: Vec<String>,
}

/// A client's id and secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientSecretBody {
    /// The client's id.
    pub(super) client_id: Uuid,
    /// The client's secret.
    #[schema(max_length = 200)]
    pub(super) client_secret: String,
}

/// The page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ApiClientPage {
    /// Maximum number of items, 1 to 200; default 50.
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<u16>,
    /// Start of the page: `next_cursor` of the previous page.
    #[param(pattern = r"^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub(super) cursor: Option<String>,
}

/// A client.
#[derive(Serialize, ToSchema)]
pub struct ApiClientView {
    /// The id to present with the secret.
    pub(super) client_id: Uuid,
    name: String,
    /// What the client may do, as long as its creator may.
    scopes: Vec<String>,
    /// `active`, `revoked`, or `suspended` because its creator is deactivated.
    state: &'static str,
    /// The user who created the client; `null` for a command of an operator.
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
    /// The secret; only in the response that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^rota_client_[a-z2-7]{26}_[0-9A-Za-z]{49}$")]
    client_secret: Option<String>,
}

/// A request of a client for tokens.
#[derive(Serialize, ToSchema)]
pub struct ClientUseView {
    pub(super) id: Uuid,
    /// `token` for its secret, or `refresh`.
    action: String,
    /// Whether the client got tokens.
    succeeded: bool,
    /// The address from which the request came.
    address: String,
    used_at: DateTime<Utc>,
}

impl NewApiClientBody {
    /// Reports all errors together.
    pub(super) fn check(self) -> Result<(String, PermissionSet), Problem> {
        let mut errors = Vec::new();
        let mut wrong = |pointer: String, detail: String| errors.push(FieldError { pointer, detail });
        check_name(&self.name, &mut wrong);
        if self.scopes.is_empty() {
            wrong("/scopes".into(), "name at least one scope".into());
        }
        let scopes = named(&self.scopes, &mut wrong);
        if errors.is_empty() {
            Ok((self.name, scopes))
        } else {
            Err(Problem::new(ProblemCode::InvalidBody).errors(errors))
        }
    }
}

impl ApiClientView {
    pub(super) fn with_secret(client: ApiClient, secret: &ApiKeySecret) -> Self {
        let text = secret.present_as_client(client.id);
        Self { client_secret: Some(text), ..Self::from(client) }
    }
}

impl From<ApiClient> for ApiClientView {
    fn from(client: ApiClient) -> Self {
        let state = match client.revoked_at {
            Some(_) => "revoked",
            None if client.is_active() => "active",
            None => "suspended",
        };
        Self {
            client_id: client.id,
            name: client.name,
            scopes: client.scopes,
            state,
            created_by: client.created_by,
            created_at: client.created_at,
            revoked_at: client.revoked_at,
            client_secret: None,
        }
    }
}

impl From<ClientUse> for ClientUseView {
    fn from(entry: ClientUse) -> Self {
        Self {
            id: entry.id,
            action: entry.action,
            succeeded: entry.succeeded,
            address: entry.address,
            used_at: entry.used_at,
        }
    }
}
