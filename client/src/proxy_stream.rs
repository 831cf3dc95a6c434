//! Connections that the proxy carries into the cluster, as streams of bytes.
//!
//! Nothing waits for the proxy's confirmation: the first bytes travel with the request, so that a handshake inside
//! begins a round trip earlier. A refusal arrives as an error of the first read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Request, Status};
use wire::client::ApiChannel;
use wire::transport::transport_service_client::TransportServiceClient;
use wire::transport::{
    Frame, ProxyClusterRequest, ProxyClusterResponse, ProxySshRequest, TargetHost, proxy_ssh_request,
    proxy_ssh_response,
};

use crate::ssh::lent::LentAgent;

/// Most bytes in one message: what a packet of a tunnel holds, which is what it becomes.
const LARGEST_FRAME: usize = tunnel::ssh::TUNNEL_PACKET as usize;
/// Messages that may wait to be sent.
const OUTGOING: usize = 8;

/// Messages of an agent that may wait for it. The protocol is one of questions and answers.
const AGENT_QUEUE: usize = 16;

/// Frames from the proxy.
type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// A stream through the proxy.
pub struct ProxyStream {
    incoming: Incoming,
    /// The part of the last frame that is not yet read.
    rest: Bytes,
    outgoing: PollSender<Bytes>,
}

/// The proxy's refusal or failure, as the source of an I/O error.
#[derive(Debug, thiserror::Error)]
#[error("{}", crate::error::explain(.0))]
pub struct ProxyFailure(pub Status);

enum Incoming {
    /// The proxy has not answered yet. A task of its own, for it has to go on whoever of reader and writer waits.
    Opening(AbortOnDropHandle<Result<Frames, Status>>),
    Open(Frames),
    Ended,
}

impl ProxyStream {
    /// To a host of a cluster. `host_port` is a name, an id or an address, with port 0 for any. A proxy that records
    /// sessions logs in to the host itself, with the help of `agent`.
    pub fn to_host(
        mut transport: TransportServiceClient<ApiChannel>,
        host_port: &str,
        cluster: &str,
        agent: Arc<LentAgent>,
    ) -> Self {
        let (outgoing, payloads) = mpsc::channel(OUTGOING);
        let target = TargetHost { host_port: host_port.to_owned(), cluster: cluster.to_owned() };
        let first = ProxySshRequest { dial_target: Some(target), frame: None };
        let (questions, asked) = mpsc::channel(AGENT_QUEUE);
        let (answers, answered) = mpsc::channel(AGENT_QUEUE);
        let of_ssh =
            ReceiverStream::new(payloads).map(|payload| Some(proxy_ssh_request::Frame::Ssh(Frame { payload })));
        let of_agent =
            ReceiverStream::new(answered).map(|payload| Some(proxy_ssh_request::Frame::Agent(Frame { payload })));
        // The end of what the client says is the end of all.
        let frames = of_ssh.chain(tokio_stream::once(None)).merge(of_agent).take_while(Option::is_some);
        let frames = frames.map(|frame| ProxySshRequest { dial_target: None, frame });
        let request = Request::new(tokio_stream::once(first).chain(frames));
        let opening = async move {
            let messages = transport.proxy_ssh(request).await?.into_inner();
            let mut waiting = Some((agent, asked, answers));
            let bytes = messages.map(move |message| {
                Ok(match message?.frame {
                    Some(proxy_ssh_response::Frame::Ssh(frame)) => frame.payload,
                    Some(proxy_ssh_response::Frame::Agent(frame)) => {
                        if let Some((agent, asked, answers)) = waiting.take() {
                            tokio::spawn(serve(agent, asked, answers));
                        }
                        let _ = questions.try_send(frame.payload); // who asks without waiting gets no answer
                        Bytes::new()
                    }
                    None => Bytes::new(),
                })
            });
            Ok(Box::pin(bytes) as Frames)
        };
        Self::new(opening, outgoing)
    }

    /// To the Auth Service of a cluster.
    pub fn to_cluster(mut transport: TransportServiceClient<ApiChannel>, cluster: &str) -> Self {
        let (outgoing, payloads) = mpsc::channel(OUTGOING);
        let first = ProxyClusterRequest { cluster: cluster.to_owned(), frame: None };
        let frames = ReceiverStream::new(payloads)
            .map(|payload| ProxyClusterRequest { cluster: String::new(), frame: Some(Frame { payload }) });
        let request = Request::new(tokio_stream::once(first).chain(frames));
        let opening = async move {
            let answers = transport.proxy_cluster(request).await?.into_inner();
            Ok(Box::pin(answers.map(|answer| answer.map(cluster_bytes))) as Frames)
        };
        Self::new(opening, outgoing)
    }

    fn new(
        opening: impl Future<Output = Result<Frames, Status>> + Send + 'static,
        outgoing: mpsc::Sender<Bytes>,
    ) -> Self {
        let opening = AbortOnDropHandle::new(tokio::spawn(opening));
        Self { incoming: Incoming::Opening(opening), rest: Bytes::new(), outgoing: PollSender::new(outgoing) }
    }

    /// Takes what has arrived. `None` at the end.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            match &mut self.incoming {
                Incoming::Opening(opening) => match ready!(Pin::new(opening).poll(cx)) {
                    Ok(Ok(frames)) => self.incoming = Incoming::Open(frames),
                    Ok(Err(status)) => return Poll::Ready(Some(Err(self.fail(status)))),
                    Err(error) => return Poll::Ready(Some(Err(self.fail(Status::from_error(error.into()))))),
                },
                Incoming::Open(frames) => match ready!(frames.as_mut().poll_next(cx)) {
                    Some(Ok(bytes)) if bytes.is_empty() => {}
                    Some(Ok(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                    Some(Err(status)) => return Poll::Ready(Some(Err(self.fail(status)))),
                    None => {
                        self.incoming = Incoming::Ended;
                        return Poll::Ready(None);
                    }
                },
                Incoming::Ended => return Poll::Ready(None),
            }
        }
    }

    fn fail(&mut self, status: Status) -> io::Error {
        self.incoming = Incoming::Ended;
        // What the proxy does not allow, it will not allow at the next attempt either.
        let kind = match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, ProxyFailure(status))
    }
}

impl AsyncRead for ProxyStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.poll_frame(cx)) {
                Some(frame) => self.rest = frame?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ProxyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if ready!(self.outgoing.poll_reserve(cx)).is_err() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = bytes.len().min(LARGEST_FRAME);
        let sent = self.outgoing.send_item(Bytes::copy_from_slice(&bytes[..n]));
        Poll::Ready(sent.map(|()| n).map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}

/// Lets an agent answer what the proxy asks, until the proxy or the connection is gone.
async fn serve(agent: Arc<LentAgent>, mut asked: mpsc::Receiver<Bytes>, answers: mpsc::Sender<Bytes>) {
    let (near, mut far) = tokio::io::duplex(LARGEST_FRAME);
    let (mut reader, mut writer) = tokio::io::split(near);
    let asking = async {
        while let Some(bytes) = asked.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let answering = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(LARGEST_FRAME);
            match reader.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) if answers.send(buffer.split().freeze()).await.is_err() => return,
                Ok(_) => {}
            }
        }
    };
    tokio::select! {
        () = asking => {}
        () = answering => {}
        result = agent.answer(&mut far) => {
            if let Err(error) = result {
                tracing::debug!(%error, "agent of the proxy");
            }
        }
    }
}

fn cluster_bytes(answer: ProxyClusterResponse) -> Bytes {
    answer.frame.map(|frame| frame.payload).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, Mutex};

    use dialer::{BoxStream, Connect, DialError, channel};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tonic::transport::Server;
    use tonic::{Response, Streaming};
    use wire::client::api_channel;
    use wire::transport::transport_service_server::{TransportService, TransportServiceServer};
    use wire::transport::{ClusterDetails, GetClusterDetailsRequest, GetClusterDetailsResponse, ProxySshResponse};

    use super::*;

    fn agent() -> Arc<LentAgent> {
        crate::ssh::lent::tests::lent(true)
    }

    /// Echoes, and confirms a connection only after bytes have arrived on it.
    struct Proxy;

    type Answers = Pin<Box<dyn Stream<Item = Result<ProxySshResponse, Status>> + Send>>;

    #[tonic::async_trait]
    impl TransportService for Proxy {
        async fn get_cluster_details(
            &self,
            _: Request<GetClusterDetailsRequest>,
        ) -> Result<Response<GetClusterDetailsResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn proxy_ssh(&self, request: Request<Streaming<ProxySshRequest>>) -> Result<Response<Answers>, Status> {
            let mut requests = request.into_inner();
            let target = requests.message().await?.unwrap().dial_target.unwrap();
            if target.host_port != "node1:0" || target.cluster != "main" {
                return Err(Status::not_found(format!("no node named {:?}", target.host_port)));
            }
            let first = requests.message().await?.unwrap();
            let details = ProxySshResponse { details: Some(ClusterDetails::default()), frame: None };
            let rest = requests.map(|request| Ok(echo(request?)));
            let answers = tokio_stream::iter([Ok(details), Ok(echo(first))]).chain(rest);
            Ok(Response::new(Box::pin(answers)))
        }
    }

    fn echo(request: ProxySshRequest) -> ProxySshResponse {
        let Some(proxy_ssh_request::Frame::Ssh(frame)) = request.frame else { return ProxySshResponse::default() };
        ProxySshResponse { details: None, frame: Some(proxy_ssh_response::Frame::Ssh(frame)) }
    }

    struct Once(Mutex<Option<DuplexStream>>);

    #[async_trait::async_trait]
    impl Connect for Once {
        async fn connect(&self) -> Result<BoxStream, DialError> {
            self.0.lock().unwrap().take().map(|stream| Box::new(stream) as BoxStream).ok_or(DialError::NoAddress)
        }
    }

    fn transport() -> TransportServiceClient<ApiChannel> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let server = Server::builder().add_service(TransportServiceServer::new(Proxy));
        tokio::spawn(server.serve_with_incoming(tokio_stream::once(Ok::<_, io::Error>(far))));
        TransportServiceClient::new(api_channel(channel(Arc::new(Once(Mutex::new(Some(near)))), None)))
    }

    #[tokio::test]
    async fn the_first_bytes_travel_before_the_proxy_confirms() {
        let mut stream = ProxyStream::to_host(transport(), "node1:0", "main", agent());
        stream.write_all(b"SSH-2.0-x").await.unwrap();
        let mut answer = [0; 9];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"SSH-2.0-x");
    }

    #[tokio::test]
    async fn many_bytes_pass_in_both_directions_and_the_end_as_well() {
        let (mut reader, mut writer) = tokio::io::split(ProxyStream::to_host(transport(), "node1:0", "main", agent()));
        let data: Vec<u8> = (0..1_500_000_u32).flat_map(u32::to_le_bytes).collect();
        let sent = data.clone();
        tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.unwrap();
        assert!(received == data, "{} of {}", received.len(), data.len());
    }

    #[tokio::test]
    async fn a_refusal_is_the_error_of_the_first_read() {
        let mut stream = ProxyStream::to_host(transport(), "nohost:0", "main", agent());
        stream.write_all(b"SSH-2.0-x").await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        let failure = error.get_ref().unwrap().downcast_ref::<ProxyFailure>().unwrap();
        assert!(failure.to_string().contains("nohost"), "{failure}");
    }

    #[tokio::test]
    async fn a_proxy_that_is_not_there_says_why() {
        let nowhere = channel(Arc::new(Once(Mutex::new(None))), None);
        let transport = TransportServiceClient::new(api_channel(nowhere));
        let error = ProxyStream::to_host(transport, "node1:0", "main", agent()).read_u8().await.unwrap_err();
        assert_eq!(error.to_string(), DialError::NoAddress.to_string());
    }
}
