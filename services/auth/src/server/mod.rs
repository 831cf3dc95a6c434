//! The port of the Auth Service (3025): gRPC for `h2`, the HTTP API for `http/1.1` or no protocol name, always over TLS.

mod connection;
mod source;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
mod version;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use mux::listener::{ConnectionLimit, Incoming, Listener};
use mux::rate::Rate;
use mux::{DetectConfig, DetectError, Protocol, ProxyProtocolMode};
use parking_lot::Mutex;
use resources::{Resource, SystemRole};
use tokio_util::task::TaskTracker;
use wire::error::{Error, Result};
use wire::types::{AlertSeverity, ClusterAlert, ClusterAlertSpec, Metadata, ResourceHeader};

use crate::Auth;
use crate::authz::Authorizer;
use crate::grpc::{self, Api, Inventory};
use crate::store::kind;

pub use version::{ALLOW_OLD_CLIENTS, Version};

/// How long open connections may take to end when the service stops.
const DRAIN: Duration = Duration::from_secs(10);
/// How often administrators are told about too old clients, at most.
const ALERT_INTERVAL: TimeDelta = TimeDelta::hours(24);
/// The name of the alert about too old clients.
const ALERT_NAME: &str = "rejected-unsupported-connection";

/// How the port is served.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen; a port of 0 lets the system choose.
    pub addresses: Vec<SocketAddr>,
    /// Host names and addresses that the certificate of the port is valid for, besides those of every Auth Service.
    pub names: Vec<String>,
    /// What unsigned PROXY headers are good for; those signed by a proxy of the cluster are always believed.
    pub proxy_protocol: ProxyProtocolMode,
    /// Simultaneous connections of one address.
    pub connections_per_ip: usize,
    /// Calls of one address over time; empty: any number.
    pub rates: Vec<Rate>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            addresses: vec![SocketAddr::from(([0, 0, 0, 0], 3025))],
            names: Vec::new(),
            proxy_protocol: ProxyProtocolMode::default(),
            connections_per_ip: mux::listener::CONNECTIONS_PER_IP,
            rates: Vec::new(),
        }
    }
}

/// Why a connection was closed before it was served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its first bytes are of no protocol, or of a PROXY header that is refused.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// It does not speak TLS.
    #[error("expected TLS, got {0:?}")]
    NotTls(Protocol),
    /// The TLS handshake failed.
    #[error(transparent)]
    Handshake(#[from] mux::tls::AcceptError),
    /// The client's certificate is refused.
    #[error("client certificate: {0}")]
    Certificate(#[from] pki::tls::PeerError),
    /// It negotiated a protocol that is not served here.
    #[error("application protocol {0:?} is not served here")]
    Protocol(String),
    /// This service cannot make its TLS configuration.
    #[error(transparent)]
    Configuration(#[from] Error),
}

/// Serves connections. Clones share everything.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

/// What all connections share.
pub struct Shared {
    auth: Auth,
    api: Api,
    tls: tls::Tls,
    detect: DetectConfig,
    authorizer: Authorizer,
    grpc: axum::Router,
    http: axum::Router,
    allow_old_clients: bool,
    alerted: Mutex<Option<DateTime<Utc>>>,
}

impl std::ops::Deref for Server {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Server {
    /// A server for the core of the service.
    pub fn new(auth: Auth, config: &ServerConfig) -> Self {
        let api = Api::new(auth.clone());
        let detect = DetectConfig {
            proxy_protocol: config.proxy_protocol,
            verifier: Some(Arc::new(source::SignedByProxy::new(auth.clone()))),
            ..Default::default()
        };
        Self(Arc::new(Shared {
            tls: tls::Tls::new(auth.clone(), config.names.clone()),
            detect,
            authorizer: Authorizer::new(auth.clone(), &config.rates),
            grpc: api.routes(),
            http: crate::http::router(auth.clone()),
            allow_old_clients: std::env::var(ALLOW_OLD_CLIENTS).is_ok_and(|value| value == "yes"),
            alerted: Mutex::default(),
            api,
            auth,
        }))
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.auth
    }

    /// The instances that keep a control stream to this server.
    pub fn inventory(&self) -> &Inventory {
        self.0.api.inventory()
    }

    /// Lists the services of this process in the inventory, until the core closes. Services of this process that keep
    /// a control stream of their own need not be named.
    pub fn announce_process(&self, services: &[SystemRole]) {
        self.0.api.announce_process(services);
    }

    /// Tells administrators that some program is too old, once a day at most.
    async fn alert_about_old(&self, program: &str) {
        let now = self.auth.now();
        {
            let mut alerted = self.alerted.lock();
            if alerted.is_some_and(|last| now - last < ALERT_INTERVAL) {
                return;
            }
            *alerted = Some(now);
        }
        let alert = alert_about_old(program, now);
        if let Err(error) = self.auth.store().upsert::<kind::ClusterAlert>(alert).await {
            tracing::warn!(%error, "alert about old clients not stored");
        }
    }
}

/// A server whose sockets are bound.
pub struct BoundServer {
    server: Server,
    listeners: Vec<Listener>,
}

impl BoundServer {
    /// Binds all addresses.
    ///
    /// # Errors
    /// The first address that cannot be listened on.
    pub fn bind(auth: Auth, config: &ServerConfig) -> Result<Self> {
        let limit = ConnectionLimit::new(config.connections_per_ip);
        let bind = |address: &SocketAddr| {
            let listener = Listener::bind(*address, limit.clone());
            listener.map_err(|error: io::Error| Error::connection_problem(format!("listen on {address}: {error}")))
        };
        let listeners = config.addresses.iter().map(bind).collect::<Result<Vec<_>>>()?;
        Ok(Self { server: Server::new(auth, config), listeners })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Listener::local_addr).collect()
    }

    /// The server behind the sockets.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Accepts and serves until the core closes; then lets open connections end.
    pub async fn run(self) {
        let closing = self.server.auth.closing();
        let connections = TaskTracker::new();
        let accepting: Vec<_> =
            self.listeners.iter().map(|listener| accept(&self.server, listener, &connections)).collect();
        tokio::select! {
            _ = futures::future::join_all(accepting) => {}
            () = closing.cancelled() => {}
        }
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "connections still open, giving them up");
        }
    }
}

async fn accept(server: &Server, listener: &Listener, connections: &TaskTracker) {
    loop {
        let Incoming { stream, arrival, permit } = listener.accept().await;
        let server = server.clone();
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = server.serve_connection(stream, arrival).await {
                tracing::debug!(peer = %arrival.peer, %error, "connection refused");
            }
        });
    }
}

fn alert_about_old(program: &str, now: DateTime<Utc>) -> ClusterAlert {
    let labels = [(grpc::alert_labels::ON_LOGIN, "yes"), (grpc::alert_labels::VERB_PERMIT, "token:create")];
    let message = format!(
        "connections of {program} were refused because they are older than {}: upgrade them to the version of this \
         cluster, {}",
        wire::MIN_CLIENT_VERSION,
        wire::VERSION
    );
    let metadata = Metadata {
        name: ALERT_NAME.to_owned(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        expires: Some(wire::time::timestamp(now + ALERT_INTERVAL)),
        ..Default::default()
    };
    let mut alert = ClusterAlert {
        header: Some(ResourceHeader { metadata: Some(metadata), ..Default::default() }),
        spec: Some(ClusterAlertSpec {
            severity: AlertSeverity::Medium as i32,
            message,
            created: Some(wire::time::timestamp(now)),
        }),
    };
    alert.set_defaults();
    alert
}
