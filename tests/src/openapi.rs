//! Compares what tests receive from the API with its OpenAPI document.
//!
//! Invariant: a response that a test reads in full has a status, a media type and a body that the
//! document declares for its operation, and an event of a stream has the declared form; otherwise
//! the test panics. Objects have no other members than the declared ones: clients ignore unknown
//! members, so nothing else would find one that the document lacks.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use axum::http::{HeaderMap, Method, header::CONTENT_TYPE};
use jobs::registry::Registry;
use jsonschema::Validator;
use serde_json::Value;
use shared::config::TestKinds;

const JSON: &str = "application/json";
const PROBLEM: &str = "Problem";
/// The addresses of any job and of its stream.
const JOB: &str = "/api/v1/jobs/any";
const JOB_EVENTS: &str = "/api/v1/jobs/any/events";
/// Maximum number of reported differences.
const REPORTED: usize = 5;

static DOCUMENT: LazyLock<Document> = LazyLock::new(Document::compile);

/// The validators of a response by media type; none if it has no body.
type Bodies = HashMap<String, Arc<Validator>>;

struct Document {
    paths: Vec<Path>,
    problem: Arc<Validator>,
}

struct Path {
    segments: Vec<String>,
    responses: HashMap<Method, HashMap<u16, Bodies>>,
}

/// Compiles the document once per process. Clients call this when they are created, so that no
/// measured request waits for it.
pub(crate) fn load() {
    LazyLock::force(&DOCUMENT);
}

/// Checks a response with this body.
///
/// # Panics
/// If the document does not declare it.
pub(crate) fn check(method: &Method, path: &str, status: u16, headers: &HeaderMap, body: &[u8]) {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Err(difference) = DOCUMENT.check(method, path, status, media_type, body) {
        panic!(
            "{method} {path} differs from the OpenAPI document: {difference}\n{status} {media_type} {:.2000}",
            String::from_utf8_lossy(body)
        );
    }
}

/// Checks an event of a job's stream: its fields, and its data, which is a job.
///
/// # Panics
/// If the document does not declare it.
pub(crate) fn check_job_event(fields: &Value) {
    if let Err(difference) = DOCUMENT.check_job_event(fields) {
        panic!("an event differs from the OpenAPI document: {difference}\n{fields}");
    }
}

impl Document {
    fn compile() -> Self {
        let registry = Registry::new(TestKinds::None);
        let document = api::openapi::document(api::router::routes(Arc::new(Vec::new)), &registry);
        let mut document = serde_json::to_value(document).expect("the document is JSON");
        for (name, schema) in document["components"]["schemas"].as_object_mut().expect("the document has schemas") {
            // RFC 9457 allows members that depend on the type of the problem.
            if name != PROBLEM {
                close(schema);
            }
        }
        let mut schemas = Schemas { components: &document["components"], compiled: HashMap::new() };
        let paths = document["paths"].as_object().expect("the document has paths");
        let paths = paths.iter().map(|(path, item)| Path::compile(path, item, &mut schemas)).collect();
        let problem = schemas.validator(&serde_json::json!({ "$ref": format!("#/components/schemas/{PROBLEM}") }));
        Self { paths, problem }
    }

    fn check(&self, method: &Method, path: &str, status: u16, media_type: &str, body: &[u8]) -> Result<(), String> {
        let Some(responses) = self.responses(method, path) else {
            // Other addresses have errors of the same form.
            return if status < 400 { Ok(()) } else { conforms(&self.problem, body) };
        };
        let bodies = responses.get(&status).ok_or("the status is not declared")?;
        if bodies.is_empty() && body.is_empty() {
            return Ok(());
        }
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let validator = bodies.get(media_type).ok_or("the media type is not declared")?;
        if media_type == JSON || media_type.ends_with("+json") { conforms(validator, body) } else { Ok(()) }
    }

    fn check_job_event(&self, fields: &Value) -> Result<(), String> {
        let validator = |path, media_type: &str| {
            let bodies = self.responses(&Method::GET, path).and_then(|responses| responses.get(&200));
            bodies.and_then(|bodies| bodies.get(media_type)).ok_or_else(|| format!("{path} is not declared"))
        };
        conforms_value(validator(JOB_EVENTS, "text/event-stream")?, fields)?;
        conforms(validator(JOB, JSON)?, fields["data"].as_str().unwrap_or_default().as_bytes())
    }

    /// The responses of an operation. As in the router, a literal segment precedes a parameter.
    fn responses(&self, method: &Method, path: &str) -> Option<&HashMap<u16, Bodies>> {
        let matching = self.paths.iter().filter(|template| template.matches(path));
        let template = matching.min_by_key(|template| template.parameters())?;
        template.responses.get(method)
    }
}

impl Path {
    fn compile(path: &str, item: &Value, schemas: &mut Schemas<'_>) -> Self {
        let mut own = HashMap::new();
        for (method, operation) in item.as_object().into_iter().flatten() {
            let method: Method = method.to_uppercase().parse().expect("a path item has methods");
            let responses: &mut HashMap<u16, Bodies> = own.entry(method).or_default();
            for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                responses.insert(status.parse().expect("a response has a status"), schemas.bodies(response));
            }
        }
        Self { responses: own, segments: path.split('/').map(str::to_owned).collect() }
    }

    fn matches(&self, path: &str) -> bool {
        let segments: Vec<&str> = path.split('/').collect();
        segments.len() == self.segments.len()
            && self.segments.iter().zip(segments).all(|(own, other)| is_parameter(own) || own == other)
    }

    fn parameters(&self) -> Vec<bool> {
        self.segments.iter().map(|segment| is_parameter(segment)).collect()
    }
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{')
}

/// The schemas of the document, each compiled once.
struct Schemas<'a> {
    components: &'a Value,
    compiled: HashMap<String, Arc<Validator>>,
}

impl Schemas<'_> {
    fn bodies(&mut self, response: &Value) -> Bodies {
        let response = match response["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
            Some(name) => &self.components["responses"][name],
            None => response,
        };
        let content = response["content"].as_object().into_iter().flatten();
        content.map(|(media_type, content)| (media_type.clone(), self.validator(&content["schema"]))).collect()
    }

    fn validator(&mut self, schema: &Value) -> Arc<Validator> {
        let compile = || {
            let mut root = schema.clone();
            root["components"] = self.components.clone();
            let options = jsonschema::draft202012::options().should_validate_formats(true);
            Arc::new(options.build(&root).expect("the document has valid schemas"))
        };
        Arc::clone(self.compiled.entry(schema.to_string()).or_insert_with(compile))
    }
}

/// Forbids members that are not declared, in every object that declares members.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            if members.get("properties").is_some_and(Value::is_object) {
                members.entry("additionalProperties").or_insert(false.into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn conforms(validator: &Validator, body: &[u8]) -> Result<(), String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    conforms_value(validator, &body)
}

fn conforms_value(validator: &Validator, value: &Value) -> Result<(), String> {
    let differences = validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path()));
    let differences: Vec<String> = differences.take(REPORTED).collect();
    if differences.is_empty() { Ok(()) } else { Err(differences.join("; ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job() -> Value {
        json!({
            "id": "0199d6a4-9b1c-7c3e-8f2a-1b2c3d4e5f60", "kind": "noop", "queue": "default", "state": "available",
            "priority": 2, "attempt": 1, "max_attempts": 20, "run_at": "2026-01-01T00:00:00Z",
            "inserted_at": "2026-01-01T00:00:00.5Z", "waits_for": 0, "errors": null,
        })
    }

    fn get(path: &str, status: u16, media_type: &str, body: &Value) -> Result<(), String> {
        DOCUMENT.check(&Method::GET, path, status, media_type, body.to_string().as_bytes())
    }

    #[test]
    fn a_response_must_be_declared() {
        get(JOB, 200, "application/json; charset=utf-8", &job()).unwrap();
        get(JOB, 206, JSON, &job()).unwrap_err();
        get(JOB, 200, "text/plain", &job()).unwrap_err();
        get(JOB, 200, "", &job()).unwrap_err();
        DOCUMENT.check(&Method::GET, JOB, 200, JSON, b"{").unwrap_err();
        DOCUMENT.check(&Method::GET, JOB_EVENTS, 204, "", b"").unwrap();
        get(JOB_EVENTS, 204, JSON, &job()).unwrap_err();
    }

    #[test]
    fn a_body_must_match_its_schema() {
        let with = |member: &str, value: Value| {
            let mut job = job();
            job[member] = value;
            get(JOB, 200, JSON, &job)
        };
        for (member, value) in [
            ("state", json!("asleep")),
            ("attempt", json!("1")),
            ("id", json!("7")),
            ("run_at", json!("yesterday")),
            ("progress", json!({ "percent": 1, "attempt": 1, "at": "2026-01-01T00:00:00Z", "eta": 3 })),
            ("undeclared", json!(1)),
        ] {
            let difference = with(member, value).unwrap_err();
            assert!(difference.contains(member) || difference.contains("eta"), "{difference}");
        }
        with("args", json!({ "anything": [1] })).unwrap();
        let mut without = job();
        without.as_object_mut().unwrap().remove("queue");
        get(JOB, 200, JSON, &without).unwrap_err();
    }

    #[test]
    fn an_error_is_a_problem_at_every_address() {
        let problem = json!({
            "type": "/problems/not_found", "title": "Not found", "status": 404, "code": "not_found", "detail": "none",
        });
        for path in [JOB, "/api/v1/nothing"] {
            get(path, 404, "application/problem+json", &problem).unwrap();
            get(path, 404, "application/problem+json", &json!({ "code": "not_found" })).unwrap_err();
        }
        get(JOB, 404, JSON, &problem).unwrap_err();
    }

    #[test]
    fn a_literal_segment_precedes_a_parameter() {
        let batch = DOCUMENT.responses(&Method::POST, "/api/v1/jobs/batch").unwrap();
        assert!(batch.contains_key(&202));
        assert!(DOCUMENT.responses(&Method::GET, "/api/v1/jobs/batch").is_none());
        assert!(DOCUMENT.responses(&Method::GET, "/api/v1/jobs/batch/any").is_some());
    }

    #[test]
    fn an_event_has_the_declared_fields_and_a_job() {
        let event = json!({ "event": "job", "id": "1", "retry": 3000, "data": job().to_string() });
        DOCUMENT.check_job_event(&event).unwrap();
        for (field, value) in [("retry", json!("soon")), ("data", json!("{}")), ("data", job()), ("name", json!(""))] {
            let mut event = event.clone();
            event[field] = value;
            DOCUMENT.check_job_event(&event).unwrap_err();
        }
    }
}
