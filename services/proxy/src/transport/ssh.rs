//! The call that carries a session between a client and a node.
//!
//! Data goes both ways in the memory that it came in, and towards the client without a task in between: the connection
//! takes it from the node's stream when the client can take it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::Frame;
use mux::memory;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tracing::{debug, info};
use tunnel::{BoxedStream, TunnelStream};
use wire::transport::{ClusterDetails, ProxySshRequest, ProxySshResponse, proxy_ssh_request};

use super::{FRAME, STALLED, Transport, first_frame, peer, poll_frame, write};
use crate::messages::{self, Messages};
use crate::recorded::AgentSource;

/// Where the call is found.
pub(super) const PATH: &str = "/teleport.transport.v1.TransportService/ProxySSH";
/// Number of the field of an answer with data of SSH.
pub(crate) const SSH_FRAME: u32 = 2;
/// Number of the field of an answer with a question to the user's agent.
const AGENT_FRAME: u32 = 3;
/// What every SSH client sends first, and what nothing else may send to a node.
const SSH_PREFIX: &[u8] = b"SSH-2.0";

/// How long it may take to pass on what a client said last before it was gone.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Answers the call.
pub(super) async fn serve(transport: Transport, request: Request<Body>) -> Response<Body> {
    begin(&transport, request).await.unwrap_or_else(|status| status.into_http())
}

async fn begin(transport: &Transport, request: Request<Body>) -> Result<Response<Body>, Status> {
    let (head, body) = request.into_parts();
    let peer = peer(&head.extensions)?;
    let mut messages = Messages::new(body);
    let first: ProxySshRequest = first_frame(messages.next()).await?;
    let target = first.dial_target.ok_or_else(|| Status::invalid_argument("first frame must contain a dial target"))?;
    let watch = transport.gate.admit(&peer)?;
    memory::keep();
    let dialled = transport.dialer.dial(&peer, &target.host_port, &target.cluster).await?;
    debug!(user = %peer.identity.username, node = dialled.id, "client connected to node");
    let (agent, far_agent) = tokio::io::duplex(FRAME);
    let source = AgentSource::new(|| async { Ok(Box::new(far_agent) as BoxedStream) });
    let stream = transport.recorded.stand_between(&peer, &target.host_port, dialled, source).await?;
    let node = Arc::new(Mutex::new(NodeStream::from(stream)));
    let (from_agent, to_agent) = tokio::io::split(agent);
    let (end, ended) = oneshot::channel();
    let (shutdown, upward_node) = (transport.shutdown.clone(), node.clone());
    let client = CancellationToken::new();
    let present = client.clone().drop_guard();
    transport.tasks.spawn(async move {
        let status = tokio::select! {
            status = upward((messages, first.frame), &upward_node, to_agent) => status,
            reason = watch.ended() => {
                info!(user = %peer.identity.username, reason = %reason, "connection ended");
                reason
            }
            () = shutdown.cancelled() => Status::unavailable("the proxy is shutting down"),
            () = async { client.cancelled().await; sleep(LAST_WORDS).await } => Status::cancelled("the client has gone"),
        };
        let _ = end.send(status); // the client may be gone
        // Also for a client that does not read. Whoever sees this end finds the reason.
        *upward_node.lock() = NodeStream::Ended;
    });
    let details = ProxySshResponse { details: Some(ClusterDetails { fips_enabled: false }), frame: None };
    let replies = Replies {
        ready: VecDeque::from([messages::whole(&details)]),
        node,
        buffer: BytesMut::new(),
        agent: Some((from_agent, BytesMut::new())),
        ended: Some(ended),
        _present: present,
    };
    Ok(messages::answer(Body::new(replies)))
}

/// Passes on what the client says to the node, and answers of the user's agent. Returns when the call ends because of the
/// client, with its status.
async fn upward(
    (mut messages, first): (Messages, Option<proxy_ssh_request::Frame>),
    node: &Mutex<NodeStream>,
    mut agent: WriteHalf<DuplexStream>,
) -> Status {
    let mut prefix = PrefixCheck::default();
    let mut next = first;
    loop {
        match next {
            Some(proxy_ssh_request::Frame::Ssh(frame)) => {
                if !prefix.accepts(&frame.payload) {
                    return Status::permission_denied("required prefix \"SSH-2.0\" was not found");
                }
                match timeout(STALLED, give(node, frame.payload)).await {
                    Ok(Ok(())) => {}
                    // The node has gone: what it has said is delivered.
                    Ok(Err(_)) => std::future::pending().await,
                    Err(_) => return Status::deadline_exceeded("the host takes nothing"),
                }
            }
            // Nobody may be asking the agent.
            Some(proxy_ssh_request::Frame::Agent(frame)) => drop(write(&mut agent, &frame.payload).await),
            None => {}
        }
        next = match messages.next::<ProxySshRequest>().await {
            Ok(Some(message)) => message.frame,
            Ok(None) => {
                let _ = poll_fn(|cx| node.lock().poll_shutdown(cx)).await; // the node may be gone
                std::future::pending().await // what the node still says is delivered
            }
            Err(status) => return status,
        };
    }
}

/// What the client is told: the body of the answer.
struct Replies {
    /// What is to be sent before anything else.
    ready: VecDeque<Bytes>,
    node: Arc<Mutex<NodeStream>>,
    buffer: BytesMut,
    /// Questions to the user's agent; it is asked at the beginning only.
    agent: Option<(ReadHalf<DuplexStream>, BytesMut)>,
    /// Why the call ends; none after the end.
    ended: Option<oneshot::Receiver<Status>>,
    /// Says that the client is gone.
    _present: DropGuard,
}

impl Replies {
    /// The next part of the answer: data, or the status at its end.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        if let Some(data) = self.ready.pop_front() {
            return Poll::Ready(Ok(data));
        }
        if let Some(Poll::Ready(status)) = self.ended.as_mut().map(|ended| Pin::new(ended).poll(cx)) {
            return Poll::Ready(Err(status.unwrap_or_else(|_| Status::ok(""))));
        }
        let data = self.node.lock().poll_data(cx, &mut self.buffer);
        if let Poll::Ready(data) = data {
            return Poll::Ready(data.map(|data| self.frame(SSH_FRAME, data)).ok_or_else(|| self.reason()));
        }
        if let Some((agent, buffer)) = &mut self.agent
            && let Poll::Ready(question) = poll_frame(agent, cx, buffer)
        {
            match question {
                Some(question) => return Poll::Ready(Ok(self.frame(AGENT_FRAME, question))),
                None => self.agent = None,
            }
        }
        Poll::Pending
    }

    /// Why the node says no more: because the call was ended meanwhile, or by itself.
    fn reason(&mut self) -> Status {
        let told = self.ended.as_mut().and_then(|ended| ended.try_recv().ok());
        told.unwrap_or_else(|| Status::ok(""))
    }

    /// Puts a payload behind the beginning of its message.
    fn frame(&mut self, field: u32, payload: Bytes) -> Bytes {
        let beginning = messages::before_payload(field, payload.len());
        self.ready.push_back(payload);
        beginning
    }
}

impl hyper::body::Body for Replies {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.ended.is_none() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(match ready!(this.poll_part(cx)) {
            Ok(data) => Frame::data(data),
            Err(status) => {
                this.ended = None;
                messages::end(&status)
            }
        })))
    }
}

/// A node's side of a session.
enum NodeStream {
    /// What comes through a tunnel is passed on in the memory that it came in.
    Tunnel(Box<TunnelStream>),
    Other(BoxedStream),
    /// The session is over for the node, whether or not the client has read all.
    Ended,
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
            Self::Ended => Poll::Ready(None),
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
            Self::Ended => 0,
        };
        Poll::Ready(if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tunnel(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Other(stream) => Pin::new(stream).poll_flush(cx),
            Self::Ended => Poll::Ready(Ok(())),
        }
    }

    /// Tells the node that the client says no more.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tunnel(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Ended => Poll::Ready(Ok(())),
        }
    }
}

/// Writes all of a frame to a node.
async fn give(node: &Mutex<NodeStream>, mut data: Bytes) -> io::Result<()> {
    while data.has_remaining() {
        poll_fn(|cx| node.lock().poll_give(cx, &mut data)).await?;
    }
    poll_fn(|cx| node.lock().poll_flush(cx)).await
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
