//! Tunnels that this proxy holds to the proxies of clusters that this one trusts, and what comes through them: their
//! proxies reach this cluster's Auth Service and nodes.

use std::collections::HashMap;
use std::sync::Arc;

use cache::Cache;
use dialer::{ClusterCredentials, Credentials, HostPort, ProxyEndpoint, Service};
use process::TunnelDialer;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use tunnel::agent::{AgentConfig, AgentCredentials, AgentPool, IncomingTransport};
use tunnel::dial::{LOCAL_NODE, REMOTE_AUTH_SERVER};
use tunnel::{BoxedStream, HostIdentity};
use wire::client::{ApiChannel, api_channel};
use wire::error::Error;
use wire::types::ServerV2;

use crate::dial::{Dialled, NodeDialer};
use crate::follow::Lists;
use crate::recorded::{AGENTLESS, Recorded};
use crate::settings::Settings;
use crate::shown::Shown;
use crate::tls::tls_certificates;
use crate::told;
use crate::tunnels::ssh_keys;

/// The port of a proxy whose address names none.
const WEB_PORT: u16 = 443;

/// What the pools have in common.
#[derive(Clone)]
pub(crate) struct Outbound {
    pub settings: Arc<Settings>,
    pub cache: Cache,
    pub shown: Shown,
    pub dialer: NodeDialer,
    pub recorded: Recorded,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
}

/// A tunnel to hold: the cluster and the address of its proxies.
type Key = (String, String);

impl Outbound {
    /// Holds the tunnels of the list, for ever.
    pub(crate) async fn follow(self, mut lists: watch::Receiver<Lists>) {
        let mut pools: HashMap<Key, DropGuard> = HashMap::new();
        loop {
            let wanted: Vec<Key> = lists
                .borrow_and_update()
                .tunnels
                .iter()
                .filter_map(|tunnel| tunnel.spec.as_ref())
                .flat_map(|spec| spec.dial_addrs.iter().map(|address| (spec.cluster_name.clone(), address.clone())))
                .collect();
            pools.retain(|key, _| wanted.contains(key));
            for key in wanted {
                if !pools.contains_key(&key)
                    && let Some(pool) = self.begin(&key)
                {
                    pools.insert(key, pool);
                }
            }
            if lists.changed().await.is_err() {
                return;
            }
        }
    }

    /// Begins to hold a tunnel; dropping the guard ends it.
    fn begin(&self, (cluster, address): &Key) -> Option<DropGuard> {
        let target = match HostPort::parse(address, WEB_PORT) {
            Ok(target) => target,
            Err(error) => {
                warn!(cluster, address, %error, "a trusted cluster's address cannot be used");
                return None;
            }
        };
        info!(cluster, address, "holding a tunnel to a trusted cluster");
        let web = self.settings.proxy_verify.clone();
        let endpoint = ProxyEndpoint::new(self.settings.dialer.clone(), target.clone(), web);
        let way = TunnelDialer::new(endpoint, self.settings.dialer.clone());
        let credentials =
            TunnelCredentials { shown: self.shown.clone(), cache: self.cache.clone(), cluster: cluster.clone() };
        let this = self.clone();
        let root: Arc<str> = cluster.as_str().into();
        let transports = move |incoming: IncomingTransport| {
            let (this, root) = (this.clone(), root.clone());
            async move { this.serve(incoming, &root).await }
        };
        let mut config = AgentConfig::new(Arc::new(credentials), Arc::new(way), Arc::new(transports));
        config.keep_alive = process::keep_alive(&self.cache);
        config.auth_version = Some(wire::VERSION.to_owned());
        // A cluster that is trusted no more gets no time to finish.
        config.drain_timeout = std::time::Duration::from_secs(1);
        let stop = self.shutdown.child_token();
        self.tasks.spawn(AgentPool::new(config).run(stop.clone()));
        self.tell(cluster.clone(), target, stop.clone());
        Some(stop.drop_guard())
    }

    /// Keeps a cluster that this one trusts told of this one's host authority, until it is stopped.
    fn tell(&self, cluster: String, target: HostPort, stop: CancellationToken) {
        let this = self.clone();
        self.tasks.spawn(async move {
            let channel = || this.to_auth_of(&cluster, &target);
            tokio::select! {
                () = told::keep_told(this.cache.clone(), told::KNOWN_TO_ROOTS, &cluster, channel) => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// A channel to the Auth Service of a cluster that this one trusts, with this proxy's certificate, which that cluster knows.
    fn to_auth_of(&self, cluster: &str, target: &HostPort) -> Result<ApiChannel, Error> {
        let authority = self.cache.authority("host", cluster);
        let authority = authority.ok_or_else(|| Error::not_found(format!("authority of cluster {cluster}")))?;
        let credentials = Credentials::new(ClusterCredentials {
            cluster: self.cache.cluster_name(),
            identity: Some(self.shown.client()),
            authorities: tls_certificates(&authority)?,
        });
        let (dialer, web) = (self.settings.dialer.clone(), self.settings.proxy_verify.clone());
        let proxy = ProxyEndpoint::with_credentials(dialer, target.clone(), web, credentials);
        Ok(api_channel(proxy.channel(Service::auth_grpc(cluster))))
    }

    async fn serve(&self, incoming: IncomingTransport, cluster: &str) {
        let mut target = match self.open(&incoming, cluster).await {
            Ok(target) => target,
            Err(reason) => {
                debug!(request = ?incoming.request(), reason, "a trusted cluster's request was refused");
                return incoming.refuse(&reason).await;
            }
        };
        let mut stream = match incoming.accept().await {
            Ok(stream) => stream,
            Err(error) => return debug!(%error, "stream from a trusted cluster lost"),
        };
        tokio::select! {
            copied = mux::copy_both(&mut stream, &mut target) => {
                debug!(up = copied.a_to_b, down = copied.b_to_a, "stream from a trusted cluster ended");
            }
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Connects to what is asked for: the Auth Service, or a node of this cluster. An address alone leads to the node
    /// that announced it and nowhere else: another cluster has no business in this one's network. To a server without an
    /// agent the id leads by way of this proxy, which stands in for it.
    async fn open(&self, incoming: &IncomingTransport, cluster: &str) -> Result<BoxedStream, String> {
        let request = incoming.request();
        let here = self.settings.web_socket().unwrap_or(([0, 0, 0, 0], 0).into());
        let client = request.client_source().unwrap_or(here);
        let server = request.client_destination().unwrap_or(here);
        if request.address == REMOTE_AUTH_SERVER {
            let own = self.cache.cluster_name();
            let opened = self.dialer.passage_to_auth(&own, (client, client.ip()), server).await;
            return opened.map_err(|status| format!("connection rejected: {}", status.message()));
        }
        let suffix = format!(".{}", self.cache.cluster_name());
        let node = match request.server_id.strip_suffix(&suffix) {
            Some(id) => self.cache.node(id),
            None => self.cache.with_nodes(|nodes| {
                let announced = |node: &&Arc<ServerV2>| {
                    node.spec.as_ref().is_some_and(|spec| !spec.addr.is_empty() && spec.addr == request.address)
                };
                first_of(nodes, announced)
            }),
        };
        let node = node.ok_or_else(|| "connection rejected: no such server in this cluster".to_owned())?;
        let opened = self.dialer.connect(client, server, &node).await;
        let stream = opened.map_err(|error| format!("connection rejected: {}", error.message))?;
        if node.sub_kind != AGENTLESS || request.address != LOCAL_NODE {
            return Ok(stream);
        }
        let id = node.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
        let dialled = Dialled { id, node, cluster: self.cache.cluster_name(), cache: self.cache.clone(), stream };
        let met = self.recorded.stand_in(cluster, (client, server), dialled).await;
        met.map_err(|status| format!("connection rejected: {}", status.message()))
    }
}

/// The first node of which something holds.
fn first_of<'a>(
    mut nodes: impl Iterator<Item = &'a Arc<ServerV2>>,
    holds: impl Fn(&&Arc<ServerV2>) -> bool,
) -> Option<Arc<ServerV2>> {
    nodes.find(holds).cloned()
}

/// The proxy's own identity; the other cluster's authority is looked up anew for every connection.
struct TunnelCredentials {
    shown: Shown,
    cache: Cache,
    cluster: String,
}

impl AgentCredentials for TunnelCredentials {
    fn identity(&self) -> Arc<HostIdentity> {
        Arc::new(self.shown.ssh())
    }

    fn proxy_authorities(&self) -> Vec<pki::keys::PublicKey> {
        self.cache.authority("host", &self.cluster).map(|ca| ssh_keys(&ca)).unwrap_or_default()
    }
}
