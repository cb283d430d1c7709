//! Request and response types of the suppression list.

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
    problem::{Problem, ProblemCode},
};

const MAX_DETAIL_CHARS: usize = 500;

/// A suppressed address.
#[derive(Debug, Serialize, ToSchema)]
pub struct SuppressionView {
    pub(super) id: Uuid,
    /// The address in lower case.
    address: String,
    /// unsubscribed, rejected or manual.
    reason: String,
    /// Who added the entry: recipient, relay or api.
    source: String,
    /// The reason in words; without the address if it comes from a relay.
    detail: Option<String>,
    /// The SMTP command at which a relay rejected the mail.
    stage: Option<String>,
    /// The codes of the relay's reply.
    #[schema(example = "550 5.1.1")]
    code: Option<String>,
    /// The campaign whose mail was rejected or led to the unsubscription.
    campaign_id: Option<Uuid>,
    /// When the entry was added.
    created_at: DateTime<Utc>,
}

/// An address to suppress.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSuppressionBody {
    /// The address, in upper or lower case.
    #[serde(deserialize_with = "storable")]
    #[schema(format = Email, min_length = 3, max_length = 254)]
    address: String,
    /// Default `manual`; `unsubscribed` and `rejected` are for lists from elsewhere.
    #[serde(default, deserialize_with = "reason")]
    #[schema(value_type = Option<String>, pattern = "^(unsubscribed|rejected|manual)$")]
    pub(super) reason: Option<SuppressionReason>,
    /// The reason in words; at most 500 characters.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(max_length = 500, pattern = r"^[^\x00]*$")]
    pub(super) detail: Option<String>,
}

/// The filter and the page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SuppressionQuery {
    /// `unsubscribed`, `rejected` or `manual`.
    #[serde(default, deserialize_with = "reason")]
    #[param(value_type = Option<String>, pattern = "^(unsubscribed|rejected|manual)$")]
    pub(super) reason: Option<SuppressionReason>,
    /// Only this address.
    #[param(format = Email, min_length = 3, max_length = 254)]
    pub(super) address: Option<String>,
    /// Maximum number of items, 1 to 200; default 50.
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<u16>,
    /// Start of the page: `next_cursor` of the previous page.
    #[param(pattern = r"^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub(super) cursor: Option<String>,
}

/// Whether an unsubscription may be removed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SuppressionRemoval {
    /// Confirms that the person who unsubscribed wants mail again.
    #[serde(default)]
    pub(super) confirm_unsubscribed: bool,
}

impl NewSuppressionBody {
    pub(super) fn key(&self) -> Result<String, Problem> {
        if self.detail.as_ref().is_some_and(|detail| detail.chars().count() > MAX_DETAIL_CHARS) {
            return Err(Problem::invalid("/detail", format!("at most {MAX_DETAIL_CHARS} characters")));
        }
        EmailAddress::parse(&self.address)
            .map(|address| address.key())
            .map_err(|error| Problem::invalid("/address", error.to_string()))
    }
}

impl From<Suppression> for SuppressionView {
    fn from(entry: Suppression) -> Self {
        // Entries of earlier releases have no source.
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

/// The address of a query in the form of the list.
pub(super) fn address_key(address: &str) -> Result<String, Problem> {
    EmailAddress::parse(address)
        .map(|address| address.key())
        .map_err(|error| Problem::new(ProblemCode::InvalidQuery).detail(format!("address: {error}")))
}

fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SuppressionReason>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map(|text| {
            let expected = "a reason is unsubscribed, rejected or manual";
            SuppressionReason::from_str(&text).map_err(|_| D::Error::custom(expected))
        })
        .transpose()
}
