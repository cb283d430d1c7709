//! A campaign without faults: everyone gets one personal mail and can unsubscribe through it.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use serde_json::json;
use tests::{installation::Installation, smtp_sink::ReceivedMessage};
use uuid::Uuid;

use super::PATIENCE;

const DEMO: &str = include_str!("../../../docs/demo/leads.csv");
const LEADS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn every_lead_gets_one_personal_mail_and_can_unsubscribe() -> Result<()> {
    let mut rota = Installation::start().await?;
    let (csv, addresses) = demo_leads();

    let campaign = rota.tenant.post("campaigns", &draft()).await?.expect(201)?;
    let path = format!("campaigns/{}", campaign["id"].as_str().context("an id")?);
    let report = rota.tenant.upload(&format!("{path}/leads"), &csv).await?.expect(200)?;
    assert_eq!((&report["rows_read"], &report["accepted"]), (&json!(LEADS + 2), &json!(LEADS)));
    assert_eq!((&report["duplicates_merged"], &report["invalid"]), (&json!(1), &json!(1)));
    assert_eq!(report["errors"][0]["line"], LEADS + 2);
    let preview = rota.tenant.post(&format!("{path}/preview"), &json!({ "email": addresses[0] })).await?.expect(200)?;
    assert_eq!(preview["subject"], "News for Valentin");
    assert_eq!(rota.sink.count(), 0);

    rota.tenant.send_campaign(&path).await?;
    let progress = rota.tenant.completed(&path, PATIENCE).await;
    let all_sent = json!({ "pending": 0, "queued": 0, "sent": LEADS, "rejected": 0, "suppressed": 0, "failed": 0, "cancelled": 0 });
    assert_eq!(progress, all_sent);
    rota.mails(&addresses).ensure_once(0)?;
    let ids: HashSet<Uuid> = rota.sink.messages().iter().map(|mail| personal(mail)).collect::<Result<_>>()?;
    assert_eq!(ids.len(), LEADS);
    let valentin = rota.sink.by_recipient(&addresses[0]);
    assert_eq!(valentin[0].header("Subject").as_deref(), Some("News for Valentin"));

    unsubscribing_ends_all_mail(&rota, &valentin[0], &csv).await?;
    assert_eq!(rota.ended_by_themselves()?, Vec::<String>::new());
    Ok(())
}

async fn unsubscribing_ends_all_mail(rota: &Installation, mail: &ReceivedMessage, csv: &str) -> Result<()> {
    let link = unsubscribe_link(mail)?;
    let forged =
        link.strip_suffix('x').map_or_else(|| format!("{}x", &link[..link.len() - 1]), |stem| format!("{stem}y"));
    assert_eq!(rota.tenant.one_click(&forged).await?, 404);
    assert_eq!(rota.tenant.one_click(&link).await?, 200);
    assert_eq!(rota.tenant.one_click(&link).await?, 200, "a second click is no error");

    let path = rota.tenant.campaign("The next one", csv).await?;
    rota.tenant.send_campaign(&path).await?;
    let progress = rota.tenant.completed(&path, PATIENCE).await;
    assert_eq!((&progress["sent"], &progress["suppressed"]), (&json!(LEADS - 1), &json!(1)));
    assert_eq!(rota.sink.count(), 2 * LEADS - 1);
    assert_eq!(rota.sink.by_recipient(&mail.to[0]).len(), 1);
    Ok(())
}

/// Checks everything personal in a mail, and returns the id in its Message-ID.
fn personal(mail: &ReceivedMessage) -> Result<Uuid> {
    assert_eq!(mail.to.len(), 1);
    let to = mail.header("To").context("To")?;
    assert!(to.contains(&mail.to[0]), "{to} is not {:?}", mail.to);
    assert_eq!(mail.header("List-Unsubscribe-Post").as_deref(), Some("List-Unsubscribe=One-Click"));
    unsubscribe_link(mail)?;
    let id = mail.message_id.as_deref().and_then(|id| id.strip_prefix('<')?.strip_suffix("@rota.example>"));
    Ok(id.context("a Message-ID is <recipient@domain of the sender>")?.parse()?)
}

fn unsubscribe_link(mail: &ReceivedMessage) -> Result<String> {
    let header = mail.header("List-Unsubscribe").context("List-Unsubscribe")?;
    let link = header.strip_prefix('<').and_then(|link| link.strip_suffix('>')).context("one link in brackets")?;
    assert!(link.contains("/api/v1/unsubscribe/"), "{link}");
    Ok(link.to_owned())
}

fn draft() -> serde_json::Value {
    json!({
        "name": "Spring",
        "subject": "News for {{ first_name }}",
        "text": "Dear {{ first_name }} {{ last_name }},\n\nhow are things at {{ company }}?\n\n{{ unsubscribe_url }}\n",
        "html": "<p>Dear {{ first_name }}, how are things at <b>{{ company }}</b>?</p><a href=\"{{ unsubscribe_url }}\">No more</a>",
        "from": { "email": "news@rota.example", "name": "Rota" },
    })
}

/// The first leads of the demo file, an invalid one, and a repeat in different case; and the
/// addresses that count.
fn demo_leads() -> (String, Vec<String>) {
    let lines: Vec<&str> = DEMO.lines().take(LEADS + 1).collect();
    let addresses: Vec<String> =
        lines.iter().skip(1).filter_map(|line| Some(line.split_once(',')?.0.to_lowercase())).collect();
    let again = lines[1].replacen(&addresses[0], &addresses[0].to_uppercase(), 1);
    let csv = format!("{}\nno(at)address.example.com,No,One,None,Nowhere\n{again}\n", lines.join("\n"));
    (csv, addresses)
}
