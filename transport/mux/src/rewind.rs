use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose first bytes were looked at and are read again by whoever takes it over.
#[derive(Debug)]
pub struct Rewind<S> {
    replay: Bytes,
    inner: S,
}

impl<S> Rewind<S> {
    /// Reads yield `replay` first and the rest of `inner` after it; writes go straight to `inner`.
    pub fn new(replay: impl Into<Bytes>, inner: S) -> Self {
        Self { replay: replay.into(), inner }
    }

    /// The stream below; reading from it skips what is still to be replayed.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// See [`Rewind::get_ref`].
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The bytes not replayed yet, and the stream below.
    pub fn into_parts(self) -> (Bytes, S) {
        (self.replay, self.inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.replay.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let length = self.replay.len().min(buf.remaining());
        buf.put_slice(&self.replay[..length]);
        self.replay.advance(length);
        if self.replay.is_empty() {
            self.replay = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn replayed_bytes_come_before_the_rest() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(b" world").await.unwrap();
        drop(far);
        let mut stream = Rewind::new(&b"hello"[..], near);
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello world");
    }

    #[tokio::test]
    async fn a_small_reader_gets_the_replay_in_pieces() {
        let (near, _far) = tokio::io::duplex(64);
        let mut stream = Rewind::new(&b"abc"[..], near);
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        assert_eq!(stream.read_u8().await.unwrap(), b'b');
        assert_eq!(stream.into_parts().0, &b"c"[..]);
    }
}
