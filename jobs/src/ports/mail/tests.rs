//! The mailer against relays that misbehave at every step, and against a folder.

use std::{sync::Arc, time::Instant};

use chrono::DateTime;
use mail_parser::MessageParser;
use rcgen::{CertifiedIssuer, CertificateParams, KeyPair};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::{
    scripted_relay::{
        Act::{Close, Hang, Say},
        Script, ScriptedRelay,
    },
    *,
};

fn settings() -> MailSettings {
    MailSettings { connections: 2, timeout: Duration::from_millis(400), hello_name: Some("rota.test".to_owned()) }
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
    let relay = ScriptedRelay::start(script).await;
    let outcome = mailer(&relay.url()).send(&mail_to("anna@example.org")).await;
    (outcome, relay)
}

#[tokio::test]
async fn a_mail_arrives_whole() {
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
async fn every_refusal_has_its_class() {
    use MailStage::{Authenticate, Data, Hello, Recipient, Reply, Sender};
    for (step, reply, stage, is_final) in [
        ("CONNECT", "554 go away", Hello, false),
        ("CONNECT", "421 later", Hello, false),
        ("EHLO", "550 not you", Hello, false),
        ("MAIL", "550 not you", Sender, false),
        ("MAIL", "451 later", Sender, false),
        ("RCPT", "550 5.1.1 no such user", Recipient, true),
        ("RCPT", "553 no", Recipient, true),
        ("RCPT", "450 greylisted", Recipient, false),
        ("RCPT", "530 authenticate first", Recipient, false),
        ("DATA", "554 no", Data, true),
        ("DATA", "451 later", Data, false),
        (".", "550 spam", Reply, true),
        (".", "452 disk full", Reply, false),
    ] {
        let (outcome, _relay) = send_through(Script::default().on(step, Say(reply))).await;
        let error = outcome.expect_err(reply);
        assert_eq!(error.is_final(), is_final, "{step} {reply}: {error}");
        assert!(!error.after_data(), "a relay that refuses has not taken the mail: {error:?}");
        let (seen_stage, seen_code) = match &error {
            MailError::Rejected { stage, code, .. } => (*stage, Some(*code)),
            MailError::Transient { stage, code, .. } => (*stage, *code),
            MailError::Invalid { .. } => panic!("{error}"),
        };
        assert_eq!(seen_stage, stage, "{step} {reply}: {error:?}");
        assert_eq!(seen_code, reply[..3].parse().ok(), "{error:?}");
    }
    let relay = ScriptedRelay::start(Script::default().offering("AUTH PLAIN").on("AUTH", Say("535 bad hunter2"))).await;
    let mailer = mailer(&relay.url().replace("smtp://", "smtp://me:hunter2@"));
    let error = mailer.send(&mail_to("anna@example.org")).await.expect_err("refused");
    assert!(matches!(error, MailError::Transient { stage: Authenticate, code: Some(535), .. }), "{error:?}");
    assert!(!format!("{error} {error:?} {mailer:?}").contains("hunter2"));
}

#[tokio::test]
async fn silence_and_cuts_are_bounded_and_only_a_lost_reply_may_double() {
    for act in [Hang, Close] {
        for step in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
            let begun = Instant::now();
            let (outcome, _relay) = send_through(Script::default().on(step, act)).await;
            let error = outcome.expect_err(step);
            assert!(begun.elapsed() < Duration::from_millis(900), "{step}");
            assert!(!error.is_final(), "{step}: {error}");
            assert_eq!(error.after_data(), step == ".", "{step}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_cut_inside_the_message_cannot_double() {
    let relay = ScriptedRelay::start(Script { cut_message_at: Some(300), ..Script::default() }).await;
    let mut long = mail_to("anna@example.org");
    // More than the socket buffers of both sides take, so that the cut comes before the last octet is written.
    long.text = "All work and no play\n".repeat(300_000);
    let patient = MailSettings { timeout: Duration::from_secs(10), ..settings() };
    let error = Mailer::from_url(&relay.url(), patient).expect("a mailer").send(&long).await.expect_err("cut");
    assert!(matches!(error, MailError::Transient { stage: MailStage::Body, after_data: false, .. }), "{error:?}");
    assert!(relay.seen.messages().is_empty());
}

#[tokio::test]
async fn a_relay_out_of_step_has_not_taken_the_mail() {
    let (outcome, _relay) = send_through(Script::default().on(".", Say("354 what"))).await;
    assert!(outcome.expect_err("not a 250").after_data());
    let (outcome, _relay) = send_through(Script::default().on("MAIL", Say("garbage"))).await;
    assert!(!outcome.expect_err("not SMTP").is_final());
}

#[tokio::test]
async fn nobody_listening_is_transient() {
    let error = mailer("smtp://127.0.0.1:1").send(&mail_to("anna@example.org")).await.expect_err("refused");
    assert!(matches!(error, MailError::Transient { stage: MailStage::Connect, after_data: false, .. }), "{error:?}");
}

#[tokio::test]
async fn connections_are_reused_also_after_a_refused_recipient() {
    let relay = ScriptedRelay::start(Script::default()).await;
    let one = mailer(&relay.url());
    for _ in 0..20 {
        one.send(&mail_to("anna@example.org")).await.expect("taken");
    }
    assert_eq!(relay.connections(), 1);

    let relay = ScriptedRelay::start(Script::default().on("RCPT", Say("550 no"))).await;
    let refusing = mailer(&relay.url());
    for _ in 0..5 {
        refusing.send(&mail_to("anna@example.org")).await.expect_err("refused");
    }
    assert_eq!(relay.connections(), 1);
    assert_eq!(relay.seen.clear_lines().iter().filter(|line| *line == "RSET").count(), 4);
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_costs_no_mail() {
    let relay = ScriptedRelay::start(Script { mails_per_connection: Some(3), ..Script::default() }).await;
    let mailer = mailer(&relay.url());
    for _ in 0..12 {
        mailer.send(&mail_to("anna@example.org")).await.expect("taken in spite of the closed connection");
    }
    assert_eq!(relay.connections(), 4);
    assert_eq!(relay.seen.messages().len(), 12);
}

#[tokio::test]
async fn an_abandoned_send_does_not_leave_its_dialogue_to_the_next() {
    let relay = ScriptedRelay::start(Script::default().on("RCPT", Hang)).await;
    let mailer = Mailer::from_url(&relay.url(), MailSettings { connections: 1, ..settings() }).expect("a mailer");
    let mail = mail_to("anna@example.org");
    assert!(timeout(Duration::from_millis(100), mailer.send(&mail)).await.is_err());
    mailer.send(&mail).await.expect_err("hangs too, on a connection of its own");
    assert_eq!(relay.connections(), 2);
}

#[tokio::test]
async fn a_smtputf8_address_needs_a_relay_that_knows_it() {
    let (plain, utf8) = (Script::default(), Script::default().offering("8BITMIME").offering("SMTPUTF8"));
    let relay = ScriptedRelay::start(plain).await;
    let error = mailer(&relay.url()).send(&mail_to("jörg@example.org")).await.expect_err("not possible");
    assert!(matches!(error, MailError::Invalid { .. }), "{error:?}");
    let relay = ScriptedRelay::start(utf8).await;
    mailer(&relay.url()).send(&mail_to("jörg@example.org")).await.expect("taken");
    assert!(relay.seen.clear_lines().iter().any(|line| line.ends_with("SMTPUTF8 BODY=8BITMIME")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_mails_a_second() {
    const MAILS: usize = 600;
    let relay = ScriptedRelay::start(Script::default()).await;
    let mailer = mailer(&relay.url());
    let begun = Instant::now();
    let senders = (0..4).map(|_| {
        let mailer = mailer.clone();
        tokio::spawn(async move {
            for _ in 0..MAILS / 4 {
                mailer.send(&mail_to("anna@example.org")).await.expect("taken");
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.expect("a sender");
    }
    let per_second = MAILS as f64 / begun.elapsed().as_secs_f64();
    assert_eq!(relay.seen.messages().len(), MAILS);
    assert!(per_second >= 300.0, "{per_second:.0} mails a second");
}

/// A certificate for 127.0.0.1 and the file with the authority that signed it.
fn private_authority() -> (TlsAcceptor, PathBuf) {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .and_then(|parameters| parameters.signed_by(&key, &issuer))
        .expect("a certificate");
    let path = std::env::temp_dir().join(format!("rota-ca-{}.pem", uuid::Uuid::new_v4()));
    std::fs::write(&path, issuer.pem()).expect("writable");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)
        .expect("a certificate");
    (TlsAcceptor::from(Arc::new(config)), path)
}

#[tokio::test]
async fn starttls_and_implicit_tls_reach_a_relay_with_a_private_authority() {
    let (acceptor, ca) = private_authority();
    for (scheme, implicit_tls) in [("smtp", false), ("smtps", true)] {
        let script = Script { tls: Some(acceptor.clone()), implicit_tls, ..Script::default() };
        let relay = ScriptedRelay::start(script.offering("STARTTLS").offering("AUTH PLAIN LOGIN")).await;
        let url = format!("{scheme}://me:hunter2@{}?tls=required&ca={}", relay.address, ca.display());
        let mailer = mailer(&url);
        for _ in 0..3 {
            mailer.send(&mail_to("anna@example.org")).await.expect("taken");
        }
        assert_eq!((relay.connections(), relay.seen.messages().len()), (1, 3));
        let expected: &[&str] = if implicit_tls { &[] } else { &["EHLO rota.test", "STARTTLS"] };
        assert_eq!(*relay.seen.clear_lines(), expected, "nothing else went out in clear");
    }
    std::fs::remove_file(ca).expect("there");
}

#[tokio::test]
async fn tls_is_never_downgraded() {
    let (acceptor, ca) = private_authority();
    let with_tls = |script: Script| Script { tls: Some(acceptor.clone()), ..script };
    let trusting = format!("&ca={}", ca.display());
    for (what, script, trust) in [
        ("STARTTLS stripped", Script::default().offering("AUTH PLAIN"), trusting.as_str()),
        ("STARTTLS refused", with_tls(Script::default().offering("STARTTLS").on("STARTTLS", Say("454 no"))), &trusting),
        ("words injected", with_tls(Script::default().offering("STARTTLS").on("STARTTLS", Say("220 go\r\n250 ok"))), &trusting),
        ("handshake hangs", Script::default().offering("STARTTLS").on("STARTTLS", Hang), &trusting),
        ("not SMTP", Script::default().on("CONNECT", Say("hello")), &trusting),
        ("unknown authority", with_tls(Script::default().offering("STARTTLS")), ""),
    ] {
        let relay = ScriptedRelay::start(script).await;
        let url = format!("smtp://me:hunter2@{}?tls=required{trust}", relay.address);
        let error = mailer(&url).send(&mail_to("anna@example.org")).await.expect_err(what);
        assert!(matches!(error, MailError::Transient { after_data: false, .. }), "{what}: {error:?}");
        assert!(relay.seen.messages().is_empty(), "{what}");
        let lines = relay.seen.clear_lines().join("\n");
        assert!(!lines.contains("MAIL") && !lines.contains("AUTH"), "{what}: {lines}");
    }
    std::fs::remove_file(ca).expect("there");
}

#[tokio::test]
async fn a_folder_keeps_one_file_per_message_id() {
    let folder = std::env::temp_dir().join(format!("rota-mail-{}", uuid::Uuid::new_v4()));
    let mailer = mailer(&format!("file:{}", folder.display()));
    for _ in 0..3 {
        mailer.send(&mail_to("anna@example.org")).await.expect("written");
    }
    let receipt = mailer.send(&mail_to("ben@example.org")).await.expect("written");
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
    let error = mailer("file:/proc/rota").send(&mail_to("anna@example.org")).await.expect_err("not writable");
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
