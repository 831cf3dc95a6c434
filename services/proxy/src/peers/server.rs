//! The end that has the tunnel.

use std::net::SocketAddr;
use std::pin::Pin;

use futures::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;
use tunnel::server::{DialError, Registry};
use tunnel::{BoxedStream, DialRequest, TunnelType};
use wire::proto::frame::Message;
use wire::proto::proxy_service_server::ProxyService;
use wire::proto::{ConnectionEstablished, Frame, NetAddr};

use super::{DIAL_TIMEOUT, FRAME, FRAME_QUEUE, STALLED, data};

type Replies = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

/// Dials this proxy's tunnels for other proxies. It goes no further: a peer never asks another peer.
#[derive(Clone)]
pub(crate) struct PeerDoor {
    tunnels: Registry,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl PeerDoor {
    pub(crate) fn new(tunnels: Registry, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { tunnels, tasks, shutdown }
    }

    async fn dial(&self, request: &wire::proto::DialRequest) -> Result<BoxedStream, Status> {
        let kind: TunnelType =
            request.tunnel_type.parse().map_err(|e| Status::invalid_argument(format!("TunnelType: {e}")))?;
        if kind == TunnelType::Proxy {
            return Err(Status::invalid_argument("TunnelType: proxies are not dialled through proxies"));
        }
        let source = parse(request.source.as_ref(), "Source")?;
        let destination = parse(request.destination.as_ref(), "Destination")?;
        let dial = DialRequest::local_service(request.node_id.clone(), kind).with_client(source, Some(destination));
        match self.tunnels.dial(&request.node_id, kind, &dial).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error @ DialError::NotFound { .. }) => Err(Status::not_found(error.to_string())),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

fn parse(address: Option<&NetAddr>, field: &str) -> Result<SocketAddr, Status> {
    let text = address.map(|a| a.addr.as_str()).unwrap_or_default();
    text.parse().map_err(|_| Status::invalid_argument(format!("{field}: expected address and port, found {text:?}")))
}

#[tonic::async_trait]
impl ProxyService for PeerDoor {
    async fn dial_node(&self, request: Request<Streaming<Frame>>) -> Result<Response<Replies>, Status> {
        let mut frames = request.into_inner();
        let late = |_| Status::deadline_exceeded("waited 10 s for the dial request");
        let first = timeout(DIAL_TIMEOUT, frames.message()).await.map_err(late)??;
        let Some(Message::DialRequest(dial)) = first.and_then(|frame| frame.message) else {
            return Err(Status::invalid_argument("the first frame must be a dial request"));
        };
        let stream = self.dial(&dial).await?;
        debug!(agent = dial.node_id, "agent reached for a peer");
        let (replies, receiver) = mpsc::channel(FRAME_QUEUE);
        let established = Frame { message: Some(Message::ConnectionEstablished(ConnectionEstablished {})) };
        let _ = replies.try_send(Ok(established)); // the queue is empty
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = relay(frames, stream, &replies) => {}
                () = shutdown.cancelled() => {
                    let _ = replies.send(Err(Status::unavailable("the proxy is shutting down"))).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn relay(mut frames: Streaming<Frame>, stream: BoxedStream, replies: &mpsc::Sender<Result<Frame, Status>>) {
    let (mut from_agent, mut to_agent) = tokio::io::split(stream);
    let there = async {
        loop {
            let frame = match frames.message().await {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return, // the peer is gone, and with it its client
            };
            // A frame of another kind ends the stream.
            let Some(Message::Data(data)) = frame.message else { return };
            let written = async {
                to_agent.write_all(&data.bytes).await?;
                to_agent.flush().await
            };
            if !matches!(timeout(STALLED, written).await, Ok(Ok(()))) {
                return;
            }
        }
        let _ = to_agent.shutdown().await; // the agent may be gone
        std::future::pending().await // what it still says is delivered
    };
    let back = async {
        let mut buffer = vec![0; FRAME];
        loop {
            let count = match from_agent.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            let frame = data(buffer.get(..count).unwrap_or_default().to_vec());
            if !matches!(timeout(STALLED, replies.send(Ok(frame))).await, Ok(Ok(()))) {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}
