//! A cluster in memory for tests: real TLS, real HTTP/2, no sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use backend::{ManualClock, Memory};
use hyper_util::rt::TokioIo;
use mux::Arrival;
use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::tls::{ClusterServerVerifier, TrustedAuthorities, client_config, server_name_of};
use pki::x509::Certificate;
use resources::{Resource as _, SystemRole};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use wire::proto::auth_service_client::AuthServiceClient;
use wire::types::{Metadata, RoleV6, UserSpecV2, UserV2};
use wire::wrappers::{LabelValues, StringValues};

use super::{Server, ServerConfig};
use crate::testing::{PASSWORD, acceptance, code, secret};
use crate::{Auth, AuthConfig, Caller, LocalIdentityRequest, PublicKeys, UserCertRequest};

/// The name of the test cluster.
pub const CLUSTER: &str = "one";

/// A cluster with its clock.
pub struct Cluster {
    pub auth: Auth,
    pub server: Server,
    pub clock: ManualClock,
    _folder: TempDir,
}

/// A client's key and certificate.
#[derive(Clone, Debug)]
pub struct Holder {
    pub key: PrivateKey,
    pub certificate: Certificate,
}

impl Cluster {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::default();
        let mut config = AuthConfig::new(folder.path());
        config.cluster_name = CLUSTER.to_owned();
        config.node_name = "auth1".to_owned();
        config.clock = Arc::new(clock.clone());
        config.backend = Some(Arc::new(Memory::with_clock(Arc::new(clock.clone()))));
        let auth = Auth::open(config).await.unwrap();
        let server = Server::new(auth.clone(), &ServerConfig::default());
        Self { auth, server, clock, _folder: folder }
    }

    /// The administrator on the machine.
    pub async fn admin(&self) -> Holder {
        self.service(SystemRole::Admin, self.auth.host_uuid()).await
    }

    /// A service with a certificate of its own.
    pub async fn service(&self, role: SystemRole, host_uuid: &str) -> Holder {
        let request = LocalIdentityRequest {
            host_uuid: host_uuid.to_owned(),
            node_name: "host".to_owned(),
            system_roles: if role == SystemRole::Instance { vec![SystemRole::Node] } else { Vec::new() },
            ..Default::default()
        };
        let identity = self.auth.local_identity(role, request).await.unwrap();
        Holder {
            key: PrivateKey::from_pem(&identity.tls_key).unwrap(),
            certificate: Certificate::from_pem(&identity.tls_certificate).unwrap(),
        }
    }

    /// A new user with these roles and logins, and a certificate.
    pub async fn user(&self, name: &str, roles: &[&str], logins: &[&str]) -> Holder {
        self.add_user(name, roles, logins).await;
        self.certificate(name, Duration::from_secs(3600)).await
    }

    pub async fn add_user(&self, name: &str, roles: &[&str], logins: &[&str]) {
        let logins = StringValues { values: logins.iter().map(|login| (*login).to_owned()).collect() };
        let user = UserV2 {
            kind: "user".to_owned(),
            version: "v2".to_owned(),
            metadata: Some(Metadata { name: name.to_owned(), ..Default::default() }),
            spec: Some(UserSpecV2 {
                roles: roles.iter().map(|role| (*role).to_owned()).collect(),
                traits: Some(LabelValues { values: BTreeMap::from([("logins".to_owned(), logins)]) }),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.auth.create_user(&self.admin_caller(), user).await.unwrap();
    }

    /// Gives a user a device of one-time codes; its secret.
    pub async fn add_device(&self, user: &str) -> String {
        let (auth, admin) = (&self.auth, self.admin_caller());
        let token = auth.create_reset_password_token(&admin, user, "invite", Duration::ZERO).await.unwrap();
        let token = token.name().to_owned();
        let secret = secret(auth, &token).await;
        let request = acceptance(&token, PASSWORD, &code(&self.clock, &secret));
        auth.change_user_authentication(&Caller::anonymous(None), request).await.unwrap();
        // A code counts once.
        self.clock.advance(Duration::from_secs(30));
        secret
    }

    /// A certificate of a user who exists, with his present roles.
    pub async fn certificate(&self, name: &str, ttl: Duration) -> Holder {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let spec = self.auth.get_user(name, false).await.unwrap().spec.unwrap();
        let traits = spec.traits.unwrap_or_default().values.into_iter().map(|(name, list)| (name, list.values));
        let request = UserCertRequest {
            user: name.to_owned(),
            roles: spec.roles,
            traits: traits.collect(),
            ttl,
            keys: PublicKeys { ssh: None, tls: Some(key.public().to_pem()) },
            ..Default::default()
        };
        let certs = self.auth.generate_user_certs(request).await.unwrap();
        let pem = String::from_utf8(certs.tls).unwrap();
        Holder { key, certificate: Certificate::from_pem(&pem).unwrap() }
    }

    /// What the service counts, as it is served.
    pub fn metrics(&self) -> String {
        let (mut registry, mut text) = (prometheus_client::registry::Registry::default(), String::new());
        self.server.register_metrics(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    pub async fn add_role(&self, yaml: serde_json::Value) {
        let role: RoleV6 = serde_json::from_value(yaml).unwrap();
        self.auth.create_role(&self.admin_caller(), role).await.unwrap();
    }

    pub fn admin_caller(&self) -> Caller {
        Caller::service(SystemRole::Admin, self.auth.host_uuid(), None)
    }

    /// A gRPC client of somebody, or of nobody.
    pub async fn client(&self, holder: Option<&Holder>) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.channel(holder).await)
    }

    pub async fn channel(&self, holder: Option<&Holder>) -> Channel {
        Self::channel_over(self.tls(holder, "h2").await.unwrap()).await
    }

    /// A gRPC channel over a connection after its handshake.
    pub async fn channel_over(stream: TlsStream<tokio::io::DuplexStream>) -> Channel {
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = stream.take();
            async move { stream.ok_or_else(|| std::io::Error::other("the connection is closed")) }
        });
        Endpoint::from_static("http://auth").connect_with_connector(connector).await.unwrap()
    }

    /// A TLS connection to the server, which serves it on a task of its own.
    pub async fn tls(
        &self,
        holder: Option<&Holder>,
        alpn: &str,
    ) -> std::io::Result<TlsStream<tokio::io::DuplexStream>> {
        self.tls_as(holder.map(|holder| (&holder.certificate, &holder.key)), alpn).await
    }

    pub async fn tls_as(
        &self,
        holder: Option<(&Certificate, &PrivateKey)>,
        alpn: &str,
    ) -> std::io::Result<TlsStream<tokio::io::DuplexStream>> {
        self.handshake(self.dial(), holder, alpn).await
    }

    /// The client's side of TLS on a connection to the server.
    pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        holder: Option<(&Certificate, &PrivateKey)>,
        alpn: &str,
    ) -> std::io::Result<TlsStream<S>> {
        let bundle = self.auth.cluster_ca_pem().unwrap();
        let authorities = TrustedAuthorities::new(&Certificate::bundle_from_pem(&bundle).unwrap()).unwrap();
        let verifier = ClusterServerVerifier::for_cluster(&authorities, CLUSTER).unwrap();
        let config = client_config(verifier, holder, &[alpn]).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(server_name_of(CLUSTER).unwrap(), stream).await
    }

    /// The client's end of a plain connection.
    pub fn dial(&self) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = self.server.clone();
        let peer: SocketAddr = "192.0.2.7:41000".parse().unwrap();
        let local: SocketAddr = "192.0.2.1:3025".parse().unwrap();
        tokio::spawn(async move {
            let _ = server.serve_connection(theirs, Arrival { peer, local, handed_on: false }).await;
        });
        ours
    }
}
