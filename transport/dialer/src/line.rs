//! Connections that are given up when the other end is heard of no more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::DialError;
use crate::channel::Connect;
use crate::stream::BoxStream;

/// Knows when a channel's connection last heard anything, and gives it up on demand. Clones share it.
///
/// A network that forgets a connection tells neither of its ends: calls and streams on it wait then. The pings of HTTP/2
/// notice that after minutes, and servers take offence at more frequent ones. So whoever depends on a channel asks the
/// server something when it was [quiet](Self::quiet_for), and [gives up](Self::give_up) what does not answer: calls fail,
/// and the next one dials again.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    begin: Instant,
    /// Milliseconds after `begin`.
    heard: AtomicU64,
    /// Cancelled when the connections there are, are given up.
    present: Mutex<CancellationToken>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { begin: Instant::now(), heard: AtomicU64::default(), present: Mutex::default() }
    }
}

impl Line {
    /// When the other end was last heard, or a connection was made.
    pub fn heard(&self) -> Instant {
        self.0.begin + Duration::from_millis(self.0.heard.load(Ordering::Relaxed))
    }

    /// Returns when nothing was heard for so long.
    pub async fn quiet_for(&self, limit: Duration) {
        loop {
            let until = self.heard() + limit;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// Gives up the connections there are: reading from them fails.
    pub fn give_up(&self) {
        std::mem::take(&mut *self.0.present.lock()).cancel();
    }

    /// The same connections, on this line.
    pub fn over(&self, connect: Arc<dyn Connect>) -> Arc<dyn Connect> {
        Arc::new(OverLine { line: self.clone(), connect })
    }

    fn carry(&self, stream: BoxStream) -> BoxStream {
        self.hear();
        let given_up = self.0.present.lock().clone().cancelled_owned();
        Box::new(OnLine { stream, line: self.clone(), given_up: Box::pin(given_up) })
    }

    fn hear(&self) {
        let now = u64::try_from(self.0.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.heard.store(now, Ordering::Relaxed);
    }
}

struct OverLine {
    line: Line,
    connect: Arc<dyn Connect>,
}

#[async_trait]
impl Connect for OverLine {
    async fn connect(&self) -> Result<BoxStream, DialError> {
        Ok(self.line.carry(self.connect.connect().await?))
    }
}

/// A connection on a line.
struct OnLine {
    stream: BoxStream,
    line: Line,
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for OnLine {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.given_up.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer")));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.line.hear();
        }
        read
    }
}

impl AsyncWrite for OnLine {
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

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn connection(line: &Line) -> (BoxStream, DuplexStream) {
        let (near, far) = duplex(100);
        (line.carry(Box::new(near)), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_quiet_when_its_connection_has_heard_nothing() {
        let line = Line::default();
        let (mut stream, mut far) = connection(&line);
        let (limit, begin) = (Duration::from_secs(10), Instant::now());
        let hearing = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(6)).await;
                far.write_all(b"x").await.unwrap();
                stream.read_u8().await.unwrap();
            }
            // What is said does not count.
            stream.write_all(b"hello?").await.unwrap();
            std::future::pending().await
        };
        tokio::select! {
            () = line.quiet_for(limit) => {}
            () = hearing => {}
        }
        assert_eq!(begin.elapsed().as_secs(), 5 * 6 + 10);
    }

    #[tokio::test]
    async fn connections_that_are_given_up_fail_and_later_ones_do_not() {
        let line = Line::default();
        let (mut old, _far) = connection(&line);
        let reading = tokio::spawn(async move { old.read_u8().await.unwrap_err() });
        tokio::task::yield_now().await;
        line.give_up();
        assert_eq!(reading.await.unwrap().kind(), io::ErrorKind::TimedOut);
        let (mut new, mut far) = connection(&line);
        far.write_all(b"x").await.unwrap();
        assert_eq!(new.read_u8().await.unwrap(), b'x');
    }
}
