//! What the suppression list is asked for with, and how its entries are shown.

use std::str::FromStr as _;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use shared::{
    email_address::EmailAddress,
    store::suppressions::{Suppression, SuppressionReason},
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    extract::{optional_storable, storable},
    problem::{FieldError, Problem, ProblemCode},
};

const MAX_DETAIL_CHARS: usize = 500;

/// A suppressed address.
#[derive(Debug, Serialize, ToSchema)]
pub struct SuppressionView {
    pub(super) id: Uuid,
    /// In lower case.
    address: String,
    /// unsubscribed, rejected or manual.
    reason: String,
    /// Who put it there: recipient, relay or api.
    source: String,
    /// In words; the address is left out of a relay's.
    detail: Option<String>,
    /// The SMTP command at which a relay refused.
    stage: Option<String>,
    /// The codes with which it did.
    #[schema(example = "550 5.1.1")]
    code: Option<String>,
    /// The campaign whose mail was refused or led to the unsubscription.
    campaign_id: Option<Uuid>,
    /// Since when.
    created_at: DateTime<Utc>,
}

/// An address that is to be suppressed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSuppressionBody {
    /// The address, in any case.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Email, min_length = 3, max_length = 254)]
    address: String,
    /// `manual` if left out; `unsubscribed` and `rejected` are for lists that come from elsewhere.
    #[serde(default, deserialize_with = "reason")]
    #[schema(value_type = Option<String>, pattern = "^(unsubscribed|rejected|manual)$")]
    pub(super) reason: Option<SuppressionReason>,
    /// Why, in words; 500 characters at most.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(max_length = 500, pattern = r"^[^\x00]*$")]
    pub(super) detail: Option<String>,
}

/// Which entries, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SuppressionQuery {
    /// `unsubscribed`, `rejected` or `manual`.
    #[serde(default, deserialize_with = "reason")]
    #[param(value_type = Option<String>, pattern = "^(unsubscribed|rejected|manual)$")]
    pub(super) reason: Option<SuppressionReason>,
    /// This address alone.
    #[param(format = Email, min_length = 3, max_length = 254)]
    pub(super) address: Option<String>,
    /// How many, 1 to 200; 50 if left out.
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<u16>,
    /// Where the page begins: `next_cursor` of the page before.
    #[param(pattern = r"^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub(super) cursor: Option<String>,
}

/// Whether an unsubscription may be removed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SuppressionRemoval {
    /// That the person who unsubscribed asked for mail again.
    #[serde(default)]
    pub(super) confirm_unsubscribed: bool,
}

impl NewSuppressionBody {
    pub(super) fn key(&self) -> Result<String, Problem> {
        if self.detail.as_ref().is_some_and(|detail| detail.chars().count() > MAX_DETAIL_CHARS) {
            return Err(at("/detail", format!("at most {MAX_DETAIL_CHARS} characters")));
        }
        EmailAddress::parse(&self.address)
            .map(|address| address.key())
            .map_err(|error| at("/address", error.to_string()))
    }
}

impl From<Suppression> for SuppressionView {
    fn from(entry: Suppression) -> Self {
        // Entries of earlier releases do not say it.
        let source = entry.source.unwrap_or_else(|| {
            let by_reason = match entry.reason.as_str() {
                "unsubscribed" => "recipient",
                "rejected" => "relay",
                _ => "api",
            };
            by_reason.to_owned()
        });
        Self {
            id: entry.id,
            address: entry.email_key,
            reason: entry.reason,
            source,
            detail: entry.detail,
            stage: entry.stage,
            code: entry.code,
            campaign_id: entry.campaign_id,
            created_at: entry.created_at,
        }
    }
}

/// The address of a query as the list has it.
pub(super) fn address_key(address: &str) -> Result<String, Problem> {
    EmailAddress::parse(address)
        .map(|address| address.key())
        .map_err(|error| Problem::new(ProblemCode::InvalidQuery).detail(format!("address: {error}")))
}

fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SuppressionReason>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map(|text| {
            let known = "a reason is unsubscribed, rejected or manual";
            SuppressionReason::from_str(&text).map_err(|_| D::Error::custom(known))
        })
        .transpose()
}

fn at(pointer: &str, detail: String) -> Problem {
    Problem::new(ProblemCode::InvalidBody).errors(vec![FieldError { pointer: pointer.into(), detail }])
}
