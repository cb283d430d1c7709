//! Password hashing: strangers who try to sign in, each attempt a reason to hash for tens of
//! milliseconds.

use anyhow::{Result, ensure};
use futures::future::join_all;
use tests::installation::Installation;

use super::unharmed;

/// Attempts at the same time; together they ask for several times what the machine can hash.
const AT_ONCE: usize = 200;
const ROUNDS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_attempts_to_sign_in() -> Result<()> {
    let mut rota = Installation::start().await?;
    let stranger = rota.tenant.clone();
    unharmed(&mut rota, async || {
        for round in 0..ROUNDS {
            let bodies: Vec<String> = (0..AT_ONCE)
                .map(|number| format!(r#"{{"email":"nobody-{round}-{number}@example.com","password":"a guess"}}"#))
                .collect();
            for status in join_all(bodies.iter().map(|body| stranger.post_status("auth/token", body))).await {
                let status = status?.as_u16();
                ensure!(matches!(status, 401 | 429), "{status}");
            }
        }
        Ok(())
    })
    .await
}
