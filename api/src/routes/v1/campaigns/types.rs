//! Request and response types of campaigns.

use chrono::{DateTime, Utc};
use jobs::{
    campaign_mail::COMPILE,
    templates::{CompiledTemplate, MailTemplate, TemplateError},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use shared::{
    db::TenantTx,
    email_address::EmailAddress,
    ids,
    store::{
        campaigns::{self, Campaign, ListedCampaign, NewCampaign},
        recipients::{self, Counts},
    },
    tenancy::TenantId,
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    extract::{Timestamp, optional_storable, storable},
    leads_import::ImportReport,
    problem::{Problem, ProblemCode},
    state::AppState,
};

const MAX_SENDER_NAME: usize = 200;
/// Maximum bytes of a preview's variables: the same as of a row of leads.
const MAX_VARIABLES_BYTES: usize = 64 * 1024;

/// A campaign to draft.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CampaignDraft {
    /// A name for people.
    #[serde(deserialize_with = "storable")]
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*[^\s\x00][^\x00]*$")]
    pub(super) name: String,
    /// Template of the subject. Templates are Jinja; they may use the columns of the leads, `email`
    /// and `unsubscribe_url`.
    #[schema(example = "Hello {{ first_name }}", pattern = r"^[^\x00]*$")]
    #[serde(deserialize_with = "storable")]
    pub(super) subject: String,
    /// Template of the plain text.
    #[serde(deserialize_with = "storable")]
    #[schema(pattern = r"^[^\x00]*$")]
    pub(super) text: String,
    /// Template of the HTML; values are escaped.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(pattern = r"^[^\x00]*$")]
    pub(super) html: Option<String>,
    /// The sender.
    pub(super) from: Sender,
    /// Leads to import at once, as CSV; for large files use `…/leads`.
    pub(super) leads_csv: Option<String>,
    /// Whether to send the campaign at once; this also needs the scope `campaigns:send`.
    #[serde(default)]
    pub(super) send: bool,
}

/// The sender of a campaign.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Sender {
    /// The address.
    #[schema(example = "news@example.com", format = Email, min_length = 3, max_length = 254)]
    pub(super) email: String,
    /// The name shown with the address, at most 200 characters.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(max_length = 200, pattern = r"^[^\x00]*$")]
    pub(super) name: Option<String>,
}

/// A campaign.
#[derive(Debug, Serialize, ToSchema)]
pub struct CampaignView {
    pub(super) id: Uuid,
    pub(super) name: String,
    /// draft, scheduled, sending, paused, cancelled or completed.
    pub(super) state: String,
    /// Null in a list if larger than 1 KiB; see `subject_omitted`.
    pub(super) subject: Option<String>,
    /// Whether `subject` is omitted because of its size.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(super) subject_omitted: bool,
    /// Null in a list if larger than 1 KiB; see `text_omitted`.
    pub(super) text: Option<String>,
    /// Whether `text` is omitted because of its size.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(super) text_omitted: bool,
    /// Null in a list if larger than 1 KiB; see `html_omitted`.
    pub(super) html: Option<String>,
    /// Whether `html` is omitted because of its size.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(super) html_omitted: bool,
    pub(super) from: Sender,
    /// Why the campaign is paused: `requested`, `relay_unavailable` (it resumes automatically),
    /// `refused`, or `job_ended` (the job that sends it was cancelled or discarded).
    pub(super) pause_reason: Option<String>,
    /// The cause of the pause, such as the stage and codes of a refusal.
    pub(super) pause_detail: Option<String>,
    pub(super) send_at: Option<DateTime<Utc>>,
    pub(super) started_at: Option<DateTime<Utc>>,
    pub(super) finished_at: Option<DateTime<Utc>>,
    pub(super) created_at: DateTime<Utc>,
    /// The number of recipients in each state; omitted in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) progress: Option<Counts>,
    /// The report on the leads imported with the draft.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) import: Option<ImportReport>,
}

/// The page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CampaignQuery {
    /// Maximum number of items, 1 to 200; default 50.
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<u16>,
    /// Start of the page: `next_cursor` of the previous page.
    #[param(pattern = r"^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub(super) cursor: Option<String>,
}

/// The recipient of a preview.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewRequest {
    /// A recipient of the campaign; the first one if omitted.
    #[schema(format = Email, max_length = 254)]
    email: Option<String>,
    /// Values to use instead of the recipient's; at most 64 KiB.
    #[schema(value_type = Option<Object>)]
    variables: Option<Box<RawValue>>,
}

/// The mail to one recipient.
#[derive(Debug, Serialize, ToSchema)]
pub struct Preview {
    pub(super) to: String,
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: Option<String>,
    /// Variables that every mail needs and some leads lack; sending is rejected until they have
    /// them.
    pub(super) warnings: Vec<MissingVariableView>,
}

/// A variable that every mail needs and some leads lack.
#[derive(Debug, Serialize, ToSchema)]
pub struct MissingVariableView {
    /// The variable.
    pub(super) variable: String,
    /// How many leads lack it; in a preview, among the first 10,000.
    pub(super) leads: i64,
    /// One of these leads.
    pub(super) example: String,
}

/// When to send.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendRequest {
    /// The time of sending; at once if omitted.
    pub(super) send_at: Option<Timestamp>,
}

impl PreviewRequest {
    /// The normalised address of the recipient, if one is given.
    pub(super) fn email_key(&self) -> Result<Option<String>, Problem> {
        let key =
            self.email.as_deref().map(|email| EmailAddress::parse(email).map(|address| address.key())).transpose();
        key.map_err(|error| Problem::invalid("/email", error.to_string()))
    }

    /// The values to use instead of a recipient's.
    pub(super) fn variables(&self) -> Result<Option<Map<String, Value>>, Problem> {
        let Some(variables) = &self.variables else { return Ok(None) };
        if variables.get().len() > MAX_VARIABLES_BYTES {
            let detail = format!("variables are at most {} KiB", MAX_VARIABLES_BYTES / 1024);
            return Err(Problem::invalid("/variables", detail));
        }
        serde_json::from_str(variables.get())
            .map(Some)
            .map_err(|error| Problem::invalid("/variables", error.to_string()))
    }
}

impl CampaignDraft {
    /// Checks everything that can be checked without leads: addresses and the templates' syntax.
    pub(super) async fn check(&self, state: &AppState, tenant: TenantId) -> Result<NewCampaign, Problem> {
        let from = EmailAddress::parse(&self.from.email)
            .map_err(|error| Problem::invalid("/from/email", error.to_string()))?;
        if self.name.trim().is_empty() || self.name.chars().count() > 200 {
            return Err(Problem::invalid("/name", "a name has 1 to 200 characters".to_owned()));
        }
        if self.from.name.as_ref().is_some_and(|name| name.chars().count() > MAX_SENDER_NAME) {
            let detail = format!("a sender's name has at most {MAX_SENDER_NAME} characters");
            return Err(Problem::invalid("/from/name", detail));
        }
        let template = MailTemplate { subject: self.subject.clone(), text: self.text.clone(), html: self.html.clone() };
        let work = move || (CompiledTemplate::compile(&template).map(drop), template);
        let (compiled, template) = state.compute.run(tenant, COMPILE, work).await?;
        compiled.map_err(|error| template_problem(&error))?;
        Ok(NewCampaign {
            id: ids::new_id(&state.clock),
            name: self.name.clone(),
            subject: template.subject,
            text_body: template.text,
            html_body: template.html,
            from_address: from.to_string(),
            from_name: self.from.name.clone(),
        })
    }
}

impl CampaignView {
    /// The campaign with its counts, as the transaction sees them.
    pub(super) async fn read(transaction: &mut TenantTx, id: Uuid) -> Result<Self, Problem> {
        let campaign = campaigns::find(transaction, id).await?.ok_or(ProblemCode::NotFound)?;
        let counts = recipients::counts(transaction, id).await?;
        Ok(Self::of(campaign, Some(counts)))
    }

    pub(super) fn of(campaign: Campaign, progress: Option<Counts>) -> Self {
        Self {
            id: campaign.id,
            name: campaign.name,
            state: campaign.state,
            subject: Some(campaign.subject),
            subject_omitted: false,
            text: Some(campaign.text_body),
            text_omitted: false,
            html: campaign.html_body,
            html_omitted: false,
            from: Sender { email: campaign.from_address, name: campaign.from_name },
            pause_reason: campaign.pause_reason,
            pause_detail: campaign.pause_detail,
            send_at: campaign.send_at,
            started_at: campaign.started_at,
            finished_at: campaign.finished_at,
            created_at: campaign.created_at,
            progress,
            import: None,
        }
    }
}

impl From<ListedCampaign> for CampaignView {
    fn from(campaign: ListedCampaign) -> Self {
        Self {
            id: campaign.id,
            name: campaign.name,
            state: campaign.state,
            subject_omitted: campaign.subject.is_none(),
            subject: campaign.subject,
            text_omitted: campaign.text_body.is_none(),
            text: campaign.text_body,
            html: campaign.html_body,
            html_omitted: campaign.html_omitted,
            from: Sender { email: campaign.from_address, name: campaign.from_name },
            pause_reason: campaign.pause_reason,
            pause_detail: campaign.pause_detail,
            send_at: campaign.send_at,
            started_at: campaign.started_at,
            finished_at: campaign.finished_at,
            created_at: campaign.created_at,
            progress: None,
            import: None,
        }
    }
}

/// The problem for a template that cannot be compiled or rendered, with the member that contains
/// it.
pub(super) fn template_problem(error: &TemplateError) -> Problem {
    Problem::invalid(format!("/{}", error.part()), error.to_string()).detail("a template is invalid")
}
