//! The class of each failure, and whether a repeat could cause a duplicate.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn every_refusal_is_classified() {
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
        ("DATA", "554 no", Data, false),
        ("DATA", "552 5.3.4 too large", Data, false),
        ("DATA", "552 5.2.2 mailbox full", Data, true),
        ("DATA", "451 later", Data, false),
        (".", "550 spam", Reply, false),
        (".", "550 5.1.1 no such user", Reply, true),
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
    let error = mailer.send(tenant(), &mail_to("anna@example.org")).await.expect_err("refused");
    assert!(matches!(error, MailError::Transient { stage: Authenticate, code: Some(535), .. }), "{error:?}");
    assert!(!format!("{error} {error:?} {mailer:?}").contains("hunter2"));
}

#[tokio::test]
async fn stalls_and_cuts_time_out_and_only_a_lost_reply_is_ambiguous() {
    for act in [Hang, Close] {
        for step in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
            let begun = Instant::now();
            let relay = ScriptedRelay::start(Script::default().on(step, act));
            let mailer = Mailer::from_url(&relay.url(), impatient()).expect("a mailer");
            let outcome = mailer.send(tenant(), &mail_to("anna@example.org")).await;
            let error = outcome.expect_err(step);
            assert!(begun.elapsed() < Duration::from_secs(2), "{step}");
            assert!(!error.is_final(), "{step}: {error}");
            assert_eq!(error.after_data(), step == ".", "{step}: {error:?}");
            assert_eq!(error.blame() == Some(Blame::Sender), step == ".", "{step}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_cut_inside_the_message_is_safe_to_retry() {
    let relay = ScriptedRelay::start(Script { cut_message_at: Some(300), ..Script::default() });
    let mut long = mail_to("anna@example.org");
    // Larger than the socket buffers of both sides, so that the cut comes before the last octet is
    // written.
    long.text = "All work and no play\n".repeat(300_000);
    let error = mailer(&relay.url()).send(tenant(), &long).await.expect_err("cut");
    assert!(matches!(error, MailError::Transient { stage: MailStage::Body, after_data: false, .. }), "{error:?}");
    assert!(relay.seen.messages().is_empty());
}

#[tokio::test]
async fn an_out_of_sequence_reply_does_not_accept_the_mail() {
    let (outcome, _relay) = send_through(Script::default().on(".", Say("354 what"))).await;
    assert!(outcome.expect_err("not a 250").after_data());
    let (outcome, _relay) = send_through(Script::default().on("MAIL", Say("garbage"))).await;
    assert!(!outcome.expect_err("not SMTP").is_final());
}

#[tokio::test]
async fn a_refused_connection_is_transient() {
    let error = mailer("smtp://127.0.0.1:1").send(tenant(), &mail_to("anna@example.org")).await.expect_err("refused");
    assert!(matches!(error, MailError::Transient { stage: MailStage::Connect, after_data: false, .. }), "{error:?}");
}

#[tokio::test]
async fn an_unreachable_relay_costs_one_attempt_and_recovery_is_detected() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("bound");
    drop(socket);
    let probing = MailSettings { relay_probe: Duration::from_millis(50), relay_patience: Duration::ZERO, ..settings() };
    let mailer = Mailer::from_url(&format!("smtp://{address}"), probing).expect("a mailer");
    let mail = mail_to("anna@example.org");
    assert!(!mailer.is_relay_given_up());
    for _ in 0..2 {
        let error = mailer.send(tenant(), &mail).await.expect_err("away");
        assert_eq!(error.blame(), Some(Blame::Relay), "{error:?}");
    }
    assert!(mailer.is_relay_given_up() && mailer.probe().await.is_err());
    let _relay = ScriptedRelay::start_at(address, Script::default());
    while mailer.probe().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mailer.send(tenant(), &mail).await.expect("taken");
    assert!(!mailer.is_relay_given_up());
}

#[tokio::test]
async fn a_hanging_domain_leaves_connections_to_other_tenants() {
    let relay = ScriptedRelay::start(Script::default().on("RCPT hang.test", Hang));
    let hanging = MailSettings { connections: 4, timeout: Duration::from_secs(3), ..settings() };
    let mailer = Mailer::from_url(&relay.url(), hanging).expect("a mailer");
    let stuck = (0..20).map(|number| {
        let (mailer, mail) = (mailer.clone(), mail_to(&format!("a{number}@hang.test")));
        tokio::spawn(async move { mailer.send(tenant(), &mail).await })
    });
    let stuck: Vec<_> = stuck.collect();
    let neighbour = TenantId::new(uuid::Uuid::from_u128(2));
    while relay.connections() < 3 {
        tokio::task::yield_now().await;
    }
    mailer.send(neighbour, &mail_to("b@fine.test")).await.expect("taken beside the hanging mails");
    let mut busy = 0;
    for one in stuck {
        let error = one.await.expect("no panic").expect_err("hangs or is turned away");
        busy += usize::from(error.blame() == Some(Blame::Busy));
    }
    assert_eq!(busy, 17);
    let error = mailer.send(tenant(), &mail_to("late@hang.test")).await.expect_err("the domain is braked");
    assert_eq!(error.blame(), Some(Blame::Busy), "{error:?}");
    mailer.send(tenant(), &mail_to("c@fine.test")).await.expect("another domain is not");
}
