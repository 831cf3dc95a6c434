#![allow(clippy::unwrap_used)]
use std::io::{Read, Write};
use std::net::TcpStream as Socket;
use std::path::PathBuf;

use axum::routing::get;
use chrono::Utc;
use config::{HostPort, KeyPair};
use pki::keys::KeyAlgorithm;
use pki::x509::{AlternativeNames, CaCertificate, DistinguishedName, ExtendedUsage, Issuer, LeafTemplate, oid};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::*;

/// An authority with its certificate in a file.
struct Authority {
    issuer: Issuer,
    file: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let ca = CaCertificate::self_signed(name, &key, Utc::now()).unwrap();
        let file = folder.join(format!("{name}.crt"));
        fs::write(&file, ca.to_pem()).unwrap();
        Self { issuer: Issuer::new(ca, key).unwrap(), file }
    }

    fn issue(&self, usage: ExtendedUsage) -> (Certificate, PrivateKey) {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let mut subject = DistinguishedName::new();
        subject.push(oid::COMMON_NAME, "localhost");
        let now = Utc::now();
        let until = now + Duration::from_secs(3600);
        let mut template = LeafTemplate::new(subject, key.public().clone(), now, until);
        template.extended_usages = vec![usage];
        template.alternative_names = AlternativeNames::from_hosts(["localhost"]);
        (Certificate::from_der(&self.issuer.issue(&template).unwrap()).unwrap(), key)
    }

    fn client(&self, identity: Option<(Certificate, PrivateKey)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.ca().certificate().to_rustls()).unwrap();
        let builder = ClientConfig::builder_with_provider(pki::tls::crypto_provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key.to_pem().unwrap().as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate.to_rustls()], key).unwrap()
            }
        })
    }
}

fn service(keypairs: Vec<KeyPair>, ca_certs: Vec<PathBuf>) -> Metrics {
    Metrics { listen_addr: HostPort::new("127.0.0.1", 0), keypairs, ca_certs }
}

async fn started(service: &Metrics) -> Result<SocketAddr> {
    serve(service, Router::new().route("/metrics", get(|| async { "process_state 0" }))).await
}

fn ask(mut stream: impl Read + Write) -> String {
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let _ = asked.and_then(|()| stream.read_to_string(&mut answer));
    answer
}

async fn ask_over_tls(address: SocketAddr, config: Arc<ClientConfig>) -> String {
    let asked = tokio::task::spawn_blocking(move || {
        let connection = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        ask(StreamOwned::new(connection, Socket::connect(address).unwrap()))
    });
    asked.await.unwrap()
}

#[tokio::test]
async fn without_certificates_metrics_are_served_to_everybody() {
    let address = started(&service(vec![], vec![])).await.unwrap();
    let answer = tokio::task::spawn_blocking(move || ask(Socket::connect(address).unwrap())).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("process_state 0"), "{answer}");
}

#[tokio::test]
async fn with_authorities_only_their_clients_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let (certificate, key) = ours.issue(ExtendedUsage::ServerAuth);
    let pair = KeyPair { key_file: folder.path().join("port.key"), cert_file: folder.path().join("port.crt") };
    fs::write(&pair.cert_file, certificate.to_pem()).unwrap();
    fs::write(&pair.key_file, key.to_pem().unwrap().as_bytes()).unwrap();

    let address = started(&service(vec![pair.clone()], vec![ours.file.clone()])).await.unwrap();
    let good = ours.client(Some(ours.issue(ExtendedUsage::ClientAuth)));
    assert!(ask_over_tls(address, good).await.contains("process_state 0"));
    let stranger = ours.client(Some(theirs.issue(ExtendedUsage::ClientAuth)));
    assert_eq!(ask_over_tls(address, stranger).await, "");
    assert_eq!(ask_over_tls(address, ours.client(None)).await, "");

    let open = started(&service(vec![pair], vec![])).await.unwrap();
    assert!(ask_over_tls(open, ours.client(None)).await.contains("process_state 0"));
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let message = |result: Result<SocketAddr>| result.unwrap_err().to_string();
    let missing = PathBuf::from("/nonexistent/ca.crt");
    let alone = message(started(&service(vec![], vec![missing.clone()])).await);
    assert_eq!(alone, "metrics_service: ca_certs needs keypairs");
    let pair = KeyPair { key_file: "/nonexistent/a.key".into(), cert_file: "/nonexistent/a.crt".into() };
    let unread = message(started(&service(vec![pair], vec![missing])).await);
    assert!(unread.starts_with("metrics_service: reading /nonexistent/a.crt"), "{unread}");
}
