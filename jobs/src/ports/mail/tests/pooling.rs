//! Connections are reused, and a dead connection does not fail a mail.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn connections_are_reused_even_after_a_refused_recipient() {
    let relay = ScriptedRelay::start(Script::default());
    let one = mailer(&relay.url());
    for _ in 0..20 {
        one.send(tenant(), &mail_to("anna@example.org")).await.expect("taken");
    }
    assert_eq!(relay.connections(), 1);

    let relay = ScriptedRelay::start(Script::default().on("RCPT", Say("550 no")));
    let refusing = mailer(&relay.url());
    for _ in 0..5 {
        refusing.send(tenant(), &mail_to("anna@example.org")).await.expect_err("refused");
    }
    assert_eq!(relay.connections(), 1);
    assert_eq!(relay.seen.clear_lines().iter().filter(|line| *line == "RSET").count(), 4);
}

#[tokio::test]
async fn a_connection_closed_while_pooled_loses_no_mail() {
    let relay = ScriptedRelay::start(Script { mails_per_connection: Some(3), ..Script::default() });
    let mailer = mailer(&relay.url());
    for _ in 0..12 {
        mailer.send(tenant(), &mail_to("anna@example.org")).await.expect("taken in spite of the closed connection");
    }
    assert_eq!(relay.connections(), 4);
    assert_eq!(relay.seen.messages().len(), 12);
}

#[tokio::test]
async fn the_connection_of_an_abandoned_send_is_not_reused() {
    let relay = ScriptedRelay::start(Script::default().on("RCPT", Hang));
    let mailer = Mailer::from_url(&relay.url(), impatient()).expect("a mailer");
    let mail = mail_to("anna@example.org");
    assert!(timeout(Duration::from_millis(100), mailer.send(tenant(), &mail)).await.is_err());
    mailer.send(tenant(), &mail).await.expect_err("hangs too, on a connection of its own");
    assert_eq!(relay.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailer_sends_many_mails_per_second() {
    const MAILS: u32 = 600;
    let relay = ScriptedRelay::start(Script::default());
    let mailer = mailer(&relay.url());
    let begun = Instant::now();
    let senders = (0..4).map(|_| {
        let mailer = mailer.clone();
        tokio::spawn(async move {
            for _ in 0..MAILS / 4 {
                mailer.send(tenant(), &mail_to("anna@example.org")).await.expect("taken");
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.expect("a sender");
    }
    let per_second = f64::from(MAILS) / begun.elapsed().as_secs_f64();
    assert_eq!(relay.seen.messages().len(), 600);
    assert!(per_second >= 300.0, "{per_second:.0} mails a second");
}
