//! `/api/openapi.json` and its viewer at `/api/docs`, which must work without internet access.

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::test_app::TestApp;

/// The values of all `src=` and `href=` attributes.
fn references(html: &str) -> Vec<&str> {
    let attributes = ["src=\"", "href=\""].into_iter().flat_map(|attribute| html.split(attribute).skip(1));
    attributes.filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_viewer_loads_nothing_from_other_hosts() -> Result<()> {
    let app = TestApp::start().await?;
    let anonymous = app.anonymous();
    let page = anonymous.get("/api/docs/").await?;
    page.ok(200);
    let references = references(&page.text);
    assert!(references.len() >= 3, "{}", page.text);
    for reference in references {
        assert!(!reference.contains("//"), "{reference} is elsewhere");
        let asset = anonymous.get(&format!("/api/docs/{}", reference.trim_start_matches("./"))).await?;
        assert_eq!(asset.status, 200, "{reference}");
        assert!(!asset.text.is_empty(), "{reference}");
    }
    let start = anonymous.get("/api/docs/swagger-initializer.js").await?;
    start.ok(200);
    assert!(start.text.contains("/api/openapi.json"), "{}", start.text);
    assert!(!start.text.contains("http://") && !start.text.contains("https://"), "{}", start.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_describes_itself_in_full() -> Result<()> {
    let app = TestApp::start().await?;
    let answer = app.anonymous().get("/api/openapi.json").await?;
    let document = answer.ok(200);
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    assert_eq!(document["components"]["securitySchemes"]["api_key"]["name"], "X-API-Key");
    let mut ids = Vec::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in item.as_object().context("a path item is an object")? {
            let place = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{place} has no summary");
            let told: Vec<&Value> =
                operation["parameters"].as_array().into_iter().flatten().map(|it| &it["name"]).collect();
            for parameter in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                assert!(told.iter().any(|name| *name == parameter), "{place} does not describe {parameter}");
            }
            ids.push(operation["operationId"].as_str().context("no operationId")?.to_owned());
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids are unique, as generated clients name methods after them");
    Ok(())
}

/// The allowed first words of operation ids.
const VERBS: [&str; 24] = [
    "cancel",
    "create",
    "delete",
    "disable",
    "enable",
    "explain",
    "follow",
    "get",
    "import",
    "list",
    "pause",
    "preview",
    "redeliver",
    "refresh",
    "resume",
    "retry",
    "rotate",
    "send",
    "show",
    "test",
    "toggle",
    "unsubscribe",
    "update",
    "verify",
];

/// Members with content defined by a kind or a tenant.
const FREE: [&str; 5] = ["args", "args_schema", "body", "result", "variables"];

struct Document(Value);

impl Document {
    async fn read() -> Result<Self> {
        let app = TestApp::start().await?;
        Ok(Self(app.anonymous().get("/api/openapi.json").await?.ok(200).clone()))
    }

    /// Each operation with its method and path.
    fn operations(&self) -> Vec<(String, &Value)> {
        let paths = self.0["paths"].as_object().into_iter().flatten();
        paths
            .flat_map(|(path, item)| {
                item.as_object().into_iter().flatten().map(move |(method, it)| (format!("{method} {path}"), it))
            })
            .collect()
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.trim_start_matches('#')).expect("a reference resolves"),
            None => value,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operation_ids_are_verbs() -> Result<()> {
    let document = Document::read().await?;
    for (place, operation) in document.operations() {
        let id = operation["operationId"].as_str().context("no operationId")?;
        let verb = id.split('_').next().unwrap_or_default();
        assert!(VERBS.contains(&verb), "{place}: {id} does not begin with a verb of the list");
        assert!(
            !id.contains("v1") && !id.contains("_by_") && !id.starts_with("get_by"),
            "{place}: {id} looks like a path"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_body_is_a_named_schema() -> Result<()> {
    let document = Document::read().await?;
    for (place, operation) in document.operations() {
        let responses = operation["responses"].as_object().context("responses")?;
        let mut bodies: Vec<(String, &Value)> = vec![("request".into(), &operation["requestBody"])];
        bodies.extend(responses.iter().map(|(status, response)| (status.clone(), document.resolve(response))));
        for (which, body) in bodies {
            for (media_type, content) in body["content"].as_object().into_iter().flatten() {
                let schema = &content["schema"];
                let named = schema["$ref"].is_string();
                let text = schema["type"] == "string" && media_type.starts_with("text/");
                assert!(named || text, "{place} {which} {media_type}: {schema}");
            }
        }
    }
    let schemas = document.0["components"]["schemas"].as_object().context("schemas")?;
    for (name, schema) in schemas {
        assert!(no_free_object(schema, name), "{name} has an object without a schema: {schema}");
    }
    Ok(())
}

/// Whether every object in a schema declares its members, except for the free ones.
fn no_free_object(schema: &Value, name: &str) -> bool {
    if FREE.contains(&name) {
        return true;
    }
    let is_object =
        schema["type"] == "object" || schema["type"].as_array().is_some_and(|types| types.contains(&"object".into()));
    if is_object && schema["properties"].as_object().is_none_or(serde_json::Map::is_empty) {
        return false;
    }
    let properties = schema["properties"].as_object().into_iter().flatten();
    let parts = ["items", "additionalProperties"].into_iter().map(|part| &schema[part]).filter(|part| part.is_object());
    let choices =
        ["oneOf", "anyOf", "allOf"].into_iter().flat_map(|choice| schema[choice].as_array().into_iter().flatten());
    properties.into_iter().all(|(name, schema)| no_free_object(schema, name))
        && parts.chain(choices).all(|schema| no_free_object(schema, name))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_declares_its_responses() -> Result<()> {
    let document = Document::read().await?;
    for (place, operation) in document.operations() {
        let mut needed = vec!["405", "429", "500", "503"];
        if operation["security"].is_null() {
            needed.extend(["401", "403"]);
        }
        if place.contains('{') {
            needed.push("404");
        }
        if operation["requestBody"].is_object() {
            needed.extend(["400", "408", "413", "415", "422"]);
        }
        if operation["parameters"].as_array().into_iter().flatten().any(|parameter| parameter["in"] == "query") {
            needed.push("400");
        }
        let responses = operation["responses"].as_object().context("responses")?;
        assert!(responses.keys().any(|status| status.starts_with('2')), "{place} has no success");
        for status in needed {
            assert!(responses.contains_key(status), "{place} does not declare {status}");
        }
        for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
            let schema = &document.resolve(response)["content"]["application/problem+json"]["schema"];
            assert_eq!(schema["$ref"], "#/components/schemas/Problem", "{place} {status}");
        }
    }
    Ok(())
}

/// Every handler refuses unknown members, and the document says so.
#[tokio::test(flavor = "multi_thread")]
async fn every_request_schema_is_closed() -> Result<()> {
    let document = Document::read().await?;
    let mut seen = 0;
    for (place, operation) in document.operations() {
        let schema = document.resolve(&operation["requestBody"]["content"]["application/json"]["schema"]);
        let mut open = vec![schema];
        while let Some(schema) = open.pop() {
            if schema["properties"].is_object() {
                assert_eq!(schema["additionalProperties"], false, "{place}: {schema}");
                seen += 1;
            }
            let properties = schema["properties"].as_object().into_iter().flatten().map(|(_, schema)| schema);
            let choices =
                ["oneOf", "anyOf"].into_iter().flat_map(|choice| schema[choice].as_array().into_iter().flatten());
            let items = schema["items"].is_object().then_some(&schema["items"]);
            open.extend(properties.chain(choices).chain(items).map(|schema| document.resolve(schema)));
        }
    }
    assert!(seen >= 10, "only {seen} schemas were checked");
    Ok(())
}
