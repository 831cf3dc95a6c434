//! Joining two streams.
//!
//! A connection that has nothing to say costs no buffer: data is read into a large buffer that belongs to the thread
//! and written out at once. Only what the other side does not take is kept, and then reading stops until it is gone.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::io::poll_read_buf;

/// Size of a thread's buffer: the most that is read before it is written.
const BUFFER: usize = 256 * 1024;
/// Rounds of reading and writing after which others get their turn.
const ROUNDS: usize = 16;

thread_local! {
    /// Taken while a poll uses it; a nested poll makes its own.
    static SCRATCH: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// What was carried and how it ended.
#[derive(Debug, Default)]
pub struct Copied {
    /// Bytes from the first stream to the second.
    pub a_to_b: u64,
    /// Bytes from the second stream to the first.
    pub b_to_a: u64,
    /// `None` when both sides ended in order; a time-out is of kind [`io::ErrorKind::TimedOut`].
    pub error: Option<io::Error>,
}

/// Limits of a copy; none unless set.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Ends the copy when nothing was carried either way for this long.
    pub idle: Option<Duration>,
    /// The same once one side has ended its data: how long the other may stay silent.
    pub half_closed: Option<Duration>,
}

/// Carries bytes both ways until both sides have ended or one fails.
///
/// The end of one side's data is passed on by shutting down the other's sending side, and the opposite direction goes
/// on. Dead peers are the transport's business (TCP keepalive, pings); idle connections live for ever.
pub async fn copy_both<A, B>(a: &mut A, b: &mut B) -> Copied
where
    A: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    copy_both_with(a, b, CopyOptions::default()).await
}

/// [`copy_both`] with limits.
pub async fn copy_both_with<A, B>(a: &mut A, b: &mut B, options: CopyOptions) -> Copied
where
    A: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    let (mut forth, mut back) = (Direction::default(), Direction::default());
    let mut idle = Idle::new(options);
    let error = std::future::poll_fn(|cx| {
        let before = forth.carried + back.carried;
        let first = forth.poll(cx, a, b)?;
        let second = back.poll(cx, b, a)?;
        if first.is_ready() && second.is_ready() {
            return Poll::Ready(Ok(()));
        }
        let half_closed = forth.read_done || back.read_done;
        idle.poll(cx, forth.carried + back.carried > before, half_closed)
    })
    .await
    .err();
    Copied { a_to_b: forth.carried, b_to_a: back.carried, error }
}

/// One direction.
#[derive(Default)]
struct Direction {
    /// Read but not taken by the writer yet.
    kept: BytesMut,
    read_done: bool,
    write_done: bool,
    unflushed: bool,
    carried: u64,
}

impl Direction {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        if self.write_done {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let outcome = self.poll_with(cx, from, to, &mut scratch);
        scratch.clear();
        SCRATCH.set(Some(scratch));
        outcome
    }

    fn poll_with<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut BytesMut,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        for _ in 0..ROUNDS {
            while !self.kept.is_empty() {
                let written = ready!(poll_write(cx, to, &self.kept))?;
                self.carried += written as u64;
                self.kept.advance(written);
            }
            self.kept = BytesMut::new();
            if self.read_done {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.write_done = true;
                return Poll::Ready(Ok(()));
            }
            let waiting = self.poll_fill(cx, from, scratch)?.is_pending();
            while !scratch.is_empty() {
                self.unflushed = true;
                match poll_write(cx, to, scratch)? {
                    Poll::Ready(written) => {
                        self.carried += written as u64;
                        scratch.advance(written);
                    }
                    Poll::Pending => {
                        self.kept = BytesMut::from(&scratch[..]);
                        return Poll::Pending;
                    }
                }
            }
            if waiting {
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads as much as there is, up to the buffer's size. `Pending` when the reader has to be waited for afterwards.
    fn poll_fill<R>(&mut self, cx: &mut Context<'_>, from: &mut R, scratch: &mut BytesMut) -> io::Result<Poll<()>>
    where
        R: AsyncRead + Unpin + ?Sized,
    {
        scratch.clear();
        scratch.reserve(BUFFER);
        while scratch.len() < BUFFER {
            match poll_read_buf(Pin::new(&mut *from), cx, scratch) {
                Poll::Ready(Ok(0)) => {
                    self.read_done = true;
                    break;
                }
                Poll::Ready(Ok(_)) => {}
                // What arrived before the failure is still delivered; the failure shows again with the next read.
                Poll::Ready(Err(error)) if scratch.is_empty() => return Err(error),
                Poll::Ready(Err(error)) => {
                    tracing::trace!(%error, "read failed after data");
                    break;
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }
}

fn poll_write<W: AsyncWrite + Unpin + ?Sized>(
    cx: &mut Context<'_>,
    to: &mut W,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes)) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        outcome => Poll::Ready(outcome),
    }
}

/// Watches for silence.
struct Idle {
    options: CopyOptions,
    last: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(options: CopyOptions) -> Self {
        Self { options, last: Instant::now(), alarm: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>, progress: bool, half_closed: bool) -> Poll<io::Result<()>> {
        let Some(limit) =
            (if half_closed { self.options.half_closed.or(self.options.idle) } else { self.options.idle })
        else {
            return Poll::Pending;
        };
        if progress {
            self.last = Instant::now();
        }
        let end = self.last + limit;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(limit)));
        if alarm.deadline() != end {
            alarm.as_mut().reset(end);
        }
        ready!(alarm.as_mut().poll(cx));
        let text = format!("nothing was carried for {limit:?}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn each_side_may_end_first_and_the_other_goes_on() {
        let ((mut client, mut a), (mut b, mut server)) = (duplex(50), duplex(70));
        let joined = tokio::spawn(async move { copy_both(&mut a, &mut b).await });
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        let mut request = String::new();
        server.read_to_string(&mut request).await.unwrap();
        assert_eq!(request, "request");
        let answer = tokio::spawn(async move {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer.len()
        });
        server.write_all(&[b'x'; 1000]).await.unwrap();
        drop(server);
        let copied = joined.await.unwrap();
        assert_eq!(copied.a_to_b, 7);
        assert_eq!((copied.b_to_a, answer.await.unwrap()), (1000, 1000));
        assert!(copied.error.is_none());
    }

    #[tokio::test]
    async fn megabytes_pass_over_sockets_in_both_directions() {
        let size = 3_000_000_usize;
        let pair = || async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            (dialled, listener.accept().await.unwrap().0)
        };
        let ((client, mut a), (mut b, server)) = (pair().await, pair().await);
        let joined = tokio::spawn(async move { copy_both(&mut a, &mut b).await });
        let end = |stream: TcpStream, byte: u8| {
            tokio::spawn(async move {
                let (mut reading, mut writing) = stream.into_split();
                let writer = tokio::spawn(async move {
                    writing.write_all(&vec![byte; size]).await.unwrap();
                    writing.shutdown().await.unwrap();
                });
                let mut received = Vec::new();
                reading.read_to_end(&mut received).await.unwrap();
                writer.await.unwrap();
                received
            })
        };
        let (one, two) = (end(client, 1), end(server, 2));
        assert!(one.await.unwrap() == vec![2; size]);
        assert!(two.await.unwrap() == vec![1; size]);
        let copied = joined.await.unwrap();
        assert_eq!((copied.a_to_b, copied.b_to_a), (size as u64, size as u64));
    }

    #[tokio::test]
    async fn a_failing_side_ends_the_copy_with_the_counts_so_far() {
        let (mut client, mut a) = duplex(50);
        let (mut b, other) = duplex(50);
        drop(other);
        client.write_all(b"1234").await.unwrap();
        let copied = copy_both(&mut a, &mut b).await;
        assert_eq!(copied.error.unwrap().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!((copied.a_to_b, copied.b_to_a), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_copy_only_when_asked_for() {
        let ((_client, mut a), (mut b, mut server)) = (duplex(50), duplex(50));
        let options = CopyOptions { idle: Some(Duration::from_secs(60)), half_closed: Some(Duration::from_secs(5)) };
        let joined = tokio::spawn(async move { copy_both_with(&mut a, &mut b, options).await });
        let started = Instant::now();
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(50)).await;
            server.write_all(b"x").await.unwrap();
            tokio::task::yield_now().await;
        }
        server.shutdown().await.unwrap();
        let copied = joined.await.unwrap();
        assert_eq!(copied.error.unwrap().kind(), io::ErrorKind::TimedOut);
        assert_eq!((copied.b_to_a, started.elapsed().as_secs()), (3, 155));
    }
}
