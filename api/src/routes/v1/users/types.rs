//! Request and response types of users.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    authz::Role,
    email_address::EmailAddress,
    identity::password::Password,
    store::users::{self, User},
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    extract::{optional_storable, storable},
    problem::{FieldError, Problem, ProblemCode},
};

const MAX_NAME_CHARS: usize = 200;

/// A role that a user of a company can have.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CompanyRole {
    Admin,
    Manager,
    ComplianceOfficer,
    Auditor,
    Viewer,
    User,
}

impl From<CompanyRole> for Role {
    fn from(role: CompanyRole) -> Self {
        match role {
            CompanyRole::Admin => Self::Admin,
            CompanyRole::Manager => Self::Manager,
            CompanyRole::ComplianceOfficer => Self::ComplianceOfficer,
            CompanyRole::Auditor => Self::Auditor,
            CompanyRole::Viewer => Self::Viewer,
            CompanyRole::User => Self::User,
        }
    }
}

/// Whether a user can sign in.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserState {
    Active,
    Deactivated,
    Invited,
    Unverified,
}

impl From<UserState> for users::UserState {
    fn from(state: UserState) -> Self {
        match state {
            UserState::Active => Self::Active,
            UserState::Deactivated => Self::Deactivated,
            UserState::Invited => Self::Invited,
            UserState::Unverified => Self::Unverified,
        }
    }
}

/// A user to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUserBody {
    /// The address to sign in with, once per company.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Email, min_length = 3, max_length = 254)]
    email: String,
    /// The user's name.
    #[serde(deserialize_with = "storable")]
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*$")]
    name: String,
    /// The user's role; `list_roles` shows what each may do.
    role: CompanyRole,
    /// The first password, which the user should change: 12 characters to 256 bytes, and not easily
    /// guessed. Without one, the user gets a mail with a link to set it.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(format = Password, min_length = 12, max_length = 256)]
    password: Option<String>,
}

/// A user to create whose members are valid.
pub(super) struct CheckedUser {
    pub(super) email: EmailAddress,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) password: Option<Password>,
}

/// The changes of a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChanges {
    /// The user's name.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*$")]
    name: Option<String>,
    /// The user's role.
    role: Option<CompanyRole>,
}

/// The filter and the page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UserQuery {
    /// Only users with this role.
    #[param(inline)]
    pub(super) role: Option<CompanyRole>,
    /// Only users in this state.
    #[param(inline)]
    pub(super) state: Option<UserState>,
    /// Only the user with this address.
    #[param(format = Email, min_length = 3, max_length = 254)]
    pub(super) email: Option<String>,
    /// Maximum number of items, 1 to 200; default 50.
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<u16>,
    /// Start of the page: `next_cursor` of the previous page.
    #[param(pattern = r"^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub(super) cursor: Option<String>,
}

/// A user.
#[derive(Serialize, ToSchema)]
pub struct UserView {
    pub(super) id: Uuid,
    /// The address to sign in with.
    email: String,
    name: String,
    /// The name of the role.
    #[schema(example = "manager")]
    role: String,
    /// `active`, `deactivated`, `invited` (has not set a password yet) or `unverified` (has not
    /// confirmed the address yet).
    state: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    last_sign_in_at: Option<DateTime<Utc>>,
}

impl NewUserBody {
    /// Reports all errors together.
    pub(super) fn check(self) -> Result<CheckedUser, Problem> {
        let email = EmailAddress::parse(&self.email).map_err(|error| at("/email", &error));
        let name = check_name("/name", &self.name);
        let password = self.password.as_deref().map(|text| Password::new(text, &[&self.email, &self.name])).transpose();
        let password = password.map_err(|error| at("/password", &error));
        match (email, name, password) {
            (Ok(email), Ok(()), Ok(password)) => {
                Ok(CheckedUser { email, name: self.name, role: self.role.into(), password })
            }
            (email, name, password) => {
                let errors = [email.err(), name.err(), password.err()];
                Err(Problem::new(ProblemCode::InvalidBody).errors(errors.into_iter().flatten().collect()))
            }
        }
    }
}

impl UserChanges {
    pub(super) fn check(self) -> Result<(Option<String>, Option<Role>), Problem> {
        if let Some(error) = self.name.as_deref().and_then(|name| check_name("/name", name).err()) {
            return Err(Problem::new(ProblemCode::InvalidBody).errors(vec![error]));
        }
        Ok((self.name, self.role.map(Role::from)))
    }
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            email: user.email,
            name: user.name,
            role: user.role,
            state: user.state,
            created_at: user.created_at,
            updated_at: user.updated_at,
            last_sign_in_at: user.last_sign_in_at,
        }
    }
}

/// Checks the name of a person or a company.
pub(in super::super) fn check_name(pointer: &str, name: &str) -> Result<(), FieldError> {
    let fits = (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    let expected = format!("a name has 1 to {MAX_NAME_CHARS} characters, and no control characters");
    if fits { Ok(()) } else { Err(at(pointer, &expected)) }
}

fn at(pointer: &str, detail: &impl ToString) -> FieldError {
    FieldError { pointer: pointer.into(), detail: detail.to_string() }
}
