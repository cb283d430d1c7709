//! `/api/v1/companies`: the company of the credential, with what its tier allows.
//!
//! Invariant: a credential sees its own company only; another one's id is answered as an unknown id.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    store::companies::{self, Company},
    tiers::{Feature, Tier},
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::users::check_name;
use crate::{
    auth::{CompaniesRead, CompaniesWrite, Permit},
    extract::{Json, Path, optional_storable},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// The changes of a company.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompanyChanges {
    /// Display name.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*$")]
    name: Option<String>,
}

/// A company.
#[derive(Serialize, ToSchema)]
pub struct CompanyView {
    id: Uuid,
    /// The name at sign-in and in mails.
    #[schema(example = "acme")]
    slug: String,
    /// Display name.
    name: String,
    /// The name of the tier.
    #[schema(example = "professional")]
    tier: String,
    /// The limits of the tier; missing if the tier is not known to this release.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<LimitsView>,
    /// All features, whether or not the company has them.
    features: Vec<FeatureView>,
    created_at: DateTime<Utc>,
}

/// The limits of a tier; null is no limit.
#[derive(Serialize, ToSchema)]
pub struct LimitsView {
    /// Requests in an hour.
    requests_per_hour: u32,
    /// Calls of the API in a day.
    api_calls_per_day: Option<u32>,
    /// Users.
    users: Option<u32>,
    /// Properties.
    properties: Option<u32>,
}

/// A feature.
#[derive(Serialize, ToSchema)]
pub struct FeatureView {
    /// The name of the feature.
    #[schema(example = "sso")]
    name: &'static str,
    /// Whether the company has it.
    enabled: bool,
    /// The lowest tier that has it.
    #[schema(example = "professional")]
    lowest_tier: &'static str,
}

/// The companies that a credential sees.
#[derive(Serialize, ToSchema)]
pub struct Companies {
    items: Vec<CompanyView>,
}

/// Lists the own company, the only one that a credential sees.
#[utoipa::path(get, path = "/api/v1/companies", operation_id = "list_companies", tag = "companies",
    responses((status = 200, body = Companies, description = "The own company")))]
pub async fn list(permit: Permit<CompaniesRead>, State(state): State<AppState>) -> Result<Json<Companies>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let company = companies::find(&mut transaction, *permit.tenant().as_uuid()).await?;
    Ok(Json(Companies { items: company.into_iter().map(CompanyView::from).collect() }))
}

/// Shows the own company.
#[utoipa::path(get, path = "/api/v1/companies/{id}", operation_id = "get_company", tag = "companies",
    params(("id" = Uuid, Path, description = "The company's id")),
    responses((status = 200, body = CompanyView, description = "The company")))]
pub async fn show(
    permit: Permit<CompaniesRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<CompanyView>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let company = companies::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    Ok(Json(company.into()))
}

/// Changes the name of the own company; a member that is missing stays unchanged.
#[utoipa::path(patch, path = "/api/v1/companies/{id}", operation_id = "update_company", tag = "companies", request_body = CompanyChanges,
    params(("id" = Uuid, Path, description = "The company's id")),
    responses((status = 200, body = CompanyView, description = "The changed company")))]
pub async fn update(
    permit: Permit<CompaniesWrite>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Json(changes): Json<CompanyChanges>,
) -> Result<Json<CompanyView>, Problem> {
    if let Some(error) = changes.name.as_deref().and_then(|name| check_name("/name", name).err()) {
        return Err(Problem::new(ProblemCode::InvalidBody).errors(vec![error]));
    }
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    companies::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    if let Some(name) = &changes.name {
        companies::rename(&mut transaction, name).await?;
    }
    let company = companies::find(&mut transaction, id).await?.ok_or(ProblemCode::NotFound)?;
    transaction.commit().await?;
    Ok(Json(company.into()))
}

impl From<Company> for CompanyView {
    fn from(company: Company) -> Self {
        let tier = Tier::parse(&company.tier);
        let feature = |feature: Feature| FeatureView {
            name: feature.as_str(),
            enabled: tier.is_some_and(|tier| feature.is_in(tier)),
            lowest_tier: feature.lowest_tier().as_str(),
        };
        Self {
            id: company.id,
            slug: company.slug,
            name: company.name,
            limits: tier.map(LimitsView::of),
            features: Feature::all().map(feature).collect(),
            tier: company.tier,
            created_at: company.created_at,
        }
    }
}

impl LimitsView {
    fn of(tier: Tier) -> Self {
        let limits = tier.limits();
        Self {
            requests_per_hour: limits.requests_per_hour,
            api_calls_per_day: limits.api_calls_per_day,
            users: limits.users,
            properties: limits.properties,
        }
    }
}
