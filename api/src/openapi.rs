//! The OpenAPI document, and the two routes that serve it.
//!
//! Invariant: the document is derived from the mounted routes, so it neither omits nor invents one;
//! every operation lists all its responses (`openapi/refusals.rs`), and every response has a
//! description, which validators require. Bounds in the document are those that handlers check. The
//! viewer at `/api/docs` is part of the program and loads nothing from elsewhere.

mod refusals;
mod without_query;

use axum::Router;
use jobs::registry::Registry;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{AdditionalProperties, Schema};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{RefOr, SecurityRequirement};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

pub use self::without_query::WithoutQuery;
use crate::problem::{FieldError, ProblemBody, ProblemCode};

/// If there are more kinds, the document does not list them; `job-kinds` has them all.
const MAX_LISTED_KINDS: usize = 100;
/// The names of the credentials in the document.
const API_KEY: &str = "api_key";
const ACCESS_TOKEN: &str = "access_token";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rota",
        description = "Fair, durable background jobs for multi-tenant services. \
            Errors are problem details (RFC 9457); times are RFC 3339 in UTC; ids are UUIDs of version 7.",
    ),
    components(schemas(ProblemBody, ProblemCode, FieldError)),
    modifiers(&Security)
)]
struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let header = ApiKeyValue::with_description("X-API-Key", "An API key of the tenant.");
        let scheme = SecurityScheme::ApiKey(ApiKey::Header(header));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(API_KEY, scheme);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
        let bearer = bearer.description(Some("An access token of a user, from `create_token`.")).build();
        components.add_security_scheme(ACCESS_TOKEN, SecurityScheme::Http(bearer));
        refusals::add_components(components);
        // Routes without a credential declare this themselves: `security(())`.
        let either = [API_KEY, ACCESS_TOKEN].map(|name| SecurityRequirement::new(name, Vec::<String>::new()));
        document.security = Some(either.to_vec());
    }
}

/// Starts the router of the API: routes added to it are part of the document.
pub fn router<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::with_openapi(Document::openapi())
}

/// The document of `router`, for `api openapi` and for tests.
pub fn document<S: Clone + Send + Sync + 'static>(
    router: OpenApiRouter<S>,
    registry: &Registry,
) -> utoipa::openapi::OpenApi {
    complete(router.into_openapi(), registry)
}

/// The routes of `router`, plus `/api/openapi.json` and `/api/docs`; and those without parameters in
/// their query string.
pub fn with_docs<S: Clone + Send + Sync + 'static>(
    router: OpenApiRouter<S>,
    registry: &Registry,
) -> (Router<S>, WithoutQuery) {
    let (router, document) = router.split_for_parts();
    let without_query = WithoutQuery::of(&document);
    let docs = SwaggerUi::new("/api/docs").url("/api/openapi.json", complete(document, registry));
    (router.merge(docs), without_query)
}

fn complete(mut document: utoipa::openapi::OpenApi, registry: &Registry) -> utoipa::openapi::OpenApi {
    for item in document.paths.paths.values_mut() {
        operations(item).for_each(refusals::declare);
    }
    name_kinds(&mut document, registry);
    document.components.iter_mut().flat_map(|components| components.schemas.values_mut()).for_each(close_variants);
    document
}

/// An enum variant with a value is an object with one member, and serde accepts no other member.
fn close_variants(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::OneOf(choice)) = schema else { return };
    for variant in &mut choice.items {
        if let RefOr::T(Schema::Object(object)) = variant
            && object.properties.len() == 1
            && object.additional_properties.is_none()
        {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
}

/// Lists the kinds that can be submitted as the values of `kind`; they are those of this process.
fn name_kinds(document: &mut utoipa::openapi::OpenApi, registry: &Registry) {
    let kinds: Vec<serde_json::Value> = registry.submittable().map(|kind| kind.name.into()).collect();
    if !(1..=MAX_LISTED_KINDS).contains(&kinds.len()) {
        return;
    }
    let Some(components) = &mut document.components else { return };
    for name in ["JobSubmission", "CompletionSubmission"] {
        let Some(RefOr::T(Schema::Object(submission))) = components.schemas.get_mut(name) else { continue };
        if let Some(RefOr::T(Schema::Object(kind))) = submission.properties.get_mut("kind") {
            kind.enum_values = Some(kinds.clone());
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, options, head, .. } = item;
    [get, put, post, delete, patch, options, head].into_iter().filter_map(Option::as_mut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use serde_json::Value;

    #[test]
    fn every_response_is_described_and_every_reference_resolves() {
        let checks: Arc<dyn shared::health::HealthChecks> = Arc::new(Vec::new);
        let registry = Registry::new(shared::config::TestKinds::None);
        let document = document(router::<()>().merge(crate::routes::health::router(checks)), &registry);
        let document = serde_json::to_value(document).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.contains_key("/api/health/readiness"));
        for operation in paths.values().flat_map(|item| item.as_object().unwrap().values()) {
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("500"));
            let described = |response: &Value| response["$ref"].is_string() || response["description"] != "";
            assert!(responses.values().all(described), "{operation}");
        }
        for reference in references(&document) {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }

    fn references(value: &Value) -> Vec<String> {
        match value {
            Value::Object(members) => {
                let own = members.get("$ref").and_then(Value::as_str).map(str::to_owned);
                members.values().flat_map(references).chain(own).collect()
            }
            Value::Array(items) => items.iter().flat_map(references).collect(),
            _ => Vec::new(),
        }
    }
}
