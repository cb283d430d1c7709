//! A mail has the expected headers and no others, whatever its texts contain.

use mail_parser::{HeaderName as Parsed, MessageParser};

use super::*;

fn mail() -> OutgoingMail {
    OutgoingMail {
        message_id: "0190.42@rota.example".to_owned(),
        from: Mailbox::named("news@example.com", "Jörg \"Joe\" Müller, GmbH"),
        to: Mailbox::named("anna@example.org", "Anna Größe"),
        subject: "Grüße an Anna".to_owned(),
        text: "Hallo Anna\n.\nToken abc".to_owned(),
        html: Some("<p>Hallo Anna</p>".to_owned()),
        list_unsubscribe: Some(Url::parse("https://rota.example/u/abc?x=1").expect("a URL")),
        date: DateTime::from_timestamp(1_700_000_000, 0).expect("a date"),
        campaign: Some(Uuid::nil()),
    }
}

fn header_names(octets: &[u8]) -> Vec<String> {
    let message = MessageParser::default().parse(octets).expect("a mail");
    message.headers().iter().map(|h| h.name().to_ascii_lowercase()).collect()
}

#[test]
fn a_mail_carries_all_its_fields() {
    let built = mail().build().expect("builds");
    let message = MessageParser::default().parse(&built.octets).expect("a mail");
    assert_eq!(message.message_id(), Some("0190.42@rota.example"));
    assert_eq!(message.subject(), Some("Grüße an Anna"));
    let from = message.from().and_then(|from| from.first()).expect("a sender");
    assert_eq!(from.name(), Some("Jörg \"Joe\" Müller, GmbH"));
    assert_eq!(from.address(), Some("news@example.com"));
    assert_eq!(message.body_text(0).expect("text").replace("\r\n", "\n").trim_end(), "Hallo Anna\n.\nToken abc");
    assert_eq!(message.body_html(0).expect("html").trim_end(), "<p>Hallo Anna</p>");
    let raw = String::from_utf8(built.octets.clone()).expect("ASCII");
    assert!(raw.is_ascii() && !built.needs_utf8);
    assert!(raw.contains("\r\nList-Unsubscribe: <https://rota.example/u/abc?x=1>\r\n"), "{raw}");
    assert!(raw.contains("\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"), "{raw}");
    assert!(raw.contains("\r\nX-Rota-Campaign: 00000000-0000-0000-0000-000000000000\r\n"), "{raw}");
    assert!(raw.contains("\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\n"), "{raw}");
    assert!(message.header(Parsed::MimeVersion).is_some());
}

#[test]
fn a_repeated_message_is_identical_byte_for_byte() {
    assert_eq!(mail().build().expect("builds").octets, mail().build().expect("builds").octets);
}

#[test]
fn long_names_and_links_stay_within_a_header_line() {
    let mut long = mail();
    long.to.name = Some("Wolfeschlegelsteinhausenbergerdorff".repeat(40));
    long.subject = "x".repeat(5_000);
    long.text = "y".repeat(5_000);
    long.list_unsubscribe = Url::parse(&format!("https://rota.example/{}", "u".repeat(800))).ok();
    let built = long.build().expect("builds");
    assert!(built.octets.split(|b| *b == b'\n').all(|line| line.len() <= 998));
    let link = format!("<https://rota.example/{}>", "u".repeat(800));
    assert!(String::from_utf8_lossy(&built.octets).contains(&link), "the link is not folded");
}

#[test]
fn malformed_mails_are_invalid() {
    let broken: [fn(&mut OutgoingMail); 8] = [
        |m| m.to.address = "anna".to_owned(),
        |m| m.from.address = "news@example.com\r\nBcc: eve@example.com".to_owned(),
        |m| m.message_id = "no-at-sign".to_owned(),
        |m| m.message_id = "a@b>\r\nBcc: eve@example.com".to_owned(),
        |m| m.list_unsubscribe = Url::parse("javascript:alert(1)").ok(),
        |m| m.list_unsubscribe = Url::parse("mailto:a>b@example.com").ok(),
        |m| {
            m.list_unsubscribe = Url::parse(&format!("https://rota.example/{}", "u".repeat(1_000))).ok();
        },
        |m| m.date = DateTime::<Utc>::MIN_UTC,
    ];
    for (index, spoil) in broken.into_iter().enumerate() {
        let mut broken = mail();
        spoil(&mut broken);
        assert!(matches!(broken.build(), Err(MailError::Invalid { .. })), "case {index}");
    }
}

#[test]
fn header_injection_is_prevented() {
    let expected = header_names(&mail().build().expect("builds").octets);
    let hostile = [
        "x\r\nBcc: eve@example.com",
        "x\nBcc: eve@example.com",
        "x\rBcc: eve@example.com",
        "x\r\n\r\n<b>body</b>",
        "x\0y",
        "\u{2028}Bcc: eve@example.com",
        "=?utf-8?q?=0D=0ABcc:_eve@example.com?=",
        "\"><x@y.z>, eve@example.com",
        "\\",
        "\"",
        "\\\"",
        "",
        " ",
        "\r\n",
        "a\u{85}Bcc: b",
        "\u{7f}",
        "𝕰𝖛𝖊 🦀",
        "(comment)",
        "a;b:c,d<e>",
        "\t\tx",
        "é\r\n Bcc: folded@example.com",
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        hostile[usize::try_from(seed % 21).expect("below 21")]
    };
    for _ in 0..800 {
        let glue = |a: &str, b: &str, c: &str| format!("{a}{b}{c}");
        let mut nasty = mail();
        nasty.from.name = Some(glue(pick(), pick(), pick()));
        nasty.to.name = Some(glue(pick(), pick(), pick()));
        nasty.subject = glue(pick(), pick(), pick());
        nasty.text = glue(pick(), pick(), pick());
        let built = nasty.build().expect("cleaned text always builds");
        assert_eq!(header_names(&built.octets), expected, "{nasty:?}");
        let parsed = MessageParser::default().parse(&built.octets).expect("a mail");
        let to: Vec<_> = parsed.to().expect("recipients").iter().filter_map(|to| to.address()).collect();
        assert_eq!(to, ["anna@example.org"], "{nasty:?}");
        assert!(!built.octets.windows(2).any(|w| w[0] != b'\r' && w[1] == b'\n'), "no bare LF");
        assert!(!built.octets.windows(2).any(|w| w[0] == b'\r' && w[1] != b'\n'), "no bare CR");
    }
}
