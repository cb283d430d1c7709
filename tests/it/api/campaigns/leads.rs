//! The import of leads: a refused file leaves nothing behind, invalid rows are reported by line.

use anyhow::Result;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tests::test_app::{Answer, ApiClient, TestApp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use uuid::Uuid;

use crate::api::draft;

async fn import(api: &ApiClient, campaign: Uuid, query: &str, csv: impl Into<reqwest::Body>) -> Result<Answer> {
    api.upload(&format!("/api/v1/campaigns/{campaign}/leads{query}"), csv).await
}

async fn pending(api: &ApiClient, campaign: Uuid) -> Result<i64> {
    let answer = api.get(&format!("/api/v1/campaigns/{campaign}")).await?;
    Ok(answer.ok(200)["progress"]["pending"].as_i64().unwrap_or(-1))
}

/// This many rows of an address and a name.
fn rows(count: usize, name: &str) -> String {
    let rows: Vec<String> = (0..count).map(|row| format!("lead-{row}@example.com,{name}\n")).collect();
    rows.concat()
}

/// A file of these rows, with its header.
fn file(count: usize, name: &str) -> String {
    format!("email,first_name\n{}", rows(count, name))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_another_media_type_charset_or_header_is_refused() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let path = format!("/api/v1/campaigns/{}/leads", api.post("/api/v1/campaigns", &draft()).await?.id());
    let send = |media_type: &str| {
        let request = api.request(&axum::http::Method::POST, &path).header("content-type", media_type);
        Answer::to(request.body("email\nada@example.com\n"))
    };
    for wrong in ["application/json", "text/csv; charset=utf-16", "text/csv; header=absent"] {
        let refused = send(wrong).await?;
        let told = refused.problem(415, "unsupported_media_type")["detail"].as_str().unwrap_or_default();
        assert!(told.contains("text/csv in UTF-8"), "{wrong}: {told}");
    }
    send("text/csv; charset=utf-8").await?.ok(200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_imported_is_refused_with_the_reason() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let campaign = api.post("/api/v1/campaigns", &draft()).await?.id();
    let cases: [(&str, &[u8], u16, &str); 9] = [
        ("", b"", 422, "the file is empty"),
        ("", b"name,city\nAda,Rome\n", 422, "no column looks like the email address"),
        ("", b"email,name\na@example.com,Gr\xfc\xdfe\n", 200, ""),
        ("", b"\xff\xfee\0m\0a\0i\0l\0\n\0", 422, "not UTF-8"),
        ("", b"email,email\na@example.com,b@example.com\n", 422, ""),
        ("?mapping=%7B%22email%22%3A%22Kontakt%22%7D", b"email\na@example.com\n", 422, "\"Kontakt\""),
        ("?mapping=nonsense", b"email\na@example.com\n", 400, "mapping"),
        ("?on_error=ignore", b"email\na@example.com\n", 400, "skip"),
        ("?tenant_id=1", b"email\na@example.com\n", 400, "tenant_id"),
    ];
    for (query, file, status, detail) in cases {
        let answer = import(&api, campaign, query, file.to_vec()).await?;
        let shown = String::from_utf8_lossy(file);
        match status {
            200 => assert_eq!(answer.ok(200)["invalid"], 1, "{shown}: only the row that is not UTF-8 is invalid"),
            422 => drop(answer.problem(422, "invalid_body")),
            _ => drop(answer.problem(400, "invalid_query")),
        }
        let told = answer.body["detail"].as_str().unwrap_or_default();
        assert!(told.contains(detail), "{query} {shown}: {}", answer.text);
        assert_eq!(pending(&api, campaign).await?, 0, "{query} {shown} left leads behind");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_skipped_or_refuse_the_file_as_asked() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let campaign = api.post("/api/v1/campaigns", &draft()).await?.id();
    let csv = "email;first_name\nada@example.com;Ada\nnobody;Bob\nADA@example.com;Ada B.\n\nbob@example.com;Bob\n";
    let refused = import(&api, campaign, "?on_error=refuse", csv).await?;
    let report = &refused.problem(422, "invalid_body")["report"];
    assert_eq!((&report["refused"], &report["errors"][0]["line"]), (&json!(true), &json!(3)));
    assert_eq!(pending(&api, campaign).await?, 0);

    let report = import(&api, campaign, "", csv).await?;
    insta::assert_json_snapshot!(report.ok(200), @r#"
    {
      "accepted": 2,
      "columns": [
        {
          "column": "email",
          "variable": "email"
        },
        {
          "column": "first_name",
          "variable": "first_name"
        }
      ],
      "duplicates": [
        {
          "first_line": 2,
          "line": 4
        }
      ],
      "duplicates_merged": 1,
      "errors": [
        {
          "code": "invalid_email",
          "column": "email",
          "line": 3,
          "reason": "the address has no @",
          "value": "nobody"
        }
      ],
      "invalid": 1,
      "refused": false,
      "rows_read": 4
    }
    "#);
    assert_eq!(pending(&api, campaign).await?, 2);
    // Importing the same file again adds no leads.
    import(&api, campaign, "", csv).await?.ok(200);
    assert_eq!(pending(&api, campaign).await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_too_large_a_content_length_is_refused_unread() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let campaign = tenant.api.post("/api/v1/campaigns", &draft()).await?.id();
    let key = app.key(tenant.id, &["campaigns:write"], None).await?.1;
    let mut stream = TcpStream::connect(app.address()).await?;
    let head = format!("POST /api/v1/campaigns/{campaign}/leads HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\n");
    let length = (128 << 20) + 1;
    stream
        .write_all(format!("{head}Content-Type: text/csv\r\nContent-Length: {length}\r\n\r\nemail\n").as_bytes())
        .await?;
    let mut told = vec![0; 12];
    tokio::time::timeout(crate::api::PATIENCE, stream.read_exact(&mut told)).await??;
    assert_eq!(String::from_utf8_lossy(&told), "HTTP/1.1 413");
    // This route accepts larger bodies than the others.
    let many = rows(600, &"x".repeat(4_000));
    assert!(many.len() > 2 << 20);
    let large =
        import(&tenant.api, campaign, "?on_error=refuse", format!("email,first_name\n{many}nobody,x\n")).await?;
    assert_eq!(large.problem(422, "invalid_body")["report"]["rows_read"], 601);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_upload_leaves_nothing_behind() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let campaign = tenant.api.post("/api/v1/campaigns", &draft()).await?.id();
    let key = app.key(tenant.id, &["campaigns:write"], None).await?.1;
    let mut stream = TcpStream::connect(app.address()).await?;
    let head = format!("POST /api/v1/campaigns/{campaign}/leads HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\n");
    let rows = rows(2_500, "Ada");
    stream.write_all(format!("{head}Content-Length: 1000000\r\n\r\nemail,first_name\n{rows}").as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    let _ = tokio::time::timeout(crate::api::PATIENCE, stream.read_to_string(&mut answer)).await?;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    assert_eq!(pending(&tenant.api, campaign).await?, 0);
    Ok(())
}

/// The service is healthy, so the tenant gets a retryable refusal, and another tenant's import
/// continues.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_conflicts_with_another_request_is_retryable() -> Result<()> {
    let app = TestApp::start().await?;
    let (acme, other) = (app.tenant("acme").await?, app.tenant("other").await?);
    let campaign = acme.api.post("/api/v1/campaigns", &draft()).await?.id();
    import(&acme.api, campaign, "", file(10, "Ada")).await?.ok(200);

    let mut owner = PgConnection::connect(&app.system.urls.owner).await?;
    let mut holder = owner.begin().await?;
    let lock = "select from leads where tenant_id = $1 for update";
    assert_eq!(sqlx::query(lock).bind(acme.id.as_uuid()).execute(&mut *holder).await?.rows_affected(), 10);
    let refused = import(&acme.api, campaign, "", file(20, "Eve")).await?;
    refused.problem(429, "too_many_in_flight");
    assert_eq!(refused.header("retry-after"), "1");
    let others = other.api.post("/api/v1/campaigns", &draft()).await?.id();
    import(&other.api, others, "", file(10, "Ada")).await?.ok(200);

    holder.rollback().await?;
    assert_eq!(pending(&acme.api, campaign).await?, 10, "nothing of the file was imported");
    import(&acme.api, campaign, "", file(20, "Eve")).await?.ok(200);
    assert_eq!(pending(&acme.api, campaign).await?, 20);
    Ok(())
}
