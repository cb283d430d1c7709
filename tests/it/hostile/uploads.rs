//! Connections to the database: A's uploads, which send a line now and then, and many concurrent
//! requests of A.

use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt as _, future::join_all, stream};
use serde_json::json;
use tests::{installation::Installation, streamed_body::streamed_body};

use super::unharmed;

/// Long enough to outlast the measurement of B.
const LINES: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn two_dozen_slow_uploads() -> Result<()> {
    let mut rota = Installation::start().await?;
    let tenant = rota.tenant.clone();
    let draft = json!({ "name": "A", "subject": "S", "text": "T", "from": { "email": "a@rota.example" } });
    let campaign = tenant.post("campaigns", &draft).await?.expect(201)?;
    let path = format!("campaigns/{}/leads", campaign["id"].as_str().unwrap_or_default());
    unharmed(&mut rota, async || {
        let uploads = (0..24).map(|_| {
            let lines = stream::iter(0..LINES).then(|line| async move {
                // The pace of a slow client.
                tokio::time::sleep(Duration::from_millis(500)).await;
                if line == 0 { "email\n".to_owned() } else { format!("a{line}@rota.example\n") }
            });
            tenant.upload_stream(&path, streamed_body(lines))
        });
        let statuses: Vec<u16> =
            join_all(uploads).await.into_iter().flatten().map(|answer| answer.status.as_u16()).collect();
        anyhow::ensure!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
        anyhow::ensure!(statuses.iter().filter(|&&status| status == 200).count() <= 2, "{statuses:?}");
        Ok(())
    })
    .await
}
