//! Request and response types of API keys.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    authz::{Permission, PermissionSet, Role},
    identity::api_key::ApiKeySecret,
    store::api_keys::ApiKey,
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    extract::{Timestamp, optional_few, storable},
    problem::{FieldError, Problem, ProblemCode},
};

const MAX_NAME_CHARS: usize = 100;
const MAX_SCOPES: usize = 100;

/// A key to create: with `scopes`, or with the permissions that a `role` has now.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKeyBody {
    /// A name for people.
    #[serde(deserialize_with = "storable")]
    #[schema(min_length = 1, max_length = 100, pattern = r"^[^\x00]*$")]
    name: String,
    /// What the key may do, as `resource:action`; nothing that its creator may not.
    #[serde(default, deserialize_with = "optional_few::<100, _, _>")]
    #[schema(example = json!(["jobs:create", "jobs:read"]), min_items = 1, max_items = 100)]
    scopes: Option<Vec<String>>,
    /// A role whose permissions the key gets.
    #[schema(example = "viewer")]
    role: Option<String>,
    /// When the key expires; never if omitted.
    expires_at: Option<Timestamp>,
}

/// A key to create whose members are valid.
pub(super) struct CheckedKey {
    pub(super) name: String,
    pub(super) scopes: PermissionSet,
    pub(super) expires_at: Option<DateTime<Utc>>,
}

/// The page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ApiKeyQuery {
    /// Maximum number of items, 1 to 200; default 50.
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<u16>,
    /// Start of the page: `next_cursor` of the previous page.
    #[param(pattern = r"^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub(super) cursor: Option<String>,
}

/// A key.
#[derive(Serialize, ToSchema)]
pub struct ApiKeyView {
    pub(super) id: Uuid,
    name: String,
    /// What the key may do, as long as its creator may.
    scopes: Vec<String>,
    /// `active`, `expired`, `revoked`, or `suspended` because its creator is deactivated.
    state: &'static str,
    /// The user who created the key; `null` for a command of an operator.
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    /// The key that replaces this one.
    replaced_by: Option<Uuid>,
    /// The text to send as `X-API-Key`; only in the response that created the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^rota_key_[a-z2-7]{26}_[0-9A-Za-z]{49}$")]
    api_key: Option<String>,
}

impl NewApiKeyBody {
    /// Reports all errors together.
    pub(super) fn check(self, now: DateTime<Utc>) -> Result<CheckedKey, Problem> {
        let mut errors = Vec::new();
        let mut wrong = |pointer: String, detail: String| errors.push(FieldError { pointer, detail });
        check_name(&self.name, &mut wrong);
        let expires_at = self.expires_at.map(Timestamp::get);
        if expires_at.is_some_and(|time| time <= now) {
            wrong("/expires_at".into(), "the time has passed".into());
        }
        let scopes = match (&self.scopes, &self.role) {
            (Some(scopes), None) if !scopes.is_empty() => named(scopes, &mut wrong),
            (None, Some(role)) => of_role(role, &mut wrong),
            (Some(_), Some(_)) => {
                wrong("/role".into(), "name scopes or a role, not both".into());
                PermissionSet::default()
            }
            _ => {
                wrong("/scopes".into(), "name at least one scope, or a role".into());
                PermissionSet::default()
            }
        };
        if errors.is_empty() {
            Ok(CheckedKey { name: self.name, scopes, expires_at })
        } else {
            Err(Problem::new(ProblemCode::InvalidBody).errors(errors))
        }
    }
}

/// The permissions that scopes name; `wrong` gets the others.
pub(in super::super) fn named(scopes: &[String], wrong: &mut impl FnMut(String, String)) -> PermissionSet {
    if scopes.len() > MAX_SCOPES {
        wrong("/scopes".into(), format!("at most {MAX_SCOPES} scopes"));
    }
    for (place, _) in scopes.iter().enumerate().filter(|(_, scope)| Permission::parse(scope).is_none()) {
        wrong(format!("/scopes/{place}"), "there is no such permission".into());
    }
    PermissionSet::of_scopes(scopes)
}

/// Checks the name of a key or a client.
pub(in super::super) fn check_name(name: &str, wrong: &mut impl FnMut(String, String)) {
    if !(1..=MAX_NAME_CHARS).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        wrong("/name".into(), format!("a name has 1 to {MAX_NAME_CHARS} characters, and no control characters"));
    }
}

fn of_role(role: &str, wrong: &mut impl FnMut(String, String)) -> PermissionSet {
    let role = Role::parse(role);
    if role.is_none() {
        wrong("/role".into(), "there is no such role".into());
    }
    role.map(Role::permissions).unwrap_or_default()
}

/// The state of a key, as its requests meet it.
pub(super) fn state_of(key: &ApiKey, now: DateTime<Utc>) -> &'static str {
    if key.revoked_at.is_some() {
        "revoked"
    } else if key.expires_at.is_some_and(|time| time <= now) {
        "expired"
    } else if key.is_creator_active == Some(false) {
        "suspended"
    } else {
        "active"
    }
}

impl ApiKeyView {
    pub(super) fn new(key: ApiKey, now: DateTime<Utc>) -> Self {
        Self {
            state: state_of(&key, now),
            id: key.id,
            name: key.name,
            scopes: key.scopes,
            created_by: key.created_by,
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            replaced_by: key.replaced_by,
            api_key: None,
        }
    }

    pub(super) fn with_text(key: ApiKey, secret: &ApiKeySecret, now: DateTime<Utc>) -> Self {
        let text = secret.present(key.id);
        Self { api_key: Some(text), ..Self::new(key, now) }
    }
}
