//! From what a client asks for to a connection with it.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cache::Cache;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tonic::Status;
use tunnel::server::{DialError, Registry};
use tunnel::{BoxedStream, DialRequest, TunnelType};
use wire::error::{Error, ErrorKind, Kinded};
use wire::types::{RoutingStrategy, ServerV2};

use crate::resolve::{ResolveError, Rules, Target, resolve};
use crate::settings::Settings;
use crate::transport::TransportPeer;

/// How long a node or the Auth Service may take to be reached.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a name may take to be looked up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Dials nodes and the Auth Service on behalf of clients.
#[derive(Clone)]
pub(crate) struct NodeDialer {
    settings: std::sync::Arc<Settings>,
    cache: Cache,
    tunnels: Registry,
}

impl NodeDialer {
    pub(crate) fn new(settings: std::sync::Arc<Settings>, cache: Cache, tunnels: Registry) -> Self {
        Self { settings, cache, tunnels }
    }

    /// A connection to the node a client means, and the node's UUID.
    pub(crate) async fn dial(
        &self,
        peer: &TransportPeer,
        target: &str,
        cluster: &str,
    ) -> Result<(String, BoxedStream), Status> {
        self.check_cluster(cluster)?;
        let target = Target::parse(target).map_err(failed)?;
        let node = self.resolve(&target).await.map_err(failed)?;
        let id = node.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let stream = self.connect(peer, &node, &id).await.map_err(Status::from)?;
        Ok((id, stream))
    }

    /// A connection to the Auth Service of a cluster.
    pub(crate) async fn dial_auth(&self, peer: &TransportPeer, cluster: &str) -> Result<BoxedStream, Status> {
        self.check_cluster(cluster)?;
        let stream = dial_auth_server(&self.settings).await.map_err(Status::from)?;
        tracing::debug!(user = %peer.identity.username, "client connected to the auth service");
        Ok(Box::new(stream))
    }

    fn check_cluster(&self, cluster: &str) -> Result<(), Status> {
        let own = self.cache.cluster_name();
        if cluster.is_empty() || cluster == own {
            return Ok(());
        }
        // Whether a cluster exists is not for strangers to it to know.
        Err(Status::permission_denied(format!("access to cluster {cluster:?} denied")))
    }

    async fn resolve(&self, target: &Target) -> Result<std::sync::Arc<ServerV2>, ResolveError> {
        let networking = self.cache.networking();
        let spec = networking.spec.clone().unwrap_or_default();
        let rules = Rules {
            strategy: RoutingStrategy::try_from(spec.routing_strategy).unwrap_or(RoutingStrategy::UnambiguousMatch),
            case_insensitive: spec.case_insensitive_routing,
        };
        let none = HashSet::new();
        match self.cache.with_nodes(|nodes| resolve(target, &none, nodes, rules)) {
            // Only a name that nothing is called is worth a look-up.
            Err(ResolveError::Unknown(name)) => {
                let addresses = lookup(&target.host).await;
                if addresses.is_empty() {
                    return Err(ResolveError::Unknown(name));
                }
                self.cache.with_nodes(|nodes| resolve(target, &addresses, nodes, rules))
            }
            other => other,
        }
    }

    async fn connect(&self, peer: &TransportPeer, node: &ServerV2, id: &str) -> Result<BoxedStream, Error> {
        let spec = node.spec.clone().unwrap_or_default();
        let server_id = pki::cluster_name::host_fqdn(id, &self.cache.cluster_name());
        let request =
            DialRequest::local_service(server_id.clone(), TunnelType::Node).with_client(peer.client, Some(peer.server));
        match self.tunnels.dial(&server_id, TunnelType::Node, &request).await {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(DialError::NotFound { .. }) if !spec.addr.is_empty() && !spec.use_tunnel => {}
            Err(error) => return Err(offline(&spec.hostname, "reverse tunnel", &error.to_string())),
        }
        match timeout(DIAL_TIMEOUT, TcpStream::connect(spec.addr.as_str())).await {
            Ok(Ok(stream)) => {
                let _ = mux::listener::tune(&stream); // a slower socket is still one
                Ok(Box::new(stream))
            }
            Ok(Err(error)) => Err(offline(&spec.hostname, "direct dial", &error.to_string())),
            Err(_) => Err(offline(&spec.hostname, "direct dial", "waited 10 s for the connection")),
        }
    }
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
