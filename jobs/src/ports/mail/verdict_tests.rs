//! The table of verdicts: the consequence of each reply at each stage.

use super::{
    EnhancedCode,
    MailStage::{self, Authenticate, Data, Hello, Recipient, Reply as FinalReply, Sender},
    Reply,
    Verdict::{self, MailRefused, MailboxDead, RelayRefuses, SenderRefused, TryLater},
    classify,
};

fn verdict(stage: MailStage, line: &str) -> Verdict {
    let (code, text) = line.split_at(3);
    let code = code.parse().expect("a code");
    let reply =
        Reply { code, lines: vec![text.trim().to_owned()], accepts: false, is_consistent: true, is_whole: true };
    classify(stage, &reply, EnhancedCode::find(&reply.text()))
}

#[test]
fn replies_are_classified_as_documented() {
    for (stage, line, expected) in [
        // The mailbox does not exist.
        (Recipient, "550 5.1.1 no such user", MailboxDead),
        (Recipient, "550 5.1.2 no such domain", MailboxDead),
        (Recipient, "501 5.1.3 bad address syntax", MailboxDead),
        (Recipient, "550 5.1.6 moved", MailboxDead),
        (Recipient, "556 5.1.10 null MX", MailboxDead),
        (Recipient, "550 5.2.1 mailbox disabled", MailboxDead),
        (Recipient, "550 #5.1.1 User unknown", MailboxDead),
        (Recipient, "550 No such user", MailboxDead),
        (Recipient, "551 moved", MailboxDead),
        (Recipient, "553 no", MailboxDead),
        (Recipient, "550", MailboxDead),
        (Data, "550 5.1.1 no such user", MailboxDead),
        (FinalReply, "550 5.1.1 no such user", MailboxDead),
        // The reply concerns the sender.
        (Recipient, "554 5.7.1 Relay access denied", SenderRefused),
        (Recipient, "550 5.7.1 Client host blocked", SenderRefused),
        (Recipient, "550 5.7.26 DMARC", SenderRefused),
        (Recipient, "550 5.7.515 Access denied", SenderRefused),
        (Recipient, "550 5.7.0 spam", SenderRefused),
        (Recipient, "554 refused", SenderRefused),
        (Recipient, "550 relaying denied", SenderRefused),
        (Recipient, "550 192.0.2.1 is listed at zen.spamhaus.org", SenderRefused),
        (Recipient, "553 sorry, that domain isn't in my list of allowed rcpthosts (relay)", SenderRefused),
        (Recipient, "503 Bad sequence of commands", SenderRefused),
        (Recipient, "503 5.1.1 Bad sequence", SenderRefused),
        (Recipient, "530 5.7.0 authenticate first", SenderRefused),
        (Recipient, "550 5.5.1 protocol", SenderRefused),
        (Recipient, "555 parameters", SenderRefused),
        (Recipient, "550 5.1.8 sender's domain", SenderRefused),
        (Sender, "550 not you", SenderRefused),
        (Sender, "550 5.1.1 no such user", SenderRefused),
        (Data, "554 no", SenderRefused),
        (FinalReply, "550 spam", SenderRefused),
        (FinalReply, "554 5.7.1 spam", SenderRefused),
        // The reply concerns the mail, whoever the recipient is.
        (Sender, "552 message size exceeds fixed limit", SenderRefused),
        (Recipient, "552 5.3.4 message too big", SenderRefused),
        (Recipient, "552 message too large", SenderRefused),
        (Recipient, "550 5.2.3 too long", SenderRefused),
        (Recipient, "550 message size exceeds limit", SenderRefused),
        (Data, "552 message too large", SenderRefused),
        (FinalReply, "552 5.3.4 too big", SenderRefused),
        (FinalReply, "552 5.2.3 your message exceeded our size limits", SenderRefused),
        (FinalReply, "552", SenderRefused),
        (FinalReply, "554 5.6.0 form", SenderRefused),
        // The reply concerns this mail to this mailbox.
        (Recipient, "552 5.2.2 over quota", MailRefused),
        (Recipient, "550 5.2.2 mailbox full", MailRefused),
        (Recipient, "550 mailbox full", MailRefused),
        (Recipient, "552 storage exceeded", MailRefused),
        (Recipient, "550 5.1.0 address rejected", MailRefused),
        (Recipient, "501 syntax", MailRefused),
        (FinalReply, "552 exceeded storage allocation", MailRefused),
        (Recipient, "553 5.6.7 non-ASCII address", MailRefused),
        // Later.
        (Recipient, "450 greylisted", TryLater),
        (Recipient, "452 4.2.2 mailbox full", TryLater),
        (Recipient, "421 4.7.0 too many from your address", TryLater),
        (Recipient, "550 4.2.1 not now", TryLater),
        (Recipient, "550 5.4.1 route", TryLater),
        (Recipient, "554 5.3.2 not accepting", TryLater),
        (Recipient, "699 what", TryLater),
        (FinalReply, "451 later", TryLater),
        (Sender, "451 later", TryLater),
        // The relay accepts nothing from this client.
        (Hello, "554 go away", RelayRefuses),
        (Hello, "421 later", RelayRefuses),
        (Authenticate, "535 5.7.8 bad credentials", RelayRefuses),
    ] {
        assert_eq!(verdict(stage, line), expected, "{stage}: {line}");
    }
}

#[test]
fn an_inconsistent_refusal_is_not_final() {
    let reply = Reply { code: 550, lines: vec!["no".to_owned()], accepts: true, is_consistent: false, is_whole: true };
    assert_eq!(classify(Recipient, &reply, None), TryLater);
}

#[test]
fn enhanced_codes_are_found_and_ip_addresses_are_not_codes() {
    let find = |text| EnhancedCode::find(text).map(|code| code.to_string());
    for (text, code) in [
        ("5.1.1 no", Some("5.1.1")),
        ("#5.7.26", Some("5.7.26")),
        ("rejected (5.7.1)", Some("5.7.1")),
        ("bye 5.2.1.", Some("5.2.1")),
        ("192.0.2.1 listed", None),
        ("5.1.1.7 listed", None),
        ("5.1", None),
        ("5.1.1000", None),
        ("9.1.1", None),
        ("", None),
    ] {
        assert_eq!(find(text).as_deref(), code, "{text}");
    }
}
