//! The mailer with relays that misbehave at every step, and with a folder.

mod encryption;
mod faults;
mod pooling;
mod replies;

use chrono::DateTime;
use mail_parser::MessageParser;

use super::{
    scripted_relay::{
        Act::{Close, Hang, Raw, Say},
        Script, ScriptedRelay,
    },
    *,
};

fn settings() -> MailSettings {
    MailSettings {
        connections: 2,
        timeout: Duration::from_secs(10),
        hello_name: Some("rota.test".to_owned()),
        ..MailSettings::default()
    }
}

fn tenant() -> TenantId {
    TenantId::new(uuid::Uuid::from_u128(1))
}

/// For relays that hang; only these tests wait for the deadline.
fn impatient() -> MailSettings {
    MailSettings { connections: 1, timeout: Duration::from_millis(300), ..settings() }
}

fn mailer(url: &str) -> Mailer {
    Mailer::from_url(url, settings()).expect("a mailer")
}

fn mail_to(address: &str) -> OutgoingMail {
    OutgoingMail {
        message_id: format!("1.{}", address.replace('ö', "oe")),
        from: Mailbox::named("news@example.com", "News"),
        to: Mailbox::new(address),
        subject: "Hello".to_owned(),
        text: "Hello\n.\n..token-1\n".to_owned(),
        html: None,
        list_unsubscribe: None,
        date: DateTime::from_timestamp(1_700_000_000, 0).expect("a date"),
        campaign: None,
    }
}

async fn send_through(script: Script) -> (Result<MailReceipt, MailError>, ScriptedRelay) {
    let relay = ScriptedRelay::start(script);
    let outcome = mailer(&relay.url()).send(tenant(), &mail_to("anna@example.org")).await;
    (outcome, relay)
}

#[tokio::test]
async fn a_mail_arrives_complete() {
    let (outcome, relay) = send_through(Script::default()).await;
    let receipt = outcome.expect("taken");
    assert_eq!(receipt.message_id, "1.anna@example.org");
    assert_eq!(receipt.reply, "250 2.0.0 queued as 42");
    let messages = relay.seen.messages();
    let mail = MessageParser::default().parse(messages[0].as_bytes()).expect("a mail");
    assert_eq!(mail.message_id(), Some("1.anna@example.org"));
    assert_eq!(mail.body_text(0).expect("text").trim_end(), "Hello\r\n.\r\n..token-1");
}

#[tokio::test]
async fn an_smtputf8_address_requires_a_relay_with_smtputf8() {
    let (plain, utf8) = (Script::default(), Script::default().offering("8BITMIME").offering("SMTPUTF8"));
    let relay = ScriptedRelay::start(plain);
    let error = mailer(&relay.url()).send(tenant(), &mail_to("jörg@example.org")).await.expect_err("not possible");
    assert!(matches!(error, MailError::Invalid { .. }), "{error:?}");
    let relay = ScriptedRelay::start(utf8);
    mailer(&relay.url()).send(tenant(), &mail_to("jörg@example.org")).await.expect("taken");
    assert!(relay.seen.clear_lines().iter().any(|line| line.ends_with("SMTPUTF8 BODY=8BITMIME")));
}

#[tokio::test]
async fn a_folder_keeps_one_file_per_message_id() {
    let folder = std::env::temp_dir().join(format!("rota-mail-{}", uuid::Uuid::new_v4()));
    let mailer = mailer(&format!("file:{}", folder.display()));
    for _ in 0..3 {
        mailer.send(tenant(), &mail_to("anna@example.org")).await.expect("written");
    }
    let receipt = mailer.send(tenant(), &mail_to("ben@example.org")).await.expect("written");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .expect("made")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("ASCII"))
        .collect();
    names.sort();
    assert_eq!(names, ["1.anna@example.org.eml", "1.ben@example.org.eml"]);
    assert!(std::fs::read_to_string(receipt.reply).expect("readable").contains("..token-1"));
    std::fs::remove_dir_all(folder).expect("there");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_transient() {
    let error = mailer("file:/proc/rota").send(tenant(), &mail_to("anna@example.org")).await.expect_err("not writable");
    assert!(matches!(error, MailError::Transient { stage: MailStage::File, .. }), "{error:?}");
}

#[test]
fn bad_settings_are_refused() {
    for spoilt in [
        MailSettings { connections: 0, ..settings() },
        MailSettings { timeout: Duration::ZERO, ..settings() },
        MailSettings { hello_name: Some("a\r\nMAIL".to_owned()), ..settings() },
    ] {
        assert!(Mailer::from_url("smtp://localhost", spoilt).is_err());
    }
    let error = Mailer::from_url("smtps://x.example?ca=/nonexistent.pem", settings()).expect_err("no file");
    assert!(error.to_string().contains("/nonexistent.pem"), "{error}");
}
