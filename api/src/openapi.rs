//! The OpenAPI document, and the two routes that serve it.
//!
//! Invariant: the document is derived from the routes that are really mounted, so it can neither lack nor invent one;
//! every operation has the error form of [`crate::problem`], and every answer a description, which validators insist
//! on. The viewer at `/api/docs` is part of the program and loads nothing from elsewhere.

use axum::Router;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::openapi::{Content, Ref, ResponseBuilder, SecurityRequirement};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::problem::{FieldError, PROBLEM_JSON, ProblemBody, ProblemCode};

/// The name of the credential in the document.
const API_KEY: &str = "api_key";

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
        document.components.get_or_insert_default().add_security_scheme(API_KEY, scheme);
        // Routes without a credential say so themselves: `security(())`.
        document.security = Some(vec![SecurityRequirement::new(API_KEY, Vec::<String>::new())]);
    }
}

/// Begins the router of the API: routes added to it are in the document.
pub fn router<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::with_openapi(Document::openapi())
}

/// The document of `router`, for `api openapi` and for tests.
pub fn document<S: Clone + Send + Sync + 'static>(router: OpenApiRouter<S>) -> utoipa::openapi::OpenApi {
    complete(router.into_openapi())
}

/// The routes of `router` with `/api/openapi.json` and `/api/docs` beside them.
pub fn with_docs<S: Clone + Send + Sync + 'static>(router: OpenApiRouter<S>) -> Router<S> {
    let (router, document) = router.split_for_parts();
    router.merge(SwaggerUi::new("/api/docs").url("/api/openapi.json", complete(document)))
}

fn complete(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            operation.operation_id = Some(operation_id(method, path));
            describe_errors(operation);
        }
    }
    document
}

/// Made from the address, so that no two are alike: clients that are generated name their methods by it.
fn operation_id(method: &str, path: &str) -> String {
    let path = path.trim_start_matches("/api/").trim_start_matches("v1/").replace('{', "by_").replace('}', "");
    format!("{method}_{}", path.replace(['/', '-', '.'], "_"))
}

fn describe_errors(operation: &mut Operation) {
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    let problem = ResponseBuilder::new()
        .description("The request was refused or failed; `code` says why.")
        .content(PROBLEM_JSON, content)
        .build();
    operation.responses.responses.entry("default".to_owned()).or_insert_with(|| problem.into());
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, options, head, .. } = item;
    let methods = [
        ("get", get),
        ("put", put),
        ("post", post),
        ("delete", delete),
        ("patch", patch),
        ("options", options),
        ("head", head),
    ];
    methods.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::sync::Arc;

    #[test]
    fn every_answer_is_described_and_every_reference_resolves() {
        let checks: Arc<dyn shared::health::HealthChecks> = Arc::new(Vec::new);
        let document = document(router::<()>().merge(crate::routes::health::router(checks)));
        let document = serde_json::to_value(document).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.contains_key("/api/health/readiness"));
        for operation in paths.values().flat_map(|item| item.as_object().unwrap().values()) {
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("default"));
            assert!(responses.values().all(|response| response["description"] != ""), "{operation}");
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
