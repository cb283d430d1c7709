//! `/api/openapi.json` and its viewer at `/api/docs`, which must work without the internet.

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::test_app::TestApp;

/// What follows each `src=` and `href=`.
fn references(html: &str) -> Vec<&str> {
    let attributes = ["src=\"", "href=\""].into_iter().flat_map(|attribute| html.split(attribute).skip(1));
    attributes.filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_viewer_is_served_whole_and_loads_nothing_from_elsewhere() -> Result<()> {
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
            assert_eq!(operation["responses"]["default"]["content"].as_object().map_or(0, serde_json::Map::len), 1);
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
    assert_eq!(ids.len(), count, "operation ids are told apart, as generated clients name methods by them");
    Ok(())
}
