//! Larger reads below TLS.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;
use tokio_util::io::poll_read_buf;

/// Bytes read at once: the first time, and at most. Most connections carry little.
const FIRST: usize = 4 * 1024;
const LARGEST: usize = 256 * 1024;
/// So much is read before those who take it get their turn. More would pile up in front of them: the processor does not have it
/// at hand any more when it is taken, and memory is asked of the kernel instead of being used again.
const TURN: usize = 256 * 1024;

/// A stream that is read in larger pieces than whoever reads asks for. TLS asks for 4 KiB at a time, and each question is a
/// call of the kernel; that is a quarter of what a bulk transfer costs there.
#[derive(Debug)]
pub struct ReadAhead<S> {
    stream: S,
    /// Read and not asked for yet.
    ahead: BytesMut,
    chunk: usize,
    /// Read since others had their turn.
    in_turn: usize,
}

impl<S> ReadAhead<S> {
    /// Reads `stream` ahead from now on.
    pub fn new(stream: S) -> Self {
        Self { stream, ahead: BytesMut::new(), chunk: FIRST, in_turn: 0 }
    }

    /// The stream below; what was read ahead is missing there.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, ahead, chunk, in_turn } = &mut *self;
        if ahead.is_empty() {
            if *in_turn >= TURN {
                *in_turn = 0;
                let _ = pin!(yield_now()).poll(context); // which wakes this task after the others
                return Poll::Pending;
            }
            ahead.reserve(*chunk);
            let read = poll_read_buf(Pin::new(stream), context, ahead);
            if ahead.is_empty() {
                *ahead = BytesMut::new(); // who waits needs no memory
            }
            let Poll::Ready(n) = read? else {
                *in_turn = 0; // others have it now
                return Poll::Pending;
            };
            *in_turn += n;
            if n >= *chunk {
                *chunk = (2 * *chunk).min(LARGEST);
            }
        }
        let n = ahead.len().min(into.remaining());
        into.put_slice(&ahead[..n]);
        ahead.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::AsyncReadExt;

    use super::*;

    /// Counts how often it is asked, and has nothing to say after `left` bytes.
    struct Source {
        left: usize,
        asked: usize,
    }

    impl AsyncRead for Source {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.asked += 1;
            let n = self.left.min(into.remaining());
            let from = self.left;
            (0..n).for_each(|at| into.put_slice(&[((from - at) % 251) as u8]));
            self.left -= n;
            if n > 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
        }
    }

    #[tokio::test]
    async fn much_is_read_with_few_questions_and_nothing_is_kept_afterwards() {
        const ALL: usize = 1 << 20;
        let mut stream = ReadAhead::new(Source { left: ALL, asked: 0 });
        let mut read = Vec::new();
        let mut piece = [0; 4096];
        while read.len() < ALL {
            let n = stream.read(&mut piece).await.unwrap();
            read.extend_from_slice(&piece[..n]);
        }
        assert!((1..=ALL).rev().zip(&read).all(|(from, byte)| (from % 251) as u8 == *byte));
        assert!(stream.get_ref().asked < 24, "asked {} times", stream.get_ref().asked);
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(1), stream.read(&mut piece)).await;
        assert!(waiting.is_err());
        assert_eq!(stream.ahead.capacity(), 0);
    }

    #[tokio::test]
    async fn others_get_their_turn_while_much_is_read() {
        const ALL: usize = 1 << 20;
        let mut stream = ReadAhead::new(Source { left: ALL, asked: 0 });
        let (mut read, mut in_turn, mut most) = (0, 0, 0);
        std::future::poll_fn(|context| {
            while read < ALL {
                let mut piece = [0; 4096];
                let mut piece = ReadBuf::new(&mut piece);
                if Pin::new(&mut stream).poll_read(context, &mut piece).is_pending() {
                    in_turn = 0;
                    return Poll::Pending;
                }
                read += piece.filled().len();
                in_turn += piece.filled().len();
                most = most.max(in_turn);
            }
            Poll::Ready(())
        })
        .await;
        assert!(most <= TURN + LARGEST, "{most} bytes in one turn");
    }
}
