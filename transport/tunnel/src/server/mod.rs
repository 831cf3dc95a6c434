//! The proxy's end: lets agents in, knows which tunnels there are, and dials through them.

mod connection;
mod gate;
mod registry;
mod sweep;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use pki::keys::PublicKey;
use russh::server;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub use self::registry::{DialError, Registry, TunnelEvent, TunnelInfo};
use crate::certificate::{CertificateError, HostIdentity, host_id};
use crate::discovery::{self, DiscoveredProxy};
use crate::keep_alive::KeepAlive;
use crate::ssh::{self, HANDSHAKE_TIMEOUT};
use crate::stream::BoxedStream;

/// The keys that sign host certificates, by cluster.
#[async_trait]
pub trait HostAuthorities: Send + Sync + 'static {
    /// The public keys of a cluster's host authority; none if the cluster is not known.
    async fn host_authority(&self, cluster: &str) -> Vec<PublicKey>;
}

/// Connects agents to the Auth Service.
#[async_trait]
pub trait AuthDialer: Send + Sync + 'static {
    /// A connection to an Auth Service on behalf of the agent at `agent`.
    async fn dial_auth(&self, agent: SocketAddr) -> io::Result<BoxedStream>;
}

/// How a tunnel server behaves.
#[derive(Clone)]
pub struct TunnelServerConfig {
    /// The proxy's own cluster.
    pub cluster: String,
    /// The proxy's key and host certificate (role Proxy).
    pub identity: HostIdentity,
    /// Who signs the certificates of agents.
    pub authorities: Arc<dyn HostAuthorities>,
    /// Where agents reach the Auth Service.
    pub auth: Arc<dyn AuthDialer>,
    /// How often agents send heartbeats, and after how many missing ones a tunnel is taken for offline.
    pub keep_alive: KeepAlive,
}

impl fmt::Debug for TunnelServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelServerConfig").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Why a connection of an agent ended.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// It did not log in in time.
    #[error("no login within {} seconds", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    /// Its certificate is not good enough.
    #[error("the agent's certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// Something went wrong in SSH.
    #[error("ssh: {0}")]
    Ssh(#[from] russh::Error),
}

/// Serves agents. Cheap to clone; all clones are the same server.
#[derive(Clone)]
pub struct TunnelServer {
    shared: Arc<Shared>,
}

struct Shared {
    config: TunnelServerConfig,
    ssh: RwLock<Arc<server::Config>>,
    registry: Registry,
    proxies: watch::Sender<Bytes>,
    draining: CancellationToken,
    started: Instant,
}

impl TunnelServer {
    /// A server without tunnels. Needs a Tokio runtime: a task looks after the tunnels until the last clone is gone.
    pub fn new(config: TunnelServerConfig) -> Self {
        let shared = Arc::new(Shared {
            ssh: RwLock::new(Arc::new(ssh_config(&config.identity, config.keep_alive))),
            registry: Registry::new(config.keep_alive.threshold()),
            proxies: watch::Sender::new(Bytes::from(discovery::to_payload(&itself(&config)))),
            draining: CancellationToken::new(),
            started: Instant::now(),
            config,
        });
        tokio::spawn(sweep::run(Arc::downgrade(&shared), shared.proxies.subscribe()));
        Self { shared }
    }

    /// The tunnels of this proxy, and the way through them.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Presents another key and certificate from the next connection on.
    pub fn set_identity(&self, identity: &HostIdentity) {
        *self.shared.ssh.write() = Arc::new(ssh_config(identity, self.shared.config.keep_alive));
    }

    /// Tells all agents which proxies there are, this one among them. Repeated every two minutes. Until the first call
    /// agents hear of this proxy only.
    pub fn set_proxies(&self, proxies: &[DiscoveredProxy]) {
        let payload = Bytes::from(discovery::to_payload(proxies));
        self.shared.proxies.send_if_modified(|current| {
            let changed = *current != payload;
            if changed {
                *current = payload;
            }
            changed
        });
    }

    /// Serves one connection until it ends. `arriving` is kept until its agent has logged in.
    pub async fn serve<A>(&self, stream: BoxedStream, peer: SocketAddr, arriving: A) -> Result<(), TunnelError> {
        let config = self.shared.ssh.read().clone();
        let gate = gate::Gate::new(self.shared.clone(), peer);
        let login = gate.login();
        // Boxed, so that a connection does not keep the space for how it started.
        let starting = tokio::time::timeout(HANDSHAKE_TIMEOUT, Box::pin(server::run_stream(config, stream, gate)));
        let session = starting.await.map_err(|_| TunnelError::Timeout)??;
        let mut session = Owned(session);
        tokio::select! {
            ended = &mut session.0 => return ended,
            logged_in = tokio::time::timeout(HANDSHAKE_TIMEOUT, login.cancelled()) => if logged_in.is_err() {
                debug!(%peer, "an agent did not log in in time");
                return Err(TunnelError::Timeout);
            },
        }
        drop(arriving);
        (&mut session.0).await
    }

    /// Tells all agents to connect elsewhere and takes no new ones. Streams that are open go on; agents leave when
    /// theirs are done, see [`Registry::emptied`].
    pub async fn drain(&self) {
        self.shared.draining.cancel();
        let connections = self.shared.registry.connections();
        info!(tunnels = connections.len(), "asking agents to connect elsewhere");
        sweep::for_each(connections, |connection| async move { connection.ask_to_reconnect().await }).await;
    }

    /// Ends the tunnels of a cluster that is trusted no more.
    pub async fn disconnect_cluster(&self, cluster: &str) {
        let mut connections = self.shared.registry.connections();
        connections.retain(|connection| connection.info().cluster == cluster);
        sweep::for_each(connections, |connection| async move { connection.disconnect("cluster was removed").await })
            .await;
    }

    /// Tells all agents that their connections end now.
    pub async fn close(&self) {
        self.shared.draining.cancel();
        let connections = self.shared.registry.connections();
        sweep::for_each(connections, |connection| async move { connection.disconnect("proxy shuts down").await }).await;
    }
}

impl fmt::Debug for TunnelServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelServer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// A session that ends with the task that waits for it.
struct Owned(server::RunningSession<gate::Gate>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The list of proxies as long as nobody has said more: the proxy itself.
fn itself(config: &TunnelServerConfig) -> Vec<DiscoveredProxy> {
    host_id(config.identity.certificate.valid_principals(), &config.cluster)
        .map(|id| DiscoveredProxy { id: id.to_owned(), ..DiscoveredProxy::default() })
        .into_iter()
        .collect()
}

/// An agent that says nothing at all is asked, and its tunnel ended when it does not answer: what runs through a tunnel
/// that the network forgot is better begun anew than waited for.
fn ssh_config(identity: &HostIdentity, keep_alive: KeepAlive) -> server::Config {
    server::Config {
        keepalive_interval: Some(keep_alive.interval.min(ssh::KEEP_ALIVE_INTERVAL)),
        keepalive_max: usize::try_from(keep_alive.count).unwrap_or(usize::MAX),
        maximum_packet_size: ssh::TUNNEL_PACKET,
        ..ssh::server_config(vec![(*identity.key).clone()], vec![identity.certificate.clone()])
    }
}
