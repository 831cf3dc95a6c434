//! Streams that can be cut from elsewhere, for peers that neither read nor go.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A stream that fails, in both directions, once its token is cancelled.
pub(crate) struct Cut<S> {
    stream: S,
    reading: Pin<Box<WaitForCancellationFutureOwned>>,
    writing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Cut<S> {
    /// A stream as it is, until `token` is cancelled.
    pub fn new(stream: S, token: &CancellationToken) -> Self {
        let cancelled = || Box::pin(token.clone().cancelled_owned());
        Self { stream, reading: cancelled(), writing: cancelled() }
    }
}

/// What a direction that has to wait does. One that need not wait costs nothing more than before.
fn wait<T>(
    cut: &mut Pin<Box<WaitForCancellationFutureOwned>>,
    cx: &mut Context<'_>,
    polled: Poll<io::Result<T>>,
) -> Poll<io::Result<T>> {
    if polled.is_pending() && cut.as_mut().poll(cx).is_ready() {
        return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
    }
    polled
}

impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        wait(&mut this.reading, cx, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_write(cx, data);
        wait(&mut this.writing, cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        wait(&mut this.writing, cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        wait(&mut this.writing, cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_shutdown(cx);
        wait(&mut this.writing, cx, polled)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_left() {
        let (near, mut far) = tokio::io::duplex(8);
        let token = CancellationToken::new();
        let (mut read, mut write) = tokio::io::split(Cut::new(near, &token));
        write.write_all(b"12345678").await.expect("room for it");
        far.write_all(b"x").await.expect("room for it");
        assert_eq!(read.read_u8().await.expect("a byte"), b'x');
        let (writing, reading) = (write.write_all(b"9"), read.read_u8());
        let cut = async { token.cancel() };
        let (written, read, ()) = tokio::join!(writing, reading, cut);
        assert_eq!(written.expect_err("cut").kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(read.expect_err("cut").kind(), io::ErrorKind::ConnectionAborted);
    }
}
