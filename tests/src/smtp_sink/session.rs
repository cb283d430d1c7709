//! One client's SMTP dialogue (RFC 5321), which consults the script at every stage.
//!
//! Invariant: faults apply before the sink acts, so a refused or cut message is never stored; the
//! exceptions, `LoseReply` and `KeepAndSay`, store it on purpose. `wire` moves the bytes, `script`
//! decides, `mailbox` keeps.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Shared;
use super::command::{declared_size, path};
use super::message::{ReceivedMessage, header};
use super::script::{Fault, Stage};
use super::wire::{Socket, Wire};

const MAX_MESSAGE_BYTES: usize = 25 * 1024 * 1024;

/// What happens to the connection after a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Continue,
    Close,
    Reset,
    StartTls,
}

/// What is left of the usual reply after the script was consulted.
enum Verdict {
    Proceed,
    LoseReply,
    Say(&'static [u8]),
    Answered(Step),
}

struct Transaction {
    from: String,
    to: Vec<String>,
    nth: u64,
}

struct Session<'a, S> {
    wire: Wire<S>,
    sink: &'a Shared,
    connection: u64,
    tls: bool,
    greeted: bool,
    transaction: Option<Transaction>,
}

/// Runs the dialogue until the client disconnects or a fault ends it.
pub(super) async fn serve(stream: TcpStream, sink: Arc<Shared>, connection: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut plain = Session::new(Wire::new(stream), &sink, connection, false);
    let greeted = plain.greet().await?;
    match plain.run(greeted).await? {
        (Step::StartTls, wire) => {
            let Some(tls) = &sink.tls else { return Ok(()) };
            let wire = wire.upgrade(tls.server()).await?;
            let (step, wire) = Session::new(wire, &sink, connection, true).run(Step::Continue).await?;
            end(step, wire).await
        }
        (step, wire) => end(step, wire).await,
    }
}

async fn end<S: Socket>(step: Step, wire: Wire<S>) -> io::Result<()> {
    if step == Step::Reset {
        wire.reset();
        return Ok(());
    }
    wire.close().await
}

impl<'a, S: Socket> Session<'a, S> {
    fn new(wire: Wire<S>, sink: &'a Shared, connection: u64, tls: bool) -> Self {
        Self { wire, sink, connection, tls, greeted: false, transaction: None }
    }

    async fn greet(&mut self) -> io::Result<Step> {
        match self.consult(Stage::Greeting, &[]).await? {
            Verdict::Answered(Step::Reset) => Ok(Step::Reset),
            Verdict::Answered(_) => Ok(Step::Close),
            _ => Ok(self.reply(220, "rota.test ESMTP sink").await),
        }
    }

    async fn run(mut self, first: Step) -> io::Result<(Step, Wire<S>)> {
        let mut step = first;
        while step == Step::Continue {
            step = match self.wire.read_line().await? {
                Some(line) => self.command(&line).await?,
                None => Step::Close,
            };
        }
        if step == Step::StartTls {
            self.wire.flush().await?;
        }
        Ok((step, self.wire))
    }

    async fn command(&mut self, line: &str) -> io::Result<Step> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "HELO" => self.ehlo(verb).await,
            "STARTTLS" => self.start_tls().await,
            "MAIL" => self.mail(rest).await,
            "RCPT" => self.rcpt(rest).await,
            "DATA" => self.data().await,
            "RSET" => {
                self.transaction = None;
                Ok(self.reply(250, "Forgotten").await)
            }
            "NOOP" => Ok(self.reply(250, "Still here").await),
            "VRFY" => Ok(self.reply(252, "Send it and see").await),
            "QUIT" => {
                self.reply(221, "Bye").await;
                Ok(Step::Close)
            }
            _ => Ok(self.reply(500, "Unknown command").await),
        }
    }

    async fn ehlo(&mut self, verb: &str) -> io::Result<Step> {
        if let Verdict::Answered(step) = self.consult(Stage::Ehlo, &[]).await? {
            return Ok(step);
        }
        self.greeted = true;
        self.transaction = None;
        let size = format!("SIZE {MAX_MESSAGE_BYTES}");
        let mut lines = vec!["rota.test"];
        if verb.eq_ignore_ascii_case("EHLO") {
            lines.extend(["PIPELINING", "8BITMIME", &size]);
            if self.offers_tls() {
                lines.push("STARTTLS");
            }
        }
        self.linger().await?;
        self.wire.reply_lines(250, &lines);
        Ok(Step::Continue)
    }

    fn offers_tls(&self) -> bool {
        !self.tls && self.sink.tls.is_some() && !self.sink.starttls_stripped()
    }

    async fn start_tls(&mut self) -> io::Result<Step> {
        if !self.offers_tls() {
            return Ok(self.reply(502, "No TLS here").await);
        }
        if let Verdict::Answered(step) = self.consult(Stage::StartTls, &[]).await? {
            return Ok(step);
        }
        self.reply(220, "Go ahead").await;
        Ok(Step::StartTls)
    }

    async fn mail(&mut self, rest: &str) -> io::Result<Step> {
        if !self.greeted || self.transaction.is_some() {
            return Ok(self.reply(503, "Bad sequence of commands").await);
        }
        let Some((from, parameters)) = path(rest, "FROM:") else {
            return Ok(self.reply(501, "MAIL FROM:<address> please").await);
        };
        if declared_size(parameters) > MAX_MESSAGE_BYTES {
            return Ok(self.reply(552, "Too large").await);
        }
        let transaction = Transaction { from: from.to_owned(), to: Vec::new(), nth: self.sink.next_transaction() };
        self.transaction = Some(transaction);
        match self.consult(Stage::Mail, &[]).await? {
            Verdict::Answered(step) => {
                self.transaction = None;
                Ok(step)
            }
            _ => Ok(self.reply(250, "Sender fine").await),
        }
    }

    async fn rcpt(&mut self, rest: &str) -> io::Result<Step> {
        if self.transaction.is_none() {
            return Ok(self.reply(503, "MAIL first").await);
        }
        let Some((to, _)) = path(rest, "TO:").filter(|(to, _)| !to.is_empty()) else {
            return Ok(self.reply(501, "RCPT TO:<address> please").await);
        };
        let to = to.to_owned();
        if let Verdict::Answered(step) = self.consult(Stage::Rcpt, std::slice::from_ref(&to)).await? {
            return Ok(step);
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.to.push(to);
        }
        Ok(self.reply(250, "Recipient fine").await)
    }

    async fn data(&mut self) -> io::Result<Step> {
        let Some(to) = self.transaction.as_ref().map(|it| it.to.clone()).filter(|to| !to.is_empty()) else {
            return Ok(self.reply(503, "RCPT first").await);
        };
        if let Verdict::Answered(step) = self.consult(Stage::Data, &to).await? {
            return Ok(step);
        }
        // Paced before the body, not after it: a complete message must be kept even if its client
        // is killed meanwhile.
        self.sink.pace.wait().await;
        self.reply(354, "End with a dot on a line").await;
        self.wire.wait_for_input().await?;
        // A refusal in the middle of the body can only be sent after the body.
        let inside = self.sink.script.next(Stage::InsideData, self.nth(), &to);
        if let Some((Fault::Cut, _)) = inside {
            return Ok(Step::Reset);
        }
        let body = self.wire.read_body(MAX_MESSAGE_BYTES).await?;
        if let Some(inside) = inside
            && let Verdict::Answered(step) = self.act(inside).await?
        {
            self.transaction = None;
            return Ok(step);
        }
        self.end_of_data(&to, body).await
    }

    async fn end_of_data(&mut self, to: &[String], body: Option<Vec<u8>>) -> io::Result<Step> {
        let verdict = self.consult(Stage::EndOfData, to).await?;
        let transaction = self.transaction.take();
        match (verdict, transaction, body) {
            (Verdict::Answered(step), _, _) => Ok(step),
            (_, _, None) => Ok(self.reply(552, "Too large").await),
            (verdict, Some(transaction), Some(raw)) => self.accept(transaction, raw, &verdict).await,
            (_, None, Some(_)) => Ok(self.reply(503, "MAIL first").await),
        }
    }

    async fn accept(&mut self, transaction: Transaction, raw: Vec<u8>, verdict: &Verdict) -> io::Result<Step> {
        let message = ReceivedMessage {
            from: transaction.from,
            to: transaction.to,
            message_id: header(&raw, "Message-ID"),
            raw,
            received_at: SystemTime::now(),
            tls: self.tls,
        };
        if self.sink.mailbox.store(message).is_err() {
            return Ok(self.reply(451, "Cannot write the journal").await);
        }
        match verdict {
            Verdict::LoseReply => Ok(Step::Reset),
            Verdict::Say(octets) => {
                self.wire.raw(octets);
                Ok(Step::Continue)
            }
            _ => Ok(self.reply(250, "PinnedConnections").await),
        }
    }

    async fn consult(&mut self, stage: Stage, recipients: &[String]) -> io::Result<Verdict> {
        match self.sink.script.next(stage, self.nth(), recipients) {
            Some(fault) => self.act(fault).await,
            None => Ok(Verdict::Proceed),
        }
    }

    async fn act(&mut self, (fault, mut cleared): (Fault, watch::Receiver<()>)) -> io::Result<Verdict> {
        self.wire.flush().await?;
        match fault {
            Fault::Delay(delay) => sleep(delay).await,
            // An error means that the sink is being dropped, and this task with it.
            Fault::Hang => drop(cleared.changed().await),
            Fault::LoseReply => return Ok(Verdict::LoseReply),
            Fault::KeepAndSay(octets) => return Ok(Verdict::Say(octets)),
            Fault::Cut => return Ok(Verdict::Answered(Step::Reset)),
            Fault::Reply { code, text } => {
                self.reply(code, &text).await;
                let step = if code == 421 { Step::Close } else { Step::Continue };
                return Ok(Verdict::Answered(step));
            }
        }
        Ok(Verdict::Proceed)
    }

    fn nth(&self) -> u64 {
        self.transaction.as_ref().map_or(self.connection, |transaction| transaction.nth)
    }

    async fn reply(&mut self, code: u16, text: &str) -> Step {
        // A disconnected client is noticed at the next read.
        let _ = self.linger().await;
        self.wire.reply(code, text);
        Step::Continue
    }

    async fn linger(&mut self) -> io::Result<()> {
        let delay_ms = self.sink.reply_delay_ms();
        if delay_ms > 0 {
            self.wire.flush().await?;
            sleep(Duration::from_millis(delay_ms)).await;
        }
        Ok(())
    }
}
