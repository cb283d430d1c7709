//! An SMTP session: sends commands and reads replies, from the greeting to the authentication.
//!
//! Invariant: if TLS is required, only EHLO and STARTTLS are sent in clear, and nothing that
//! arrived in clear is read after the handshake: octets that a man in the middle appends to the
//! relay's `220` would otherwise pass for the relay's own. A session that is not
//! [`Session::is_in_step`] must not be used again. [`super::dialogue`] uses the session.

use std::{io, time::Duration};

use data_encoding::BASE64;
use lettre::transport::smtp::extension::ClientId;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    time::timeout,
};

use super::{
    error::MailError,
    reply::{NoReply, Reply, read_reply},
    stage::MailStage,
    stream::{Stream, TlsDoor},
    target::{Credentials, Encryption},
};

/// Wait for a reply that the relay may have sent just before it closed the connection.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A session with a relay.
pub(super) struct Session {
    io: BufReader<Stream>,
    offers: Offers,
    in_step: bool,
}

/// The extensions that the relay offers, as far as they are used here.
#[derive(Debug, Default)]
struct Offers {
    starttls: bool,
    utf8: bool,
    auth: Option<Mechanism>,
}

/// An authentication mechanism; the preferred one comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mechanism {
    Login,
    Plain,
}

impl Mechanism {
    fn named(name: &str) -> Option<Self> {
        match name {
            "PLAIN" => Some(Self::Plain),
            "LOGIN" => Some(Self::Login),
            _ => None,
        }
    }
}

impl Offers {
    /// Parses the lines of an EHLO reply; unknown extensions are ignored.
    fn of(lines: &[String]) -> Self {
        let mut offers = Self::default();
        let (mut smtputf8, mut eight_bit) = (false, false);
        for line in lines.iter().skip(1) {
            let upper = line.to_ascii_uppercase();
            let mut words = upper.split([' ', '\t', '=']).filter(|word| !word.is_empty());
            match words.next() {
                Some("STARTTLS") => offers.starttls = true,
                Some("SMTPUTF8") => smtputf8 = true,
                Some("8BITMIME") => eight_bit = true,
                Some("AUTH") => offers.auth = words.filter_map(Mechanism::named).max().max(offers.auth),
                _ => {}
            }
        }
        offers.utf8 = smtputf8 && eight_bit;
        offers
    }
}

impl Session {
    /// Connects, encrypts if required, and sends EHLO.
    pub async fn open(
        address: (&str, u16),
        tls: Option<(&TlsDoor, Encryption)>,
        hello: &ClientId,
    ) -> Result<Self, MailError> {
        let stream = Stream::connect(address).await?;
        match tls {
            None | Some((_, Encryption::None)) => Self::new(stream).greet(hello).await,
            Some((door, Encryption::Implicit)) => Self::new(stream.encrypt(door).await?).greet(hello).await,
            Some((door, Encryption::StartTls)) => {
                let plain = Self::new(stream).greet(hello).await?.start_tls().await?;
                Self::new(plain.encrypt(door).await?).hello(hello).await
            }
        }
    }

    fn new(stream: Stream) -> Self {
        Self { io: BufReader::new(stream), offers: Offers::default(), in_step: true }
    }

    /// Reads the greeting and sends EHLO.
    async fn greet(mut self, hello: &ClientId) -> Result<Self, MailError> {
        let greeting = self.read(&mut None).await.map_err(|why| MailError::unanswered(MailStage::Hello, &why))?;
        if greeting.class() != 2 {
            return Err(MailError::refused(MailStage::Hello, &greeting, None));
        }
        self.hello(hello).await
    }

    async fn hello(mut self, hello: &ClientId) -> Result<Self, MailError> {
        let mut reply = self.request(MailStage::Hello, &format!("EHLO {hello}")).await?;
        if matches!(reply.code, 500 | 501 | 502 | 504) {
            reply = self.request(MailStage::Hello, &format!("HELO {hello}")).await?;
            reply.lines.truncate(1);
        }
        if reply.class() != 2 {
            return Err(MailError::refused(MailStage::Hello, &reply, None));
        }
        self.offers = Offers::of(&reply.lines);
        Ok(self)
    }

    /// Returns the stream just before the TLS handshake.
    async fn start_tls(mut self) -> Result<Stream, MailError> {
        if !self.offers.starttls {
            let reason = "the relay does not offer STARTTLS and TLS is required, so no mail was sent to it";
            return Err(MailError::transient(MailStage::Tls, reason));
        }
        let reply = self.request(MailStage::Tls, "STARTTLS").await?;
        if reply.code != 220 {
            return Err(MailError::refused(MailStage::Tls, &reply, None));
        }
        if !self.io.buffer().is_empty() {
            return Err(MailError::transient(
                MailStage::Tls,
                "octets were injected between STARTTLS and the handshake",
            ));
        }
        Ok(self.io.into_inner())
    }

    /// Authenticates. The relay's text is not included in errors, because some relays repeat the
    /// credentials.
    pub async fn authenticate(&mut self, credentials: &Credentials) -> Result<(), MailError> {
        let (user, password) = (&credentials.user, &credentials.password);
        let (mut line, responses) = match self.offers.auth {
            Some(Mechanism::Plain) => {
                (format!("AUTH PLAIN {}", BASE64.encode(format!("\0{user}\0{password}").as_bytes())), Vec::new())
            }
            Some(Mechanism::Login) => ("AUTH LOGIN".to_owned(), vec![user, password]),
            None => {
                let why = "the relay offers no supported AUTH mechanism";
                return Err(MailError::transient(MailStage::Authenticate, why));
            }
        };
        let mut responses = responses.into_iter().map(|response| BASE64.encode(response.as_bytes()));
        loop {
            let reply = self.request(MailStage::Authenticate, &line).await?;
            match (reply.class(), responses.next()) {
                (2, _) => return Ok(()),
                (3, Some(response)) => line = response,
                _ => {
                    let silent = Reply { lines: vec!["credentials refused".to_owned()], ..reply };
                    return Err(MailError::refused(MailStage::Authenticate, &silent, None));
                }
            }
        }
    }

    /// Whether non-ASCII addresses can be used (RFC 6531).
    pub fn takes_utf8(&self) -> bool {
        self.offers.utf8
    }

    /// Whether the next reply will belong to the next command.
    pub fn is_in_step(&self) -> bool {
        self.in_step && self.io.buffer().trim_ascii().is_empty()
    }

    pub fn lose_step(&mut self) {
        self.in_step = false;
    }

    /// Sends a command and reads its reply. A relay that closes the connection may have sent the
    /// reason just before.
    pub async fn command(&mut self, line: &str) -> Result<Reply, NoReply> {
        match self.write(format!("{line}\r\n").as_bytes()).await {
            Ok(()) => self.read(&mut None).await,
            Err(error) => self.last_words().await.ok_or(NoReply::Io(error)),
        }
    }

    async fn request(&mut self, stage: MailStage, line: &str) -> Result<Reply, MailError> {
        self.command(line).await.map_err(|why| MailError::unanswered(stage, &why))
    }

    pub async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        let written = async {
            self.io.write_all(octets).await?;
            self.io.flush().await
        };
        let written = written.await;
        self.in_step &= written.is_ok();
        written
    }

    /// Reads the next reply and records whether further replies can be interpreted.
    pub async fn read(&mut self, received_code: &mut Option<u16>) -> Result<Reply, NoReply> {
        let reply = read_reply(&mut self.io, received_code).await;
        self.in_step &= reply.as_ref().is_ok_and(|reply| reply.is_whole && reply.is_consistent && reply.code != 421);
        reply
    }

    /// Whether the relay has sent an unsolicited reply or closed the connection.
    pub async fn has_unsolicited_input(&mut self) -> bool {
        // Lets the runtime process input that has arrived.
        tokio::task::yield_now().await;
        loop {
            let blank = match timeout(Duration::ZERO, self.io.fill_buf()).await {
                Err(_) => return false,
                Ok(Ok(octets)) if !octets.is_empty() && octets.trim_ascii().is_empty() => octets.len(),
                Ok(_) => return true,
            };
            self.io.consume(blank);
        }
    }

    /// The reply that the relay sent before it closed the connection, if any.
    pub async fn last_words(&mut self) -> Option<Reply> {
        self.in_step = false;
        timeout(LAST_WORDS, self.read(&mut None)).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_parsed_and_garbage_is_ignored() {
        let lines =
            ["host STARTTLS", "starttls", "AUTH=PLAIN", "auth  LOGIN XOAUTH2", "", "\u{fffd}\u{fffd}", "SMTPUTF8"];
        let offers = Offers::of(&lines.map(str::to_owned));
        assert!(offers.starttls && offers.auth == Some(Mechanism::Plain) && !offers.utf8, "{offers:?}");
        assert!(!Offers::of(&["STARTTLS".to_owned()]).starttls, "the first line is the relay's name");
    }
}
