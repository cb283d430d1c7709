//! Who acts, and what they may do: sign-in, tokens, users, keys, companies, and the
//! mails about accounts.

mod access_tokens;
mod api_clients;
mod api_keys;
mod companies;
mod deactivation;
mod invitations;
mod mails;
mod password_reset;
mod refresh;
mod registration;
mod sign_in;
mod suspension;
mod users;

use std::time::Duration;

use anyhow::Result;
use tests::{
    eventually::eventually,
    test_app::{Answer, ApiClient},
};

/// A change of a credential or a user has effect within this time.
const EFFECT: Duration = Duration::from_secs(5);

/// Waits until requests for the own permissions are answered with `status`.
async fn becomes(api: &ApiClient, status: u16) -> Answer {
    eventually(EFFECT, &format!("permissions/me answers {status}"), async || {
        let answer = api.get("/api/v1/permissions/me").await.ok()?;
        (answer.status == status).then_some(answer)
    })
    .await
}

/// The own permissions.
async fn permissions(api: &ApiClient) -> Result<Vec<String>> {
    let answer = api.get("/api/v1/permissions/me").await?;
    Ok(serde_json::from_value(answer.ok(200)["permissions"].clone())?)
}
