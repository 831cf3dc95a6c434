//! Calls of the Auth Service, many at a time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use dialer::{AuthEndpoint, AuthTrust, ClientIdentity, ClusterCredentials, Credentials, Dialer, HostPort};
use e2e::Cluster;
use pki::identity_file::IdentityFile;
use pki::keys::{KeyAlgorithm, PrivateKey};
use tokio::task::JoinSet;
use tonic::Status;
use wire::client::{ApiChannel, api_channel};
use wire::proto::UserCertsRequest;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::types::{Metadata, ServerSpecV2, ServerV2};

/// A user at the Auth Service's own port, on one connection.
#[derive(Clone)]
pub struct Caller(ApiChannel);

impl Caller {
    pub fn new(cluster: &Cluster, identity: &Path) -> Self {
        let file = IdentityFile::read(identity).expect("an identity file");
        let certificate = file.tls_certificate.expect("a TLS certificate");
        let credentials = Credentials::new(ClusterCredentials {
            cluster: cluster.name().to_owned(),
            identity: Some(ClientIdentity { certificate, key: file.private_key }),
            authorities: file.tls_authorities,
        });
        let address = HostPort::parse(&cluster.auth_address(), 3025).expect("an address");
        let auth = AuthEndpoint::new(Dialer::direct(), vec![address], AuthTrust::Cluster, credentials);
        Self(api_channel(auth.channel()))
    }

    pub fn auth(&self) -> AuthServiceClient<ApiChannel> {
        AuthServiceClient::new(self.0.clone())
    }

    /// Has so many certificates signed for a user, and says how long that took.
    pub async fn certificates(&self, user: &str, count: usize, callers: usize) -> Duration {
        let key = |algorithm| PrivateKey::generate(algorithm).expect("a key");
        let (ssh, tls) = (key(KeyAlgorithm::Ed25519), key(KeyAlgorithm::EcdsaP256));
        let request = UserCertsRequest {
            username: user.to_owned(),
            expires: Some(wire::time::timestamp(Utc::now() + TimeDelta::hours(1))),
            ssh_public_key: ssh.public().to_ssh_line().into_bytes(),
            tls_public_key: tls.public().to_spki_pem().into_bytes(),
            ..UserCertsRequest::default()
        };
        let caller = self.clone();
        each(0..count, callers, move |_| {
            let (caller, request) = (caller.clone(), request.clone());
            async move {
                let certificates = caller.auth().generate_user_certs(request).await?.into_inner();
                assert!(!certificates.ssh.is_empty() && !certificates.tls.is_empty(), "both certificates");
                Ok(())
            }
        })
        .await
    }

    /// Registers nodes with these numbers, and says how long that took.
    pub async fn upsert_nodes(&self, numbers: Range<usize>, callers: usize) -> Duration {
        let caller = self.clone();
        each(numbers, callers, move |number| {
            let caller = caller.clone();
            async move { caller.auth().upsert_node(node(number)).await.map(drop) }
        })
        .await
    }
}

/// Does some work for every number, so many at a time, and says how long all of it took.
async fn each<F, W>(numbers: Range<usize>, callers: usize, work: F) -> Duration
where
    F: Fn(usize) -> W + Clone + Send + 'static,
    W: Future<Output = Result<(), Status>> + Send,
{
    let (start, next) = (Instant::now(), Arc::new(AtomicUsize::new(numbers.start)));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (work, next) = (work.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end {
                    return;
                }
                work(number).await.expect("a call");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a caller");
    }
    start.elapsed()
}

/// A node as an agent registers it.
pub fn node(number: usize) -> ServerV2 {
    let label = |key: &str, value: String| (key.to_owned(), value);
    let labels = [
        label("env", format!("env{}", number % 40)),
        label("team", format!("team{}", number % 7)),
        label("region", format!("eu-west-{}", number % 5)),
    ];
    ServerV2 {
        kind: "node".to_owned(),
        version: "v2".to_owned(),
        metadata: Some(Metadata {
            name: format!("00000000-0000-4000-8000-{number:012}"),
            namespace: "default".to_owned(),
            labels: BTreeMap::from(labels),
            expires: Some(wire::time::timestamp(Utc::now() + TimeDelta::hours(2))),
            ..Metadata::default()
        }),
        spec: Some(ServerSpecV2 {
            hostname: host_name(number),
            version: wire::VERSION.to_owned(),
            use_tunnel: true,
            ..ServerSpecV2::default()
        }),
        ..ServerV2::default()
    }
}

pub fn host_name(number: usize) -> String {
    format!("node-{number}")
}
