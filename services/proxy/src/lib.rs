//! The Proxy Service: the public door of a cluster.
//!
//! A connection is served in these steps, each in its own module: [`listen`] detects the protocol and ends TLS as
//! the routing table says; [`web`] answers HTTP; [`transport`] takes clients' gRPC connections, [`gate`] lets them in
//! or not, [`resolve`] finds the node they mean and [`dial`] connects to it through a tunnel or directly.
//! [`tunnels`] holds the agents' connections, [`leaves`] knows the clusters that trust this one, [`outbound`] holds tunnels to
//! those that it trusts, [`presence`] tells the
//! cluster where this proxy is, [`follow`] knows the other proxies. [`ssh`] is the door for clients that speak nothing
//! but SSH; [`recorded`] stands between clients and nodes where the proxy records sessions; [`absent`] answers clients of services that this build does not have.

mod absent;
mod dial;
mod follow;
mod gate;
mod inventory;
mod leaves;
mod listen;
mod messages;
mod outbound;
mod peers;
mod precedence;
mod presence;
mod recorded;
mod report;
mod resolve;
mod settings;
mod shown;
mod ssh;
mod tls;
mod told;
mod transport;
mod tunnels;
mod upstream;
mod web;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cache::{Cache, Kind};
use mux::listener::{ConnectionLimit, Listener};
use pki::keys::PrivateKey;
use pki::x509::Certificate;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tracing::info;
use tunnel::server::TunnelServer;
use wire::client::ApiChannel;
use wire::error::Error;
use wire::proto::proxy_service_server::ProxyServiceServer;

pub use settings::Settings;
pub use upstream::Upstream;

use absent::Database;
use dial::NodeDialer;
use listen::{Configs, Door, Purpose};
use peers::{PeerDoor, Peers};
use precedence::Precedence;
use recorded::Recorded;
use shown::Shown;

/// How long what is cut may take to end.
const CUT: Duration = Duration::from_secs(5);
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
    shown: Shown,
    cache: Cache,
    /// No new connections.
    closing: CancellationToken,
    /// Everything ends.
    shutdown: CancellationToken,
    tasks: TaskTracker,
    /// Connections between clients and servers, for whose end a stop waits.
    sessions: TaskTracker,
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
        let (tasks, sessions) = (TaskTracker::new(), TaskTracker::new());
        let (closing, shutdown) = (CancellationToken::new(), CancellationToken::new());
        let kinds =
            vec![Kind::ClusterSettings, Kind::Authorities, Kind::Locks, Kind::Nodes, Kind::RemoteClusters, Kind::Roles];
        let cache = Cache::start(channel.clone(), kinds, &tasks, shutdown.clone());
        if !cache.ready(FIRST_FETCH).await {
            shutdown.cancel();
            return Err(Error::connection_problem("waited 30 s for the auth service"));
        }
        let shown = Shown::new(identity, &cache.cluster_name())?;
        let tunnels = tunnels::server(&settings, &cache, &shown);
        let (lists, known) = watch::channel(follow::Lists::default());
        if !settings.beside_auth {
            tasks.spawn(until(&closing, inventory::keep(channel.clone(), settings.clone())));
        }
        let peering = peers::is_on(&cache);
        let work = [
            Box::pin(follow::follow(channel.clone(), upstream.clone(), lists))
                as Pin<Box<dyn Future<Output = ()> + Send>>,
            Box::pin(tunnels::tell_of_proxies(tunnels.clone(), settings.clone(), known.clone())),
        ];
        let announcing = presence::announce(settings.clone(), peering, upstream.clone(), closing.clone());
        let host = (settings.host_uuid.as_str(), settings.data_dir.as_path());
        let trackers = (tasks.clone(), sessions.clone());
        let recorded = Recorded::start(host, cache.clone(), channel.clone(), (trackers, shutdown.clone()))?;
        let lists = known.clone();
        let parts =
            Parts { recorded, settings, cache, shown, upstream, lists, tunnels, tasks, sessions, closing, shutdown };
        let door = parts.door()?;
        parts.spawn(parts.outbound(&door).follow(known));
        let Parts { cache, shown, tunnels, tasks, sessions, closing, shutdown, .. } = parts;
        let mut service = Self { addresses: Vec::new(), tunnels, shown, cache, closing, shutdown, tasks, sessions };
        service.listen(&door, peering)?;
        for work in work {
            service.tasks.spawn(until(&service.closing, work));
        }
        service.tasks.spawn(announcing);
        info!(addresses = ?service.addresses, "proxy service started");
        Ok(service)
    }

    /// The addresses that are open, the public one first.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What the proxy knows of the cluster.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How to show another identity, from the next connection on.
    pub fn identity_setter(&self) -> impl Fn(&ProxyIdentity) -> Result<(), Error> + Send + Sync + use<> {
        let (shown, tunnels) = (self.shown.clone(), self.tunnels.clone());
        move |identity| {
            shown.replace(identity)?;
            tunnels.set_identity(&identity.ssh);
            Ok(())
        }
    }

    /// Counts the agents that are connected by reverse tunnels.
    pub fn tunnel_count(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let tunnels = self.tunnels.registry().clone();
        move || tunnels.len()
    }

    /// Takes no more connections, moves agents elsewhere, lets sessions go on for at most `grace`, and ends the rest within
    /// [`CUT`].
    pub async fn stop(self, grace: Duration) {
        self.closing.cancel();
        self.sessions.close();
        let sessions = async {
            self.tunnels.drain().await;
            self.sessions.wait().await;
        };
        if tokio::time::timeout(grace, sessions).await.is_err() {
            info!(sessions = self.sessions.len(), "sessions are cut, their time is over");
        }
        self.shutdown.cancel();
        self.tasks.close();
        let rest = async {
            tokio::join!(self.sessions.wait(), self.tasks.wait(), self.tunnels.close());
        };
        let _ = tokio::time::timeout(CUT, rest).await; // what is left ends with the process
    }

    fn listen(&mut self, door: &Door, peering: bool) -> Result<(), Error> {
        let settings = door.settings.clone();
        let own_tunnel = settings.tunnel.as_ref().filter(|t| **t != settings.web);
        let own_ssh = settings.ssh.as_ref().filter(|s| **s != settings.web);
        let ports = [
            (Some(&settings.web), Purpose::Public),
            (own_tunnel, Purpose::Tunnel),
            (own_ssh, Purpose::Ssh),
            (settings.kube.as_ref(), Purpose::Kubernetes),
            (settings.mysql.as_ref(), Purpose::Database(Database::MySql)),
            (settings.postgres.as_ref(), Purpose::Database(Database::Postgres)),
            (settings.mongo.as_ref(), Purpose::Database(Database::Mongo)),
            (settings.redis.as_ref(), Purpose::Database(Database::Redis)),
            (settings.peer.as_ref().filter(|_| peering), Purpose::Peers),
        ];
        let limit = ConnectionLimit::new(settings.max_connections);
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

/// What a proxy is made of.
struct Parts {
    recorded: Recorded,
    settings: Arc<Settings>,
    cache: Cache,
    shown: Shown,
    upstream: Upstream,
    /// What is known of other proxies.
    lists: watch::Receiver<follow::Lists>,
    tunnels: TunnelServer,
    tasks: TaskTracker,
    sessions: TaskTracker,
    closing: CancellationToken,
    shutdown: CancellationToken,
}

impl Parts {
    /// Wires the parts together.
    fn door(&self) -> Result<Door, Error> {
        let Self { settings, cache, tasks, sessions, shutdown, .. } = self;
        let (upgrades, mut upgraded_connections) = web::Upgrades::channel();
        let dialer = self.dialer();
        let reach = (self.upstream.clone(), dialer.clone());
        let reports = report::Reports::new(self.recorded.log(), &settings.host_uuid);
        let gate = gate::Gate::new(cache.clone()).with_reports(reports);
        let rates = Arc::new(mux::rate::RateLimit::new(settings.rates.iter().copied()));
        let guard = (gate.clone(), rates.clone());
        let web = web::Web::new(settings.clone(), cache.clone(), reach, guard, upgrades, tasks.clone());
        let reach_nodes = (dialer.clone(), self.recorded.clone());
        let transport =
            transport::Transport::new(reach_nodes.clone(), gate.clone(), sessions.clone(), shutdown.clone());
        let peer_door = PeerDoor::new(self.tunnels.registry().clone(), sessions.clone(), shutdown.clone());
        let configs = self.configs()?;
        // Inside an upgrade clients verify the proxy with the cluster's authority.
        let upgraded =
            Configs { web: configs.host.clone(), host: configs.host.clone(), internal: configs.internal.clone() };
        let door = Door {
            settings: settings.clone(),
            http: web::WebRouters::new(&web),
            grpc: transport.into_router(),
            peering: Routes::new(ProxyServiceServer::new(peer_door)).into_axum_router(),
            tunnels: self.tunnels.clone(),
            ssh: ssh::SshDoor::new(
                (self.shown.clone(), cache.clone()),
                (reach_nodes, gate),
                settings.algorithms.preferences(),
                sessions.clone(),
                shutdown.clone(),
            ),
            dialer,
            signed_headers: Arc::new(process::SignedByProxy::new(cache.clone())),
            routes: Arc::new(listen::routes(&configs)),
            tunnel_routes: Arc::new(listen::tunnel_routes(&configs)),
            ssh_routes: Arc::new(listen::ssh_routes(&configs)),
            upgraded_routes: Arc::new(listen::routes(&upgraded)),
            configs: Arc::new(configs),
            rates,
            precedence: Arc::new(Precedence::starting()),
            tasks: tasks.clone(),
            closing: self.closing.clone(),
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

    fn configs(&self) -> Result<Configs, Error> {
        let certificate = self.shown.certificate();
        let clients = tls::KnownAuthorities::new(&self.cache)?;
        self.spawn(clients.clone().follow(self.cache.clone()));
        let web = tls::WebCertificates::new(&self.settings)?;
        self.spawn(web.clone().follow(self.settings.https_keypairs_reload_interval));
        let internal = Arc::new(tls::internal(certificate.clone(), clients));
        Ok(Configs { web, host: Arc::new(tls::host(certificate)?), internal })
    }

    fn dialer(&self) -> NodeDialer {
        let peers = Peers::new(
            self.settings.host_uuid.clone(),
            self.cache.clone(),
            self.settings.dialer.clone(),
            self.shown.clone(),
            self.lists.clone(),
            self.tasks.clone(),
        );
        let leaves = leaves::Leaves::new(
            &self.settings,
            self.cache.clone(),
            self.tunnels.clone(),
            self.upstream.clone(),
            self.shown.clone(),
            (self.tasks.clone(), self.shutdown.clone()),
        );
        self.spawn(leaves.clone().follow());
        let registry = self.tunnels.registry().clone();
        NodeDialer::new(self.settings.clone(), self.cache.clone(), registry, (leaves, peers), self.shown.signer())
    }

    fn outbound(&self, door: &Door) -> outbound::Outbound {
        outbound::Outbound {
            settings: self.settings.clone(),
            cache: self.cache.clone(),
            shown: self.shown.clone(),
            dialer: door.dialer.clone(),
            recorded: self.recorded.clone(),
            tasks: self.tasks.clone(),
            shutdown: self.shutdown.clone(),
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(until(&self.shutdown, work));
    }
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
