//! Leads without a value that every mail needs: counted by a preview, refused by a send, rejected
//! by a scheduled campaign.

use anyhow::Result;
use chrono::TimeDelta;
use serde_json::json;
use tests::test_app::TestApp;

use crate::api::draft;

const CAMPAIGNS: &str = "/api/v1/campaigns";

#[tokio::test(flavor = "multi_thread")]
async fn leads_without_a_required_column_are_counted_before_sending() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let mut body = draft();
    body["text"] = "Dear {{ first_name }} of {{ town }}, {{ nick | default('you') }}".into();
    body["leads_csv"] = "email,first_name,town\nada@example.com,Ada,Rome\n".into();
    let path = format!("{CAMPAIGNS}/{}", api.post(CAMPAIGNS, &body).await?.id());
    assert_eq!(api.post(&format!("{path}/preview"), &json!({})).await?.ok(200)["warnings"], json!([]));
    let second = "email,first_name\nbob@example.com,Bob\ncleo@example.com,Cleo\n";
    api.upload(&format!("{path}/leads"), second).await?.ok(200);

    let missing = json!([{ "variable": "town", "leads": 2, "example": "bob@example.com" }]);
    let preview = api.post(&format!("{path}/preview"), &json!({ "email": "ada@example.com" })).await?;
    assert_eq!(preview.ok(200)["warnings"], missing);
    let refused = api.post(&format!("{path}/send"), &json!({})).await?;
    let problem = refused.problem(422, "invalid_body");
    assert_eq!(problem["missing"], missing);
    assert_eq!(problem["detail"], "2 leads lack `town`, which every mail needs");
    assert_eq!(api.get(&path).await?.ok(200)["state"], "draft");

    // An empty value is a value.
    let mended = "email,first_name,town\nbob@example.com,Bob\ncleo@example.com,Cleo,\n";
    api.upload(&format!("{path}/leads"), mended).await?.ok(200);
    let later = app.system.clock.now() + TimeDelta::hours(1);
    api.post(&format!("{path}/send"), &json!({ "send_at": later })).await?.ok(202);
    // A scheduled campaign accepts no leads that lack a needed column.
    let late = api.upload(&format!("{path}/leads"), "email\neve@example.com\n").await?;
    assert_eq!(late.problem(422, "invalid_body")["missing"][0]["leads"], 1);
    assert_eq!(api.get(&path).await?.ok(200)["progress"]["pending"], 3);
    Ok(())
}
