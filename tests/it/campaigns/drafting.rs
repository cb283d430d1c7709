//! Campaigns refused before anything is sent: files with invalid rows, templates that cannot be
//! rendered.

use anyhow::Result;
use serde_json::{Value, json};
use tests::installation::{Installation, InstallationOptions};

const BAD_ROWS: &str = "email,first_name\nada@example.com,Ada\nno-address,Bob\ncleo@example.com,Cleo\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_cannot_be_sent_is_refused_with_pointer_and_reason() -> Result<()> {
    let rota = Installation::start_with(InstallationOptions { workers: 0, ..InstallationOptions::default() }).await?;
    a_refused_file_leaves_nothing(&rota).await?;
    a_preview_names_the_unknown_variable(&rota).await
}

async fn a_refused_file_leaves_nothing(rota: &Installation) -> Result<()> {
    let path = draft(rota, "Hello {{ first_name }}").await?;
    let leads = format!("{path}/leads");
    let problem = rota.tenant.upload(&format!("{leads}?on_error=refuse"), BAD_ROWS).await?.expect(422)?;
    assert_eq!((&problem["report"]["invalid"], &problem["report"]["errors"][0]["line"]), (&json!(1), &json!(3)));
    assert_eq!(pending(rota, &path).await?, 0);
    rota.tenant.post(&format!("{path}/preview"), &json!({ "email": "ada@example.com" })).await?.expect(409)?;
    rota.tenant.post(&format!("{path}/send"), &json!({})).await?.expect(409)?;

    let report = rota.tenant.upload(&leads, BAD_ROWS).await?.expect(200)?;
    assert_eq!((&report["accepted"], &report["invalid"]), (&json!(2), &json!(1)));
    assert_eq!(report["errors"][0]["value"], "no-address");
    assert_eq!(pending(rota, &path).await?, 2);
    rota.tenant.upload(&leads, BAD_ROWS).await?.expect(200)?;
    assert_eq!(pending(rota, &path).await?, 2, "importing the same file twice adds no leads");
    Ok(())
}

async fn a_preview_names_the_unknown_variable(rota: &Installation) -> Result<()> {
    let path = draft(rota, "Hello {{ first_nam }}").await?;
    rota.tenant.upload(&format!("{path}/leads"), BAD_ROWS).await?.expect(200)?;
    for action in ["preview", "send"] {
        let problem = rota.tenant.post(&format!("{path}/{action}"), &json!({})).await?.expect(422)?;
        assert_eq!(problem["errors"][0]["pointer"], "/text", "{problem}");
        let detail = problem["errors"][0]["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("line 1: unknown variable `first_nam`, did you mean `first_name`?"), "{detail}");
    }
    let campaign = rota.tenant.get(&path).await?.expect(200)?;
    assert_eq!(campaign["state"], "draft");
    assert!(rota.jobs().await?.is_empty(), "nothing was started");
    Ok(())
}

async fn draft(rota: &Installation, text: &str) -> Result<String> {
    let from = json!({ "email": "news@rota.example" });
    let draft = json!({ "name": "Draft", "subject": "Hello", "text": text, "from": from });
    let campaign = rota.tenant.post("campaigns", &draft).await?.expect(201)?;
    Ok(format!("campaigns/{}", campaign["id"].as_str().unwrap_or_default()))
}

async fn pending(rota: &Installation, path: &str) -> Result<Value> {
    Ok(rota.tenant.get(path).await?.expect(200)?["progress"]["pending"].clone())
}
