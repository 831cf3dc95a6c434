#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use chrono::{DateTime, TimeDelta, Utc};
use rustls::client::danger::ServerCertVerifier;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, ServerConfig, ServerConnection, Stream,
};
use rustls_pki_types::ServerName;

use super::*;
use crate::cluster_name::{api_dns_names, to_server_name};
use crate::keys::{KeyAlgorithm, PrivateKey};
use crate::x509::{AlternativeNames, CA_LIFETIME, CaCertificate, Issuer, LeafTemplate};

struct Cluster {
    issuer: Issuer,
    authorities: Arc<TrustedAuthorities>,
}

impl Cluster {
    fn new(name: &str, algorithm: KeyAlgorithm) -> Self {
        let key = PrivateKey::generate(algorithm).unwrap();
        let ca = CaCertificate::self_signed(name, &key, Utc::now()).unwrap();
        let authorities = Arc::new(TrustedAuthorities::new([ca.certificate()]).unwrap());
        let issuer = Issuer::new(ca, key).unwrap();
        Self { issuer, authorities }
    }

    fn host(&self) -> (Certificate, PrivateKey) {
        let now = Utc::now();
        self.issue("uuid.root", "Proxy", api_dns_names("Proxy"), now, now + CA_LIFETIME)
    }

    fn user(&self) -> (Certificate, PrivateKey) {
        let now = Utc::now();
        self.issue("alice", "access", &[], now, now + TimeDelta::hours(1))
    }

    fn issue(
        &self,
        name: &str,
        role: &str,
        hosts: &[&str],
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> (Certificate, PrivateKey) {
        let identity = Identity {
            username: name.to_owned(),
            groups: vec![role.to_owned()],
            // Subjects are far larger than those of the web.
            kubernetes_users: (0..200).map(|number| format!("user-{number}")).collect(),
            ..Identity::default()
        };
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let mut template = LeafTemplate::new(identity.to_subject().unwrap(), key.public().clone(), now, until);
        template.alternative_names = AlternativeNames::from_hosts(hosts);
        (Certificate::from_der(&self.issuer.issue(&template).unwrap()).unwrap(), key)
    }
}

/// What both sides saw of a connection over which one word went each way.
struct Outcome {
    server: Result<Option<(Certificate, Identity)>, std::io::Error>,
    client: Result<Option<Vec<u8>>, std::io::Error>,
    server_alpn: Option<Vec<u8>>,
    resumed: bool,
}

fn connect(server: Arc<ServerConfig>, client: Arc<ClientConfig>, name: ServerName<'static>) -> Outcome {
    let (mut server_socket, mut client_socket) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let mut connection = ServerConnection::new(server).unwrap();
        let mut word = [0; 5];
        let done = Stream::new(&mut connection, &mut server_socket)
            .read_exact(&mut word)
            .and_then(|()| Stream::new(&mut connection, &mut server_socket).write_all(b"world"));
        // Let the alert of a failed handshake out.
        let _ = connection.complete_io(&mut server_socket);
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        let identity = peer_identity(connection.peer_certificates(), Utc::now()).unwrap();
        (done.map(|()| identity), alpn)
    });
    let mut connection = ClientConnection::new(client, name).unwrap();
    let mut word = [0; 5];
    let done = Stream::new(&mut connection, &mut client_socket)
        .write_all(b"hello")
        .and_then(|()| Stream::new(&mut connection, &mut client_socket).read_exact(&mut word));
    let client = done.map(|()| connection.alpn_protocol().map(<[u8]>::to_vec));
    let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    drop(client_socket);
    let (server, server_alpn) = server.join().unwrap();
    Outcome { server, client, server_alpn, resumed }
}

fn dialling(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<&(Certificate, PrivateKey)>,
    alpn: &[&str],
) -> Arc<ClientConfig> {
    Arc::new(client_config(verifier, identity.map(|(certificate, key)| (certificate, key)), alpn).unwrap())
}

fn serving(host: &(Certificate, PrivateKey), auth: ClientAuth) -> Arc<ServerConfig> {
    Arc::new(server_config(std::slice::from_ref(&host.0), &host.1, &["h2", "http/1.1"], auth).unwrap())
}

fn rustls_error(error: &std::io::Error) -> &rustls::Error {
    error.get_ref().unwrap().downcast_ref().unwrap()
}

#[test]
fn users_and_services_meet_with_certificates_of_the_cluster() {
    for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        let cluster = Cluster::new("root", algorithm);
        let server = serving(&cluster.host(), ClientAuth::Required(Arc::clone(&cluster.authorities)));
        let verifier = ClusterServerVerifier::for_cluster(&cluster.authorities, "root").unwrap();
        let client = dialling(verifier, Some(&cluster.user()), &["teleport-auth@x", "h2"]);
        let outcome = connect(server, client, server_name_of("root").unwrap());
        let (certificate, identity) = outcome.server.unwrap().unwrap();
        assert_eq!((identity.username.as_str(), certificate.issuer_common_name()), ("alice", Some("root")));
        assert_eq!(outcome.client.unwrap(), Some(b"h2".to_vec()));
        assert_eq!(outcome.server_alpn, Some(b"h2".to_vec()));
    }
}

#[test]
fn the_servers_name_is_fixed_whatever_is_dialled() {
    let cluster = Cluster::new("root", KeyAlgorithm::EcdsaP256);
    let server = serving(&cluster.host(), ClientAuth::None);
    let verifier = ClusterServerVerifier::for_cluster(&cluster.authorities, "root").unwrap();
    let dialled = ServerName::try_from("192.0.2.1").unwrap();
    assert!(connect(Arc::clone(&server), dialling(verifier, None, &[]), dialled).client.is_ok());
    let elsewhere = ServerName::try_from("desktop.example.com").unwrap();
    let verifier = ClusterServerVerifier::for_name(&cluster.authorities, elsewhere.clone()).unwrap();
    assert!(connect(server, dialling(verifier, None, &[]), elsewhere).client.is_err());
}

#[test]
fn a_proxy_is_not_taken_for_auth() {
    let cluster = Cluster::new("root", KeyAlgorithm::EcdsaP256);
    let now = Utc::now();
    let answers = |role: &str, verifier: Arc<ClusterServerVerifier>| {
        let host = cluster.issue("host.root", role, api_dns_names("Proxy"), now, now + TimeDelta::hours(1));
        let server = serving(&host, ClientAuth::None);
        connect(server, dialling(verifier, None, &[]), server_name_of("root").unwrap()).client.is_ok()
    };
    for (role, is_auth) in [("Auth", true), ("Admin", true), ("Proxy", false), ("Node", false)] {
        assert!(answers(role, ClusterServerVerifier::for_cluster(&cluster.authorities, "root").unwrap()));
        let verifier = ClusterServerVerifier::for_auth(&cluster.authorities, "root").unwrap();
        assert_eq!(answers(role, verifier), is_auth, "{role}");
    }
}

#[test]
fn a_server_of_another_cluster_is_refused_unless_insecure() {
    let (mine, other) = (Cluster::new("root", KeyAlgorithm::EcdsaP256), Cluster::new("root", KeyAlgorithm::EcdsaP256));
    let server = serving(&other.host(), ClientAuth::None);
    let verifier = ClusterServerVerifier::for_cluster(&mine.authorities, "root").unwrap();
    let name = server_name_of("root").unwrap();
    let outcome = connect(Arc::clone(&server), dialling(verifier, None, &[]), name.clone());
    assert!(matches!(rustls_error(&outcome.client.unwrap_err()), rustls::Error::InvalidCertificate(_)));
    let insecure = dialling(InsecureServerVerifier::new(), None, &[]);
    assert!(connect(server, insecure, name).client.is_ok());
}

#[test]
fn a_public_server_is_checked_by_its_name() {
    let cluster = Cluster::new("root", KeyAlgorithm::EcdsaP256);
    let server = serving(&cluster.host(), ClientAuth::None);
    let verifier = public_server_verifier(Arc::clone(cluster.authorities.roots())).unwrap();
    let client = dialling(verifier, None, &[]);
    let known = ServerName::try_from(to_server_name("root")).unwrap();
    assert!(connect(Arc::clone(&server), Arc::clone(&client), known).client.is_ok());
    assert!(connect(server, client, ServerName::try_from("example.com").unwrap()).client.is_err());
}

#[test]
fn an_expired_client_is_told_so() {
    let cluster = Cluster::new("root", KeyAlgorithm::EcdsaP256);
    let server = serving(&cluster.host(), ClientAuth::Required(Arc::clone(&cluster.authorities)));
    let verifier = ClusterServerVerifier::for_cluster(&cluster.authorities, "root").unwrap();
    let past = Utc::now() - TimeDelta::hours(2);
    let expired = cluster.issue("alice", "access", &[], past, past + TimeDelta::hours(1));
    let outcome = connect(server, dialling(verifier, Some(&expired), &[]), server_name_of("root").unwrap());
    let error = outcome.client.unwrap_err();
    assert_eq!(rustls_error(&error), &rustls::Error::AlertReceived(AlertDescription::CertificateExpired));
}

#[test]
fn clients_without_certificate_are_let_in_only_when_it_is_optional() {
    let cluster = Cluster::new("root", KeyAlgorithm::EcdsaP256);
    let verifier = ClusterServerVerifier::for_cluster(&cluster.authorities, "root").unwrap();
    let client = dialling(verifier, None, &[]);
    let name = server_name_of("root").unwrap();
    let optional = serving(&cluster.host(), ClientAuth::Optional(Arc::clone(&cluster.authorities)));
    assert!(connect(optional, Arc::clone(&client), name.clone()).server.unwrap().is_none());
    let required = serving(&cluster.host(), ClientAuth::Required(Arc::clone(&cluster.authorities)));
    assert!(connect(required, client, name).server.is_err());
}

#[test]
fn clients_of_strangers_and_chains_are_refused() {
    let (cluster, stranger) =
        (Cluster::new("root", KeyAlgorithm::EcdsaP256), Cluster::new("root", KeyAlgorithm::EcdsaP256));
    let server = serving(&cluster.host(), ClientAuth::Optional(Arc::clone(&cluster.authorities)));
    let verifier = ClusterServerVerifier::for_cluster(&cluster.authorities, "root").unwrap();
    let name = server_name_of("root").unwrap();
    let client = dialling(Arc::clone(&verifier) as _, Some(&stranger.user()), &[]);
    assert!(connect(Arc::clone(&server), client, name.clone()).server.is_err());
    let (user, key) = cluster.user();
    let chain = vec![user.to_rustls(), cluster.issuer.ca().certificate().to_rustls()];
    let chained = ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key.to_rustls_der())
        .unwrap();
    let error = connect(server, Arc::new(chained), name).server.unwrap_err();
    let rustls::Error::InvalidCertificate(CertificateError::Other(reason)) = rustls_error(&error) else {
        panic!("{error}");
    };
    assert_eq!(reason.to_string(), "intermediaries are not supported");
}

#[test]
fn old_protocol_versions_work_down_to_tls_1_2() {
    let cluster = Cluster::new("root", KeyAlgorithm::Rsa2048);
    let server = serving(&cluster.host(), ClientAuth::Required(Arc::clone(&cluster.authorities)));
    let (certificate, key) = cluster.user();
    let client = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(ClusterServerVerifier::for_cluster(&cluster.authorities, "root").unwrap())
        .with_client_auth_cert(vec![certificate.to_rustls()], key.to_rustls_der())
        .unwrap();
    let outcome = connect(server, Arc::new(client), server_name_of("root").unwrap());
    assert_eq!(outcome.server.unwrap().unwrap().1.username, "alice");
}

#[test]
fn sessions_are_resumed_with_the_identity_of_the_first_handshake() {
    let cluster = Cluster::new("root", KeyAlgorithm::EcdsaP256);
    let server = serving(&cluster.host(), ClientAuth::Required(Arc::clone(&cluster.authorities)));
    let verifier = ClusterServerVerifier::for_cluster(&cluster.authorities, "root").unwrap();
    let client = dialling(verifier, Some(&cluster.user()), &[]);
    let name = server_name_of("root").unwrap();
    assert!(!connect(Arc::clone(&server), Arc::clone(&client), name.clone()).resumed);
    let second = connect(server, Arc::clone(&client), name.clone());
    assert!(second.resumed);
    assert_eq!(second.server.unwrap().unwrap().1.username, "alice");
    // Another configuration, as after a rotation of authorities, knows nothing of the session.
    let other = serving(&cluster.host(), ClientAuth::Required(Arc::clone(&cluster.authorities)));
    assert!(!connect(other, client, name).resumed);
}

#[test]
fn a_certificate_that_expired_since_the_handshake_is_noticed() {
    let (certificate, _) = Cluster::new("root", KeyAlgorithm::EcdsaP256).user();
    let der = [certificate.to_rustls()];
    assert!(peer_identity(Some(&der), certificate.not_after()).unwrap().is_some());
    let later = certificate.not_after() + TimeDelta::seconds(1);
    assert!(matches!(peer_identity(Some(&der), later), Err(PeerError::Expired(_))));
    assert!(matches!(
        peer_identity(Some(&[der[0].clone(), der[0].clone()]), Utc::now()),
        Err(PeerError::Intermediaries)
    ));
    assert!(peer_identity(None, later).unwrap().is_none());
}

/// Knows two clusters; connections that name none may come from either.
struct TwoClusters {
    root: Arc<TrustedAuthorities>,
    leaf: Arc<TrustedAuthorities>,
    both: Arc<TrustedAuthorities>,
}

impl ClientAuthorities for TwoClusters {
    fn authorities_for(&self, cluster: Option<&str>) -> Option<Arc<TrustedAuthorities>> {
        match cluster {
            None => Some(Arc::clone(&self.both)),
            Some("root") => Some(Arc::clone(&self.root)),
            Some("leaf") => Some(Arc::clone(&self.leaf)),
            Some(_) => None,
        }
    }
}

#[test]
fn the_server_name_chooses_whose_clients_are_accepted() {
    let (root, leaf) = (Cluster::new("root", KeyAlgorithm::EcdsaP256), Cluster::new("leaf", KeyAlgorithm::Ed25519));
    let both = TrustedAuthorities::new([root.issuer.ca().certificate(), leaf.issuer.ca().certificate()]).unwrap();
    let known =
        TwoClusters { root: Arc::clone(&root.authorities), leaf: Arc::clone(&leaf.authorities), both: Arc::new(both) };
    let (certificate, key) = root.host();
    let configs =
        ServerConfigs::new(ServerCertificate::new(&[certificate], &key).unwrap(), &["h2"], true, Arc::new(known));
    let accepts = |server_name: Option<&str>, user: &Cluster| {
        let verifier = ClusterServerVerifier::for_cluster(&root.authorities, "root").unwrap();
        let client = dialling(verifier, Some(&user.user()), &["h2"]);
        let server = configs.select(server_name).unwrap();
        connect(server, client, server_name_of("root").unwrap()).server.is_ok()
    };
    let (root_name, leaf_name) = (to_server_name("root"), to_server_name("leaf"));
    assert!(accepts(Some(&root_name), &root) && !accepts(Some(&root_name), &leaf));
    assert!(accepts(Some(&leaf_name), &leaf) && !accepts(Some(&leaf_name), &root));
    for general in [None, Some("teleport.cluster.local"), Some("zz.teleport.cluster.local")] {
        assert!(accepts(general, &root) && accepts(general, &leaf), "{general:?}");
    }
    assert!(configs.select(Some(&to_server_name("stranger"))).is_err());
    let again = configs.select(Some(&root_name)).unwrap();
    assert!(Arc::ptr_eq(&again, &configs.select(Some(&root_name)).unwrap()));
}

#[test]
fn a_renewed_certificate_is_shown_from_the_next_handshake_on() {
    let (old, new) = (Cluster::new("root", KeyAlgorithm::EcdsaP256), Cluster::new("root", KeyAlgorithm::EcdsaP256));
    let first = old.host();
    let shown = ServerCertificate::new(std::slice::from_ref(&first.0), &first.1).unwrap();
    let server = Arc::new(server_config_with(shown.clone(), &["h2"], ClientAuth::None).unwrap());
    let believes = |cluster: &Cluster| {
        let verifier = ClusterServerVerifier::for_cluster(&cluster.authorities, "root").unwrap();
        let client = dialling(verifier, None, &["h2"]);
        connect(Arc::clone(&server), client, server_name_of("root").unwrap()).client.is_ok()
    };
    assert!(believes(&old) && !believes(&new));
    let second = new.host();
    assert!(shown.replace(std::slice::from_ref(&second.0), &first.1).is_err(), "the key of another certificate");
    shown.replace(std::slice::from_ref(&second.0), &second.1).unwrap();
    assert!(believes(&new) && !believes(&old));
}

#[test]
fn names_of_authorities_are_announced_only_while_they_fit() {
    let many: Vec<Certificate> = (0..400)
        .map(|number| {
            let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
            let name = format!("cluster-{number}-{}", "x".repeat(60));
            CaCertificate::self_signed(&name, &key, Utc::now()).unwrap().certificate().clone()
        })
        .collect();
    let few = TrustedAuthorities::new(&many[..10]).unwrap();
    assert!(few.fits_certificate_request());
    let cluster = Cluster::new("root", KeyAlgorithm::EcdsaP256);
    let all = TrustedAuthorities::new(many.iter().chain([cluster.issuer.ca().certificate()])).unwrap();
    assert!(!all.fits_certificate_request());
    let server = serving(&cluster.host(), ClientAuth::Required(Arc::new(all)));
    let verifier = ClusterServerVerifier::for_cluster(&cluster.authorities, "root").unwrap();
    let client = dialling(verifier, Some(&cluster.user()), &[]);
    assert!(connect(server, client, server_name_of("root").unwrap()).server.is_ok());
}

#[test]
fn long_cluster_names_are_dialled_by_the_general_name() {
    assert_eq!(server_name_of("root").unwrap().to_str(), "726f6f74.teleport.cluster.local");
    assert_eq!(server_name_of(&"x".repeat(32)).unwrap().to_str(), "teleport.cluster.local");
}

#[test]
fn suites_can_be_narrowed_by_name() {
    let narrow = crypto_provider_with(&["tls-ecdhe-rsa-with-aes-128-gcm-sha256"]).unwrap();
    assert_eq!(narrow.cipher_suites.len(), 4);
    assert!(crypto_provider_with(&["tls-rsa-with-aes-128-cbc-sha"]).is_err());
    assert_eq!(crypto_provider().cipher_suites.len(), 9);
}
