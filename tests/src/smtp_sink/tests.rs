//! The sink against lettre, and against raw bytes where lettre follows the protocol too closely.

use std::fmt::Write;
use std::time::Instant;

use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn mail(to: &str, id: &str) -> Message {
    Message::builder()
        .from("Rota <rota@sender.test>".parse().unwrap())
        .to(to.parse().unwrap())
        .subject("Grüße")
        .message_id(Some(id.to_owned()))
        .body("Hello,\r\n.a line with a dot\r\n..\r\n.".to_owned())
        .unwrap()
}

fn transport(sink: &SmtpSink, tls: Tls) -> AsyncSmtpTransport<Tokio1Executor> {
    AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
        .port(sink.address().port())
        .tls(tls)
        .timeout(Some(2 * SECOND))
        .build()
}

async fn send(sink: &SmtpSink, to: &str) -> Result<(), lettre::transport::smtp::Error> {
    transport(sink, Tls::None).send(mail(to, "<1@sender.test>")).await.map(drop)
}

/// Sends all bytes at once and reads until the sink closes the connection.
async fn raw(sink: &SmtpSink, bytes: &str) -> String {
    let mut stream = TcpStream::connect(sink.address()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn keeps_the_message_byte_for_byte() {
    let sink = SmtpSink::start().await.unwrap();
    let sent = mail("a@x.test", "<1@sender.test>");
    transport(&sink, Tls::None).send(sent.clone()).await.unwrap();
    sink.wait_for(1, SECOND).await;
    let received = &sink.by_recipient("A@x.test")[0];
    assert_eq!(
        String::from_utf8_lossy(&received.raw).trim_end(),
        String::from_utf8_lossy(&sent.formatted()).trim_end()
    );
    assert_eq!(received.from, "rota@sender.test");
    assert_eq!(received.to, ["a@x.test"]);
    assert_eq!(received.message_id.as_deref(), Some("<1@sender.test>"));
    assert_eq!(received.header("subject").as_deref(), Some("=?utf-8?b?R3LDvMOfZQ==?="));
    assert!(received.text().contains("\r\n.a line"));
    assert!(!received.tls);
}

#[tokio::test]
async fn answers_pipelined_commands_in_order() {
    let sink = SmtpSink::start().await.unwrap();
    let answer = raw(
        &sink,
        "HELO me\r\nRCPT TO:<a@x>\r\nMAIL FROM:<>\r\nRSET\r\nMAIL FROM:<> SIZE=99999999\r\nMAIL FROM:<>\r\nDATA\r\n\
         RCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nx\n.\r\n..y\r\n.\r\nNOOP\r\nWHAT\r\nQUIT\r\n",
    )
    .await;
    let codes: Vec<_> = answer.lines().map(|line| &line[..3]).collect();
    let wanted = "220 250 503 250 250 552 250 503 250 250 354 250 250 500 221";
    assert_eq!(codes.join(" "), wanted);
    assert_eq!(sink.messages()[0].raw, b"x\n.\r\n.y\r\n");
    assert_eq!(sink.recipients(), ["a@x", "b@x"]);
    assert_eq!(sink.count(), 1);
}

#[tokio::test]
async fn refuses_one_recipient_as_often_as_told() {
    let sink = SmtpSink::start().await.unwrap();
    sink.inject(Rule::at(Stage::Rcpt, Fault::reply(451, "later")).to("slow@x.test").times(1));
    sink.inject(Rule::at(Stage::EndOfData, Fault::reply(554, "never")).to("dead@x.test"));
    assert!(send(&sink, "slow@x.test").await.unwrap_err().is_transient());
    assert!(send(&sink, "dead@x.test").await.unwrap_err().is_permanent());
    send(&sink, "slow@x.test").await.unwrap();
    assert_eq!(sink.recipients(), ["slow@x.test"]);
    assert_eq!((sink.injected(Stage::Rcpt), sink.injected(Stage::EndOfData)), (1, 1));
}

#[tokio::test]
async fn refuses_at_every_stage() {
    for stage in
        [Stage::Greeting, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::InsideData, Stage::EndOfData]
    {
        let sink = SmtpSink::start().await.unwrap();
        sink.inject(Rule::at(stage, Fault::reply(421, "busy")));
        let error = send(&sink, "a@x.test").await.unwrap_err();
        assert!(error.is_transient(), "{stage:?}: {error:?}");
        assert_eq!(sink.count(), 0, "{stage:?}");
    }
}

#[tokio::test]
async fn cuts_at_every_stage_without_keeping_anything() {
    for stage in
        [Stage::Greeting, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::InsideData, Stage::EndOfData]
    {
        let sink = SmtpSink::start().await.unwrap();
        sink.inject(Rule::at(stage, Fault::Cut).nth(1));
        let error = send(&sink, "a@x.test").await.unwrap_err();
        assert!(!error.is_permanent(), "{stage:?}: {error:?}");
        assert_eq!(sink.count(), 0, "{stage:?}");
    }
}

#[tokio::test]
async fn a_lost_reply_leads_to_a_duplicate() {
    let sink = SmtpSink::start().await.unwrap();
    sink.inject(Rule::at(Stage::EndOfData, Fault::LoseReply).times(1));
    send(&sink, "a@x.test").await.unwrap_err();
    assert_eq!((sink.count(), sink.duplicates().len()), (1, 0));
    send(&sink, "a@x.test").await.unwrap();
    let duplicate = Duplicate { recipient: "a@x.test".to_owned(), count: 2, same_message_id: true };
    assert_eq!(sink.duplicates(), [duplicate]);
    transport(&sink, Tls::None).send(mail("a@x.test", "<2@sender.test>")).await.unwrap();
    assert!(!sink.duplicates()[0].same_message_id);
}

#[tokio::test]
async fn a_hang_lasts_until_the_faults_are_cleared() {
    let sink = Arc::new(SmtpSink::start().await.unwrap());
    sink.inject(Rule::at(Stage::EndOfData, Fault::Hang).times(1));
    let sending = tokio::spawn({
        let sink = Arc::clone(&sink);
        async move { send(&sink, "a@x.test").await }
    });
    crate::eventually::eventually(SECOND, "the hang", async || (sink.injected(Stage::EndOfData) == 1).then_some(()))
        .await;
    assert_eq!(sink.count(), 0);
    sink.clear_faults();
    sending.await.unwrap().unwrap();
    assert_eq!(sink.count(), 1);
}

#[tokio::test]
async fn replies_come_late_when_told() {
    let sink = SmtpSink::start().await.unwrap();
    sink.set_reply_delay(Duration::from_millis(20));
    let start = Instant::now();
    send(&sink, "a@x.test").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(100));
    sink.set_reply_delay(Duration::ZERO);
    sink.inject(Rule::at(Stage::Mail, Fault::Delay(60 * SECOND)));
    // lettre's own time-out covers only connecting, so the caller has to bound the rest.
    tokio::time::timeout(SECOND / 5, send(&sink, "a@x.test")).await.unwrap_err();
}

#[tokio::test]
async fn tls_is_checked_and_can_be_stripped() {
    let tls = TestTls::generate().unwrap();
    let sink = SmtpSink::start_with(SinkOptions { tls: Some(tls.clone()), ..SinkOptions::default() }).await.unwrap();
    let root = Certificate::from_pem(tls.authority_pem().as_bytes()).unwrap();
    let trusting = TlsParameters::builder("localhost".to_owned()).add_root_certificate(root).build().unwrap();
    let strict = TlsParameters::new("localhost".to_owned()).unwrap();
    let letter = || mail("a@x.test", "<1@sender.test>");

    transport(&sink, Tls::Required(trusting.clone())).send(letter()).await.unwrap();
    assert!(sink.messages()[0].tls);
    transport(&sink, Tls::Required(strict)).send(letter()).await.unwrap_err();
    sink.strip_starttls(true);
    transport(&sink, Tls::Required(trusting)).send(letter()).await.unwrap_err();
    assert_eq!(sink.count(), 1);
}

#[tokio::test]
async fn the_journal_has_a_line_per_recipient_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    for to in ["a@x.test", "b@x.test"] {
        let options = SinkOptions { journal: Some(journal.clone()), ..SinkOptions::default() };
        send(&SmtpSink::start_with(options).await.unwrap(), to).await.unwrap();
    }
    let text = std::fs::read_to_string(journal).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["to"], &lines[1]["to"]), (&"a@x.test".into(), &"b@x.test".into()));
    assert_eq!(lines[0]["message_id"], "<1@sender.test>");
    assert!(lines[0]["at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn accepts_no_faster_than_told() {
    let options = SinkOptions { accept_per_second: Some(50), ..SinkOptions::default() };
    let sink = SmtpSink::start_with(options).await.unwrap();
    let start = Instant::now();
    raw(&sink, &dialogue(0..11)).await;
    assert_eq!(sink.count(), 11);
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
#[should_panic(expected = "0 of 1 messages")]
async fn waiting_in_vain_says_how_many_came() {
    SmtpSink::start().await.unwrap().wait_for(1, Duration::from_millis(10)).await;
}

/// 10,000 mails of 2 KB over four connections take 3 s of processor time for both ends together.
/// The bound is much lower because the machine may be busy with other tests; a Nagle stall of 40 ms
/// per mail would still fail it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_up_with_ten_thousand_mails() {
    let sink = Arc::new(SmtpSink::start().await.unwrap());
    let start = Instant::now();
    let clients = (0..4).map(|client| {
        let sink = Arc::clone(&sink);
        tokio::spawn(async move { polite(&sink, client * 2_500..(client + 1) * 2_500).await })
    });
    futures::future::try_join_all(clients).await.unwrap();
    sink.wait_for(10_000, 20 * SECOND).await;
    let rate = 10_000.0 / start.elapsed().as_secs_f64();
    assert!(rate > 200.0, "only {rate:.0} messages a second");
    assert_eq!(sink.recipients().len(), 10_000);
    assert!(sink.duplicates().is_empty());
}

fn dialogue(numbers: std::ops::Range<u32>) -> String {
    let mut text = "EHLO me\r\n".to_owned();
    for number in numbers {
        write!(text, "MAIL FROM:<a@b>\r\nRCPT TO:<{number}@x>\r\nDATA\r\nMessage-ID: <{number}@b>\r\n\r\n").unwrap();
        text.push_str(&"A line of fifty bytes, as mails are used to having\r\n".repeat(40));
        text.push_str(".\r\n");
    }
    text + "QUIT\r\n"
}

/// Waits for each reply, like a client without pipelining.
async fn polite(sink: &SmtpSink, numbers: std::ops::Range<u32>) {
    let mut stream = TcpStream::connect(sink.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let text = dialogue(numbers);
    let mut buffer = [0; 512];
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = if rest.starts_with("Message-ID") {
            rest.find("\r\n.\r\n").unwrap() + 5
        } else {
            rest.find('\n').unwrap() + 1
        };
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        stream.write_all(&rest.as_bytes()[..end]).await.unwrap();
        rest = &rest[end..];
    }
}
