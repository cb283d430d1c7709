//! Checks that the leads of a campaign have the columns that every mail needs.
//!
//! Invariant: a file that lacks a column is rejected or reported before a mail is sent. One
//! statement compares the columns without rendering a mail, so a check takes one pass over the
//! leads.

use jobs::campaign_mail::{COMPILE, CampaignMail};
use serde_json::{Value, json};
use shared::{
    db::TenantTx,
    store::{
        campaigns::Campaign,
        lead_columns::{self, MissingVariable},
    },
    tenancy::TenantId,
};
use uuid::Uuid;

use super::types::{MissingVariableView, template_problem};
use crate::{
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// Maximum recipients that a preview examines.
pub(super) const PREVIEW_SCAN: i64 = 10_000;

/// The columns that every mail of the campaign needs.
pub(in crate::routes::v1) async fn needed(
    state: &AppState,
    tenant: TenantId,
    campaign: Campaign,
) -> Result<Vec<String>, Problem> {
    let work = move || CampaignMail::compile(&campaign).map(|mail| mail.required());
    state.compute.run(tenant, COMPILE, work).await?.map_err(|error| template_problem(&error))
}

/// Rejects with the number of leads that lack a column, and an example.
pub(in crate::routes::v1) async fn must_be_there(
    transaction: &mut TenantTx,
    campaign: Uuid,
    needed: &[String],
) -> Result<(), Problem> {
    let missing = missing(transaction, campaign, needed, i64::MAX).await?;
    let Some(first) = missing.first() else { return Ok(()) };
    let detail = format!("{} leads lack `{}`, which every mail needs", first.leads, first.variable);
    let each =
        |one: &MissingVariableView| json!({ "variable": one.variable, "leads": one.leads, "example": one.example });
    let leads: Vec<Value> = missing.iter().map(each).collect();
    Err(Problem::new(ProblemCode::InvalidBody).detail(detail).member("missing", leads))
}

/// The needed columns that some leads lack; examines at most `scan` leads.
pub(super) async fn missing(
    transaction: &mut TenantTx,
    campaign: Uuid,
    needed: &[String],
    scan: i64,
) -> Result<Vec<MissingVariableView>, Problem> {
    if needed.is_empty() {
        return Ok(Vec::new());
    }
    let missing = lead_columns::missing(transaction, campaign, needed, scan).await?;
    let view =
        |one: MissingVariable| MissingVariableView { variable: one.name, leads: one.leads, example: one.example };
    Ok(missing.into_iter().map(view).collect())
}
