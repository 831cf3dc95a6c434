//! The way to a host: through the proxy, and over a new network connection when one is lost.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use chrono::Utc;
use resume::client::{Dial, connect};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use wire::client::ApiChannel;
use wire::transport::transport_service_client::TransportServiceClient;

use super::Host;
use super::lent::LentAgent;
use crate::cluster::ClusterClient;
use crate::proxy_stream::ProxyStream;

/// A stream to a host.
pub enum Road {
    /// One network connection.
    Direct(ProxyStream),
    /// One or more, one after the other, if the host knows how.
    Resumable(resume::Stream<ProxyStream>),
}

impl Road {
    /// To a host, as the client is set up. A proxy that records sessions logs in to the host with the help of `agent`.
    pub async fn to(client: &ClusterClient, host: &Host, agent: Arc<LentAgent>) -> io::Result<Self> {
        let way = Way { client: client.clone(), address: host.host_port(), agent };
        if client.resumes() {
            return Ok(Self::Resumable(connect(way).await?));
        }
        Ok(Self::Direct(way.stream(client.transport(), &way.address)))
    }

    /// A token that is cancelled when the host knows that the connection is closed; `None` when nobody will say so.
    pub fn closed(&self) -> Option<CancellationToken> {
        match self {
            Self::Direct(_) => None,
            Self::Resumable(stream) => stream.closed(),
        }
    }
}

/// How to reach a host.
struct Way {
    client: ClusterClient,
    /// The host as the user called it.
    address: String,
    agent: Arc<LentAgent>,
}

impl Way {
    fn stream(&self, transport: TransportServiceClient<ApiChannel>, address: &str) -> ProxyStream {
        ProxyStream::to_host(transport, address, &self.client.account().cluster, self.agent.clone())
    }
}

impl Dial for Way {
    type Stream = ProxyStream;

    async fn dial(&self, host_id: Option<&str>) -> io::Result<ProxyStream> {
        let Some(id) = host_id else { return Ok(self.stream(self.client.transport(), &self.address)) };
        if self.client.account().keys.valid_until() <= Utc::now() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "your certificate has expired"));
        }
        // The connection to the proxy that carried the last one may be dead, or held by a proxy that is to be replaced.
        Ok(self.stream(self.client.transport_anew(), &format!("{id}:0")))
    }
}

impl AsyncRead for Road {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_read(context, into),
            Self::Resumable(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Road {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_write(context, data),
            Self::Resumable(stream) => Pin::new(stream).poll_write(context, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_flush(context),
            Self::Resumable(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Resumable(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
