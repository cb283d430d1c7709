//! docs/API.md matches the program: the table of problems is the same, and every operation is
//! listed.

use std::path::Path;

use anyhow::{Context as _, Result};
use api::problem::ProblemCode;
use strum::IntoEnumIterator as _;
use tests::test_app::TestApp;

fn documentation() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/API.md");
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn the_table_of_problems_matches_the_program() -> Result<()> {
    let row = |code: ProblemCode| format!("| `{}` | {} | {} |", code.as_str(), code.status().as_u16(), code.title());
    let expected: Vec<String> = ProblemCode::iter().map(row).collect();
    let text = documentation()?;
    let table = text.split("| code | status | title |").nth(1).context("docs/API.md has no table of problems")?;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let told: Vec<&str> = rows.collect();
    assert_eq!(told, expected, "replace the rows of the table in docs/API.md by:\n{}\n", expected.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_named() -> Result<()> {
    let app = TestApp::start().await?;
    let document = app.anonymous().get("/api/openapi.json").await?;
    let text = documentation()?;
    for (path, item) in document.ok(200)["paths"].as_object().context("no paths")? {
        for method in item.as_object().context("a path item is an object")?.keys() {
            let operation = format!("`{} {path}`", method.to_uppercase());
            assert!(text.contains(&operation), "docs/API.md does not name {operation}");
        }
    }
    // The reverse: every listed operation exists.
    for named in text.split('`').filter(|text| text.starts_with("GET /api/v1") || text.starts_with("POST /api/v1")) {
        let (method, path) = named.split_once(' ').context("a method and a path")?;
        let operation = &document.body["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "docs/API.md names {named}, which does not exist");
    }
    Ok(())
}
