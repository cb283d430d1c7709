//! The pool of open connections to one relay.
//!
//! Invariant: a connection returns to the pool only between two mails. A lease that is dropped in
//! the middle of a dialogue, after an error, at the deadline or because the job was cancelled,
//! closes its connection: otherwise the next mail would read the replies to this one.

use std::{sync::Arc, time::Duration};

use deadpool::managed::{self, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use lettre::transport::smtp::extension::ClientId;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::{
    error::{MailConfigError, MailError},
    session::Session,
    stage::MailStage,
    stream::TlsDoor,
    target::{Encryption, Relay},
};

/// A connection that was idle for longer is checked before a mail is sent over it.
const PROBE_AFTER_IDLE: Duration = Duration::from_secs(3);
/// A check that is not answered within this time means that the connection is dead.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// One SMTP connection and its state.
pub(super) struct Connection {
    pub session: Session,
    pub standing: Standing,
    /// Whether a mail was sent over it before; the relay may have closed it since.
    pub reused: bool,
    idle_since: Instant,
}

/// State of a connection within the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Between two mails.
    Ready,
    /// A command was refused; RSET makes the connection ready again.
    NeedsReset,
    /// In the middle of a mail, or broken; not reusable.
    Occupied,
}

/// Opens connections to one relay.
pub(super) struct Connector {
    relay: Relay,
    door: Option<TlsDoor>,
    hello: ClientId,
}

impl Connector {
    pub fn new(relay: Relay, hello: ClientId) -> Result<Self, MailConfigError> {
        let door = match relay.encryption {
            Encryption::None => None,
            Encryption::StartTls | Encryption::Implicit => Some(tls_door(&relay)?),
        };
        Ok(Self { relay, door, hello })
    }
}

impl managed::Manager for Connector {
    type Type = Connection;
    type Error = MailError;

    async fn create(&self) -> Result<Connection, MailError> {
        let address = (self.relay.host.as_str(), self.relay.port);
        let tls = self.door.as_ref().map(|door| (door, self.relay.encryption));
        let mut session = Session::open(address, tls, &self.hello).await?;
        if let Some(credentials) = &self.relay.credentials {
            session.authenticate(credentials).await?;
        }
        Ok(Connection { session, standing: Standing::Ready, reused: false, idle_since: Instant::now() })
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<MailError> {
        connection.reused = true;
        if connection.standing == Standing::Ready && connection.idle_since.elapsed() < PROBE_AFTER_IDLE {
            return Ok(());
        }
        match timeout(PROBE_TIMEOUT, connection.session.command("RSET")).await {
            Ok(Ok(reply)) if reply.class() == 2 && connection.session.is_in_step() => {
                connection.standing = Standing::Ready;
                Ok(())
            }
            _ => Err(RecycleError::message("the relay closed the idle connection")),
        }
    }
}

/// A connection taken from the pool for one mail.
pub(super) struct Lease(Option<Object<Connector>>);

impl Lease {
    pub async fn take(pool: &Pool<Connector>) -> Result<Self, MailError> {
        match pool.get().await {
            Ok(object) => Ok(Self(Some(object))),
            Err(PoolError::Backend(error)) => Err(error),
            Err(other) => Err(MailError::transient(MailStage::Connect, other)),
        }
    }

    pub fn connection(&mut self) -> &mut Connection {
        self.0.as_mut().expect("a lease holds its connection until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut object) = self.0.take() else {
            return;
        };
        object.idle_since = Instant::now();
        if object.standing == Standing::Occupied {
            drop(Object::take(object));
        }
    }
}

fn tls_door(relay: &Relay) -> Result<TlsDoor, MailConfigError> {
    let name = ServerName::try_from(relay.host.clone())
        .map_err(|_| MailConfigError::Malformed("the host is not a name that a certificate can contain".to_owned()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots(relay)?)
        .with_no_client_auth();
    Ok(TlsDoor { connector: TlsConnector::from(Arc::new(config)), name })
}

fn roots(relay: &Relay) -> Result<RootCertStore, MailConfigError> {
    let Some(path) = &relay.ca else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let unusable = |reason: String| MailConfigError::CaFile { path: path.display().to_string(), reason };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        store.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if store.is_empty() { Err(unusable("it has no PEM certificate".to_owned())) } else { Ok(store) }
}
