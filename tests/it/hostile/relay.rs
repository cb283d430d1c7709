//! The relay: mails of A to a domain whose server accepts connections and never replies.

use anyhow::Result;
use serde_json::Value;
use tests::{
    installation::{Installation, InstallationOptions},
    smtp_sink::{Fault, Rule, Stage},
};

use super::unharmed;

#[tokio::test(flavor = "multi_thread")]
async fn mails_to_a_domain_that_hangs() -> Result<()> {
    let env = vec![("ROTA_MAIL_TIMEOUT_MS", "5000".to_owned())];
    let mut rota = Installation::start_with(InstallationOptions { env, ..InstallationOptions::default() }).await?;
    rota.sink.inject(Rule::at(Stage::Rcpt, Fault::Hang).to("@stuck.example.com"));
    let (tenant, neighbour) = (rota.tenant.clone(), rota.neighbour.clone());
    let stuck: Vec<String> = (0..300).map(|number| format!("a{number}@stuck.example.com,A\n")).collect();
    let stuck = format!("email,first_name\n{}", stuck.concat());
    unharmed(&mut rota, async || {
        tenant.campaign_at_once("Stuck", &stuck).await?;
        // B's own mails are not held up.
        let path = neighbour
            .campaign_at_once("Beside", "email,first_name\nb1@fine.example.com,B\nb2@fine.example.com,B\n")
            .await?;
        let done = |campaign: &Value| campaign["state"] == "completed";
        let campaign =
            neighbour.campaign_when(&path, std::time::Duration::from_mins(1), "B's mails are sent", done).await;
        assert_eq!(campaign["progress"]["sent"], 2);
        Ok(())
    })
    .await
}
