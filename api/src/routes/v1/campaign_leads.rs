//! `/api/v1/campaigns/{id}/leads`: import a CSV of leads into a campaign.
//!
//! Invariant: an import is one transaction, so a file that breaks off, is refused, or is too large leaves nothing behind.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    RequestExt as _,
    extract::{Request, State},
};
use futures::TryStreamExt as _;
use http::header::CONTENT_LENGTH;
use http_body_util::LengthLimitError;
use serde::Deserialize;
use shared::{
    clock::Clock,
    db::TenantTx,
    ids,
    store::{
        campaigns,
        leads::{self, NewLead},
        recipients,
    },
};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::{
    auth::{CampaignsWrite, Permit},
    extract::{Json, Path, Query},
    leads_import::{Delimiter, ImportError, ImportLimits, ImportOptions, ImportReport, LeadRow, LeadsReader, OnError},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// A file of 100,000 rows with a dozen columns is some 20 MB.
pub const MAX_BYTES: usize = 128 << 20;
/// How long an upload may take.
pub const TIME_LIMIT: Duration = Duration::from_mins(10);
const ROWS_A_STATEMENT: usize = 1_000;

/// How a file is to be read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// `skip` (the default) leaves bad rows out and reports them; `refuse` imports nothing if there is one.
    #[param(value_type = Option<String>)]
    on_error: Option<OnError>,
    /// `comma`, `semicolon` or `tab`; found from the header if left out.
    #[param(value_type = Option<String>)]
    delimiter: Option<Delimiter>,
    /// A JSON object of variable name to column name, for columns whose names do not say what they are,
    /// such as `{"email":"Kontakt"}`.
    mapping: Option<String>,
}

/// Imports leads from a CSV file and adds them to a campaign that has not been started.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/leads", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id"), ImportQuery),
    request_body(content = String, content_type = "text/csv", description = "UTF-8, with a header; 100,000 rows at most"),
    responses((status = 200, body = ImportReport, description = "What was imported, and which rows were not"),
        (status = 422, description = "The file was refused; the report says why")))]
pub async fn import(
    permit: Permit<CampaignsWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> Result<Json<ImportReport>, Problem> {
    let options = query.options()?;
    if declared_bytes(&request).is_some_and(|bytes| bytes > MAX_BYTES) {
        return Err(ProblemCode::PayloadTooLarge.into());
    }
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let campaign = campaigns::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    if !matches!(campaign.state.as_str(), "draft" | "scheduled") {
        return Err(Problem::new(ProblemCode::Conflict)
            .detail(format!("the campaign is {}; leads can be added until it is sent", campaign.state)));
    }
    // A body that is streamed has no limit unless it is asked for.
    let body = request.into_limited_body();
    let source = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let report = import_into(&mut transaction, &state.clock, id, source, options).await?;
    transaction.commit().await?;
    Ok(Json(report))
}

/// Imports from any source inside a transaction; a refusal leaves the roll-back to the caller.
pub(super) async fn import_into(
    transaction: &mut TenantTx,
    clock: &Clock,
    campaign: Uuid,
    source: impl AsyncRead + Unpin,
    options: ImportOptions,
) -> Result<ImportReport, Problem> {
    let mut reader = LeadsReader::open(source, options).await?;
    loop {
        let batch = reader.next_batch(ROWS_A_STATEMENT).await?;
        if batch.is_empty() {
            break;
        }
        store(transaction, clock, campaign, batch).await?;
    }
    let report = reader.finish();
    if report.refused {
        let detail = format!(
            "{} of {} rows are bad and on_error is refuse, so nothing was imported",
            report.invalid, report.rows_read
        );
        let report = serde_json::to_value(report).expect("a report is plain data");
        return Err(Problem::new(ProblemCode::InvalidBody).detail(detail).member("report", report));
    }
    Ok(report)
}

/// Adds rows of distinct addresses to the leads and to the campaign.
pub(super) async fn store(
    transaction: &mut TenantTx,
    clock: &Clock,
    campaign: Uuid,
    rows: Vec<LeadRow>,
) -> Result<(), sqlx::Error> {
    let rows: Vec<NewLead> = rows.into_iter().map(|row| new_lead(clock, row)).collect();
    let ids = leads::upsert(transaction, &rows).await?;
    let recipients: Vec<(Uuid, Uuid)> = ids.into_values().map(|lead| (ids::new_id(clock), lead)).collect();
    recipients::add(transaction, campaign, &recipients).await.map(drop)
}

fn declared_bytes(request: &Request) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn new_lead(clock: &Clock, row: LeadRow) -> NewLead {
    NewLead {
        id: ids::new_id(clock),
        email: row.email.to_string(),
        email_key: row.email.key(),
        variables: row.variables,
    }
}

impl ImportQuery {
    fn options(self) -> Result<ImportOptions, Problem> {
        let mapping: BTreeMap<String, String> = match &self.mapping {
            Some(text) => serde_json::from_str(text).map_err(|error| {
                Problem::new(ProblemCode::InvalidQuery)
                    .detail(format!("mapping: a JSON object of variable to column: {error}"))
            })?,
            None => BTreeMap::new(),
        };
        // Each entry is looked for among the columns.
        if mapping.len() > ImportLimits::default().columns {
            return Err(Problem::new(ProblemCode::InvalidQuery)
                .detail(format!("mapping: {} columns at most", ImportLimits::default().columns)));
        }
        Ok(ImportOptions {
            delimiter: self.delimiter,
            mapping,
            on_error: self.on_error.unwrap_or_default(),
            ..ImportOptions::default()
        })
    }
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        if error.is_from_the_file() {
            Self::new(ProblemCode::InvalidBody).detail(error.to_string())
        } else if is_too_large(&error) {
            ProblemCode::PayloadTooLarge.into()
        } else {
            Self::new(ProblemCode::BadRequest).detail("the upload broke off; nothing was imported").caused_by(error)
        }
    }
}

fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(<dyn std::error::Error>::is::<LengthLimitError>)
}
