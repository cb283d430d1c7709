//! Every form of a reply at every stage: the code counts, whatever its form.

use super::*;

/// Unusual ways to accept; `{}` is the code.
const SHAPES: [&str; 12] = [
    "{} 2.0.0 \u{fc}bernommen\r\n",
    "{}\r\n",
    "{}\tok\r\n",
    "{}ok\r\n",
    "{} ok\n",
    "\r\n{} ok\r\n",
    "{}-a\r\n{} b\r\n",
    "{}-a\n\r\n{}-b\r\n{}\r\n",
    "{} \0\u{1b}[2J\r\n",
    "{}-192.0.2.1 x\r\n192.0.2.1 is you\r\n{} c\r\n",
    "{} LONG\r\n",
    "noise\r\n{} ok\r\n",
];

/// The shape as octets: Latin-1, so that `\u{fc}` is one octet and not UTF-8, and 3,000 characters
/// for `LONG`.
fn octets(shape: &str, code: &str) -> &'static [u8] {
    let text = shape.replace("{}", code).replace("LONG", &"x".repeat(3_000));
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect::<Vec<_>>().leak()
}

#[tokio::test]
async fn an_unusual_acceptance_is_an_acceptance_at_any_stage() {
    for (step, code) in
        [("CONNECT", "220"), ("EHLO", "250"), ("MAIL", "250"), ("RCPT", "250"), ("DATA", "354"), (".", "250")]
    {
        for shape in SHAPES {
            let relay = ScriptedRelay::start(Script::default().on(step, Raw(octets(shape, code))));
            let outcome = mailer(&relay.url()).send(tenant(), &mail_to("anna@example.org")).await;
            assert!(outcome.is_ok(), "{step} {shape:?}: {outcome:?}");
            assert_eq!(relay.seen.messages().len(), 1, "{step} {shape:?}");
        }
    }
}

#[tokio::test]
async fn an_unusual_refusal_is_a_refusal_at_any_stage() {
    for (step, code, is_final) in [
        ("CONNECT", "554", false),
        ("MAIL", "451", false),
        ("RCPT", "550", true),
        ("RCPT", "450", false),
        ("DATA", "451", false),
        (".", "451", false),
    ] {
        for shape in SHAPES {
            let (outcome, _relay) = send_through(Script::default().on(step, Raw(octets(shape, code)))).await;
            let error = outcome.expect_err(shape);
            assert_eq!(error.is_final(), is_final, "{step} {shape:?}: {error:?}");
            assert_eq!(error.codes().map(|codes| codes[..3].to_owned()).as_deref(), Some(code), "{step} {shape:?}");
            assert!(!error.after_data(), "{step} {shape:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn an_unreadable_reply_is_ambiguous_only_after_the_final_dot() {
    for (shape, taken) in [
        (&b"250-a\r\n451 c\r\n"[..], true),
        (b"451-a\r\n250 c\r\n", true),
        (b"250 ok", true),
        (b"250 ok\r", true),
        (b"250-a\r\n", true),
        (b"354 go\r\n", false),
        (b"699 what\r\n", false),
        (b"hello\r\n", false),
        (b"25", false),
    ] {
        let what = String::from_utf8_lossy(shape);
        let relay = ScriptedRelay::start(Script::default().on(".", Raw(shape)));
        let settings = MailSettings { timeout: Duration::from_secs(2), ..settings() };
        let mailer = Mailer::from_url(&relay.url(), settings).expect("a mailer");
        let outcome = mailer.send(tenant(), &mail_to("anna@example.org")).await;
        assert_eq!(outcome.is_ok(), taken, "{what}: {outcome:?}");
        assert!(taken || outcome.is_err_and(|error| error.after_data()), "{what}");
        for step in ["MAIL", "RCPT"].into_iter().filter(|_| !taken) {
            let (outcome, _relay) = {
                let relay = ScriptedRelay::start(Script::default().on(step, Raw(shape)));
                let settings = MailSettings { timeout: Duration::from_secs(2), ..super::settings() };
                let mailer = Mailer::from_url(&relay.url(), settings).expect("a mailer");
                (mailer.send(tenant(), &mail_to("anna@example.org")).await, relay)
            };
            let error = outcome.expect_err("not a reply");
            assert!(!error.is_final() && !error.after_data(), "{step} {what}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_reply_before_the_end_of_the_message_is_not_a_receipt() {
    // The 250 arrives with the 354; nothing has been sent by then.
    let relay = ScriptedRelay::start(Script::default().on("DATA", Raw(b"354 go\r\n250 queued\r\n")).on(".", Hang));
    let error = mailer(&relay.url()).send(tenant(), &mail_to("anna@example.org")).await.expect_err("too early");
    assert!(!error.is_final() && !error.after_data(), "{error:?}");
    assert!(relay.seen.messages().is_empty());
}

#[tokio::test]
async fn pipelined_replies_and_malformed_extensions_are_tolerated() {
    let script = Script::default().on("MAIL", Say("250 sender\r\n250 recipient")).on("RCPT", Raw(b""));
    let (outcome, _relay) = send_through(script).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let script = Script::default().on("EHLO", Raw(b"250-\xff\xfe\r\n250-\r\n250-SIZE x y z\r\n250-=\r\n250 \r\n"));
    let (outcome, _relay) = send_through(script).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let (outcome, relay) = send_through(Script::default().on("EHLO", Say("502 EHLO?"))).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(relay.seen.clear_lines().contains(&"HELO rota.test".to_owned()));
}

#[tokio::test]
async fn a_421_is_transient_at_every_stage_and_closes_the_connection() {
    for step in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        let relay = ScriptedRelay::start(Script::default().on(step, Say("421 4.3.2 going down")));
        let mailer = mailer(&relay.url());
        for sends in 1..=2 {
            let error = mailer.send(tenant(), &mail_to("anna@example.org")).await.expect_err(step);
            assert!(!error.is_final() && !error.after_data(), "{step}: {error:?}");
            let expected = if matches!(step, "CONNECT" | "EHLO") { 1 } else { sends };
            assert_eq!(relay.connections(), expected, "{step}");
        }
    }
}

#[tokio::test]
async fn relay_texts_are_stored_without_the_recipient() {
    for (step, reply) in [
        ("RCPT", "550 5.1.1 <Anna@Example.org>: no such user"),
        ("RCPT", "450 anna is away"),
        (".", "451 anna%40example.org later"),
        (".", "250 queued for anna@example.org"),
    ] {
        let (outcome, _relay) = send_through(Script::default().on(step, Say(reply))).await;
        let text = match outcome {
            Ok(receipt) => receipt.reply,
            Err(error) => format!("{error} {error:?} {}", error.summary()),
        };
        assert!(!text.to_lowercase().contains("anna"), "{text}");
    }
}
