//! HTML pages: what they allow a browser to do.

use anyhow::Result;
use jobs::unsubscribe::Unsubscriber;
use tests::test_app::TestApp;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn every_page_has_a_strict_policy() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let link = app.system.unsubscribe_links().url(Unsubscriber { tenant, recipient: Uuid::max() });
    let path = link.path().to_owned();
    for (path, script) in [(path.as_str(), false), ("/api/docs/", true)] {
        let page = app.anonymous().get(path).await?;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        assert!(page.header("content-type").starts_with("text/html"), "{path}");
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert_eq!(policy.contains("script-src 'self'"), script, "{path}: {policy}");
        assert!(!policy.contains("script-src 'self' 'unsafe-inline'"), "{path}: {policy}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
    }
    let json = app.anonymous().get("/api/health/liveness").await?;
    assert_eq!(json.header("content-security-policy"), "");
    Ok(())
}
