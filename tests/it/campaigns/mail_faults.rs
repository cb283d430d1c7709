//! A faulty mail server: each fault affects one recipient of one campaign, and no other.

use anyhow::Result;
use serde_json::json;
use tests::{
    installation::{Installation, InstallationOptions, leads_csv},
    smtp_sink::{Fault, Rule, Stage},
};

use super::PATIENCE;

const OTHERS: usize = 20;
const BUSY: &str = "busy@example.com";
const GONE: &str = "gone@example.com";
const SLOW: &str = "slow@example.com";
const CUT: &str = "cut@example.com";
const LOST: &str = "lost@example.com";
const EVE: &str = "eve@example.com";

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_mail_server_affects_one_recipient() -> Result<()> {
    // Much longer than any other mail takes, much shorter than the limit on the campaign.
    let env = vec![("ROTA_MAIL_TIMEOUT_MS", "5000".to_owned())];
    let mut rota = Installation::start_with(InstallationOptions { env, ..InstallationOptions::default() }).await?;
    let (csv, wanted) = leads();
    for rule in [
        Rule::at(Stage::Rcpt, Fault::reply(450, "Mailbox busy")).to(BUSY).times(2),
        Rule::at(Stage::Rcpt, Fault::reply(550, "No such user")).to(GONE),
        Rule::at(Stage::Rcpt, Fault::Hang).to(SLOW).times(1),
        Rule::at(Stage::InsideData, Fault::Cut).to(CUT).times(1),
        Rule::at(Stage::EndOfData, Fault::LoseReply).to(LOST).times(1),
    ] {
        rota.sink.inject(rule);
    }
    let path = rota.tenant.campaign("Stormy", &csv).await?;
    rota.tenant.send_campaign(&path).await?;
    // The server never ends the hang; the time-out of the mail does.
    let progress = rota.tenant.completed(&path, PATIENCE).await;
    assert_eq!(
        (&progress["sent"], &progress["rejected"], &progress["failed"]),
        (&json!(OTHERS + 5), &json!(1), &json!(0))
    );

    let mails = rota.mails(&wanted);
    mails.ensure_once(1)?;
    assert!(mails.duplicates.iter().all(|duplicate| duplicate.recipient == LOST), "{:?}", mails.duplicates);
    assert_eq!(rota.sink.injected(Stage::Rcpt), 4, "450 twice, 550 once, and one hang");
    assert_eq!(rota.sink.injected(Stage::InsideData), 1);
    assert_eq!(rota.sink.injected(Stage::EndOfData), 1);
    a_name_ends_inside_its_header(&rota);

    // A permanently refused address gets no further mail, from any campaign.
    let path = rota.tenant.campaign("Calm", &csv).await?;
    rota.tenant.send_campaign(&path).await?;
    let progress = rota.tenant.completed(&path, PATIENCE).await;
    assert_eq!((&progress["sent"], &progress["suppressed"]), (&json!(OTHERS + 5), &json!(1)));
    assert_eq!(rota.sink.injected(Stage::Rcpt), 4);
    assert_eq!(rota.ended_by_themselves()?, Vec::<String>::new());
    Ok(())
}

fn a_name_ends_inside_its_header(rota: &Installation) {
    let mails = rota.sink.by_recipient(EVE);
    assert_eq!(mails[0].header("Subject").as_deref(), Some("News for Eve Bcc: victim@example.com X-Evil: yes"));
    assert_eq!((mails[0].header("Bcc"), mails[0].header("X-Evil")), (None, None));
    assert_eq!(mails[0].to, [EVE]);
}

/// A file with a lead for each fault, and the addresses expected to get a mail.
fn leads() -> (String, Vec<String>) {
    let (mut csv, mut wanted) = leads_csv("calm", 0..OTHERS);
    let struck = [BUSY, GONE, SLOW, CUT, LOST].map(|address| format!("{address},Somebody\n"));
    csv.push_str(&struck.concat());
    let eve = format!("{EVE},\"Eve\nBcc: victim@example.com\nX-Evil: yes\"\n");
    csv.push_str(&eve);
    wanted.extend([BUSY, SLOW, CUT, LOST, EVE].map(str::to_owned));
    (csv, wanted)
}
