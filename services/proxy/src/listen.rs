//! The public port: from an accepted connection to whoever serves it.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router as HttpRouter;
use axum::extract::Extension;
use bytes::BytesMut;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use mux::alpn;
use mux::listener::Permit;
use mux::pingconn::PingStream;
use mux::proxy_protocol::VerifySignedHeader;
use mux::rate::RateLimit;
use mux::router::{ConfigSource, Route, Router};
use mux::server_name::KUBERNETES_PREFIX;
use mux::{Arrival, DetectConfig, Protocol, ProxyProtocolMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tracing::{debug, trace};
use tunnel::BoxedStream;
use tunnel::server::TunnelServer;

use crate::absent::{self, Database};
use crate::dial::NodeDialer;
use crate::precedence::Precedence;
use crate::settings::Settings;
use crate::ssh::SshDoor;
use crate::transport::TransportPeer;
use crate::web::{ClientAddress, UpgradedConnection, WebRouters};

/// HTTP/2 window of one stream: a bulk transfer is not held up by its round trips.
const STREAM_WINDOW: u32 = 4 << 20;
/// HTTP/2 window of all streams of one client.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// The largest HTTP/2 frame to be received: a message of a session, of 64 KiB, is one then.
const LARGEST_FRAME: u32 = 128 << 10;
/// How long a connection may take to end when the proxy stops.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How long a client may take to send its request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The table of a tunnel port of its own: tunnels, what an agent asks before it has one, and the passage to the Auth Service
/// for proxies of clusters that know no other address.
pub(crate) fn tunnel_routes(configs: &Configs) -> Router<Service> {
    let web = |service| Route::terminate(service, configs.web.clone());
    Router::new()
        .protocols([alpn::HTTP_1_1, alpn::H2], web(Service::Web))
        .protocols([alpn::REVERSE_TUNNEL], web(Service::Tunnel))
        .protocols([alpn::PROXY_GRPC], web(Service::NoGrpc))
        .protocol_prefix(alpn::AUTH_PREFIX, Route::forward(Service::Auth))
}

/// The table of an SSH port of its own: the clients' gRPC transport.
pub(crate) fn ssh_routes(configs: &Configs) -> Router<Service> {
    let transport = Route::terminate(Service::Transport, configs.internal.clone());
    Router::new().protocols([alpn::PROXY_SSH_GRPC, alpn::H2, alpn::HTTP_1_1], transport)
}

/// Most that is read to see whether a client says anything.
const FIRST_READ: usize = 4096;

/// Who serves a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// The web API and the pages.
    Web,
    /// Reverse tunnels of agents.
    Tunnel,
    /// SSH clients, inside TLS.
    Ssh,
    /// The gRPC transport of clients.
    Transport,
    /// gRPC services that nobody has here; every call is answered "unimplemented".
    NoGrpc,
    /// The Auth Service, untouched.
    Auth,
    /// Kubernetes clients.
    Kubernetes,
    /// TCP applications.
    Application,
    /// Databases whose own protocol begins after the outer TLS.
    Database(Database),
    /// Databases whose clients speak TLS inside the outer TLS.
    DatabaseTls(Database),
}

/// The TLS configurations behind the routes.
pub(crate) struct Configs {
    /// For browsers, agents and local proxies.
    pub web: Arc<dyn ConfigSource>,
    /// With the proxy's host certificate, no client certificate.
    pub host: Arc<dyn ConfigSource>,
    /// With the proxy's host certificate; clients show one, or are closed.
    pub internal: Arc<dyn ConfigSource>,
}

/// The one table that says where a TLS connection goes.
pub(crate) fn routes(configs: &Configs) -> Router<Service> {
    let web = |service| Route::terminate(service, configs.web.clone());
    let internal = |service| Route::terminate(service, configs.internal.clone());
    let host = |service| Route::terminate(service, configs.host.clone());
    let mut router = Router::new()
        .server_name_prefix(KUBERNETES_PREFIX, host(Service::Kubernetes))
        .protocols([alpn::HTTP_1_1, alpn::H2], web(Service::Web))
        .protocols([alpn::REVERSE_TUNNEL], web(Service::Tunnel))
        .protocols([alpn::PROXY_SSH], host(Service::Ssh))
        .protocols([alpn::PROXY_SSH_GRPC], internal(Service::Transport))
        .protocols([alpn::PROXY_GRPC], web(Service::NoGrpc))
        .protocols([alpn::PROXY_GRPC_MTLS], internal(Service::NoGrpc))
        .protocol_prefix(alpn::AUTH_PREFIX, Route::forward(Service::Auth))
        .protocols_with_ping([alpn::TCP], web(Service::Application))
        .protocols_with_ping([alpn::POSTGRES], web(Service::Database(Database::Postgres)))
        .protocol_prefix(alpn::MYSQL, web(Service::Database(Database::MySql)));
    for name in alpn::DATABASE_TLS {
        router = router.protocols_with_ping([name], web(Service::DatabaseTls(Database::of_protocol(name))));
    }
    router
}

/// Serves connections. Clones share everything.
#[derive(Clone)]
pub(crate) struct Door {
    pub settings: Arc<Settings>,
    pub http: WebRouters,
    pub grpc: HttpRouter,
    /// What other proxies of the cluster may ask.
    pub peering: HttpRouter,
    pub tunnels: TunnelServer,
    pub ssh: SshDoor,
    pub dialer: NodeDialer,
    /// Verifies what other proxies of the cluster say about clients.
    pub signed_headers: Arc<dyn VerifySignedHeader>,
    pub configs: Arc<Configs>,
    pub routes: Arc<Router<Service>>,
    pub tunnel_routes: Arc<Router<Service>>,
    pub ssh_routes: Arc<Router<Service>>,
    pub upgraded_routes: Arc<Router<Service>>,
    /// How often one address may connect for anything but the web, whose requests are counted one by one.
    pub rates: Arc<RateLimit>,
    /// Agents come in first.
    pub precedence: Arc<Precedence>,
    pub tasks: TaskTracker,
    /// No new connections from now on; those that are open go on.
    pub closing: CancellationToken,
    /// Everything ends.
    pub shutdown: CancellationToken,
}

/// The place of a connection among those that one address may have; given back with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The address for which counts what is asked for over time.
    pub counted: IpAddr,
    _permit: Arc<Permit>,
}

/// What serves a connection to its end.
type Way<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Everything, by TLS routing.
    Public,
    /// Reverse tunnels, as SSH on the bare socket.
    Tunnel,
    /// SSH clients; the gRPC transport inside TLS.
    Ssh,
    /// Kubernetes clients.
    Kubernetes,
    /// Clients of one kind of database.
    Database(Database),
    /// Other proxies of the cluster.
    Peers,
    /// Not a listener: what came inside an HTTP upgrade.
    Upgraded,
}

impl Purpose {
    /// Whether a client that says nothing waits for an SSH server to speak first.
    fn greets_silence(self) -> bool {
        matches!(self, Self::Tunnel | Self::Ssh)
    }

    /// Whether TLS may lead to the web, whose requests are counted one by one: only its first message tells.
    fn leads_to_web(self) -> bool {
        matches!(self, Self::Public | Self::Tunnel | Self::Upgraded)
    }
}

impl Door {
    /// Accepts until shutdown.
    pub(crate) async fn accept(self, listener: mux::listener::Listener, purpose: Purpose) {
        loop {
            let incoming = tokio::select! {
                () = self.closing.cancelled() => return,
                incoming = listener.accept() => incoming,
            };
            let door = self.clone();
            self.tasks.spawn(async move {
                let place = Place { counted: incoming.arrival.peer.ip(), _permit: Arc::new(incoming.permit) };
                // Boxed, to be in memory once: what is given to a function and kept while it waits is there twice.
                let serving = Box::pin(door.serve(incoming.stream, incoming.arrival, purpose, place));
                door.until_stopped(serving).await;
            });
        }
    }

    /// What serves a connection ends it by itself when the proxy stops; this is for what hangs.
    async fn until_stopped(&self, serving: impl Future<Output = ()>) {
        tokio::select! {
            () = serving => {}
            () = async { self.shutdown.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => {}
        }
    }

    /// Finds out what a connection is, and serves it.
    ///
    /// A proxy has two connections for each agent, most of them idle, and a future has room for the largest of its ways: each
    /// way is boxed, and what found it is dropped before it is taken, so that a connection keeps memory for that way only.
    async fn serve<S>(&self, stream: S, arrival: Arrival, purpose: Purpose, mut place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // MySQL's server speaks first, so nothing can be read of the client before.
        if purpose == Purpose::Database(Database::MySql) {
            if self.in_time(&place) {
                let mut stream = stream;
                Box::pin(absent::refuse(Database::MySql, &mut stream)).await;
            }
            return;
        }
        let config = DetectConfig {
            // Proxies dial each other without a balancer in between.
            proxy_protocol: match purpose {
                Purpose::Peers => ProxyProtocolMode::Off,
                _ => self.settings.proxy_protocol,
            },
            verifier: Some(self.signed_headers.clone()),
            silence_means_ssh: purpose.greets_silence().then_some(Duration::from_secs(1)),
            ..Default::default()
        };
        let detected = match Box::pin(mux::detect(stream, arrival, &config)).await {
            Ok(detected) => detected,
            Err(error) => {
                debug!(client = %arrival.peer, %error, "connection closed");
                return;
            }
        };
        let (client, server) = (detected.client_addr, detected.server_addr);
        place.counted = detected.counted;
        // Before anything that is work. Other proxies of the cluster are not counted.
        let counts = purpose != Purpose::Peers && !(detected.protocol == Protocol::Tls && purpose.leads_to_web());
        if counts && !self.in_time(&place) {
            return;
        }
        match (detected.protocol, purpose) {
            (Protocol::Tls | Protocol::Postgres, Purpose::Database(database)) => {
                Box::pin(self.database_port(detected.stream, database, client)).await;
            }
            (Protocol::Tls, Purpose::Peers) => Box::pin(self.peer(detected.stream, client)).await,
            (Protocol::Tls, Purpose::Kubernetes) => Box::pin(self.kubernetes_port(detected.stream, client)).await,
            (Protocol::Tls, _) => {
                let way = Box::pin(self.route(detected.stream, client, server, purpose, place.clone())).await;
                if let Some(way) = way {
                    way.await;
                }
            }
            (Protocol::Ssh, Purpose::Tunnel) => {
                self.tunnel(Box::new(detected.stream), client, self.precedence.agent()).await;
            }
            (Protocol::Ssh, Purpose::Public) if self.settings.tunnel_on_web() => {
                self.tunnel(Box::new(detected.stream), client, self.precedence.agent()).await;
            }
            (Protocol::Ssh, Purpose::Ssh) => {
                Box::pin(self.precedence.other()).await;
                Box::pin(self.ssh.serve(detected.stream, client, server, place.counted)).await;
            }
            (Protocol::Postgres, Purpose::Public) if self.settings.postgres.is_none() => {
                Box::pin(self.database_port(detected.stream, Database::Postgres, client)).await;
            }
            (protocol, _) => debug!(%client, ?protocol, "connection closed: nothing serves this protocol here"),
        }
    }

    /// Counts a connection; `false` when there are too many over time.
    fn in_time(&self, place: &Place) -> bool {
        let allowed = self.rates.allow(place.counted, Instant::now());
        if !allowed {
            debug!(address = %place.counted, "connection closed: too many of this address over time");
        }
        allowed
    }

    /// Serves a connection that came inside an HTTP upgrade.
    pub(crate) async fn serve_upgraded(&self, connection: UpgradedConnection) {
        let UpgradedConnection { stream, client, place } = connection;
        let server = self.settings.web_socket().unwrap_or(client);
        let serving = Box::pin(async {
            let way = Box::pin(self.route(stream, client, server, Purpose::Upgraded, place.clone())).await;
            if let Some(way) = way {
                way.await;
            }
        });
        self.until_stopped(serving).await;
    }

    /// Finds the way of a TLS connection; none if it was closed.
    async fn route<S>(
        &self,
        stream: S,
        client: SocketAddr,
        server: SocketAddr,
        purpose: Purpose,
        place: Place,
    ) -> Option<Way<'_>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routes = match purpose {
            Purpose::Tunnel => &self.tunnel_routes,
            Purpose::Ssh => &self.ssh_routes,
            Purpose::Upgraded => &self.upgraded_routes,
            _ => &self.routes,
        };
        let chosen = Box::pin(mux::tls::choose(stream, routes)).await;
        let chosen = chosen.inspect_err(|error| debug!(%client, %error, "connection closed")).ok()?;
        // Before the handshake, which is work.
        if purpose.leads_to_web() && chosen.handler != Service::Web && !self.in_time(&place) {
            return None;
        }
        let arriving = match chosen.handler {
            Service::Tunnel => Some(self.precedence.agent()),
            Service::Transport | Service::Ssh | Service::Auth => {
                Box::pin(self.precedence.other()).await;
                None
            }
            _ => None,
        };
        let (handler, accepted) = match Box::pin(chosen.complete()).await {
            Ok(mux::tls::Routed::Forwarded { stream, hello, .. }) => {
                return Some(Box::pin(self.pass_to_auth(stream, (client, place.counted), server, hello)));
            }
            Ok(mux::tls::Routed::Terminated { handler, accepted, .. }) => (handler, *accepted),
            Err(error) => {
                debug!(%client, %error, "connection closed");
                return None;
            }
        };
        Some(match handler {
            Service::Web => {
                let http = match purpose {
                    Purpose::Tunnel => &self.http.tunnel,
                    Purpose::Upgraded => &self.http.upgraded,
                    _ => &self.http.public,
                };
                let about = (Extension(ClientAddress(client)), Extension(place));
                Box::pin(self.http(accepted.stream, http.clone().layer(about.0).layer(about.1)))
            }
            Service::Tunnel => Box::pin(self.tunnel(Box::new(accepted.stream), client, arriving)),
            Service::Ssh => Box::pin(self.ssh.serve(accepted.stream, client, server, place.counted)),
            Service::Transport => Box::pin(self.transport(accepted, (client, place.counted), server)),
            Service::NoGrpc => Box::pin(self.http(accepted.stream, Routes::default().into_axum_router())),
            Service::Kubernetes => Box::pin(self.http(accepted.stream, absent::kubernetes())),
            Service::Application => {
                debug!(%client, "connection closed: application access is not part of this build yet");
                return None;
            }
            Service::Database(database) => {
                Box::pin(async move { absent::refuse(database, &mut unframed(accepted)).await })
            }
            Service::DatabaseTls(database) => Box::pin(self.database_tls(unframed(accepted), database, client)),
            Service::Auth => {
                debug!(%client, "connection closed: the auth service ends its own TLS");
                return None;
            }
        })
    }

    /// Joins a client and the Auth Service of a cluster; what they say is between them.
    async fn pass_to_auth<S>(
        &self,
        mut stream: S,
        (client, counted): (SocketAddr, IpAddr),
        server: SocketAddr,
        hello: mux::ClientHello,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(cluster) = hello.alpn.first().and_then(|name| alpn::auth_cluster(name)) else {
            debug!(%client, "connection closed: no cluster in the application protocol");
            return;
        };
        match self.dialer.passage_to_auth(&cluster, (client, counted), server).await {
            Ok(mut auth) => {
                let copy = mux::copy_both(&mut stream, &mut auth);
                tokio::select! {
                    copied = copy => trace!(%client, up = copied.a_to_b, down = copied.b_to_a, "passage to auth ended"),
                    () = self.shutdown.cancelled() => {}
                }
            }
            Err(error) => debug!(%client, cluster, %error, "no passage to auth"),
        }
    }

    /// A client at a port of its own for one kind of database.
    async fn database_port<S>(&self, stream: S, database: Database, client: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match database {
            Database::Postgres => self.postgres(stream, client).await,
            _ => self.database_tls(Box::new(stream), database, client).await,
        }
    }

    /// A PostgreSQL client asks in its own protocol for TLS.
    async fn postgres<S>(&self, mut stream: S, client: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // A client may ask for GSSAPI first.
        for _ in 0..2 {
            match absent::postgres_first_answer(&mut stream).await {
                Some(absent::PostgresAnswer::Tls) => {
                    let Some(config) = self.configs.web.config(&mux::ClientHello::default()) else { return };
                    match mux::tls::accept(stream, config).await {
                        Ok(mut accepted) => absent::refuse(Database::Postgres, &mut accepted.stream).await,
                        Err(error) => debug!(%client, %error, "connection closed"),
                    }
                    return;
                }
                Some(absent::PostgresAnswer::NoGss) => {}
                Some(absent::PostgresAnswer::Close) | None => return,
            }
        }
    }

    /// A database client that speaks TLS, inside the outer TLS or on a port of its own.
    async fn database_tls(&self, stream: BoxedStream, database: Database, client: SocketAddr) {
        let Some(config) = self.configs.host.config(&mux::ClientHello::default()) else { return };
        let mut accepted = match mux::tls::accept(stream, config).await {
            Ok(accepted) => accepted,
            Err(error) => return debug!(%client, %error, "connection closed"),
        };
        match database {
            Database::Http => self.http(accepted.stream, absent::http_database()).await,
            _ => absent::refuse(database, &mut accepted.stream).await,
        }
    }

    /// Another proxy of the cluster, by its host certificate.
    async fn peer<S>(&self, stream: S, client: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(config) = self.configs.internal.config(&mux::ClientHello::default()) else { return };
        let accepted = match mux::tls::accept(stream, config).await {
            Ok(accepted) => accepted,
            Err(error) => return debug!(%client, %error, "connection closed"),
        };
        let peer = pki::tls::peer_identity(Some(&accepted.peer_certificates), chrono::Utc::now());
        match peer {
            Ok(Some((_, identity))) if self.is_proxy(&identity) => {
                self.http(accepted.stream, self.peering.clone()).await;
            }
            Ok(_) => debug!(%client, "connection closed: this port is for the proxies of the cluster"),
            Err(error) => debug!(%client, %error, "connection closed"),
        }
    }

    /// Whether a certificate of the cluster's authorities is one of its proxies'.
    fn is_proxy(&self, identity: &pki::identity::Identity) -> bool {
        let own = self.ssh.cluster_name();
        let held = identity.groups.iter().chain(&identity.system_roles).any(|role| role == "Proxy");
        held && identity.teleport_cluster == own && identity.username.ends_with(&format!(".{own}"))
    }

    /// A client at the Kubernetes port.
    async fn kubernetes_port<S>(&self, stream: S, client: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(config) = self.configs.host.config(&mux::ClientHello::default()) else { return };
        match mux::tls::accept(stream, config).await {
            Ok(accepted) => self.http(accepted.stream, absent::kubernetes()).await,
            Err(error) => debug!(%client, %error, "connection closed"),
        }
    }

    async fn tunnel<A>(&self, stream: BoxedStream, client: SocketAddr, arriving: A) {
        if let Err(error) = self.tunnels.serve(stream, client, arriving).await {
            debug!(%client, %error, "tunnel ended");
        }
    }

    async fn transport<S>(
        &self,
        accepted: mux::tls::Accepted<S>,
        (client, counted): (SocketAddr, IpAddr),
        server: SocketAddr,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = pki::tls::peer_identity(Some(&accepted.peer_certificates), chrono::Utc::now());
        let identity = match peer {
            Ok(Some((_, identity))) => Arc::new(identity),
            Ok(None) => return debug!(%client, "connection closed: a client certificate is required"),
            Err(error) => return debug!(%client, %error, "connection closed"),
        };
        let peer = TransportPeer { counted, ..TransportPeer::new(identity, client, server) };
        self.http(accepted.stream, self.grpc.clone().layer(Extension(peer))).await;
    }

    /// Serves HTTP/1.1 or HTTP/2, whichever the client speaks.
    async fn http<S>(&self, mut stream: S, router: HttpRouter)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The time limit for headers begins with the first byte, which may never come.
        let mut first = BytesMut::with_capacity(FIRST_READ);
        match timeout(HEADER_TIMEOUT, stream.read_buf(&mut first)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
        let stream = mux::Rewind::new(first, stream);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(LARGEST_FRAME)
            .max_concurrent_streams(1000)
            .keep_alive_interval(Duration::from_secs(60))
            .keep_alive_timeout(Duration::from_secs(180));
        let service = TowerToHyperService::new(router);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    trace!(%error, "HTTP connection ended");
                }
            }
            () = self.closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    _ = connection.as_mut() => {}
                    // What is still open then is cut.
                    () = async { self.shutdown.cancelled().await; tokio::time::sleep(Duration::from_secs(5)).await } => {}
                }
            }
        }
    }
}

/// The content of a connection, without the frames of names with pings.
fn unframed<S>(accepted: mux::tls::Accepted<S>) -> BoxedStream
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match &accepted.alpn {
        Some(name) if alpn::is_ping(name) => Box::new(PingStream::server(accepted.stream)),
        _ => Box::new(accepted.stream),
    }
}
