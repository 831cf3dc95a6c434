//! The gRPC service through which clients reach nodes and the Auth Service.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use parking_lot::Mutex;
use pki::identity::Identity;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};
use tunnel::{BoxedStream, TunnelStream};
use wire::transport::transport_service_server::TransportService;
use wire::transport::{
    ClusterDetails, Frame, GetClusterDetailsRequest, GetClusterDetailsResponse, ProxyClusterRequest,
    ProxyClusterResponse, ProxySshRequest, ProxySshResponse, proxy_ssh_request, proxy_ssh_response,
};

use crate::dial::NodeDialer;
use crate::gate::Gate;
use crate::memory;
use crate::recorded::{AgentSource, Recorded};

/// What every SSH client sends first, and what nothing else may send to a node.
const SSH_PREFIX: &[u8] = b"SSH-2.0";
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
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl TransportService for Transport {
    async fn get_cluster_details(
        &self,
        _: Request<GetClusterDetailsRequest>,
    ) -> Result<Response<GetClusterDetailsResponse>, Status> {
        Ok(Response::new(GetClusterDetailsResponse { details: Some(ClusterDetails { fips_enabled: false }) }))
    }

    async fn proxy_ssh(
        &self,
        request: Request<Streaming<ProxySshRequest>>,
    ) -> Result<Response<Replies<ProxySshResponse>>, Status> {
        let peer = peer(&request)?;
        let mut frames = request.into_inner();
        let first = first_frame(&mut frames).await?;
        let target =
            first.dial_target.ok_or_else(|| Status::invalid_argument("first frame must contain a dial target"))?;
        let watch = self.gate.admit(&peer)?;
        memory::keep();
        let dialled = self.dialer.dial(&peer, &target.host_port, &target.cluster).await?;
        debug!(user = %peer.identity.username, node = dialled.id, "client connected to node");
        let (agent, far_agent) = tokio::io::duplex(FRAME);
        let source = AgentSource::new(|| async { Ok(Box::new(far_agent) as BoxedStream) });
        let stream = self.recorded.stand_between(&peer, &target.host_port, dialled, source).await?;
        let (replies, receiver) = mpsc::channel(FRAME_QUEUE);
        let details = ProxySshResponse { details: Some(ClusterDetails { fips_enabled: false }), frame: None };
        let _ = replies.try_send(Ok(details)); // the queue is empty
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = relay_ssh((frames, first.frame), stream, agent, &replies) => {}
                reason = watch.ended() => {
                    info!(user = %peer.identity.username, reason = %reason, "connection ended");
                    let _ = replies.send(Err(reason)).await; // the client may be gone
                }
                () = shutdown.cancelled() => {
                    let _ = replies.send(Err(Status::unavailable("the proxy is shutting down"))).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn proxy_cluster(
        &self,
        request: Request<Streaming<ProxyClusterRequest>>,
    ) -> Result<Response<Replies<ProxyClusterResponse>>, Status> {
        let peer = peer(&request)?;
        let mut frames = request.into_inner();
        let first = first_frame(&mut frames).await?;
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

fn peer<T>(request: &Request<T>) -> Result<TransportPeer, Status> {
    let peer = request.extensions().get::<TransportPeer>();
    peer.cloned().ok_or_else(|| Status::permission_denied("a client certificate is required"))
}

async fn first_frame<T>(frames: &mut Streaming<T>) -> Result<T, Status> {
    match timeout(FIRST_FRAME, frames.message()).await {
        Ok(Ok(Some(frame))) => Ok(frame),
        Ok(Ok(None)) => Err(Status::invalid_argument("the stream ended before it said where to go")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("waited 30 s for the dial target")),
    }
}

/// Copies SSH frames both ways until one side ends, and those of the user's agent meanwhile.
async fn relay_ssh(
    (mut frames, first): (Streaming<ProxySshRequest>, Option<proxy_ssh_request::Frame>),
    stream: BoxedStream,
    agent: DuplexStream,
    replies: &mpsc::Sender<Result<ProxySshResponse, Status>>,
) {
    let node = Mutex::new(NodeStream::from(stream));
    let (mut to_agent, mut from_agent) = tokio::io::split(agent);
    let upward = async {
        let mut prefix = PrefixCheck::default();
        let mut next = first;
        loop {
            match next {
                Some(proxy_ssh_request::Frame::Ssh(frame)) => {
                    if !prefix.accepts(&frame.payload) {
                        let text = "required prefix \"SSH-2.0\" was not found";
                        let _ = replies.send(Err(Status::permission_denied(text))).await;
                        return;
                    }
                    if !matches!(timeout(STALLED, give(&node, frame.payload)).await, Ok(Ok(()))) {
                        return;
                    }
                }
                // Nobody may be asking the agent.
                Some(proxy_ssh_request::Frame::Agent(frame)) => drop(write(&mut from_agent, &frame.payload).await),
                None => {}
            }
            next = match frames.message().await {
                Ok(Some(message)) => message.frame,
                Ok(None) => {
                    let _ = poll_fn(|cx| node.lock().writer().poll_shutdown(cx)).await; // the node may be gone
                    std::future::pending().await // what the node still says is delivered
                }
                Err(_) => return,
            };
        }
    };
    let mut buffer = BytesMut::new();
    let downward = pump(
        |cx| node.lock().poll_data(cx, &mut buffer),
        |payload| {
            let frame = proxy_ssh_response::Frame::Ssh(Frame { payload });
            replies.send(Ok(ProxySshResponse { details: None, frame: Some(frame) }))
        },
    );
    let mut agent_buffer = BytesMut::new();
    let to_agent = async {
        pump(
            |cx| poll_frame(&mut to_agent, cx, &mut agent_buffer),
            |payload| {
                let frame = proxy_ssh_response::Frame::Agent(Frame { payload });
                replies.send(Ok(ProxySshResponse { details: None, frame: Some(frame) }))
            },
        )
        .await;
        std::future::pending::<()>().await // the agent is asked at the beginning only
    };
    tokio::select! {
        () = upward => {}
        () = downward => {}
        () = to_agent => {}
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

/// A node's side of a connection.
enum NodeStream {
    /// What comes through a tunnel is passed on in the memory that it came in.
    Tunnel(Box<TunnelStream>),
    Other(BoxedStream),
}

impl From<BoxedStream> for NodeStream {
    fn from(stream: BoxedStream) -> Self {
        TunnelStream::of_stream(stream).map_or_else(Self::Other, Self::Tunnel)
    }
}

impl NodeStream {
    fn poll_data(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<Option<Bytes>> {
        match self {
            Self::Tunnel(stream) => stream.poll_data(cx),
            Self::Other(stream) => poll_frame(stream, cx, buffer),
        }
    }

    /// Writes a part of `data` and takes it off.
    fn poll_give(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<()>> {
        let written = match self {
            Self::Tunnel(stream) => ready!(stream.poll_write_bytes(cx, data))?,
            Self::Other(stream) => {
                let written = ready!(Pin::new(stream).poll_write(cx, data))?;
                data.advance(written);
                written
            }
        };
        Poll::Ready(if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) })
    }

    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match self {
            Self::Tunnel(stream) => Pin::new(&mut **stream),
            Self::Other(stream) => Pin::new(stream),
        }
    }
}

/// Writes all of a frame to a node.
async fn give(node: &Mutex<NodeStream>, mut data: Bytes) -> io::Result<()> {
    while data.has_remaining() {
        poll_fn(|cx| node.lock().poll_give(cx, &mut data)).await?;
    }
    poll_fn(|cx| node.lock().writer().poll_flush(cx)).await
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

/// Compares the first bytes of a stream with [`SSH_PREFIX`], however they are cut into frames.
#[derive(Debug, Default)]
struct PrefixCheck {
    seen: usize,
}

impl PrefixCheck {
    fn accepts(&mut self, data: &[u8]) -> bool {
        let missing = SSH_PREFIX.get(self.seen..).unwrap_or_default();
        let compared = missing.len().min(data.len());
        self.seen += compared;
        missing.iter().zip(data).all(|(a, b)| a == b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ssh_passes_however_it_is_cut() {
        let check = |parts: &[&[u8]]| {
            let mut check = PrefixCheck::default();
            parts.iter().all(|part| check.accepts(part))
        };
        assert!(check(&[b"SSH-2.0-x\r\n", b"anything"]));
        assert!(check(&[b"SSH-", b"2.0", b"-x"]));
        assert!(!check(&[b"GET / HTTP/1.1"]));
        assert!(!check(&[b"SSH-", b"1.5"]));
    }
}
