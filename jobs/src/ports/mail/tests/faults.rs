//! What each failure is called, and whether a repeat could double.

use std::time::Instant;

use super::*;

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
    let relay = ScriptedRelay::start(Script::default().offering("AUTH PLAIN").on("AUTH", Say("535 bad hunter2")));
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
            let relay = ScriptedRelay::start(Script::default().on(step, act));
            let mailer = Mailer::from_url(&relay.url(), impatient()).expect("a mailer");
            let outcome = mailer.send(&mail_to("anna@example.org")).await;
            let error = outcome.expect_err(step);
            assert!(begun.elapsed() < Duration::from_secs(2), "{step}");
            assert!(!error.is_final(), "{step}: {error}");
            assert_eq!(error.after_data(), step == ".", "{step}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_cut_inside_the_message_cannot_double() {
    let relay = ScriptedRelay::start(Script { cut_message_at: Some(300), ..Script::default() });
    let mut long = mail_to("anna@example.org");
    // More than the socket buffers of both sides take, so that the cut comes before the last octet is written.
    long.text = "All work and no play\n".repeat(300_000);
    let error = mailer(&relay.url()).send(&long).await.expect_err("cut");
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
