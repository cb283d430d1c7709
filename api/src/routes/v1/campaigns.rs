//! `/api/v1/campaigns`: draft, preview, send, pause, resume, cancel, and see how far it is.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use http::{StatusCode, Uri, header::LOCATION};
use jobs::{
    campaign_mail::CampaignMail,
    job::new_job,
    kinds::send_campaign::SendCampaign,
    templates::{CompiledTemplate, MailTemplate, TemplateError},
    unsubscribe::Unsubscriber,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    db::TenantTx,
    email_address::EmailAddress,
    ids,
    queue::{NewJob, producer::Producer},
    store::{
        campaigns::{self, Campaign, NewCampaign},
        idempotency::{self, Reservation},
        recipients::{self, Counts},
    },
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::campaign_leads::import_into;
use crate::{
    auth::{CampaignsRead, CampaignsSend, CampaignsWrite, Permit},
    extract::{Json, Page, PageBody, PageRequest, Path, Query, Submission},
    leads_import::{ImportOptions, ImportReport},
    problem::{FieldError, Problem, ProblemCode},
    state::AppState,
};

/// A campaign that is to be drafted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CampaignDraft {
    /// For people.
    name: String,
    /// Template of the subject. Templates are Jinja; they may use the columns of the leads, `email` and `unsubscribe_url`.
    #[schema(example = "Hello {{ first_name }}")]
    subject: String,
    /// Template of the plain text.
    text: String,
    /// Template of the HTML; values are escaped.
    html: Option<String>,
    /// Who it is from.
    from: Sender,
    /// Leads to import at once, as CSV; for large files use `…/leads`.
    leads_csv: Option<String>,
    /// Whether to send it at once; needs the scope `campaigns:send` too.
    #[serde(default)]
    send: bool,
}

/// Who a campaign is from.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Sender {
    /// The address.
    #[schema(example = "news@example.com")]
    email: String,
    /// The name shown with it.
    name: Option<String>,
}

/// A campaign as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct CampaignView {
    id: Uuid,
    name: String,
    /// draft, scheduled, sending, paused, cancelled or completed.
    state: String,
    subject: String,
    text: String,
    html: Option<String>,
    from: Sender,
    send_at: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    /// How many recipients are in each state; left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    progress: Option<Counts>,
    /// What was imported with the draft.
    #[serde(skip_serializing_if = "Option::is_none")]
    import: Option<ImportReport>,
}

/// Which page of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CampaignQuery {
    /// How many, 1 to 200; 50 if left out.
    limit: Option<u16>,
    /// Where the page begins: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Whom to write a preview to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewRequest {
    /// A recipient of the campaign; the first one if left out.
    email: Option<String>,
    /// Values to use instead of a recipient's.
    #[schema(value_type = Option<Object>)]
    variables: Option<serde_json::Map<String, Value>>,
}

/// A mail as one recipient would get it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Preview {
    to: String,
    subject: String,
    text: String,
    html: Option<String>,
}

/// When to send.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendRequest {
    /// At this time; at once if left out.
    send_at: Option<DateTime<Utc>>,
}

/// Drafts a campaign; with `leads_csv` and `send` it is filled and started in the same transaction.
#[utoipa::path(post, path = "/api/v1/campaigns", tag = "campaigns", request_body = CampaignDraft,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key and body makes no second campaign")),
    responses((status = 201, body = CampaignView, description = "The campaign")))]
pub async fn create(
    permit: Permit<CampaignsWrite>,
    State(state): State<AppState>,
    submission: Submission<CampaignDraft>,
) -> Result<Response, Problem> {
    let idempotency = submission.idempotency(None);
    let draft = submission.body;
    if draft.send && !permit.has::<CampaignsSend>() {
        return Err(Problem::new(ProblemCode::Forbidden).detail("send: the API key lacks the scope campaigns:send"));
    }
    let new = draft.check(&state)?;
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    if let Some(idempotency) = &idempotency {
        match idempotency::reserve(&mut transaction, idempotency, new.id).await? {
            Reservation::First => {}
            Reservation::Replay(id) => {
                let again = created(&mut transaction, id, None).await?;
                return Ok(([("idempotency-replayed", "true")], again).into_response());
            }
            Reservation::Reused => return Err(ProblemCode::IdempotencyKeyReused.into()),
        }
    }
    campaigns::create(&mut transaction, &new).await?;
    let import = match &draft.leads_csv {
        Some(csv) => {
            Some(import_into(&mut transaction, &state.clock, new.id, csv.as_bytes(), ImportOptions::default()).await?)
        }
        None => None,
    };
    let jobs = if draft.send { start(&state, &mut transaction, new.id, &["draft"], None).await? } else { Vec::new() };
    let response = created(&mut transaction, new.id, import).await?;
    transaction.commit().await?;
    state.producer.announce(&jobs);
    Ok(response)
}

/// Lists campaigns, the newest first.
#[utoipa::path(get, path = "/api/v1/campaigns", tag = "campaigns", params(CampaignQuery),
    responses((status = 200, body = PageBody<CampaignView>, description = "A page of campaigns")))]
pub async fn list(
    permit: Permit<CampaignsRead>,
    State(state): State<AppState>,
    uri: Uri,
    Query(query): Query<CampaignQuery>,
) -> Result<Page<CampaignView>, Problem> {
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let campaigns = campaigns::list(&mut transaction, page.before, page.fetch_limit()).await?;
    Ok(page.page(
        campaigns.into_iter().map(|campaign| CampaignView::of(campaign, None)).collect(),
        |view: &CampaignView| view.id,
        &uri,
    ))
}

/// Shows a campaign and how far it is.
#[utoipa::path(get, path = "/api/v1/campaigns/{id}", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    responses((status = 200, body = CampaignView, description = "The campaign")))]
pub async fn show(
    permit: Permit<CampaignsRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<CampaignView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    view(&mut transaction, id).await.map(Json)
}

/// Writes the mail as one recipient would get it, without sending it.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/preview", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    request_body = PreviewRequest, responses((status = 200, body = Preview, description = "The mail"), (status = 422, description = "A template cannot be filled; the problem says where")))]
pub async fn preview(
    permit: Permit<CampaignsRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Json(request): Json<PreviewRequest>,
) -> Result<Json<Preview>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let campaign = campaigns::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    render_one(&state, &mut transaction, &campaign, request).await.map(Json)
}

/// Starts sending, now or at a time.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/send", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    request_body = SendRequest, responses((status = 202, body = CampaignView, description = "It is being sent, or scheduled"), (status = 409, description = "It was started before")))]
pub async fn send(
    permit: Permit<CampaignsSend>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Json(request): Json<SendRequest>,
) -> Result<Response, Problem> {
    let transaction = state.stores.tenants.begin(permit.tenant()).await?;
    launch(&state, transaction, id, &["draft"], request.send_at).await
}

/// Stops sending for now. Mails that are being handed over at this moment still go out.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/pause", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    responses((status = 200, body = CampaignView, description = "It is paused"), (status = 409, description = "It is not being sent")))]
pub async fn pause(
    permit: Permit<CampaignsSend>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<CampaignView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let changed = campaigns::pause(&mut transaction, id).await?;
    changed_view(transaction, id, changed).await
}

/// Goes on sending to those who have no mail yet.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/resume", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    responses((status = 202, body = CampaignView, description = "It is being sent again"), (status = 409, description = "It is not paused")))]
pub async fn resume(
    permit: Permit<CampaignsSend>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let transaction = state.stores.tenants.begin(permit.tenant()).await?;
    launch(&state, transaction, id, &["paused"], None).await
}

/// Stops sending for good.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/cancel", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    responses((status = 200, body = CampaignView, description = "It is cancelled"), (status = 409, description = "It is final already")))]
pub async fn cancel(
    permit: Permit<CampaignsSend>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<CampaignView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let changed = campaigns::cancel(&mut transaction, id).await?;
    changed_view(transaction, id, changed).await
}

async fn launch(
    state: &AppState,
    mut transaction: TenantTx,
    id: Uuid,
    from: &[&str],
    send_at: Option<DateTime<Utc>>,
) -> Result<Response, Problem> {
    let jobs = start(state, &mut transaction, id, from, send_at).await?;
    let view = view(&mut transaction, id).await?;
    transaction.commit().await?;
    state.producer.announce(&jobs);
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}

/// Changes the state and inserts the job that fans out, in one transaction. Returns the job, to be announced after the commit.
async fn start(
    state: &AppState,
    transaction: &mut TenantTx,
    id: Uuid,
    from: &[&str],
    send_at: Option<DateTime<Utc>>,
) -> Result<Vec<NewJob>, Problem> {
    let campaign = campaigns::find(transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    // What cannot be written to the first recipient would fail for everyone.
    render_one(state, transaction, &campaign, PreviewRequest::default()).await?;
    let generation =
        campaigns::start(transaction, id, from, send_at).await?.ok_or_else(|| conflict(&campaign.state))?;
    let job = new_job(&state.clock, transaction.tenant(), &SendCampaign { campaign_id: id, generation });
    let jobs = vec![NewJob { run_at: send_at, ..job }];
    Producer::enqueue_in(transaction, &jobs).await?;
    Ok(jobs)
}

async fn render_one(
    state: &AppState,
    transaction: &mut TenantTx,
    campaign: &Campaign,
    request: PreviewRequest,
) -> Result<Preview, Problem> {
    let mail = CampaignMail::compile(campaign).map_err(|error| template_problem(&error))?;
    let key = request.email.as_deref().map(|email| EmailAddress::parse(email).map(|address| address.key())).transpose();
    let key = key.map_err(|error| {
        Problem::new(ProblemCode::InvalidBody)
            .errors(vec![FieldError { pointer: "/email".into(), detail: error.to_string() }])
    })?;
    let recipient = recipients::for_preview(transaction, campaign.id, key.as_deref()).await?;
    let recipient = recipient.ok_or_else(|| {
        Problem::new(ProblemCode::Conflict).detail("the campaign has no such recipient; import leads first")
    })?;
    let addressee = recipients::addressee(transaction, recipient).await?.ok_or(ProblemCode::NotFound)?;
    let variables = request.variables.map_or(addressee.variables, Value::Object);
    let who = Unsubscriber { tenant: transaction.tenant(), recipient };
    let rendered = mail
        .render(&state.unsubscribe_links, who, &addressee.email, &variables)
        .map_err(|error| template_problem(&error))?;
    Ok(Preview { to: addressee.email, subject: rendered.subject, text: rendered.text, html: rendered.html })
}

async fn view(transaction: &mut TenantTx, id: Uuid) -> Result<CampaignView, Problem> {
    let campaign = campaigns::find(transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    let counts = recipients::counts(transaction, id).await?;
    Ok(CampaignView::of(campaign, Some(counts)))
}

async fn created(transaction: &mut TenantTx, id: Uuid, import: Option<ImportReport>) -> Result<Response, Problem> {
    let view = CampaignView { import, ..view(transaction, id).await? };
    Ok((StatusCode::CREATED, [(LOCATION, format!("/api/v1/campaigns/{id}"))], Json(view)).into_response())
}

async fn changed_view(mut transaction: TenantTx, id: Uuid, changed: bool) -> Result<Json<CampaignView>, Problem> {
    let view = view(&mut transaction, id).await?;
    if !changed {
        return Err(conflict(&view.state));
    }
    transaction.commit().await?;
    Ok(Json(view))
}

fn conflict(state: &str) -> Problem {
    Problem::new(ProblemCode::Conflict).detail(format!("the campaign is {state}")).member("state", state)
}

fn template_problem(error: &TemplateError) -> Problem {
    let errors = vec![FieldError { pointer: format!("/{}", error.part()), detail: error.to_string() }];
    Problem::new(ProblemCode::InvalidBody).detail("a template is not in order").errors(errors)
}

impl CampaignDraft {
    /// Judges what can be judged without leads: addresses and the templates' syntax.
    fn check(&self, state: &AppState) -> Result<NewCampaign, Problem> {
        let from = EmailAddress::parse(&self.from.email).map_err(|error| {
            Problem::new(ProblemCode::InvalidBody)
                .errors(vec![FieldError { pointer: "/from/email".into(), detail: error.to_string() }])
        })?;
        if self.name.trim().is_empty() || self.name.len() > 200 {
            let error = FieldError { pointer: "/name".into(), detail: "a name has 1 to 200 characters".into() };
            return Err(Problem::new(ProblemCode::InvalidBody).errors(vec![error]));
        }
        let template = MailTemplate { subject: self.subject.clone(), text: self.text.clone(), html: self.html.clone() };
        CompiledTemplate::compile(&template).map_err(|error| template_problem(&error))?;
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
    fn of(campaign: Campaign, progress: Option<Counts>) -> Self {
        Self {
            id: campaign.id,
            name: campaign.name,
            state: campaign.state,
            subject: campaign.subject,
            text: campaign.text_body,
            html: campaign.html_body,
            from: Sender { email: campaign.from_address, name: campaign.from_name },
            send_at: campaign.send_at,
            started_at: campaign.started_at,
            finished_at: campaign.finished_at,
            created_at: campaign.created_at,
            progress,
            import: None,
        }
    }
}
