//! Host certificates and user certificates, and the identification lines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::SystemTime;

use common::{certificate, connect, key, server_config, soon};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PrivateKey, PublicKey, PublicKeyOrCertificate};
use russh::server::Auth;
use russh::{Error, client, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const RSA: Algorithm = Algorithm::Rsa { hash: None };
const P256: Algorithm = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };

fn signed_by(certificate: &Certificate, ca: &PublicKey, kind: CertType) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    certificate.cert_type() == kind && certificate.validate_at(now, [&ca.fingerprint(HashAlg::Sha256)]).is_ok()
}

struct Near {
    host_ca: PublicKey,
}

struct Far {
    user_ca: PublicKey,
}

impl client::Handler for Near {
    type Error = Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(key.certificate().is_some_and(|c| signed_by(c, &self.host_ca, CertType::Host)))
    }
}

impl server::Handler for Far {
    type Error = Error;

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Error> {
        let accepted = signed_by(certificate, &self.user_ca, CertType::User)
            && certificate.valid_principals().iter().any(|p| p == user);
        Ok(if accepted { Auth::Accept } else { Auth::reject() })
    }
}

fn certificate_preferences() -> client::Config {
    let mut config = client::Config::default();
    config.preferred.host_key_certificates = vec![
        Algorithm::Ed25519,
        P256,
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ]
    .into();
    config
}

/// Logs in with a certificate over `user_key` at a server with a certificate over `host_key`.
async fn log_in(host_key: PrivateKey, user_key: PrivateKey) {
    let host_ca = key(RSA);
    let user_ca = host_ca.clone();
    let mut config = server_config(host_key);
    config.certificates = vec![certificate(CertType::Host, config.keys[0].public_key(), &host_ca, "node")];
    let (mut near, _far) = soon(connect(
        certificate_preferences(),
        Near { host_ca: host_ca.public_key().clone() },
        config,
        Far { user_ca: user_ca.public_key().clone() },
    ))
    .await
    .unwrap();
    let login = certificate(CertType::User, user_key.public_key(), &user_ca, "alice");
    let user_key = Arc::new(user_key);
    let wrong = near.authenticate_openssh_cert("alice", Arc::new(user_ca), login.clone());
    assert!(!soon(wrong).await.unwrap().success(), "the signature of another key logged alice in");
    let mut changed = login.to_bytes().unwrap();
    *changed.last_mut().unwrap() ^= 1; // the authority's signature comes last
    let changed = Certificate::from_bytes(&changed).unwrap();
    let wrong = near.authenticate_openssh_cert("alice", user_key.clone(), changed);
    assert!(!soon(wrong).await.unwrap().success(), "a certificate that nobody signed logged alice in");
    let wrong = near.authenticate_openssh_cert("bob", user_key.clone(), login.clone());
    assert!(!soon(wrong).await.unwrap().success(), "a certificate for alice logged bob in");
    let right = near.authenticate_openssh_cert("alice", user_key, login);
    assert!(soon(right).await.unwrap().success());
}

#[tokio::test]
async fn rsa_certificates_work_on_both_sides() {
    log_in(key(RSA), key(RSA)).await;
}

#[tokio::test]
async fn ed25519_certificates_work_on_both_sides() {
    log_in(key(Algorithm::Ed25519), key(Algorithm::Ed25519)).await;
}

#[tokio::test]
async fn p256_certificates_work_on_both_sides() {
    log_in(key(P256), key(P256)).await;
}

#[tokio::test]
async fn a_host_certificate_of_another_authority_is_refused() {
    let mut config = server_config(key(Algorithm::Ed25519));
    let stranger = key(Algorithm::Ed25519);
    config.certificates = vec![certificate(CertType::Host, config.keys[0].public_key(), &stranger, "node")];
    let ca = key(Algorithm::Ed25519).public_key().clone();
    let outcome =
        soon(connect(certificate_preferences(), Near { host_ca: ca.clone() }, config, Far { user_ca: ca })).await;
    assert!(matches!(outcome, Err(Error::UnknownKey)));
}

#[tokio::test]
async fn a_plain_host_key_is_offered_to_the_check_as_such() {
    let ca = key(Algorithm::Ed25519).public_key().clone();
    let config = server_config(key(Algorithm::Ed25519));
    let outcome =
        soon(connect(certificate_preferences(), Near { host_ca: ca.clone() }, config, Far { user_ca: ca })).await;
    assert!(matches!(outcome, Err(Error::UnknownKey)));
}

#[tokio::test]
async fn the_server_speaks_first_and_names_itself_as_configured() {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let ca = key(Algorithm::Ed25519).public_key().clone();
    let config = Arc::new(server_config(key(Algorithm::Ed25519)));
    let serving = tokio::spawn(async move { server::run_stream(config, far, Far { user_ca: ca }).await.map(drop) });
    let mut line = [0; 18];
    // Half of a line, as clients that try to resume send it, must not matter.
    near.write_all(b"SSH-2.0-").await.unwrap();
    soon(near.read_exact(&mut line)).await.unwrap();
    assert_eq!(&line, b"SSH-2.0-Teleport\r\n");
    near.write_all(b"Go\r\n").await.unwrap();
    assert!(soon(serving).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_client_accepts_a_long_identification_line() {
    let ca = key(Algorithm::Ed25519);
    let mut config = server_config(key(Algorithm::Ed25519));
    config.certificates = vec![certificate(CertType::Host, config.keys[0].public_key(), &ca, "node")];
    let (public, host) = ("B".repeat(87), "c".repeat(253 - 27 - 87 - 1));
    config.server_id = russh::SshId::Standard(format!("SSH-2.0-Teleport resume-v1 {public} {host}").into());
    let ca = ca.public_key().clone();
    let outcome =
        soon(connect(certificate_preferences(), Near { host_ca: ca.clone() }, config, Far { user_ca: ca })).await;
    assert!(outcome.is_ok());
}
