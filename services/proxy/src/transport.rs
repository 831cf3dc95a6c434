//! The gRPC service through which clients reach nodes and the Auth Service.

mod ssh;

#[cfg(test)]
pub(crate) use ssh::SSH_FRAME;

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::Extensions;
use pki::identity::Identity;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tunnel::BoxedStream;
use wire::transport::transport_service_server::{TransportService, TransportServiceServer};
use wire::transport::{
    ClusterDetails, Frame, GetClusterDetailsRequest, GetClusterDetailsResponse, ProxyClusterRequest,
    ProxyClusterResponse,
};

use crate::dial::NodeDialer;
use crate::gate::Gate;
use crate::recorded::Recorded;

/// The largest frame sent to a client.
const FRAME: usize = 64 * 1024;
/// Frames that may wait for a client.
const FRAME_QUEUE: usize = 8;
/// How long a client may take to say where it wants to go.
const FIRST_FRAME: Duration = Duration::from_secs(30);
/// How long one write may wait for a peer that does not read.
const STALLED: Duration = Duration::from_secs(300);

/// Who is at the other end of a gRPC connection; set when the connection is accepted.
#[derive(Clone, Debug)]
pub(crate) struct TransportPeer {
    /// What its certificate says.
    pub identity: Arc<Identity>,
    /// Where it is.
    pub client: SocketAddr,
    /// Where it arrived.
    pub server: SocketAddr,
    /// For which address counts what it asks for.
    pub counted: IpAddr,
}

impl TransportPeer {
    /// A peer that counts for the address at which it is.
    pub(crate) fn new(identity: Arc<Identity>, client: SocketAddr, server: SocketAddr) -> Self {
        Self { identity, client, server, counted: client.ip() }
    }
}

/// The service.
#[derive(Clone)]
pub(crate) struct Transport {
    dialer: NodeDialer,
    recorded: Recorded,
    gate: Gate,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Transport {
    pub(crate) fn new(
        (dialer, recorded): (NodeDialer, Recorded),
        gate: Gate,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self { dialer, recorded, gate, tasks, shutdown }
    }

    /// The service at its paths.
    pub(crate) fn into_router(self) -> Router {
        let sessions = self.clone();
        let serve = move |request| async move { ssh::serve(sessions, request).await };
        Routes::new(TransportServiceServer::new(self)).into_axum_router().route(ssh::PATH, post(serve))
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All but the call with sessions, which [`ssh`] answers.
#[tonic::async_trait]
impl TransportService for Transport {
    async fn get_cluster_details(
        &self,
        _: Request<GetClusterDetailsRequest>,
    ) -> Result<Response<GetClusterDetailsResponse>, Status> {
        Ok(Response::new(GetClusterDetailsResponse { details: Some(ClusterDetails { fips_enabled: false }) }))
    }

    async fn proxy_cluster(
        &self,
        request: Request<Streaming<ProxyClusterRequest>>,
    ) -> Result<Response<Replies<ProxyClusterResponse>>, Status> {
        let peer = peer(request.extensions())?;
        let mut frames = request.into_inner();
        let first = first_frame(frames.message()).await?;
        let watch = self.gate.admit(&peer)?;
        let stream = self.dialer.dial_auth(&peer, &first.cluster).await?;
        let (replies, receiver) = mpsc::channel(FRAME_QUEUE);
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = relay_cluster(frames, first.frame, stream, &replies) => {}
                reason = watch.ended() => {
                    let _ = replies.send(Err(reason)).await; // the client may be gone
                }
                () = shutdown.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn peer(extensions: &Extensions) -> Result<TransportPeer, Status> {
    let peer = extensions.get::<TransportPeer>();
    peer.cloned().ok_or_else(|| Status::permission_denied("a client certificate is required"))
}

async fn first_frame<T>(next: impl Future<Output = Result<Option<T>, Status>>) -> Result<T, Status> {
    match timeout(FIRST_FRAME, next).await {
        Ok(Ok(Some(frame))) => Ok(frame),
        Ok(Ok(None)) => Err(Status::invalid_argument("the stream ended before it said where to go")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("waited 30 s for the dial target")),
    }
}

/// Copies frames between a client and the Auth Service.
async fn relay_cluster(
    mut frames: Streaming<ProxyClusterRequest>,
    first: Option<Frame>,
    stream: BoxedStream,
    replies: &mpsc::Sender<Result<ProxyClusterResponse, Status>>,
) {
    let (mut from_auth, mut to_auth) = tokio::io::split(stream);
    let upward = async {
        if let Some(frame) = first
            && !write(&mut to_auth, &frame.payload).await
        {
            return;
        }
        while let Ok(Some(message)) = frames.message().await {
            let Some(frame) = message.frame else {
                let _ = replies.send(Err(Status::invalid_argument("received invalid frame"))).await;
                return;
            };
            if !write(&mut to_auth, &frame.payload).await {
                return;
            }
        }
    };
    let mut buffer = BytesMut::new();
    let downward = pump(
        |cx| poll_frame(&mut from_auth, cx, &mut buffer),
        |payload| replies.send(Ok(ProxyClusterResponse { frame: Some(Frame { payload }) })),
    );
    tokio::select! {
        () = upward => {}
        () = downward => {}
    }
}

/// The next frame of a stream; none at its end.
fn poll_frame(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
) -> Poll<Option<Bytes>> {
    buffer.reserve(FRAME);
    Poll::Ready(match ready!(poll_read_buf(Pin::new(stream), cx, buffer)) {
        Ok(1..) => Some(buffer.split().freeze()),
        Ok(0) | Err(_) => None,
    })
}

/// Sends frames until there are no more or nobody listens.
async fn pump<S, E>(mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<Bytes>>, send: impl Fn(Bytes) -> S)
where
    S: Future<Output = Result<(), E>>,
{
    while let Some(frame) = poll_fn(&mut next).await {
        if !matches!(timeout(STALLED, send(frame)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn write(stream: &mut (impl AsyncWriteExt + Unpin), data: &[u8]) -> bool {
    let written = async {
        stream.write_all(data).await?;
        stream.flush().await
    };
    matches!(timeout(STALLED, written).await, Ok(Ok(())))
}
