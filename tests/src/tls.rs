//! Certificates for the fakes: a throw-away authority and a server certificate for loopback,
//! generated at run time.
//!
//! Invariant: nothing is trusted by default; a client accepts these servers only if configured with
//! `authority_pem`. This makes "TLS is never downgraded and never unchecked" testable in both
//! directions.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;

/// A server's TLS side and the root that its clients must trust.
#[derive(Clone, Debug)]
pub struct TestTls {
    server: Arc<ServerConfig>,
    authority_pem: String,
}

impl TestTls {
    /// Generates an authority and a certificate for `localhost` and `127.0.0.1`.
    pub fn generate() -> Result<Self> {
        let authority = CertifiedIssuer::self_signed(authority_params(), KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
            )?;
        Ok(Self { server: Arc::new(server), authority_pem: authority.pem() })
    }

    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// For processes that read their trusted root from a file.
    pub fn write_authority(&self, path: &Path) -> Result<()> {
        std::fs::write(path, &self.authority_pem).with_context(|| format!("write {}", path.display()))
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Rota test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// `reqwest` and `rustls` are built without a default provider; the first caller installs ring.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already.
    let _ = ring::default_provider().install_default();
}
