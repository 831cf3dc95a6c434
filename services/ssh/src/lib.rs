//! The SSH Service: a node that runs users' sessions.
//!
//! A connection is served in these steps, each in its own module: [`connection`] speaks the protocol, [`node`] decides
//! who is let in, [`channel`] takes what a client prepares on a channel, [`os`] starts the user's process, [`session`]
//! joins it with those who watch, [`record`] keeps what happened.

mod access;
mod audit;
mod channel;
mod connection;
mod cut;
mod enhanced_recording;
mod forward;
mod gate;
mod heartbeat;
mod labels;
mod monitor;
mod node;
pub mod os;
mod record;
mod session;
mod tracker;
pub mod worker;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::audit::RemoteLog;
use cache::{Cache, Kind};
use config::Labels;
use mux::listener::{ConnectionLimit, Listener};
use parking_lot::RwLock;
use process::leases::Leases;
use recording::{ToAuth, Uploader, UploaderConfig, Uploads};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;
use tunnel::HostIdentity;
use tunnel::agent::{AgentConfig, AgentCredentials, AgentPool, IncomingTransport, ProxyDialer, TunnelStrategy};
use wire::client::ApiChannel;
use wire::error::Error;
use wire::types::tunnel_strategy_v1::Strategy;

pub use ::enhanced::{PerKind, Settings as EnhancedRecording};
pub use gate::Pam;
pub use heartbeat::Presence;
pub use node::{Features, NodeConfig};

use crate::audit::{Facts, NodeAudit};
use ::resume::server::Resumable;
use heartbeat::NodeRecord;
use node::Node;
use os::host_users::HostUsers;

/// How long the first fetch of the cluster's state may take.
const FIRST_FETCH: Duration = Duration::from_secs(30);

/// How proxies reach the node.
pub enum Reach {
    /// Through tunnels that the node keeps to them.
    Tunnel {
        /// How to reach a proxy's tunnel port.
        dialer: Arc<dyn ProxyDialer>,
    },
    /// By connecting to it.
    Listener {
        /// Where it listens.
        address: SocketAddr,
    },
}

/// What of a node's configuration can be changed while it runs. Clones share it.
#[derive(Clone)]
pub struct NodeSettings {
    labels: Arc<watch::Sender<Labels>>,
    features: Arc<watch::Sender<Features>>,
}

impl NodeSettings {
    /// Has the node use these labels; the cluster hears of them at once.
    pub fn set_labels(&self, labels: Labels) {
        self.labels.send_if_modified(|present| std::mem::replace(present, labels) != *present);
    }

    /// Has the node allow this from now on. What runs goes on; whether accounts are made is decided at the start only.
    pub fn set_features(&self, features: Features) {
        self.features.send_replace(features);
    }
}

/// A running node.
pub struct SshService {
    node: Node,
    settings: NodeSettings,
    presence: watch::Receiver<Presence>,
    shutdown: CancellationToken,
    connections: CancellationToken,
    tasks: TaskTracker,
    background: TaskTracker,
}

impl SshService {
    /// Starts a node; returns when it knows the cluster and can be reached.
    pub async fn start(
        config: NodeConfig,
        identity: HostIdentity,
        channel: ApiChannel,
        data_dir: &Path,
        reach: Reach,
    ) -> Result<Self, Error> {
        if config.pam.is_some() {
            let problem = os::login::probe(&config.worker).await;
            problem.map_err(|problem| Error::other(format!("ssh_service.pam: {problem}")))?;
        }
        let kernel = enhanced_recording::start(config.enhanced_recording.clone()).await?;
        let (tasks, background) = (TaskTracker::new(), TaskTracker::new());
        let (shutdown, connections) = (CancellationToken::new(), CancellationToken::new());
        let kinds = vec![Kind::ClusterSettings, Kind::Authorities, Kind::Roles, Kind::Locks];
        let cache = Cache::start(channel.clone(), kinds, &background, shutdown.clone());
        if !cache.ready(FIRST_FETCH).await {
            shutdown.cancel();
            return Err(Error::connection_problem("waited 30 s for the auth service"));
        }
        let config = Arc::new(config);
        let (labels, wanted) = watch::channel(config.labels.clone());
        let (features, allowed) = watch::channel(config.features);
        let settings = NodeSettings { labels: Arc::new(labels), features: Arc::new(features) };
        let (labels, work) = labels::run(wanted);
        background.spawn(until(&shutdown, work));
        let (proxies, connected) = watch::channel(Vec::new());
        let record = NodeRecord::new(config.clone(), labels, connected);
        let facts =
            Facts { host_uuid: config.host_uuid.clone(), hostname: config.hostname.clone(), record: record.clone() };
        let spool = data_dir.join("log").join("events.spool");
        let (log, delivery) = RemoteLog::start(channel.clone(), &spool, &config.cluster).map_err(Error::from)?;
        background.spawn(delivery);
        let audit = NodeAudit::new(log.clone(), facts);
        let uploads = Uploads::open(data_dir).map_err(|e| Error::other(e.to_string()))?;
        let target = ToAuth { channel: channel.clone(), log };
        let uploader = Uploader::new(uploads.clone(), Arc::new(target), UploaderConfig::default());
        background.spawn(until(&shutdown, uploader.run()));
        let (presence_sender, presence) = watch::channel(Presence::Unknown);
        background.spawn(heartbeat::run(channel.clone(), record.clone(), presence_sender, shutdown.clone()));
        let leases =
            Leases { channel: channel.clone(), tasks: background.clone(), host_uuid: config.host_uuid.clone() };
        let identity = Arc::new(RwLock::new(Arc::new(identity)));
        let node = Node {
            recorder: record::Recorder {
                uploads,
                audit: audit.clone(),
                trackers: tracker::Trackers::new(channel, background.clone()),
                host_uuid: config.host_uuid.clone(),
                hostname: config.hostname.clone(),
                cluster: config.cluster.clone(),
            },
            host: identity.clone(),
            algorithms: config.algorithms.preferences(),
            resumable: Resumable::default(),
            features: allowed,
            kernel,
            leases,
            host_users: start_host_users(&config, &tasks, &background, &shutdown),
            connections: Arc::default(),
            rates: Arc::new(mux::rate::RateLimit::new(config.rates.iter().copied())),
            config,
            cache: cache.clone(),
            audit,
            sessions: session::SessionRegistry::default(),
            record,
            tasks: tasks.clone(),
            shutdown: connections.clone(),
            compiled: Arc::default(),
        };
        match reach {
            Reach::Tunnel { dialer } => {
                keep_tunnels(&node, &cache, identity, (dialer, proxies), &background, &shutdown);
            }
            Reach::Listener { address } => listen(&node, address, &background, &shutdown)?,
        }
        Ok(Self { node, settings, presence, shutdown, connections, tasks, background })
    }

    /// What the node knows of the cluster.
    pub fn cache(&self) -> &Cache {
        &self.node.cache
    }

    /// What of the configuration can be changed while the node runs.
    pub fn settings(&self) -> NodeSettings {
        self.settings.clone()
    }

    /// Counts how much of what sessions' processes did enhanced recording has lost; nothing where there is none.
    pub fn lost_events(&self) -> impl Fn() -> PerKind<u64> + Clone + Send + Sync + use<> {
        let kernel = self.node.kernel.as_ref().map(enhanced::Monitor::losses);
        move || kernel.as_ref().map(enhanced::Losses::count).unwrap_or_default()
    }

    /// How to show another identity, from the next connection and the next tunnel on.
    pub fn identity_setter(&self) -> impl Fn(HostIdentity) + Send + Sync + use<> {
        let shown = self.node.host.clone();
        move |identity| *shown.write() = Arc::new(identity)
    }

    /// Whether the cluster knows the node.
    pub fn presence(&self) -> watch::Receiver<Presence> {
        self.presence.clone()
    }

    /// Takes no new connections, waits up to `grace` for running ones, then ends them.
    pub async fn stop(self, grace: Duration) {
        // The delivery of events ends when nobody can emit any more.
        drop(self.node);
        self.shutdown.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            self.connections.cancel();
            let _ = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await; // what is left is cut
        }
        self.background.close();
        let _ = tokio::time::timeout(Duration::from_secs(5), self.background.wait()).await; // events are on disk
    }
}

/// What makes accounts, where the node does: only root can.
fn start_host_users(
    config: &NodeConfig,
    tasks: &TaskTracker,
    background: &TaskTracker,
    shutdown: &CancellationToken,
) -> Option<HostUsers> {
    if !config.features.host_users || !nix::unistd::Uid::effective().is_root() {
        return None;
    }
    let users = HostUsers::new(&config.host_uuid, tasks.clone());
    background.spawn(until(shutdown, users.clone().clean_up()));
    Some(users)
}

/// The node's keys for its tunnels, and the proxies' authorities from the cache.
struct TunnelCredentials {
    identity: Arc<RwLock<Arc<HostIdentity>>>,
    cache: Cache,
    cluster: String,
}

impl AgentCredentials for TunnelCredentials {
    fn identity(&self) -> Arc<HostIdentity> {
        self.identity.read().clone()
    }

    fn proxy_authorities(&self) -> Vec<pki::keys::PublicKey> {
        self.cache.authority("host", &self.cluster).map(|ca| node::ssh_keys(&ca)).unwrap_or_default()
    }
}

fn keep_tunnels(
    node: &Node,
    cache: &Cache,
    identity: Arc<RwLock<Arc<HostIdentity>>>,
    (dialer, proxies): (Arc<dyn ProxyDialer>, watch::Sender<Vec<String>>),
    background: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let credentials = TunnelCredentials { identity, cache: cache.clone(), cluster: node.config.cluster.clone() };
    let serving = node.clone();
    let transports = move |transport: IncomingTransport| {
        let node = serving.clone();
        async move {
            let client = transport.client_addr();
            let server = transport.request().client_destination().unwrap_or(connection::UNKNOWN);
            match transport.accept().await {
                Ok(stream) => connection::serve(node, stream, client, server).await,
                Err(error) => tracing::debug!(%error, "tunnelled connection lost"),
            }
        }
    };
    let mut config = AgentConfig::new(Arc::new(credentials), dialer, Arc::new(transports));
    let networking = cache.networking();
    config.keep_alive = process::keep_alive(cache);
    let strategy = networking.spec.as_ref().and_then(|s| s.tunnel_strategy.as_ref()).and_then(|s| s.strategy.as_ref());
    let peering = match strategy {
        Some(Strategy::ProxyPeering(peering)) => {
            let connections = usize::try_from(peering.agent_connection_count).unwrap_or(0).max(1);
            config.strategy = TunnelStrategy::ProxyPeering { connections };
            true
        }
        _ => false,
    };
    let pool = AgentPool::new(config);
    if peering {
        background.spawn(until(shutdown, tell_of_proxies(pool.connected(), proxies)));
    }
    background.spawn(pool.run(shutdown.clone()));
}

/// Passes on to which proxies there are tunnels, so that the node's record says where to find it.
async fn tell_of_proxies(mut connected: watch::Receiver<Vec<String>>, proxies: watch::Sender<Vec<String>>) {
    loop {
        proxies.send_replace(connected.borrow_and_update().clone());
        if connected.changed().await.is_err() {
            return;
        }
    }
}

fn listen(
    node: &Node,
    address: SocketAddr,
    background: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let listener = Listener::bind(address, ConnectionLimit::new(node.config.max_connections))
        .map_err(|e| Error::other(format!("listening on {address}: {e}")))?;
    info!(address = %listener.local_addr(), "node listens");
    let node = node.clone();
    // Proxies of the cluster sign what they say about clients; nobody else is asked.
    let detect = mux::DetectConfig {
        proxy_protocol: mux::ProxyProtocolMode::Off,
        verifier: Some(Arc::new(process::SignedByProxy::new(node.cache.clone()))),
        silence_means_ssh: Some(Duration::from_millis(200)),
        ..Default::default()
    };
    background.spawn(until(shutdown, async move {
        loop {
            let incoming = listener.accept().await;
            let (serving, detect) = (node.clone(), detect.clone());
            node.tasks.spawn(async move {
                let _permit = incoming.permit;
                match mux::detect(incoming.stream, incoming.arrival, &detect).await {
                    Ok(found) if found.protocol == mux::Protocol::Ssh => {
                        connection::serve(serving, found.stream, Some(found.client_addr), found.server_addr).await;
                    }
                    Ok(found) => tracing::debug!(client = %found.client_addr, "connection closed: not SSH"),
                    Err(error) => tracing::debug!(client = %incoming.arrival.peer, %error, "connection closed"),
                }
            });
        }
    }));
    Ok(())
}

/// Work that ends with the service.
fn until<W>(shutdown: &CancellationToken, work: W) -> impl Future<Output = ()> + Send + use<W>
where
    W: Future<Output = ()> + Send,
{
    let shutdown = shutdown.clone();
    async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }
}
