//! gRPC over connections of our own making.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use hyper_util::rt::TokioIo;
use mux::listener::jittered;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::DialError;
use crate::stream::BoxStream;

const KEEPALIVE_EVERY: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(180);
/// Flow-control windows: sessions are carried in streams, and a window bounds what a session moves per round trip.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The largest frame to be received. Sessions are carried in messages of 64 KiB, each a frame of its own then.
const LARGEST_FRAME: u32 = 128 << 10;

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait before dialling again after failures: a restarted server is found within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Makes the connections of a [`channel`] or an HTTP client, one at a time as they are needed.
#[async_trait]
pub trait Connect: Send + Sync + 'static {
    /// A new connection, TLS included.
    async fn connect(&self) -> Result<BoxStream, DialError>;
}

/// A gRPC channel that dials when it is first used and again whenever its connection is gone.
///
/// A call fails at once when the dial that it started fails; the next call dials again, after a pause that grows from
/// 50 ms to 1 s while dials keep failing. Clones share the connection.
pub fn channel(connect: Arc<dyn Connect>, user_agent: Option<&str>) -> Channel {
    // The address is never dialled; it becomes the authority of requests.
    let mut endpoint = Endpoint::from_static("http://teleport.cluster.local")
        .origin(Uri::from_static("https://teleport.cluster.local"))
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(LARGEST_FRAME);
    if let Some(user_agent) = user_agent {
        match endpoint.clone().user_agent(user_agent) {
            Ok(named) => endpoint = named,
            Err(error) => tracing::debug!(%error, user_agent, "user agent is not used"),
        }
    }
    endpoint.connect_with_connector_lazy(Connector { connect, pace: Arc::default() })
}

/// Adds the metadata `version` to every call: servers refuse clients that are too old.
#[derive(Debug, Clone)]
pub struct ClientVersion(MetadataValue<Ascii>);

impl ClientVersion {
    /// A semantic version; text that metadata cannot carry counts as none.
    pub fn new(version: &str) -> Option<Self> {
        version.parse().ok().map(Self)
    }
}

impl Interceptor for ClientVersion {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("version", self.0.clone());
        Ok(request)
    }
}

/// Connects for tonic.
struct Connector {
    connect: Arc<dyn Connect>,
    pace: Arc<Mutex<Pace>>,
}

/// How dials have gone lately.
#[derive(Default)]
struct Pace {
    failures: u32,
    not_before: Option<Instant>,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<BoxStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (connect, pace) = (self.connect.clone(), self.pace.clone());
        Box::pin(async move {
            let mut pace = pace.lock().await;
            if let Some(not_before) = pace.not_before {
                tokio::time::sleep_until(not_before).await;
            }
            let outcome = connect.connect().await;
            pace.note(outcome.is_ok());
            outcome.map(TokioIo::new)
        })
    }
}

impl Pace {
    fn note(&mut self, success: bool) {
        if success {
            *self = Self::default();
            return;
        }
        let pause = (SHORTEST_PAUSE * 2_u32.saturating_pow(self.failures.min(8))).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + jittered(pause));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_second_and_end_with_success() {
        let mut pace = Pace::default();
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            pace.note(false);
            longest = pace.not_before.unwrap() - Instant::now();
        }
        assert!((LONGEST_PAUSE / 2..=LONGEST_PAUSE).contains(&longest), "{longest:?}");
        pace.note(true);
        assert!(pace.not_before.is_none());
    }
}
