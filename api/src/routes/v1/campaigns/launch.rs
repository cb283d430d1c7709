//! Starting a campaign, and rendering the mail to one recipient to check that it can be sent.
//!
//! Invariant: templates are compiled and rendered on the compute pool while no transaction is open;
//! their inputs are read before.

use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use jobs::{
    campaign_mail::{CampaignMail, RENDER},
    job::new_job,
    kinds::send_campaign::SendCampaign,
    templates::{RenderedMail, TemplateError},
    unsubscribe::Unsubscriber,
};
use serde_json::{Map, Value};
use shared::{
    db::TenantTx,
    ids,
    queue::{NewJob, enqueue::Producer},
    store::{
        campaigns::{self, Campaign, NewCampaign},
        recipients::{self, Addressee},
    },
    tenancy::TenantId,
};
use uuid::Uuid;

use super::{
    columns,
    types::{CampaignView, Preview, template_problem},
};
use crate::{
    extract::Json,
    leads_import::{ImportOptions, LeadsReader},
    problem::{Problem, ProblemCode},
    routes::v1::campaign_leads,
    state::AppState,
};

/// The inputs of a mail to one recipient.
pub(super) struct Letter {
    campaign: Campaign,
    unsubscriber: Unsubscriber,
    addressee: Addressee,
}

/// A mail that could be rendered.
pub(super) struct Written {
    pub preview: Preview,
    /// The columns that every mail of the campaign needs.
    pub needed: Vec<String>,
}

impl Letter {
    /// Reads the letter to the recipient with this address, or to any recipient.
    pub(super) async fn read(transaction: &mut TenantTx, id: Uuid, email_key: Option<&str>) -> Result<Self, Problem> {
        let campaign = campaigns::find(transaction, id).await?.ok_or(ProblemCode::NotFound)?;
        let recipient = recipients::for_preview(transaction, id, email_key).await?;
        let recipient = recipient.ok_or_else(|| {
            let detail = match email_key {
                Some(_) => "the campaign has no recipient with this address; import leads first",
                None => "the campaign has no recipients; import leads first",
            };
            Problem::new(ProblemCode::Conflict).detail(detail).member("state", campaign.state.as_str())
        })?;
        let addressee = recipients::addressee(transaction, recipient).await?.ok_or(ProblemCode::NotFound)?;
        Ok(Self { campaign, unsubscriber: Unsubscriber { tenant: transaction.tenant(), recipient }, addressee })
    }

    /// The letter to the first lead of `leads_csv`, for a draft that is sent at once. Its rows are
    /// not committed.
    pub(super) async fn rehearse(
        state: &AppState,
        mut transaction: TenantTx,
        new: &NewCampaign,
        leads_csv: Option<&str>,
    ) -> Result<Self, Problem> {
        campaigns::create(&mut transaction, new).await?;
        if let Some(csv) = leads_csv {
            let first = LeadsReader::open(csv.as_bytes(), ImportOptions::default()).await?.next_batch(1).await?;
            campaign_leads::store(&mut transaction, &state.clock, new.id, first).await?;
        }
        Self::read(&mut transaction, new.id, None).await
    }

    /// Renders the mail, with `values` in place of the recipient's if there are any.
    pub(super) async fn write(self, state: &AppState, values: Option<Map<String, Value>>) -> Result<Written, Problem> {
        let Self { campaign, unsubscriber, addressee } = self;
        let (links, variables) = (state.unsubscribe_links.clone(), values.map_or(addressee.variables, Value::Object));
        let to = addressee.email.clone();
        let work = move || {
            let mail = CampaignMail::compile(&campaign)?;
            Ok::<_, TemplateError>((mail.render(&links, unsubscriber, &to, &variables)?, mail.required()))
        };
        let (rendered, needed) =
            state.compute.run(unsubscriber.tenant, RENDER, work).await?.map_err(|error| template_problem(&error))?;
        let RenderedMail { subject, text, html } = rendered;
        let preview = Preview { to: addressee.email, subject, text, html, warnings: Vec::new() };
        Ok(Written { preview, needed })
    }
}

pub(super) async fn launch(
    state: &AppState,
    tenant: TenantId,
    id: Uuid,
    from: &[&str],
    send_at: Option<DateTime<Utc>>,
) -> Result<Response, Problem> {
    let mut transaction = state.stores.tenants.begin(tenant).await?;
    let letter = Letter::read(&mut transaction, id, None).await?;
    transaction.commit().await?;
    // If the mail to the first recipient cannot be rendered, all mails would fail.
    let needed = letter.write(state, None).await?.needed;
    let mut transaction = state.stores.tenants.begin(tenant).await?;
    if from == ["draft"] {
        columns::must_be_there(&mut transaction, id, &needed).await?;
    }
    let jobs = start(state, &mut transaction, id, from, send_at).await?;
    let view = CampaignView::read(&mut transaction, id).await?;
    transaction.commit().await?;
    state.producer.announce(&jobs);
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}

/// Changes the state and inserts the job that fans out, in one transaction. Returns the job; the
/// caller announces it after the commit.
pub(super) async fn start(
    state: &AppState,
    transaction: &mut TenantTx,
    id: Uuid,
    from: &[&str],
    send_at: Option<DateTime<Utc>>,
) -> Result<Vec<NewJob>, Problem> {
    let job_id = ids::new_id(&state.clock);
    let Some(generation) = campaigns::start(transaction, id, from, send_at, job_id).await? else {
        let campaign = campaigns::find(transaction, id).await?.ok_or(ProblemCode::NotFound)?;
        return Err(conflict(&campaign.state));
    };
    let job = new_job(&state.clock, transaction.tenant(), &SendCampaign { campaign_id: id, generation });
    let jobs = vec![NewJob { id: job_id, run_at: send_at, ..job }];
    Producer::enqueue_in(transaction, &jobs).await?;
    Ok(jobs)
}

pub(super) fn conflict(state: &str) -> Problem {
    Problem::new(ProblemCode::Conflict).detail(format!("the campaign is {state}")).member("state", state)
}
