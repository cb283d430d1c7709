//! Request and response types of webhook endpoints.

use chrono::{DateTime, Utc};
use jobs::ports::outbound::Target;
use serde::{Deserialize, Deserializer, Serialize};
use shared::{
    ids,
    store::webhook_endpoints::{Endpoint, NewEndpoint},
    webhooks::{EventType, WebhookSecret},
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    extract::optional_few,
    problem::{FieldError, Problem, ProblemCode},
    state::AppState,
};

const MAX_DESCRIPTION_CHARS: usize = 200;
const MAX_KINDS: usize = 50;

/// An endpoint to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEndpointBody {
    /// The URL to which messages are posted: https, on the public internet.
    #[schema(example = "https://example.com/hooks/rota", format = "uri", max_length = 2048)]
    url: String,
    /// A description for people.
    #[schema(max_length = 200, pattern = r"^[^\x00]*$")]
    description: Option<String>,
    /// The events to send; all if omitted.
    #[schema(min_items = 1)]
    events: Option<Vec<EventType>>,
    /// Only jobs of these kinds; all if omitted.
    #[serde(default, deserialize_with = "optional_few::<50, _, _>")]
    #[schema(min_items = 1, max_items = 50)]
    kinds: Option<Vec<String>>,
}

/// The changes of an endpoint.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointChanges {
    /// The URL to which messages are posted.
    #[serde(default)]
    #[schema(value_type = String, required = false, format = "uri", max_length = 2048)]
    url: Change<String>,
    /// A description for people; `null` for none.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 200, pattern = r"^[^\x00]*$")]
    description: Change<Option<String>>,
    /// The events to send.
    #[serde(default)]
    #[schema(value_type = Vec<EventType>, required = false, min_items = 1)]
    events: Change<Vec<EventType>>,
    /// Only jobs of these kinds; `null` for all.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 50)]
    kinds: Change<Option<Vec<String>>>,
}

/// A change of a member, if it is present; `null` differs from an absent member.
#[derive(Debug, Default)]
enum Change<T> {
    #[default]
    Left,
    To(T),
}

/// The page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EndpointQuery {
    /// Maximum number of items, 1 to 200; default 50.
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<u16>,
    /// Start of the page: `next_cursor` of the previous page.
    #[param(pattern = r"^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub(super) cursor: Option<String>,
}

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointView {
    pub(super) id: Uuid,
    url: String,
    description: Option<String>,
    events: Vec<String>,
    kinds: Option<Vec<String>>,
    /// Whether messages are sent.
    enabled: bool,
    disabled_at: Option<DateTime<Utc>>,
    /// `gone` (it responded with 410), `failing` (for five days) or `manual`.
    disabled_reason: Option<String>,
    /// The time of the first failure since the last success.
    failing_since: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// The secret that signs messages; only in the response that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    secret: Option<String>,
    /// The number of held messages that are sent; only in the response of `enable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) released: Option<usize>,
}

impl NewEndpointBody {
    pub(super) fn check(self, state: &AppState) -> Result<NewEndpoint, Problem> {
        let events = self.events.unwrap_or_else(|| EventType::all().collect());
        let endpoint = NewEndpoint {
            id: ids::new_id(&state.clock),
            url: self.url,
            url_key: String::new(),
            description: self.description,
            events: names(&events),
            kinds: self.kinds,
        };
        checked(endpoint, state)
    }
}

impl EndpointChanges {
    pub(super) fn apply(self, present: Endpoint, state: &AppState) -> Result<NewEndpoint, Problem> {
        let endpoint = NewEndpoint {
            id: present.id,
            url: self.url.over(present.url),
            url_key: String::new(),
            description: self.description.over(present.description),
            events: match self.events {
                Change::Left => present.events,
                Change::To(events) => names(&events),
            },
            kinds: self.kinds.over(present.kinds),
        };
        checked(endpoint, state)
    }
}

/// Validates an endpoint and reports all its errors.
fn checked(mut endpoint: NewEndpoint, state: &AppState) -> Result<NewEndpoint, Problem> {
    let mut errors = Vec::new();
    let mut wrong = |pointer: String, detail: String| errors.push(FieldError { pointer, detail });
    match Target::parse(&endpoint.url, &state.outbound) {
        Ok(target) => {
            target.url().as_str().clone_into(&mut endpoint.url);
            endpoint.url_key = target.key();
        }
        Err(error) => wrong("/url".into(), error.to_string()),
    }
    let long = |text: &String| text.chars().count() > MAX_DESCRIPTION_CHARS || text.contains('\0');
    if endpoint.description.as_ref().is_some_and(long) {
        wrong("/description".into(), format!("a description has at most {MAX_DESCRIPTION_CHARS} characters"));
    }
    if endpoint.events.is_empty() {
        wrong("/events".into(), "name at least one event".into());
    }
    if let Some(kinds) = &endpoint.kinds {
        if kinds.is_empty() || kinds.len() > MAX_KINDS {
            wrong("/kinds".into(), format!("name 1 to {MAX_KINDS} kinds, or omit kinds for all"));
        }
        let exists = |kind: &String| state.registry.submittable().any(|one| one.name == kind);
        for (place, _) in kinds.iter().take(MAX_KINDS).enumerate().filter(|(_, kind)| !exists(kind)) {
            wrong(format!("/kinds/{place}"), "there is no such kind".into());
        }
    }
    if errors.is_empty() { Ok(endpoint) } else { Err(Problem::new(ProblemCode::InvalidBody).errors(errors)) }
}

fn names(events: &[EventType]) -> Vec<String> {
    EventType::all().filter(|event| events.contains(event)).map(|event| event.as_str().to_owned()).collect()
}

impl<T> Change<T> {
    fn over(self, present: T) -> T {
        match self {
            Self::Left => present,
            Self::To(value) => value,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Change<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::To)
    }
}

impl EndpointView {
    pub(super) fn with_secret(endpoint: Endpoint, secret: &WebhookSecret) -> Self {
        Self { secret: Some(secret.present()), ..Self::from(endpoint) }
    }
}

impl From<Endpoint> for EndpointView {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            id: endpoint.id,
            url: endpoint.url,
            description: endpoint.description,
            events: endpoint.events,
            kinds: endpoint.kinds,
            enabled: endpoint.disabled_at.is_none(),
            disabled_at: endpoint.disabled_at,
            disabled_reason: endpoint.disabled_reason,
            failing_since: endpoint.failing_since,
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
            secret: None,
            released: None,
        }
    }
}
