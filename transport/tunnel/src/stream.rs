//! A byte stream through a tunnel.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use russh::{ChannelStream, client, server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Anything that bytes can be read from and written to.
pub trait Stream: Any + AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// A stream of whatever kind.
pub type BoxedStream = Box<dyn Stream>;

/// One stream through a tunnel. Dropping it closes it.
pub struct TunnelStream {
    channel: Side,
    client: Option<SocketAddr>,
    _place: StreamPlace,
}

enum Side {
    Agent(ChannelStream<client::Msg>),
    Proxy(ChannelStream<server::Msg>),
}

impl TunnelStream {
    pub(crate) fn of_agent(
        channel: ChannelStream<client::Msg>,
        client: Option<SocketAddr>,
        place: StreamPlace,
    ) -> Self {
        Self { channel: Side::Agent(channel), client, _place: place }
    }

    pub(crate) fn of_proxy(
        channel: ChannelStream<server::Msg>,
        client: Option<SocketAddr>,
        place: StreamPlace,
    ) -> Self {
        Self { channel: Side::Proxy(channel), client, _place: place }
    }

    /// Takes a stream for one through a tunnel, if it is one.
    ///
    /// # Errors
    ///
    /// The stream, if it is another.
    pub fn of_stream(stream: BoxedStream) -> Result<Box<Self>, BoxedStream> {
        let any: &dyn Any = &*stream;
        if !any.is::<Self>() {
            return Err(stream);
        }
        let any: Box<dyn Any> = stream;
        // It is one, as was just seen.
        any.downcast().map_err(|_| Box::new(tokio::io::empty()) as BoxedStream)
    }

    /// The next data, in the memory that it came in: no more than a packet of a channel holds. `None` at the end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.channel {
            Side::Agent(channel) => channel.poll_data(cx),
            Side::Proxy(channel) => channel.poll_data(cx),
        }
    }

    /// Writes a part of `data` in the memory that it is in, and takes it off: what fits a packet of the channel.
    pub fn poll_write_bytes(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>> {
        match &mut self.channel {
            Side::Agent(channel) => channel.poll_write_bytes(cx, data),
            Side::Proxy(channel) => channel.poll_write_bytes(cx, data),
        }
    }

    /// Where the client at the far end of the whole path comes from, if the dial request said so.
    pub fn client_addr(&self) -> Option<SocketAddr> {
        self.client
    }
}

impl fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelStream").field("client", &self.client).finish_non_exhaustive()
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().channel {
            Side::Agent(channel) => Pin::new(channel).poll_read(cx, buf),
            Side::Proxy(channel) => Pin::new(channel).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match &mut self.get_mut().channel {
            Side::Agent(channel) => Pin::new(channel).poll_write(cx, buf),
            Side::Proxy(channel) => Pin::new(channel).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().channel {
            Side::Agent(channel) => Pin::new(channel).poll_flush(cx),
            Side::Proxy(channel) => Pin::new(channel).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().channel {
            Side::Agent(channel) => Pin::new(channel).poll_shutdown(cx),
            Side::Proxy(channel) => Pin::new(channel).poll_shutdown(cx),
        }
    }
}

/// Counts the streams that are open on one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenStreams(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    open: AtomicUsize,
    none_left: Notify,
}

/// One stream's place in the count; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct StreamPlace(Arc<Counter>);

impl OpenStreams {
    /// Takes a place unless `limit` are taken.
    pub(crate) fn enter(&self, limit: usize) -> Option<StreamPlace> {
        let entered =
            self.0.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < limit).then_some(open + 1));
        entered.is_ok().then(|| StreamPlace(self.0.clone()))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// Waits until no stream is open.
    pub(crate) async fn none(&self) {
        loop {
            let notified = self.0.none_left.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[tokio::test]
    async fn places_are_limited_and_given_back() {
        let streams = OpenStreams::default();
        let first = streams.enter(2).unwrap();
        let second = streams.enter(2).unwrap();
        assert!(streams.enter(2).is_none());
        assert_eq!(streams.count(), 2);
        let waiting = tokio::spawn({
            let streams = streams.clone();
            async move { streams.none().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
        assert!(streams.enter(1).is_some());
    }
}
