//! Every route on one page.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use shared::health::HealthChecks;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    middleware::time_limit,
    openapi,
    routes::{
        health, jwks,
        v1::{
            api_clients, api_keys, auth, campaign_leads, campaigns, companies, jobs, permissions, suppressions,
            unsubscribe, usage, users, webhook_deliveries, webhook_endpoints,
        },
    },
    state::AppState,
};

/// All routes, the OpenAPI document and its viewer. Only health, signing in, registration and the
/// links in mails require no credential.
pub fn router(state: AppState, checks: Arc<dyn HealthChecks>) -> Router {
    let (router, without_query) = openapi::with_docs(routes(checks), &state.registry);
    state.without_query.get_or_init(|| without_query);
    router.with_state(state)
}

/// The routes that the document describes.
pub fn routes(checks: Arc<dyn HealthChecks>) -> OpenApiRouter<AppState> {
    openapi::router().merge(health::router(checks)).merge(v1())
}

fn v1() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(jobs::create, jobs::list))
        .routes(routes!(jobs::batch::create))
        .routes(routes!(jobs::batch::show))
        .routes(routes!(jobs::bulk::retry))
        .routes(routes!(jobs::bulk::cancel))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::explain::explain))
        .routes(routes!(jobs::events::follow))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::kinds::list))
        .routes(routes!(campaigns::create, campaigns::list))
        .routes(routes!(campaigns::show))
        .routes(routes!(campaigns::preview))
        .routes(routes!(campaigns::send))
        .routes(routes!(campaigns::pause))
        .routes(routes!(campaigns::resume))
        .routes(routes!(campaigns::cancel))
        .merge(imports())
        .merge(identity())
        .merge(webhooks())
        .routes(routes!(suppressions::list, suppressions::create))
        .routes(routes!(suppressions::show, suppressions::delete))
        .routes(routes!(usage::show))
        .routes(routes!(unsubscribe::show_page, unsubscribe::confirm))
}

/// Who acts, and what they may do.
fn identity() -> OpenApiRouter<AppState> {
    let tokens = OpenApiRouter::new()
        .routes(routes!(auth::create_token))
        .routes(routes!(auth::refresh_token))
        .routes(routes!(auth::verify_token))
        .routes(routes!(api_clients::create_token))
        .routes(routes!(api_clients::refresh_token))
        .routes(routes!(auth::registration::register))
        .routes(routes!(auth::registration::verify_email))
        .routes(routes!(auth::registration::show_page, auth::registration::confirm))
        .routes(routes!(auth::password_reset::forgot_password))
        .routes(routes!(auth::password_reset::reset_password))
        .routes(routes!(auth::password_reset::show_page, auth::password_reset::submit_page))
        .layer(DefaultBodyLimit::max(auth::MAX_BYTES));
    OpenApiRouter::new()
        .merge(tokens)
        .routes(routes!(auth::logout))
        .routes(routes!(jwks::list))
        .routes(routes!(permissions::mine))
        .routes(routes!(permissions::roles))
        .routes(routes!(companies::list))
        .routes(routes!(companies::show, companies::update))
        .routes(routes!(users::create, users::list))
        .routes(routes!(users::change_password))
        .routes(routes!(users::show, users::update))
        .routes(routes!(users::toggle_status))
        .routes(routes!(users::invite))
        .routes(routes!(api_keys::create, api_keys::list))
        .routes(routes!(api_keys::show, api_keys::revoke))
        .routes(routes!(api_keys::rotate))
        .routes(routes!(api_clients::create, api_clients::list))
        .routes(routes!(api_clients::show, api_clients::revoke))
        .routes(routes!(api_clients::rotate_secret))
        .routes(routes!(api_clients::uses))
}

fn webhooks() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(webhook_endpoints::create, webhook_endpoints::list))
        .routes(routes!(webhook_endpoints::show, webhook_endpoints::update, webhook_endpoints::delete))
        .routes(routes!(webhook_endpoints::rotate_secret))
        .routes(routes!(webhook_endpoints::enable))
        .routes(routes!(webhook_endpoints::disable))
        .routes(routes!(webhook_endpoints::test))
        .routes(routes!(webhook_deliveries::list))
        .routes(routes!(webhook_deliveries::show))
        .routes(routes!(webhook_deliveries::redeliver))
}

/// An upload is streamed, so it may be larger and take longer than other requests.
fn imports() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(campaign_leads::import))
        .layer(DefaultBodyLimit::max(campaign_leads::MAX_BYTES))
        .layer(from_fn_with_state(campaign_leads::TIME_LIMIT, time_limit::at_least))
}
