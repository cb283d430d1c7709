//! A relay for tests that replies at each step according to its script, and records what it
//! receives.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// The relay's action at a step.
#[derive(Clone, Copy)]
pub(super) enum Act {
    Say(&'static str),
    /// These octets, without an added line end.
    Raw(&'static [u8]),
    Hang,
    Close,
}

/// Steps are named after the client's verb; `CONNECT` is the greeting and `.` the reply to the
/// message.
#[derive(Clone, Default)]
pub(super) struct Script {
    pub acts: HashMap<&'static str, Act>,
    /// Lines of the EHLO reply after the first.
    pub offers: Vec<&'static str>,
    /// Closes the connection after this many octets of a message.
    pub cut_message_at: Option<usize>,
    /// Closes a connection without a reply once it has accepted this many mails.
    pub mails_per_connection: Option<usize>,
    pub tls: Option<TlsAcceptor>,
    pub implicit_tls: bool,
}

impl Script {
    pub fn on(mut self, step: &'static str, act: Act) -> Self {
        self.acts.insert(step, act);
        self
    }

    pub fn offering(mut self, offer: &'static str) -> Self {
        self.offers.push(offer);
        self
    }
}

/// Records what the relay received.
#[derive(Default)]
pub(super) struct Seen {
    pub connections: AtomicUsize,
    messages: Mutex<Vec<String>>,
    /// Every line received in clear, including commands.
    clear_lines: Mutex<Vec<String>>,
}

impl Seen {
    pub fn messages(&self) -> MutexGuard<'_, Vec<String>> {
        self.messages.lock().expect("no test panics while it holds this")
    }

    pub fn clear_lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.clear_lines.lock().expect("no test panics while it holds this")
    }
}

/// A running relay.
pub(super) struct ScriptedRelay {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
}

impl ScriptedRelay {
    pub fn start(script: Script) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), script)
    }

    pub fn start_at(address: SocketAddr, script: Script) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Small, so that a relay that stops reading stops a large mail half-way.
        socket.set_recv_buffer_size(8_192).expect("settable");
        socket.set_reuseaddr(true).expect("settable");
        socket.bind(address).expect("a free port");
        let listener = socket.listen(64).expect("bound");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Seen::default());
        let for_sessions = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                for_sessions.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(tcp, script.clone(), Arc::clone(&for_sessions)));
            }
        });
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

struct Session {
    io: BufReader<Box<dyn Duplex>>,
    script: Script,
    seen: Arc<Seen>,
    encrypted: bool,
}

/// `None` ends a session.
async fn serve(tcp: TcpStream, script: Script, seen: Arc<Seen>) -> Option<()> {
    tcp.set_nodelay(true).ok()?;
    let encrypted = script.implicit_tls;
    let io: Box<dyn Duplex> = match script.tls.clone().filter(|_| encrypted) {
        Some(acceptor) => Box::new(acceptor.accept(tcp).await.ok()?),
        None => Box::new(tcp),
    };
    let mut session = Session { io: BufReader::new(io), script, seen, encrypted };
    session.act("CONNECT", "220 scripted").await?;
    let mut mails = 0;
    loop {
        let line = session.line().await?;
        let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => session.hello().await?,
            "HELO" => session.act("HELO", "250 scripted").await?,
            "STARTTLS" => session = session.start_tls().await?,
            "AUTH" => session.act("AUTH", "235 welcome").await?,
            "MAIL" => session.act("MAIL", "250 sender ok").await?,
            "RCPT" if line.contains("@hang.test") => session.act("RCPT hang.test", "250 recipient ok").await?,
            "RCPT" => session.act("RCPT", "250 recipient ok").await?,
            "DATA" => {
                session.act("DATA", "354 go on").await?;
                if session.accepts_data() {
                    session.message().await?;
                    mails += 1;
                }
            }
            "RSET" => session.act("RSET", "250 reset").await?,
            _ => session.act("OTHER", "502 what").await?,
        }
        if session.script.mails_per_connection == Some(mails) {
            return None;
        }
    }
}

impl Session {
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        if self.io.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if !self.encrypted {
            self.seen.clear_lines().push(line.trim_end().to_owned());
        }
        Some(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    async fn act(&mut self, step: &'static str, usual: &'static str) -> Option<()> {
        match self.script.acts.get(step).copied().unwrap_or(Act::Say(usual)) {
            Act::Say(text) => self.say(text).await,
            Act::Raw(octets) => self.raw(octets).await,
            Act::Hang => std::future::pending().await,
            Act::Close => None,
        }
    }

    async fn say(&mut self, text: &str) -> Option<()> {
        self.io.write_all(format!("{text}\r\n").as_bytes()).await.ok()?;
        self.io.flush().await.ok()
    }

    /// One octet at a time, so that nothing depends on packet boundaries.
    async fn raw(&mut self, octets: &[u8]) -> Option<()> {
        for octet in octets {
            self.io.write_all(&[*octet]).await.ok()?;
            self.io.flush().await.ok()?;
        }
        Some(())
    }

    async fn hello(&mut self) -> Option<()> {
        let mut lines = vec!["scripted"];
        lines.extend(self.script.offers.iter().filter(|offer| !(self.encrypted && **offer == "STARTTLS")));
        let last = lines.len() - 1;
        let reply: Vec<_> = lines
            .iter()
            .enumerate()
            .map(|(index, line)| format!("250{}{line}", if index == last { ' ' } else { '-' }))
            .collect();
        match self.script.acts.get("EHLO") {
            Some(_) => self.act("EHLO", "").await,
            None => self.say(&reply.join("\r\n")).await,
        }
    }

    async fn start_tls(mut self) -> Option<Self> {
        self.act("STARTTLS", "220 go").await?;
        let acceptor = self.script.tls.clone()?;
        let tls = acceptor.accept(self.io.into_inner()).await.ok()?;
        Some(Self { io: BufReader::new(Box::new(tls)), encrypted: true, ..self })
    }

    fn accepts_data(&self) -> bool {
        match self.script.acts.get("DATA") {
            Some(Act::Say(text)) => text.starts_with("354"),
            Some(Act::Raw(octets)) => octets.windows(3).any(|code| code == b"354"),
            _ => true,
        }
    }

    async fn message(&mut self) -> Option<()> {
        let mut text = String::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                break;
            }
            text.push_str(line.strip_prefix('.').unwrap_or(&line));
            text.push_str("\r\n");
            if self.script.cut_message_at.is_some_and(|limit| text.len() > limit) {
                return None;
            }
        }
        self.seen.messages().push(text);
        self.act(".", "250 2.0.0 queued as 42").await
    }
}
