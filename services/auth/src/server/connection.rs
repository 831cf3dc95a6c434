//! One connection of the Auth Service's port, from its first byte to its last.

use std::convert::Infallible;
use std::future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use mux::tls::Accepted;
use mux::{Arrival, Detected, Protocol};
use pki::tls::peer_identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tower::ServiceExt;
use wire::error::Kinded;

use super::version::{self, Verdict};
use super::{ServeError, Server};
use crate::Caller;
use crate::authz::Peer;

/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 1000;
/// How often a silent HTTP/2 connection is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long the answer may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(180);
/// How long the headers of an HTTP/1.1 request may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Flow control window of a stream, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// Flow control window of a connection, in bytes: recordings of many sessions share one.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Largest list of headers of a request, in bytes.
const MAX_HEADERS: u32 = 64 << 10;
/// How long a connection that must close may take to finish its answers.
const FAREWELL: Duration = Duration::from_secs(5);

/// Which API a connection speaks, by the protocol it negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http2,
    Http1,
}

impl Server {
    /// Serves one connection until it ends: what the listener does with every connection it accepts, and what tests
    /// do with streams in memory.
    ///
    /// # Errors
    /// Why the connection was closed before it was served.
    pub async fn serve_connection<S>(&self, stream: S, arrival: Arrival) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Detected { protocol, client_addr, counted, stream, .. } =
            mux::detect(stream, arrival, &self.detect).await?;
        if protocol != Protocol::Tls {
            return Err(ServeError::NotTls(protocol));
        }
        let (hello, stream) = mux::client_hello(stream).await.map_err(mux::tls::AcceptError::Hello)?;
        let config = self.tls.config(hello.server_name.as_deref()).await?;
        let accepted = mux::tls::accept(stream, config).await?;
        let speaks = match accepted.alpn.as_deref() {
            Some(b"h2") => Speaks::Http2,
            Some(b"http/1.1") | None => Speaks::Http1,
            Some(other) => return Err(ServeError::Protocol(other.escape_ascii().to_string())),
        };
        let Accepted { stream, peer_certificates, .. } = accepted;
        let now = self.auth.now();
        let peer = peer_identity(Some(&peer_certificates), now)?;
        let identity = peer.as_ref().map(|(_, identity)| identity);
        let deadline = identity.and_then(|identity| identity.previous_identity_expires.or(identity.expires));
        let caller = match peer {
            Some((certificate, identity)) => self
                .auth
                .check_signer(&certificate, &identity)
                .and_then(|()| Caller::from_identity(identity, self.auth.cluster_name(), Some(client_addr))),
            None => Ok(Caller::anonymous(Some(client_addr))),
        };
        let caller = caller.map(|caller| caller.counted_for(counted));
        self.serve_http(stream, speaks, Arc::new(Peer::new(caller)), deadline).await;
        Ok(())
    }

    async fn serve_http<S>(&self, stream: S, speaks: Speaks, peer: Arc<Peer>, deadline: Option<DateTime<Utc>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let (server, peer) = (self.clone(), Arc::clone(&peer));
            async move { Ok::<_, Infallible>(server.respond(request, peer).await) }
        });
        let builder = builder(speaks);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.until_closed(&peer, deadline) => {
                connection.as_mut().graceful_shutdown();
                timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(caller = %peer.name(), %error, "connection ended");
        }
    }

    /// Waits until the connection has to be closed from this side.
    async fn until_closed(&self, peer: &Peer, deadline: Option<DateTime<Utc>>) {
        let closing = self.auth.closing();
        tokio::select! {
            () = closing.cancelled() => {}
            () = peer.refused() => {}
            () = self.expiry(peer, deadline) => tracing::debug!(caller = %peer.name(), "certificate expired"),
        }
    }

    /// Waits for the end of the certificate; forever when connections may outlive their certificates.
    async fn expiry(&self, peer: &Peer, deadline: Option<DateTime<Utc>>) {
        let Some(deadline) = deadline else { return future::pending().await };
        let left = (deadline - self.auth.now()).to_std().unwrap_or_default();
        tokio::time::sleep(left.min(MAX_SLEEP)).await;
        let disconnects = match self.authorizer.context(peer).await {
            Ok(context) => context.disconnects_expired(),
            Err(_) => true,
        };
        if left > MAX_SLEEP || !disconnects {
            future::pending::<()>().await;
        }
    }

    async fn respond(&self, request: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        let request = request.map(Body::new);
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let mut response =
            if is_grpc { self.respond_grpc(request, &peer).await } else { self.respond_http(request, &peer).await };
        response.headers_mut().insert(wire::VERSION_METADATA, HeaderValue::from_static(wire::VERSION));
        response
    }

    async fn respond_grpc(&self, mut request: Request<Body>, peer: &Arc<Peer>) -> Response<Body> {
        if let Some(refused) = self.refuse_old(request.headers()).await {
            peer.refuse();
            return refused;
        }
        match self.authorizer.admit(peer, request.uri().path()).await {
            Ok(context) => {
                request.extensions_mut().insert(context);
                self.grpc.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
            }
            Err(status) => status.into_http(),
        }
    }

    /// The HTTP API checks who may call what itself; it learns who calls here.
    async fn respond_http(&self, mut request: Request<Body>, peer: &Arc<Peer>) -> Response<Body> {
        let context = self.authorizer.context(peer).await;
        let context = context.and_then(|context| {
            self.authorizer.count(&context, request.uri().path())?;
            Ok(context)
        });
        match context {
            Ok(context) => {
                request.extensions_mut().insert(context.caller().clone());
                request.extensions_mut().insert(context);
                self.http.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
            }
            Err(error) => refuse_http(&error),
        }
    }

    /// Refuses releases that are too old, and says so to administrators.
    async fn refuse_old(&self, headers: &HeaderMap) -> Option<Response<Body>> {
        if self.allow_old_clients {
            return None;
        }
        let text = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        let version = text(wire::VERSION_METADATA).map(|version| std::str::from_utf8(version).unwrap_or("?"));
        match version::judge(version) {
            Verdict::Supported => return None,
            Verdict::TooOld => {
                let agent = text("user-agent").and_then(|agent| std::str::from_utf8(agent).ok()).unwrap_or_default();
                self.alert_about_old(version::program(agent)).await;
            }
            Verdict::Unreadable => {}
        }
        tracing::info!(version = ?version, "client refused: its version is not supported");
        Some(tonic::Status::permission_denied("client version is unsupported").into_http())
    }
}

/// Longest sleep towards the end of a certificate; timers do not reach further than that.
const MAX_SLEEP: Duration = Duration::from_secs(365 * 24 * 3600);

fn builder(speaks: Speaks) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADERS);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    match speaks {
        Speaks::Http2 => builder.http2_only(),
        Speaks::Http1 => builder.http1_only(),
    }
}

/// An error as the HTTP API writes it.
fn refuse_http(error: &wire::error::Error) -> Response<Body> {
    let body = serde_json::json!({"error": {"message": error.message}, "message": error.message});
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = error.kind().http_status();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
