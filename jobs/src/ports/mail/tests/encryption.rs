//! TLS to the relay is never downgraded: without it no mail is sent.

use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A certificate for 127.0.0.1, and the file with the authority that signed it.
fn private_authority() -> (TlsAcceptor, PathBuf) {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .and_then(|parameters| parameters.signed_by(&key, &issuer))
        .expect("a certificate");
    let path = std::env::temp_dir().join(format!("rota-ca-{}.pem", uuid::Uuid::new_v4()));
    std::fs::write(&path, issuer.pem()).expect("writable");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)
        .expect("a certificate");
    (TlsAcceptor::from(Arc::new(config)), path)
}

#[tokio::test]
async fn starttls_and_implicit_tls_reach_a_relay_with_a_private_authority() {
    let (acceptor, ca) = private_authority();
    for (scheme, implicit_tls) in [("smtp", false), ("smtps", true)] {
        let script = Script { tls: Some(acceptor.clone()), implicit_tls, ..Script::default() };
        let relay = ScriptedRelay::start(script.offering("STARTTLS").offering("AUTH PLAIN LOGIN"));
        let url = format!("{scheme}://me:hunter2@{}?tls=required&ca={}", relay.address, ca.display());
        let mailer = mailer(&url);
        for _ in 0..3 {
            mailer.send(tenant(), &mail_to("anna@example.org")).await.expect("taken");
        }
        assert_eq!((relay.connections(), relay.seen.messages().len()), (1, 3));
        let expected: &[&str] = if implicit_tls { &[] } else { &["EHLO rota.test", "STARTTLS"] };
        assert_eq!(*relay.seen.clear_lines(), expected, "nothing else went out in clear");
    }
    std::fs::remove_file(ca).expect("there");
}

#[tokio::test]
async fn tls_is_never_downgraded() {
    let (acceptor, ca) = private_authority();
    let with_tls = |script: Script| Script { tls: Some(acceptor.clone()), ..script };
    let trusting = format!("&ca={}", ca.display());
    for (what, script, trust) in [
        ("STARTTLS stripped", Script::default().offering("AUTH PLAIN"), trusting.as_str()),
        ("STARTTLS refused", with_tls(Script::default().offering("STARTTLS").on("STARTTLS", Say("454 no"))), &trusting),
        (
            "words injected",
            with_tls(Script::default().offering("STARTTLS").on("STARTTLS", Say("220 go\r\n250 ok"))),
            &trusting,
        ),
        ("STARTTLS unanswered", Script::default().offering("STARTTLS").on("STARTTLS", Hang), &trusting),
        ("not SMTP", Script::default().on("CONNECT", Say("hello")), &trusting),
        ("unknown authority", with_tls(Script::default().offering("STARTTLS")), ""),
    ] {
        let relay = ScriptedRelay::start(script);
        let url = format!("smtp://me:hunter2@{}?tls=required{trust}", relay.address);
        let error = Mailer::from_url(&url, impatient())
            .expect("a mailer")
            .send(tenant(), &mail_to("anna@example.org"))
            .await
            .expect_err(what);
        assert!(matches!(error, MailError::Transient { after_data: false, .. }), "{what}: {error:?}");
        assert!(relay.seen.messages().is_empty(), "{what}");
        let lines = relay.seen.clear_lines().join("\n");
        assert!(!lines.contains("MAIL") && !lines.contains("AUTH"), "{what}: {lines}");
    }
    std::fs::remove_file(ca).expect("there");
}
