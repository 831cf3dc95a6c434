//! From what a client asks for to a connection with it.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cache::Cache;
use mux::proxy_protocol::signed::HeaderSigner;
use mux::proxy_protocol::{Addresses, SignHeader};
use rbac::RoleSet;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tonic::Status;
use tunnel::server::{DialError, Registry};
use tunnel::{BoxedStream, DialRequest, TunnelType};
use wire::error::{Error, ErrorKind, Kinded};
use wire::types::{RemoteClusterV3, RoutingStrategy, ServerV2};

use crate::leaves::Leaves;
use crate::peers::Peers;
use crate::recorded::AGENTLESS;
use crate::resolve::{ResolveError, Rules, Target, resolve};
use crate::settings::Settings;
use crate::transport::TransportPeer;

/// How long a node or the Auth Service may take to be reached.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a dial waits for an agent's tunnel to come.
const COMING: Duration = Duration::from_secs(2);
/// How long a name may take to be looked up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Dials nodes and Auth Services on behalf of clients. Clones share everything.
#[derive(Clone)]
pub(crate) struct NodeDialer {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Arc<Settings>,
    cache: Cache,
    tunnels: Registry,
    leaves: Leaves,
    peers: Peers,
    signer: HeaderSigner,
}

/// A connection to a node.
pub(crate) struct Dialled {
    /// The node's UUID.
    pub id: String,
    /// Its record.
    pub node: Arc<ServerV2>,
    /// Its cluster.
    pub cluster: String,
    /// What is known of that cluster.
    pub cache: Cache,
    /// What leads to it.
    pub stream: BoxedStream,
}

/// A leaf cluster, as lists show it.
pub(crate) struct ListedCluster {
    /// Its name.
    pub name: String,
    /// `online` or `offline`.
    pub status: String,
    /// When its tunnel was last heard of, RFC 3339.
    pub last_heartbeat: String,
}

impl NodeDialer {
    pub(crate) fn new(
        settings: Arc<Settings>,
        cache: Cache,
        tunnels: Registry,
        (leaves, peers): (Leaves, Peers),
        signer: HeaderSigner,
    ) -> Self {
        Self { inner: Arc::new(Inner { settings, cache, tunnels, leaves, peers, signer }) }
    }

    /// A connection to the node a client means.
    pub(crate) async fn dial(&self, peer: &TransportPeer, target: &str, cluster: &str) -> Result<Dialled, Status> {
        let target = Target::parse(target).map_err(failed)?;
        let leaf = self.leaf_of(peer, cluster)?;
        let cache = match leaf {
            Some(leaf) => self.inner.leaves.get(leaf).await.ok_or_else(|| leaf_offline(leaf))?,
            None => self.inner.cache.clone(),
        };
        let node = find(&cache, &target).await.map_err(failed)?;
        let id = node.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let stream = match leaf {
            Some(leaf) => self.connect_in_leaf(peer, &node, &id, leaf).await,
            None => self.connect(peer.client, peer.server, &node).await,
        };
        let stream = stream.map_err(Status::from)?;
        let cluster = leaf.map_or_else(|| self.inner.cache.cluster_name(), str::to_owned);
        Ok(Dialled { id, node, cluster, cache, stream })
    }

    /// A connection to the Auth Service of a cluster, for a client with a certificate.
    pub(crate) async fn dial_auth(&self, peer: &TransportPeer, cluster: &str) -> Result<BoxedStream, Status> {
        let leaf = self.leaf_of(peer, cluster)?;
        let own = self.inner.cache.cluster_name();
        let stream = self.passage_to_auth(leaf.unwrap_or(&own), (peer.client, peer.counted), peer.server).await?;
        tracing::debug!(user = %peer.identity.username, cluster, "client connected to the auth service");
        Ok(stream)
    }

    /// A connection to the Auth Service of a cluster, which will end TLS and decide about the client itself. It is told
    /// where the client is said to be, and for which address counts what it asks for.
    pub(crate) async fn passage_to_auth(
        &self,
        cluster: &str,
        (client, counted): (SocketAddr, IpAddr),
        server: SocketAddr,
    ) -> Result<BoxedStream, Status> {
        if cluster == self.inner.cache.cluster_name() {
            let mut stream = dial_auth_server(&self.inner.settings).await.map_err(Status::from)?;
            say_who(&self.inner.signer, &mut stream, (client, counted), server).await?;
            return Ok(Box::new(stream));
        }
        let request = DialRequest::auth_server().with_client(client, Some(server));
        self.inner.leaves.dial(cluster, &request).await.map_err(|_| leaf_offline(cluster))
    }

    /// The leaf cluster that a client means; none for the own cluster.
    fn leaf_of<'a>(&self, peer: &TransportPeer, cluster: &'a str) -> Result<Option<&'a str>, Status> {
        if cluster.is_empty() || cluster == self.inner.cache.cluster_name() {
            return Ok(None);
        }
        let clusters = self.inner.cache.remote_clusters();
        let found = clusters.iter().find(|c| name_of(c) == cluster);
        if found.is_some_and(|found| self.may_see(peer, found)) {
            return Ok(Some(cluster));
        }
        // One answer for a cluster that does not exist and for one that this user may not see.
        Err(Status::permission_denied(format!("access to cluster {cluster:?} denied")))
    }

    fn may_see(&self, peer: &TransportPeer, cluster: &RemoteClusterV3) -> bool {
        let identity = &peer.identity;
        let roles: Vec<_> = identity.groups.iter().filter_map(|name| self.inner.cache.role(name)).collect();
        let traits = rbac::Traits::from(identity.traits.clone().unwrap_or_default());
        let set = RoleSet::compile(roles.iter().map(|role| (**role).clone()), traits);
        !roles.is_empty() && set.check_remote_cluster(cluster).is_allowed()
    }

    /// The leaf clusters that a client may reach.
    pub(crate) fn visible_clusters(&self, peer: &TransportPeer) -> Vec<ListedCluster> {
        let mut clusters = self.inner.cache.remote_clusters();
        clusters.retain(|cluster| self.may_see(peer, cluster));
        let listed = clusters.iter().map(|cluster| {
            let status = cluster.status.clone().unwrap_or_default();
            let seen = wire::time::moment(status.last_heartbeat.as_ref()).unwrap_or_default();
            let last_heartbeat = seen.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            ListedCluster { name: name_of(cluster).to_owned(), status: status.connection, last_heartbeat }
        });
        listed.collect()
    }

    async fn connect_in_leaf(
        &self,
        peer: &TransportPeer,
        node: &ServerV2,
        id: &str,
        leaf: &str,
    ) -> Result<BoxedStream, Error> {
        let spec = node.spec.clone().unwrap_or_default();
        let server_id = pki::cluster_name::host_fqdn(id, leaf);
        let mut request =
            DialRequest::local_service(server_id, TunnelType::Node).with_client(peer.client, Some(peer.server));
        // A server without an agent goes by its id: not its port is wanted, but a proxy of its cluster that stands in for it.
        if !spec.use_tunnel && !spec.addr.is_empty() && node.sub_kind != AGENTLESS {
            request.address = spec.addr;
        }
        let dialled = self.inner.leaves.dial(leaf, &request).await;
        dialled.map_err(|error| offline(&spec.hostname, &format!("leaf cluster {leaf}"), &error.to_string()))
    }

    /// A connection to a node of this cluster, through its tunnel or directly.
    pub(crate) async fn connect(
        &self,
        client: SocketAddr,
        server: SocketAddr,
        node: &ServerV2,
    ) -> Result<BoxedStream, Error> {
        let spec = node.spec.clone().unwrap_or_default();
        let id = node.metadata.as_ref().map_or("", |m| &m.name);
        let server_id = pki::cluster_name::host_fqdn(id, &self.inner.cache.cluster_name());
        let request = DialRequest::local_service(server_id.clone(), TunnelType::Node).with_client(client, Some(server));
        let mut dialled = self.inner.tunnels.dial(&server_id, TunnelType::Node, &request).await;
        // Where no other proxy has one, a tunnel may be about to come: the agent, or this proxy, was just started.
        if matches!(dialled, Err(DialError::NotFound { .. }))
            && spec.use_tunnel
            && spec.proxy_i_ds.iter().all(|id| *id == self.inner.settings.host_uuid)
            && self.inner.tunnels.comes(&server_id, TunnelType::Node, COMING).await
        {
            dialled = self.inner.tunnels.dial(&server_id, TunnelType::Node, &request).await;
        }
        match dialled {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(DialError::NotFound { .. }) if !spec.proxy_i_ds.is_empty() => {
                let peers = &self.inner.peers;
                let dialled = peers.dial(&spec.proxy_i_ds, &server_id, TunnelType::Node, client, server).await;
                return dialled.map_err(|cause| offline(&spec.hostname, "another proxy", &cause));
            }
            Err(DialError::NotFound { .. }) if !spec.addr.is_empty() && !spec.use_tunnel => {}
            Err(error) => return Err(offline(&spec.hostname, "reverse tunnel", &error.to_string())),
        }
        match timeout(DIAL_TIMEOUT, TcpStream::connect(spec.addr.as_str())).await {
            Ok(Ok(mut stream)) => {
                let _ = mux::listener::tune(&stream); // a slower socket is still one
                // An OpenSSH server would not understand the header.
                if node.sub_kind.is_empty() || node.sub_kind == "teleport" {
                    say_who(&self.inner.signer, &mut stream, (client, client.ip()), server).await?;
                }
                Ok(Box::new(stream))
            }
            Ok(Err(error)) => Err(offline(&spec.hostname, "direct dial", &error.to_string())),
            Err(_) => Err(offline(&spec.hostname, "direct dial", "waited 10 s for the connection")),
        }
    }
}

/// Finds a node of the cluster that a cache is about.
async fn find(cache: &Cache, target: &Target) -> Result<Arc<ServerV2>, ResolveError> {
    let networking = cache.networking();
    let spec = networking.spec.clone().unwrap_or_default();
    let rules = Rules {
        strategy: RoutingStrategy::try_from(spec.routing_strategy).unwrap_or(RoutingStrategy::UnambiguousMatch),
        case_insensitive: spec.case_insensitive_routing,
    };
    let none = HashSet::new();
    match cache.with_nodes(|nodes| resolve(target, &none, nodes, rules)) {
        // Only a name that nothing is called is worth a look-up.
        Err(ResolveError::Unknown(name)) => {
            let addresses = lookup(&target.host).await;
            if addresses.is_empty() {
                return Err(ResolveError::Unknown(name));
            }
            cache.with_nodes(|nodes| resolve(target, &addresses, nodes, rules))
        }
        other => other,
    }
}

fn name_of(cluster: &RemoteClusterV3) -> &str {
    cluster.metadata.as_ref().map_or("", |m| &m.name)
}

/// Tells a service of the cluster, in a signed header, where the client really is.
pub(crate) async fn say_who(
    signer: &HeaderSigner,
    stream: &mut TcpStream,
    (client, counted): (SocketAddr, IpAddr),
    server: SocketAddr,
) -> Result<(), Error> {
    let header = signer.sign(&header_addresses(client, server), counted).await;
    let header = header.map_err(|e| Error::other(e.to_string()))?;
    match timeout(DIAL_TIMEOUT, stream.write_all(&header)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::connection_problem(format!("connection lost: {error}"))),
        Err(_) => Err(Error::connection_problem("waited 10 s to send where the client is")),
    }
}

/// Both ends of a header are of one family. Behind a balancer they may not be: then what the client dialled gives way,
/// because decisions rest on where the client is.
fn header_addresses(client: SocketAddr, server: SocketAddr) -> Addresses {
    Addresses::new(client, server).unwrap_or_else(|_| Addresses::from_source(client, server.port()))
}

fn leaf_offline(cluster: &str) -> Status {
    let text = format!(
        "failed to dial target host: leaf cluster {cluster:?} is offline: none of its proxies is connected to this one"
    );
    Error::connection_problem(text).to_status()
}

/// A TCP connection to one of the Auth Service's addresses.
pub(crate) async fn dial_auth_server(settings: &Settings) -> Result<TcpStream, Error> {
    let mut last = Error::connection_problem("no auth servers configured");
    for address in &settings.auth_servers {
        match timeout(DIAL_TIMEOUT, TcpStream::connect((address.host.as_str(), address.port))).await {
            Ok(Ok(stream)) => {
                let _ = mux::listener::tune(&stream); // a slower socket is still one
                return Ok(stream);
            }
            Ok(Err(error)) => {
                last = Error::connection_problem(format!("failed to dial auth server {address}: {error}"))
            }
            Err(_) => last = Error::connection_problem(format!("waited 10 s for auth server {address}")),
        }
    }
    Err(last)
}

fn failed(error: ResolveError) -> Status {
    let kind = match &error {
        ResolveError::InvalidTarget => ErrorKind::BadParameter,
        ResolveError::Ambiguous | ResolveError::UnknownId { .. } | ResolveError::Unknown(_) => ErrorKind::NotFound,
    };
    Error::new(kind, format!("failed to dial target host: {error}")).to_status()
}

/// What a user reads when a node cannot be reached.
fn offline(node: &str, how: &str, cause: &str) -> Error {
    Error::connection_problem(format!(
        "failed to dial target host: no connection to \"node\" agent {node:?} over {how}:\n\n  {cause}\n\n\
         The agent is not reachable at the moment. Its log says why; once it runs and reaches\n\
         this proxy, it connects by itself."
    ))
}

async fn lookup(host: &str) -> HashSet<IpAddr> {
    match timeout(LOOKUP_TIMEOUT, lookup_host((host, 0))).await {
        Ok(Ok(found)) => found.map(|a: SocketAddr| a.ip()).collect(),
        _ => HashSet::new(),
    }
}
