//! A byte stream carried in frames; the engine below [`pingconn`](crate::pingconn) and [`upgrade`](crate::upgrade).
//!
//! No task runs behind a stream: pings and answers are sent by whoever reads, which every user of a connection does
//! all the time. Reader and writer may be different tasks (`tokio::io::split`), and the stream below wakes only the
//! last one that asked to write; so the reader, when it wrote, wakes a writer that was waiting.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::io::poll_read_buf;

/// Bytes read at once while a frame's head is awaited.
const READ_AHEAD: usize = 4096;
/// Largest payload of one frame that is written.
const LARGEST_WRITE: usize = 256 * 1024;
/// Answers queued for a peer that does not read; further ones are dropped.
const LARGEST_BACKLOG: usize = 16 * 1024;

/// How frames look; pure.
pub(crate) trait Framing {
    /// Takes one head from `input`. Answers the peer is owed go to `replies`.
    fn decode(&mut self, input: &mut BytesMut, replies: &mut Replies<'_>) -> io::Result<Step>;
    /// The head of a data frame.
    fn head(&self, length: usize) -> Head;
    /// Appends a ping.
    fn ping(&self, out: &mut BytesMut);
    /// Appends what announces the end of the stream.
    fn close(&self, out: &mut BytesMut);
    /// Whether the end of our data also ends the transport's sending side.
    fn close_ends_transport(&self) -> bool;
}

/// What a head says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The head is not complete.
    More,
    /// A data frame; `length` bytes follow, to be unmasked.
    Data { length: u64, mask: [u8; 4] },
    /// `length` bytes that mean nothing follow.
    Skip { length: u64 },
    /// The peer is done.
    End,
}

/// Where answers to control frames are queued.
pub(crate) struct Replies<'o>(&'o mut BytesMut);

/// A frame head, built without allocation.
pub(crate) struct Head {
    bytes: [u8; 14],
    length: usize,
}

/// The stream.
#[derive(Debug)]
pub(crate) struct Framed<S, F> {
    inner: S,
    framing: F,
    input: BytesMut,
    payload: Payload,
    ended: bool,
    out: BytesMut,
    waiting_writer: Option<Waker>,
    close_queued: bool,
    pings: Option<Pings>,
}

/// What the next bytes of the input are.
#[derive(Debug, Clone, Copy)]
enum Payload {
    Head,
    Data { left: u64, mask: [u8; 4], at: usize },
    Skipped { left: u64 },
}

#[derive(Debug)]
struct Pings {
    every: Duration,
    next: Pin<Box<Sleep>>,
}

impl Replies<'_> {
    /// Queues an answer unless the peer has left too many unread already.
    pub(crate) fn push(&mut self, frame: &[&[u8]]) {
        if self.0.len() < LARGEST_BACKLOG {
            frame.iter().for_each(|part| self.0.extend_from_slice(part));
        }
    }
}

impl Head {
    /// Joins the parts; what exceeds 14 bytes is cut off, which no framing needs.
    pub(crate) fn new(parts: &[&[u8]]) -> Self {
        let mut head = Self { bytes: [0; 14], length: 0 };
        for byte in parts.iter().flat_map(|part| part.iter()).take(head.bytes.len()) {
            head.bytes[head.length] = *byte;
            head.length += 1;
        }
        head
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl<S, F> Framed<S, F> {
    pub(crate) fn new(inner: S, framing: F, ping_every: Option<Duration>) -> Self {
        Self {
            inner,
            framing,
            input: BytesMut::new(),
            payload: Payload::Head,
            ended: false,
            out: BytesMut::new(),
            waiting_writer: None,
            close_queued: false,
            pings: ping_every.map(|every| Pings { every, next: Box::pin(sleep(every)) }),
        }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, F> Framed<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Framing,
{
    /// Writes what is queued. `Ready` means that nothing is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        self.out = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Remembers the writer when it has to wait, so that a reader that used its place in the queue can wake it.
    fn waiting<T>(&mut self, cx: &Context<'_>, poll: Poll<T>) -> Poll<T> {
        self.waiting_writer = poll.is_pending().then(|| cx.waker().clone());
        poll
    }

    /// Sends pings that are due and answers that are queued, as far as the transport takes them now.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(pings) = &mut self.pings {
            while pings.next.as_mut().poll(cx).is_ready() {
                pings.next.as_mut().reset(Instant::now() + pings.every);
                // What is still queued keeps the connection as busy as a ping would.
                if self.out.is_empty() && !self.close_queued {
                    self.framing.ping(&mut self.out);
                }
            }
        }
        if self.out.is_empty() {
            return Ok(());
        }
        if let Poll::Ready(drained) = self.poll_drain(cx) {
            drained?;
            if let Poll::Ready(flushed) = Pin::new(&mut self.inner).poll_flush(cx) {
                flushed?;
            }
            if let Some(writer) = self.waiting_writer.take() {
                writer.wake();
            }
        }
        Ok(())
    }

    /// Gets more input; `Ready(false)` at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.input.reserve(READ_AHEAD);
        let received = poll_read_buf(Pin::new(&mut self.inner), cx, &mut self.input);
        if received.is_pending() && self.input.is_empty() {
            // An idle connection holds no buffer.
            self.input = BytesMut::new();
        }
        received.map_ok(|count| count > 0)
    }

    fn decode(&mut self) -> io::Result<bool> {
        match self.framing.decode(&mut self.input, &mut Replies(&mut self.out))? {
            Step::More => return Ok(false),
            Step::Data { length: 0, .. } | Step::Skip { length: 0 } => {}
            Step::Data { length, mask } => self.payload = Payload::Data { left: length, mask, at: 0 },
            Step::Skip { length } => self.payload = Payload::Skipped { left: length },
            Step::End => self.ended = true,
        }
        Ok(true)
    }

    /// Moves payload to the reader, from the input buffer or, when that is empty, directly from the transport.
    fn poll_payload(&mut self, cx: &mut Context<'_>, left: u64, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let wanted = buf.remaining().min(usize::try_from(left).unwrap_or(usize::MAX));
        if self.input.is_empty() && wanted < READ_AHEAD && !ready!(self.poll_fill(cx))? {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if !self.input.is_empty() {
            let count = wanted.min(self.input.len());
            buf.put_slice(&self.input[..count]);
            self.input.advance(count);
            return Poll::Ready(Ok(count));
        }
        let mut direct = ReadBuf::new(buf.initialize_unfilled_to(wanted));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut direct))?;
        let count = direct.filled().len();
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        buf.advance(count);
        Poll::Ready(Ok(count))
    }
}

impl<S, F> AsyncRead for Framed<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Framing + Unpin,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            this.poll_control(cx)?;
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            match this.payload {
                Payload::Data { left, mask, at } => {
                    let before = buf.filled().len();
                    let count = ready!(this.poll_payload(cx, left, buf))?;
                    unmask(&mut buf.filled_mut()[before..], mask, at);
                    let left = left - count as u64;
                    this.payload = if left == 0 {
                        Payload::Head
                    } else {
                        Payload::Data { left, mask, at: (at + count) % mask.len() }
                    };
                    return Poll::Ready(Ok(()));
                }
                Payload::Skipped { left } => {
                    if this.input.is_empty() && !ready!(this.poll_fill(cx))? {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    let count = this.input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    this.input.advance(count);
                    let left = left - count as u64;
                    this.payload = if left == 0 { Payload::Head } else { Payload::Skipped { left } };
                }
                Payload::Head => {
                    if !this.decode()? && !ready!(this.poll_fill(cx))? {
                        if !this.input.is_empty() {
                            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                        }
                        this.ended = true;
                    }
                }
            }
        }
    }
}

impl<S, F> AsyncWrite for Framed<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Framing + Unpin,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.close_queued {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let drained = this.poll_drain(cx);
        ready!(this.waiting(cx, drained))?;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let payload = &buf[..buf.len().min(LARGEST_WRITE)];
        let head = this.framing.head(payload.len());
        let written = this.poll_frame(cx, head.as_slice(), payload);
        this.waiting(cx, written).map_ok(|()| payload.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let drained = this.poll_drain(cx);
        ready!(this.waiting(cx, drained))?;
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.waiting(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.close_queued {
            let this = &mut *self;
            this.close_queued = true;
            this.framing.close(&mut this.out);
        }
        ready!(self.as_mut().poll_flush(cx))?;
        if !self.framing.close_ends_transport() {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let shut = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.waiting(cx, shut)
    }
}

impl<S, F> Framed<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Framing,
{
    /// Writes one frame without copying what the transport takes at once. Once a byte of the head is out the frame is
    /// promised, so what does not fit is kept. Nothing is queued when this is called.
    fn poll_frame(&mut self, cx: &mut Context<'_>, head: &[u8], payload: &[u8]) -> Poll<io::Result<()>> {
        let total = head.len() + payload.len();
        let mut written = 0;
        while written < total {
            let rest_of_head = &head[written.min(head.len())..];
            let rest = &payload[written.saturating_sub(head.len())..];
            let inner = Pin::new(&mut self.inner);
            let step = match rest_of_head {
                [] => inner.poll_write(cx, rest),
                _ => inner.poll_write_vectored(cx, &[IoSlice::new(rest_of_head), IoSlice::new(rest)]),
            };
            match step {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if written == 0 => return Poll::Pending,
                Poll::Pending => {
                    self.out.extend_from_slice(rest_of_head);
                    self.out.extend_from_slice(rest);
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4], at: usize) {
    if mask != [0; 4] {
        for (byte, key) in bytes.iter_mut().zip(mask.iter().cycle().skip(at)) {
            *byte ^= key;
        }
    }
}

/// Passes reading and writing of a wrapper `$name<S>(Framed<..>)` on to the engine.
macro_rules! framed_stream {
    ($name:ident) => {
        impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for $name<S> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_read(cx, buf)
            }
        }

        impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for $name<S> {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_write(cx, buf)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_shutdown(cx)
            }
        }
    };
}
pub(crate) use framed_stream;
