//! Starting a campaign, and writing to one recipient to see whether that can work.

use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use jobs::{campaign_mail::CampaignMail, job::new_job, kinds::send_campaign::SendCampaign, unsubscribe::Unsubscriber};
use serde_json::Value;
use shared::{
    db::TenantTx,
    email_address::EmailAddress,
    queue::{NewJob, producer::Producer},
    store::{
        campaigns::{self, Campaign},
        recipients,
    },
};
use uuid::Uuid;

use super::types::{CampaignView, Preview, PreviewRequest, template_problem};
use crate::{
    extract::Json,
    problem::{FieldError, Problem, ProblemCode},
    state::AppState,
};

pub(super) async fn launch(
    state: &AppState,
    mut transaction: TenantTx,
    id: Uuid,
    from: &[&str],
    send_at: Option<DateTime<Utc>>,
) -> Result<Response, Problem> {
    let jobs = start(state, &mut transaction, id, from, send_at).await?;
    let view = CampaignView::read(&mut transaction, id).await?;
    transaction.commit().await?;
    state.producer.announce(&jobs);
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}

/// Changes the state and inserts the job that fans out, in one transaction. Returns the job, to be announced after the commit.
pub(super) async fn start(
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

pub(super) async fn render_one(
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

pub(super) fn conflict(state: &str) -> Problem {
    Problem::new(ProblemCode::Conflict).detail(format!("the campaign is {state}")).member("state", state)
}
