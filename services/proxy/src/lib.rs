//! The Proxy Service: the public door of a cluster.
//!
//! A connection is served in these steps, each in its own module: [`listen`] detects the protocol and ends TLS as
//! the routing table says; [`web`] answers HTTP; [`transport`] takes clients' gRPC connections, [`gate`] lets them in
//! or not, [`resolve`] finds the node they mean and [`dial`] connects to it through a tunnel or directly.
//! [`tunnels`] holds the agents' connections, [`presence`] tells the cluster where this proxy is.

mod dial;
mod gate;
mod listen;
mod presence;
mod resolve;
mod settings;
mod tls;
mod transport;
mod tunnels;
mod upstream;
mod web;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cache::{Cache, Kind};
use mux::listener::{ConnectionLimit, Listener};
use pki::keys::PrivateKey;
use pki::x509::Certificate;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tracing::info;
use tunnel::server::TunnelServer;
use wire::client::ApiChannel;
use wire::error::Error;
use wire::transport::transport_service_server::TransportServiceServer;

pub use settings::{Settings, WebCertificate};
pub use upstream::Upstream;

use listen::{Door, Purpose};

/// How long the first fetch of the cluster's state may take.
const FIRST_FETCH: Duration = Duration::from_secs(30);

/// The proxy's own identity in the cluster.
#[derive(Clone)]
pub struct ProxyIdentity {
    /// Host certificate for TLS.
    pub tls_certificate: Certificate,
    /// Its key.
    pub tls_key: PrivateKey,
    /// Key and host certificate for SSH.
    pub ssh: tunnel::HostIdentity,
}

/// A running proxy.
pub struct ProxyService {
    addresses: Vec<SocketAddr>,
    tunnels: TunnelServer,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl ProxyService {
    /// Starts a proxy; returns when its ports are open and it knows the cluster.
    pub async fn start(
        settings: Settings,
        identity: ProxyIdentity,
        channel: ApiChannel,
        upstream: Upstream,
    ) -> Result<Self, Error> {
        let settings = Arc::new(settings);
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let kinds =
            vec![Kind::ClusterSettings, Kind::Authorities, Kind::Locks, Kind::Nodes, Kind::RemoteClusters, Kind::Roles];
        let cache = Cache::start(channel, kinds, &tasks, shutdown.clone());
        if !cache.ready(FIRST_FETCH).await {
            shutdown.cancel();
            return Err(Error::connection_problem("waited 30 s for the auth service"));
        }
        let tunnels = tunnels::server(&settings, &cache, &identity);
        let announcement = presence::announce(settings.clone(), upstream.clone());
        let door = door(&settings, &cache, &identity, upstream, &tunnels, &tasks, &shutdown)?;
        let mut service = Self { addresses: Vec::new(), tunnels, shutdown, tasks };
        service.listen(&door)?;
        service.tasks.spawn(until(&service.shutdown, announcement));
        info!(addresses = ?service.addresses, "proxy service started");
        Ok(service)
    }

    /// The addresses that are open, the public one first.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Agents connected by reverse tunnels.
    pub fn tunnel_count(&self) -> usize {
        self.tunnels.registry().len()
    }

    /// Moves agents elsewhere, ends what is open and waits for it, at most `grace`.
    pub async fn stop(self, grace: Duration) {
        self.tunnels.drain().await;
        self.shutdown.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(grace, self.tasks.wait()).await; // what is left is cut
        self.tunnels.close().await;
    }

    fn listen(&mut self, door: &Door) -> Result<(), Error> {
        let settings = door.settings.clone();
        let own_tunnel = settings.tunnel.as_ref().filter(|t| **t != settings.web);
        let ports = [
            (Some(&settings.web), Purpose::Public),
            (own_tunnel, Purpose::Tunnel),
            (settings.ssh.as_ref(), Purpose::Ssh),
        ];
        let limit = ConnectionLimit::default();
        for (address, purpose) in ports {
            let Some(address) = address else { continue };
            let socket = settings::socket(address).ok_or_else(|| {
                Error::bad_parameter(format!("{address}: a listener needs an IP address, not a name"))
            })?;
            let listener = Listener::bind(socket, limit.clone())
                .map_err(|e| Error::other(format!("listening on {socket}: {e}")))?;
            self.addresses.push(listener.local_addr());
            self.tasks.spawn(door.clone().accept(listener, purpose));
        }
        Ok(())
    }
}

/// Wires the parts together.
#[allow(clippy::too_many_arguments)] // the one place that knows them all
fn door(
    settings: &Arc<Settings>,
    cache: &Cache,
    identity: &ProxyIdentity,
    upstream: Upstream,
    tunnels: &TunnelServer,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Door, Error> {
    let chain = [identity.tls_certificate.clone()];
    let clients = tls::KnownAuthorities::new(cache)?;
    tasks.spawn(until(shutdown, clients.clone().follow(cache.clone())));
    let web_tls = tls::web(settings)?;
    let internal = Arc::new(tls::internal(&chain, &identity.tls_key, clients));
    let upgraded = tls::upgraded(&chain, &identity.tls_key)?;

    let (upgrades, mut upgraded_connections) = web::Upgrades::channel();
    let web = web::Web::new(settings.clone(), cache.clone(), upstream, upgrades);
    let dialer = dial::NodeDialer::new(settings.clone(), cache.clone(), tunnels.registry().clone());
    let transport = transport::Transport::new(dialer, gate::Gate::new(cache.clone()), shutdown.clone());
    let door = Door {
        settings: settings.clone(),
        http: web::router(web.clone()),
        minimal_http: web::minimal_router(web),
        grpc: Routes::new(TransportServiceServer::new(transport)).into_axum_router(),
        tunnels: tunnels.clone(),
        cluster: cache.cluster_name(),
        routes: Arc::new(listen::routes(Arc::new(web_tls), internal.clone())),
        upgraded_routes: Arc::new(listen::routes(Arc::new(upgraded), internal)),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
    };
    let inner = door.clone();
    tasks.spawn(until(shutdown, async move {
        while let Some(connection) = upgraded_connections.recv().await {
            let door = inner.clone();
            inner.tasks.spawn(async move { door.serve_upgraded(connection).await });
        }
    }));
    Ok(door)
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
