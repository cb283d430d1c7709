//! Request and response types of registration and of new passwords.

use serde::{Deserialize, Serialize};
use shared::{email_address::EmailAddress, identity::password::Password, store::companies};
use utoipa::ToSchema;

use super::super::users::check_name;
use crate::{
    extract::{optional_storable, storable},
    problem::{FieldError, Problem, ProblemCode},
};

/// A company to register, and its first user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistrationBody {
    company: NewCompany,
    /// The address to sign in with.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Email, min_length = 3, max_length = 254)]
    email: String,
    /// The name of the user.
    #[serde(deserialize_with = "storable")]
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*$")]
    name: String,
    /// The password: 12 characters to 256 bytes, and not easily guessed.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Password, min_length = 12, max_length = 256)]
    password: String,
}

/// A company to register.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCompany {
    /// The name of the company at sign-in and in mails; no other company has it.
    #[serde(deserialize_with = "storable")]
    #[schema(example = "acme", min_length = 1, max_length = 63, pattern = "^[a-z0-9-]*$")]
    slug: String,
    /// Display name.
    #[serde(deserialize_with = "storable")]
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*$")]
    name: String,
}

/// A registration whose members are valid.
pub(super) struct CheckedRegistration {
    pub(super) slug: String,
    pub(super) company: String,
    pub(super) email: EmailAddress,
    pub(super) name: String,
    pub(super) password: Password,
}

/// The token of a link that confirms an address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerificationBody {
    /// The last part of the link in the mail.
    #[schema(max_length = 512)]
    pub(super) token: String,
}

/// Whose password is forgotten.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgottenPasswordBody {
    /// The slug of the company; required if the address has accounts in several, or is not confirmed.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(example = "acme", pattern = r"^[^\x00]*$")]
    pub(super) company: Option<String>,
    /// The user's address.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Email, min_length = 3, max_length = 254)]
    pub(super) email: String,
}

/// The token of a link that sets a password, and the password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPasswordBody {
    /// The last part of the link in the mail.
    #[schema(max_length = 512)]
    pub(super) token: String,
    /// The new password: 12 characters to 256 bytes, and not easily guessed.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Password, min_length = 12, max_length = 256)]
    pub(super) new_password: String,
}

/// The form of the page that sets a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPasswordForm {
    /// The new password: 12 characters to 256 bytes, and not easily guessed.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Password, max_length = 256)]
    pub(super) new_password: String,
}

/// What happens next.
#[derive(Serialize, ToSchema)]
pub struct MailNotice {
    /// In words; the same text for every address.
    detail: &'static str,
}

impl MailNotice {
    pub(super) const REGISTERED: Self =
        Self { detail: "the company is registered; confirm the address with the link in the mail that was sent to it" };
    pub(super) const RESET_REQUESTED: Self = Self {
        detail: "if the address has an account, a mail with a link was sent to it; an address with accounts in several companies needs the name of the company",
    };
}

impl RegistrationBody {
    /// Reports all errors together.
    pub(super) fn check(self) -> Result<CheckedRegistration, Problem> {
        let at = |pointer: &str, detail: String| FieldError { pointer: pointer.into(), detail };
        let mut errors = Vec::new();
        if !companies::is_slug(&self.company.slug) {
            errors.push(at("/company/slug", "a slug has 1 to 63 of a-z, 0-9 and -".into()));
        }
        errors.extend(check_name("/company/name", &self.company.name).err());
        errors.extend(check_name("/name", &self.name).err());
        let email = EmailAddress::parse(&self.email).map_err(|error| errors.push(at("/email", error.to_string())));
        let personal = [&*self.email, &self.name, &self.company.name, &self.company.slug];
        let password =
            Password::new(&self.password, &personal).map_err(|error| errors.push(at("/password", error.to_string())));
        match (email, password, errors.is_empty()) {
            (Ok(email), Ok(password), true) => {
                let NewCompany { slug, name: company } = self.company;
                Ok(CheckedRegistration { slug, company, email, name: self.name, password })
            }
            _ => Err(Problem::new(ProblemCode::InvalidBody).errors(errors)),
        }
    }
}
