//! `/api/v1/campaigns/{id}/leads`: imports a CSV file of leads into a campaign.
//!
//! Invariant: an import is one transaction, so a file that is cut off, rejected or too large leaves
//! nothing behind. The transaction begins after the whole file is on disk and was read once without
//! an error, so no connection waits for a client.

use std::{collections::BTreeMap, time::Duration};

use axum::extract::{Request, State};
use serde::Deserialize;
use shared::{
    clock::Clock,
    db::TenantTx,
    ids, plain_json,
    store::{
        campaigns::{self, Campaign},
        leads::{self, NewLead},
        recipients,
    },
};
use tokio::{io::AsyncRead, time::timeout};
use utoipa::IntoParams;
use uuid::Uuid;

use super::campaigns::columns;
use crate::{
    auth::{CampaignsWrite, Permit},
    extract::{Json, Path, Query, body_problem, limited_body, must_be_csv},
    leads_import::{Delimiter, ImportError, ImportLimits, ImportOptions, ImportReport, LeadRow, LeadsReader, OnError},
    problem::{Problem, ProblemCode},
    state::AppState,
    uploads::{SpoolError, Spooled, TooMany},
};

/// A file of 100,000 rows with a dozen columns is about 20 MB.
pub const MAX_BYTES: usize = 128 << 20;
/// How long an upload may take.
pub const TIME_LIMIT: Duration = Duration::from_mins(10);
const ROWS_A_STATEMENT: usize = 1_000;
/// Time limit for writing the rows of one file: about ten times what the largest file takes.
const WRITE_LIMIT: Duration = Duration::from_mins(2);

/// How to read a file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// `skip` (the default) leaves bad rows out and reports them; `refuse` imports nothing if any
    /// row is bad.
    #[param(inline)]
    on_error: Option<OnError>,
    /// `comma`, `semicolon`, `tab` or `pipe`; detected from the header if omitted.
    #[param(inline)]
    delimiter: Option<Delimiter>,
    /// A JSON object that maps a variable name to a column name, for columns that are not
    /// recognised by their names, such as `{"email":"Kontakt"}`.
    mapping: Option<String>,
}

/// Imports leads from a CSV file into a campaign that has not been started.
#[utoipa::path(post, path = "/api/v1/campaigns/{id}/leads", operation_id = "import_leads", tag = "campaigns", params(("id" = Uuid, Path, description = "The campaign's id"), ImportQuery),
    request_body(content = String, content_type = "text/csv", description = "UTF-8, with a header; at most 100,000 rows"),
    responses((status = 200, body = ImportReport, description = "The numbers of imported and merged rows, and the bad rows"),
        (status = 409, description = "The campaign has already been started"),
        (status = 422, description = "The file was rejected; `detail` or `report` says why"),
        (status = 429, description = "`too_many_in_flight`: two imports of the tenant are in progress")))]
pub async fn import(
    permit: Permit<CampaignsWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> Result<Json<ImportReport>, Problem> {
    let options = query.options()?;
    must_be_csv(request.headers())?;
    let body = limited_body(request)?;
    let place = state.uploads.begin(permit.tenant())?;
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let campaign = must_take_leads(&mut transaction, id).await?;
    drop(transaction);
    // The columns of a scheduled campaign are checked now, because nothing checks them when it
    // starts.
    let needed = match campaign.state.as_str() {
        "scheduled" => columns::needed(&state, permit.tenant(), campaign).await?,
        _ => Vec::new(),
    };
    let mut spooled = place.spool(body.into_data_stream()).await.map_err(upload_problem)?;
    validate(&mut spooled, options.clone()).await?;
    let written = timeout(WRITE_LIMIT, async {
        let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
        must_take_leads(&mut transaction, id).await?;
        let report = import_into(&mut transaction, &state.clock, id, spooled.reader().await?, options).await?;
        columns::must_be_there(&mut transaction, id, &needed).await?;
        transaction.commit().await?;
        Ok::<_, Problem>(report)
    });
    written.await.unwrap_or_else(|_| Err(ProblemCode::Unavailable.into())).map(Json)
}

async fn must_take_leads(transaction: &mut TenantTx, id: Uuid) -> Result<Campaign, Problem> {
    let campaign = campaigns::find(transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    if matches!(campaign.state.as_str(), "draft" | "scheduled") {
        return Ok(campaign);
    }
    Err(Problem::new(ProblemCode::Conflict)
        .detail(format!("the campaign is {}; leads can be added until it is sent", campaign.state)))
}

/// Reads the whole file without a transaction, so that errors are reported before anything is
/// written.
async fn validate(spooled: &mut Spooled, options: ImportOptions) -> Result<(), Problem> {
    let mut reader = LeadsReader::open(spooled.reader().await?, options).await?;
    while !reader.next_batch(ROWS_A_STATEMENT).await?.is_empty() {}
    accepted(reader.finish()).map(drop)
}

/// An error in a client's body is reported as for any other body.
fn upload_problem(error: SpoolError) -> Problem {
    match error {
        SpoolError::Client(cause) => body_problem(&*cause),
        other => other.into(),
    }
}

/// Imports from any source within a transaction; after an error the caller must roll it back.
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
    accepted(reader.finish())
}

/// Returns the report unless the file was rejected.
fn accepted(report: ImportReport) -> Result<ImportReport, Problem> {
    if !report.refused {
        return Ok(report);
    }
    let detail = format!(
        "{} of {} rows are bad and on_error is refuse, so nothing was imported",
        report.invalid, report.rows_read
    );
    let report = plain_json::value(&report);
    Err(Problem::new(ProblemCode::InvalidBody).detail(detail).member("report", report))
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
                    .detail(format!("mapping: expected a JSON object that maps variables to columns: {error}"))
            })?,
            None => BTreeMap::new(),
        };
        // Each entry is searched for among the columns.
        if mapping.len() > ImportLimits::default().columns {
            return Err(Problem::new(ProblemCode::InvalidQuery)
                .detail(format!("mapping: at most {} columns", ImportLimits::default().columns)));
        }
        Ok(ImportOptions {
            delimiter: self.delimiter,
            mapping,
            on_error: self.on_error.unwrap_or_default(),
            ..ImportOptions::default()
        })
    }
}

impl From<TooMany> for Problem {
    fn from(error: TooMany) -> Self {
        Self::new(ProblemCode::TooManyInFlight).detail(error.to_string()).member("limit", error.limit).retry_after(5)
    }
}

/// The file is on disk or in memory, so a failure to read it is not the client's fault.
impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        if error.is_from_the_file() {
            Self::new(ProblemCode::InvalidBody).detail(error.to_string())
        } else {
            Self::new(ProblemCode::Unavailable).caused_by(error)
        }
    }
}
