//! The end that needs the tunnel.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use cache::Cache;
use dialer::{BoxStream, Connect, DialError, Dialer, HostPort, TlsSetup, Traffic, Verify};
use parking_lot::Mutex;
use pki::tls::TrustedAuthorities;
use rand::seq::SliceRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tracing::debug;
use tunnel::{BoxedStream, TunnelType};
use wire::proto::frame::Message;
use wire::proto::proxy_service_client::ProxyServiceClient;
use wire::proto::{DialRequest, Frame};

use super::{DIAL_TIMEOUT, FRAME, FRAME_QUEUE, PROXY, STALLED, address, data};
use crate::follow::Lists;
use crate::shown::Shown;
use crate::tls::tls_certificates;

/// The port of peers whose address names none.
const PEER_PORT: u16 = 3021;
/// Bytes that may wait between a client and a peer.
const PIPE: usize = 256 * 1024;

/// The other proxies of the cluster. Clones are the same.
#[derive(Clone)]
pub(crate) struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    own_id: String,
    cache: Cache,
    dialer: Dialer,
    shown: Shown,
    lists: watch::Receiver<Lists>,
    channels: Mutex<HashMap<(String, String), Channel>>,
    tasks: TaskTracker,
}

impl Peers {
    pub(crate) fn new(
        own_id: String,
        cache: Cache,
        dialer: Dialer,
        shown: Shown,
        lists: watch::Receiver<Lists>,
        tasks: TaskTracker,
    ) -> Self {
        let channels = Mutex::default();
        Self { shared: Arc::new(Shared { own_id, cache, dialer, shown, lists, channels, tasks }) }
    }

    /// A stream to an agent through one of the proxies that it holds tunnels to; they are tried in random order.
    pub(crate) async fn dial(
        &self,
        proxies: &[String],
        server_id: &str,
        kind: TunnelType,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Result<BoxedStream, String> {
        let mut candidates = self.candidates(proxies);
        candidates.shuffle(&mut rand::rng());
        let mut last = "the agent's proxies are not known to this one".to_owned();
        for (id, peer) in candidates {
            let request = DialRequest {
                node_id: server_id.to_owned(),
                tunnel_type: kind.as_str().to_owned(),
                source: Some(address(client)),
                destination: Some(address(server)),
            };
            let dialled = timeout(DIAL_TIMEOUT, self.through(&id, &peer, request)).await;
            match dialled {
                Ok(Ok(stream)) => return Ok(Box::new(stream)),
                Ok(Err(status)) => last = format!("proxy {peer}: {}", status.message()),
                Err(_) => last = format!("waited 10 s for proxy {peer}"),
            }
            debug!(peer, reason = last, "a peer did not reach the agent");
        }
        Err(last)
    }

    /// Ids and addresses of those of the named proxies that are known, without this one.
    fn candidates(&self, proxies: &[String]) -> Vec<(String, String)> {
        let lists = self.shared.lists.borrow();
        let records = lists.proxies.iter().filter_map(|record| {
            let name = &record.metadata.as_ref()?.name;
            let peer = &record.spec.as_ref()?.peer_addr;
            let wanted = *name != self.shared.own_id && proxies.contains(name) && !peer.is_empty();
            wanted.then(|| (name.clone(), peer.clone()))
        });
        records.collect()
    }

    fn channel(&self, id: &str, peer: &str) -> Result<Channel, Status> {
        let target = HostPort::parse(peer, PEER_PORT).map_err(|e| Status::internal(e.to_string()))?;
        let mut channels = self.shared.channels.lock();
        let key = (id.to_owned(), peer.to_owned());
        let connect = || {
            let connect = ToPeer { peers: self.clone(), id: id.to_owned(), target };
            dialer::channel(Arc::new(connect), None)
        };
        if !channels.contains_key(&key) {
            // Proxies come and go with names of their own.
            let lists = self.shared.lists.borrow();
            channels.retain(|(id, _), _| {
                lists.proxies.iter().any(|record| record.metadata.as_ref().is_some_and(|m| m.name == *id))
            });
        }
        Ok(channels.entry(key).or_insert_with(connect).clone())
    }

    async fn through(&self, id: &str, peer: &str, request: DialRequest) -> Result<DuplexStream, Status> {
        let (up, frames) = mpsc::channel(FRAME_QUEUE);
        let first = Frame { message: Some(Message::DialRequest(request)) };
        let _ = up.try_send(first); // the queue is empty
        let mut client = ProxyServiceClient::new(self.channel(id, peer)?);
        let mut answers = client.dial_node(Request::new(ReceiverStream::new(frames))).await?.into_inner();
        match answers.message().await?.and_then(|frame| frame.message) {
            Some(Message::ConnectionEstablished(_)) => {}
            _ => return Err(Status::unavailable("the peer did not confirm the connection")),
        }
        let (near, far) = duplex(PIPE);
        self.shared.tasks.spawn(relay(far, up, answers));
        Ok(near)
    }
}

/// Copies between a stream of bytes and frames, until one side ends.
async fn relay(pipe: DuplexStream, up: mpsc::Sender<Frame>, mut answers: Streaming<Frame>) {
    let (mut from_client, mut to_client) = tokio::io::split(pipe);
    let there = async {
        let mut buffer = vec![0; FRAME];
        loop {
            let count = match from_client.read(&mut buffer).await {
                Ok(0) => break,
                Err(_) => return,
                Ok(count) => count,
            };
            let frame = data(buffer.get(..count).unwrap_or_default().to_vec());
            if !matches!(timeout(STALLED, up.send(frame)).await, Ok(Ok(()))) {
                return;
            }
        }
        drop(up); // the peer sees the end
        std::future::pending().await
    };
    let back = async {
        while let Ok(Some(Frame { message: Some(Message::Data(data)) })) = answers.message().await {
            if !matches!(timeout(STALLED, to_client.write_all(&data.bytes)).await, Ok(Ok(()))) {
                return;
            }
        }
        let _ = to_client.shutdown().await; // the client may be gone
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

/// Connects to one peer, and to nobody else at its address.
struct ToPeer {
    peers: Peers,
    id: String,
    target: HostPort,
}

#[async_trait]
impl Connect for ToPeer {
    async fn connect(&self) -> Result<BoxStream, DialError> {
        let shared = &self.peers.shared;
        let cluster = shared.cache.cluster_name();
        let failed = |what: String| DialError::Connect {
            target: format!("proxy {}", self.target),
            source: std::io::Error::other(what),
        };
        let authority = shared.cache.authority("host", &cluster);
        let authority = authority.ok_or_else(|| failed("no host authority is known yet".to_owned()))?;
        let certificates = tls_certificates(&authority).map_err(|e| failed(e.message))?;
        let authorities = Arc::new(TrustedAuthorities::new(&certificates).map_err(|e| failed(e.to_string()))?);
        let verify = Verify::Cluster { authorities, cluster: cluster.clone() };
        let name = pki::cluster_name::to_server_name(&cluster);
        let setup = TlsSetup::new(&name, &[mux::alpn::H2], &verify, Some(&shared.shown.client()))?;
        let stream = shared.dialer.tls(&self.target, Traffic::Raw, &setup).await?;
        let found = pki::tls::peer_identity(stream.get_ref().1.peer_certificates(), chrono::Utc::now());
        let identity = found.ok().flatten().map(|(_, identity)| identity).unwrap_or_default();
        let expected = pki::cluster_name::host_fqdn(&self.id, &cluster);
        if identity.username != expected || !identity.groups.iter().any(|role| role == PROXY) {
            return Err(failed(format!("connected to unexpected proxy {:?}", identity.username)));
        }
        Ok(Box::new(stream))
    }
}
