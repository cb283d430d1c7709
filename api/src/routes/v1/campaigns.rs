//! `/api/v1/campaigns`: drafts, previews, sends, pauses, resumes, cancels and shows campaigns.

pub(super) mod columns;
mod launch;
mod types;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri, header::LOCATION};
use shared::{
    authz::Permission,
    db::TenantTx,
    queue::ledger::request::Idempotency,
    store::{
        campaigns,
        idempotency::{self, Reservation},
    },
};
use uuid::Uuid;

use self::{
    launch::{Letter, Written, conflict, launch, start},
    types::{CampaignDraft, CampaignQuery, CampaignView, Preview, PreviewRequest, SendRequest},
};
use super::campaign_leads::import_into;
use crate::{
    auth::{CampaignsRead, CampaignsSend, CampaignsWrite, Permit},
    extract::{Json, Page, PageBody, PageRequest, Path, Query, RequestKey, Submission, Timestamp},
    leads_import::{ImportOptions, ImportReport},
    problem::{FieldError, Problem, ProblemCode},
    state::AppState,
};

/// Drafts a campaign.
///
/// With `leads_csv` and `send` the campaign is also filled and started in the same transaction.
#[utoipa::path(post, path = "/api/v1/campaigns", operation_id = "create_campaign", tag = "campaigns", request_body = CampaignDraft,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = r"^[!-~]([ -~]{0,253}[!-~])?$", description = "A repeat with the same key and body creates no second campaign")),
    responses((status = 201, body = CampaignView, description = "The campaign", headers(("Location" = String, description = "The path of the campaign"))),
        (status = 409, description = "`send`: the campaign has no recipient")))]
pub async fn create(
    permit: Permit<CampaignsWrite>,
    State(state): State<AppState>,
    Submission { body, key, .. }: Submission<CampaignDraft>,
) -> Result<Response, Problem> {
    match draft(&state, &permit, body, &key).await {
        Err(refusal) => {
            let earlier = key.earlier(&state.stores.tenants, permit.tenant(), refusal).await?;
            let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
            replayed(&mut transaction, earlier.first_id).await
        }
        result => result,
    }
}

async fn draft(
    state: &AppState,
    permit: &Permit<CampaignsWrite>,
    draft: Result<CampaignDraft, Problem>,
    key: &RequestKey,
) -> Result<Response, Problem> {
    let draft = draft?;
    if draft.send && !permit.allows(Permission::CampaignsSend) {
        return Err(Problem::new(ProblemCode::Forbidden).detail("send: the API key lacks the scope campaigns:send"));
    }
    let idempotency = key.idempotency(|| None);
    let new = draft.check(state, permit.tenant()).await?;
    let mut needed = Vec::new();
    if draft.send {
        let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
        if let Some(replay) = reserve(&mut transaction, idempotency.as_ref(), new.id).await? {
            return Ok(replay);
        }
        // If the mail to the first recipient cannot be rendered, all mails would fail; no draft is
        // left behind.
        let letter = Letter::rehearse(state, transaction, &new, draft.leads_csv.as_deref()).await?;
        needed = letter.write(state, None).await?.needed;
    }
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    if let Some(replay) = reserve(&mut transaction, idempotency.as_ref(), new.id).await? {
        return Ok(replay);
    }
    campaigns::create(&mut transaction, &new).await?;
    let import = match &draft.leads_csv {
        Some(csv) => {
            let imported =
                import_into(&mut transaction, &state.clock, new.id, csv.as_bytes(), ImportOptions::default()).await;
            Some(imported.map_err(in_leads_csv)?)
        }
        None => None,
    };
    columns::must_be_there(&mut transaction, new.id, &needed).await?;
    let jobs = if draft.send { start(state, &mut transaction, new.id, &["draft"], None).await? } else { Vec::new() };
    let response = created(&mut transaction, new.id, import).await?;
    transaction.commit().await?;
    state.producer.announce(&jobs);
    Ok(response)
}

/// A problem of the leads, with its position in the body.
fn in_leads_csv(problem: Problem) -> Problem {
    if problem.code() != ProblemCode::InvalidBody || !problem.field_errors().is_empty() {
        return problem;
    }
    let detail = problem.detail_text().to_owned();
    problem.errors(vec![FieldError { pointer: "/leads_csv".into(), detail }])
}

/// Lists campaigns, newest first.
#[utoipa::path(get, path = "/api/v1/campaigns", operation_id = "list_campaigns", tag = "campaigns", params(CampaignQuery),
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
    Ok(page.page(campaigns.into_iter().map(CampaignView::from).collect(), |view: &CampaignView| view.id, &uri))
}

/// Shows a campaign and its progress.
#[utoipa::path(get, path = "/api/v1/campaigns/{id}", operation_id = "get_campaign", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    responses((status = 200, body = CampaignView, description = "The campaign")))]
pub async fn show(
    permit: Permit<CampaignsRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<CampaignView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    CampaignView::read(&mut transaction, id).await.map(Json)
}

/// Renders the mail to one recipient without sending it.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/preview", operation_id = "preview_campaign", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    request_body = PreviewRequest, responses((status = 200, body = Preview, description = "The mail"), (status = 409, description = "The campaign has no such recipient"), (status = 422, description = "A template cannot be rendered; `errors` says where")))]
pub async fn preview(
    permit: Permit<CampaignsRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Json(request): Json<PreviewRequest>,
) -> Result<Json<Preview>, Problem> {
    let (key, variables) = (request.email_key()?, request.variables()?);
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let letter = Letter::read(&mut transaction, id, key.as_deref()).await?;
    transaction.commit().await?;
    let Written { preview, needed } = letter.write(&state, variables).await?;
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let warnings = columns::missing(&mut transaction, id, &needed, columns::PREVIEW_SCAN).await?;
    Ok(Json(Preview { warnings, ..preview }))
}

/// Starts sending, now or at a given time.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/send", operation_id = "send_campaign", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    request_body = SendRequest, responses((status = 202, body = CampaignView, description = "The campaign is being sent, or scheduled"), (status = 409, description = "The campaign was started before, or has no recipient")))]
pub async fn send(
    permit: Permit<CampaignsSend>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Json(request): Json<SendRequest>,
) -> Result<Response, Problem> {
    launch(&state, permit.tenant(), id, &["draft"], request.send_at.map(Timestamp::get)).await
}

/// Pauses sending.
///
/// Mails that are being handed over at this moment still go out.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/pause", operation_id = "pause_campaign", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    responses((status = 200, body = CampaignView, description = "The campaign is paused"), (status = 409, description = "The campaign is not being sent")))]
pub async fn pause(
    permit: Permit<CampaignsSend>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<CampaignView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let changed = campaigns::pause(&mut transaction, id).await?;
    changed_view(transaction, id, changed).await
}

/// Resumes sending to recipients that have no mail yet.
///
/// A campaign whose time is still to come is scheduled again.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/resume", operation_id = "resume_campaign", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    responses((status = 202, body = CampaignView, description = "The campaign is being sent again, or scheduled again"), (status = 409, description = "The campaign is not paused, or has no recipient"), (status = 422, description = "The mail to the first recipient cannot be rendered")))]
pub async fn resume(
    permit: Permit<CampaignsSend>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let campaign = campaigns::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    drop(transaction);
    // If its time passed while the campaign was paused, it starts now.
    let send_at = campaign.send_at.filter(|&at| at > state.clock.now());
    launch(&state, permit.tenant(), id, &["paused"], send_at).await
}

/// Cancels a campaign: it sends nothing more.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/cancel", operation_id = "cancel_campaign", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id")),
    responses((status = 200, body = CampaignView, description = "The campaign is cancelled"), (status = 409, description = "The campaign is already final")))]
pub async fn cancel(
    permit: Permit<CampaignsSend>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<CampaignView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let changed = campaigns::cancel(&mut transaction, id).await?;
    changed_view(transaction, id, changed).await
}

/// Returns the response to a repeated request with an idempotency key; otherwise reserves the key
/// for `id`.
async fn reserve(
    transaction: &mut TenantTx,
    idempotency: Option<&Idempotency>,
    id: Uuid,
) -> Result<Option<Response>, Problem> {
    let Some(idempotency) = idempotency else { return Ok(None) };
    match idempotency::reserve(transaction, idempotency, id).await? {
        Reservation::First => Ok(None),
        Reservation::Replay(id) => replayed(transaction, id).await.map(Some),
        Reservation::Reused => Err(ProblemCode::IdempotencyKeyReused.into()),
    }
}

async fn replayed(transaction: &mut TenantTx, id: Uuid) -> Result<Response, Problem> {
    Ok(([("idempotency-replayed", "true")], created(transaction, id, None).await?).into_response())
}

async fn created(transaction: &mut TenantTx, id: Uuid, import: Option<ImportReport>) -> Result<Response, Problem> {
    let view = CampaignView { import, ..CampaignView::read(transaction, id).await? };
    Ok((StatusCode::CREATED, [(LOCATION, format!("/api/v1/campaigns/{id}"))], Json(view)).into_response())
}

async fn changed_view(mut transaction: TenantTx, id: Uuid, changed: bool) -> Result<Json<CampaignView>, Problem> {
    let view = CampaignView::read(&mut transaction, id).await?;
    if !changed {
        return Err(conflict(&view.state));
    }
    transaction.commit().await?;
    Ok(Json(view))
}
