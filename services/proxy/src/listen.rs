//! The public port: from an accepted connection to whoever serves it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router as HttpRouter;
use axum::extract::Extension;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use mux::alpn;
use mux::router::{ConfigSource, Route, Router};
use mux::{Arrival, DetectConfig, Protocol};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, trace};
use tunnel::server::TunnelServer;

use crate::dial::dial_auth_server;
use crate::settings::Settings;
use crate::transport::TransportPeer;
use crate::web::{ClientAddress, UpgradedConnection};

/// HTTP/2 window of one stream: a bulk transfer is not held up by its round trips.
const STREAM_WINDOW: u32 = 4 << 20;
/// HTTP/2 window of all streams of one client.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// How long a client may take to send its request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Who serves a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// The web API and the pages.
    Web,
    /// Reverse tunnels of agents.
    Tunnel,
    /// The gRPC transport of clients.
    Transport,
    /// The Auth Service, untouched.
    Auth,
}

/// The one table that says where a TLS connection goes.
pub(crate) fn routes(web: Arc<dyn ConfigSource>, internal: Arc<dyn ConfigSource>) -> Router<Service> {
    Router::new()
        .protocols([alpn::HTTP_1_1, alpn::H2], Route::terminate(Service::Web, web.clone()))
        .protocols([alpn::REVERSE_TUNNEL], Route::terminate(Service::Tunnel, web))
        .protocols([alpn::PROXY_SSH_GRPC], Route::terminate(Service::Transport, internal))
        .protocol_prefix(alpn::AUTH_PREFIX, Route::forward(Service::Auth))
}

/// Serves connections. Clones share everything.
#[derive(Clone)]
pub(crate) struct Door {
    pub settings: Arc<Settings>,
    pub http: HttpRouter,
    pub minimal_http: HttpRouter,
    pub grpc: HttpRouter,
    pub tunnels: TunnelServer,
    /// Name of the cluster.
    pub cluster: String,
    pub routes: Arc<Router<Service>>,
    pub upgraded_routes: Arc<Router<Service>>,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Everything, by TLS routing.
    Public,
    /// Reverse tunnels, as SSH on the bare socket.
    Tunnel,
    /// SSH clients; the gRPC transport inside TLS.
    Ssh,
}

impl Door {
    /// Accepts until shutdown.
    pub(crate) async fn accept(self, listener: mux::listener::Listener, purpose: Purpose) {
        loop {
            let incoming = tokio::select! {
                () = self.shutdown.cancelled() => return,
                incoming = listener.accept() => incoming,
            };
            let door = self.clone();
            self.tasks.spawn(async move {
                let _permit = incoming.permit;
                let _ = mux::listener::tune(&incoming.stream); // a slower socket is still one
                door.serve(incoming.stream, incoming.arrival, purpose).await;
            });
        }
    }

    async fn serve<S>(&self, stream: S, arrival: Arrival, purpose: Purpose)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = DetectConfig {
            proxy_protocol: self.settings.proxy_protocol,
            silence_means_ssh: (purpose != Purpose::Public).then_some(Duration::from_secs(1)),
            ..Default::default()
        };
        let detected = match mux::detect(stream, arrival, &config).await {
            Ok(detected) => detected,
            Err(error) => {
                debug!(client = %arrival.peer, %error, "connection closed");
                return;
            }
        };
        let (client, server) = (detected.client_addr, detected.server_addr);
        match (detected.protocol, purpose) {
            (Protocol::Tls, _) => self.route(detected.stream, client, server, &self.routes, purpose).await,
            (Protocol::Ssh, Purpose::Tunnel) => self.tunnel(detected.stream, client).await,
            (protocol, _) => debug!(%client, ?protocol, "connection closed: nothing serves this protocol here"),
        }
    }

    /// Serves a connection that came inside an HTTP upgrade.
    pub(crate) async fn serve_upgraded(&self, connection: UpgradedConnection) {
        let server = self.settings.web_socket().unwrap_or(connection.client);
        self.route(connection.stream, connection.client, server, &self.upgraded_routes, Purpose::Public).await;
    }

    async fn route<S>(
        &self,
        stream: S,
        client: SocketAddr,
        server: SocketAddr,
        routes: &Router<Service>,
        purpose: Purpose,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routed = match mux::tls::route(stream, routes).await {
            Ok(routed) => routed,
            Err(error) => {
                debug!(%client, %error, "connection closed");
                return;
            }
        };
        match routed {
            mux::tls::Routed::Forwarded { stream, hello, .. } => self.pass_to_auth(stream, client, &hello).await,
            mux::tls::Routed::Terminated { handler, accepted, .. } => match handler {
                Service::Web => {
                    let http = if purpose == Purpose::Tunnel { &self.minimal_http } else { &self.http };
                    self.http(accepted.stream, http.clone().layer(Extension(ClientAddress(client)))).await;
                }
                Service::Tunnel => self.tunnel(accepted.stream, client).await,
                Service::Transport => self.transport(*accepted, client, server).await,
                Service::Auth => debug!(%client, "connection closed: the auth service ends its own TLS"),
            },
        }
    }

    /// Joins a client and the Auth Service; what they say is between them.
    async fn pass_to_auth<S>(&self, mut stream: S, client: SocketAddr, hello: &mux::ClientHello)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let asked = hello.alpn.first().and_then(|name| alpn::auth_cluster(name));
        if asked.as_ref() != Some(&self.cluster) {
            debug!(%client, cluster = ?asked, "connection closed: unknown cluster");
            return;
        }
        match dial_auth_server(&self.settings).await {
            Ok(mut auth) => {
                let copy = mux::copy_both(&mut stream, &mut auth);
                tokio::select! {
                    copied = copy => trace!(%client, up = copied.a_to_b, down = copied.b_to_a, "passage to auth ended"),
                    () = self.shutdown.cancelled() => {}
                }
            }
            Err(error) => debug!(%client, %error, "no passage to auth"),
        }
    }

    async fn tunnel<S>(&self, stream: S, client: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if let Err(error) = self.tunnels.serve(stream, client).await {
            debug!(%client, %error, "tunnel ended");
        }
    }

    async fn transport<S>(&self, accepted: mux::tls::Accepted<S>, client: SocketAddr, server: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = pki::tls::peer_identity(Some(&accepted.peer_certificates), chrono::Utc::now());
        let identity = match peer {
            Ok(Some((_, identity))) => Arc::new(identity),
            Ok(None) => return debug!(%client, "connection closed: a client certificate is required"),
            Err(error) => return debug!(%client, %error, "connection closed"),
        };
        let peer = TransportPeer { identity, client, server };
        self.http(accepted.stream, self.grpc.clone().layer(Extension(peer))).await;
    }

    /// Serves HTTP/1.1 or HTTP/2, whichever the client speaks.
    async fn http<S>(&self, stream: S, router: HttpRouter)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
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
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(Duration::from_secs(5), connection).await; // what is still open is cut
            }
        }
    }
}
