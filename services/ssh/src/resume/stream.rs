//! A stream of bytes over one network connection after the other.
//!
//! Each frame is an acknowledgement (how many bytes arrived since the last one) and data; both lengths are unsigned
//! LEB128. What was sent is kept until it is acknowledged, so that it can be sent again.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// The most data in a frame.
const MAX_FRAME: usize = 128 * 1024;
/// Data that may wait to be read.
const RECEIVE_LIMIT: usize = 128 * 1024;
/// Data that is kept until it is acknowledged.
const SEND_LIMIT: usize = 2 * 1024 * 1024;
/// In place of an acknowledgement: the connection is closed.
const CLOSED: u64 = u64::MAX;
/// How long both sides may take to say what they have received.
const POSITIONS: Duration = Duration::from_secs(5);
/// How long a connection waits for a new network connection.
const DETACHED: Duration = Duration::from_secs(60);

/// A connection, apart from any network connection.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes those who carry: its value changes whenever the state does.
    changed: watch::Sender<u64>,
    /// Held by who carries at the moment.
    carrying: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Received and not read yet.
    inbox: VecDeque<Bytes>,
    inbox_length: usize,
    /// How much was received, ever, and how much of it is acknowledged.
    received: u64,
    acknowledged: u64,
    /// Sent, or to be sent, and not acknowledged; `start` is the position of its first byte.
    outbox: VecDeque<Bytes>,
    start: u64,
    end: u64,
    /// How far the present network connection has sent.
    sent: u64,
    /// SSH has ended here: nothing more is written.
    finished: bool,
    /// The client knows that the connection is closed, or need not know.
    over: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Ends who carries at the moment.
    carrier: CancellationToken,
}

/// How carrying ended.
#[derive(Debug, PartialEq, Eq)]
enum Carried {
    /// The connection is closed.
    ToTheEnd,
    /// The network connection failed.
    Lost,
    /// Another network connection took over.
    Replaced,
}

impl Default for Shared {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0), carrying: tokio::sync::Mutex::default() }
    }
}

impl Shared {
    fn touch(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Returns when everything was sent and the client was told that it was the end.
    pub async fn delivered(&self) {
        let mut changed = self.changed.subscribe();
        while !self.state.lock().over {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends the connection: what is not sent is lost, and whoever reads or writes is told.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.over = true;
        state.carrier.cancel();
        state.wake();
        drop(state);
        self.touch();
    }

    /// Carries a new connection.
    pub async fn carry<S: AsyncRead + AsyncWrite + Unpin>(&self, network: S) {
        let end = self.take_over();
        self.carry_with(network, end, false).await;
    }

    /// Carries a connection that was carried by another network connection before.
    pub async fn carry_on<S: AsyncRead + AsyncWrite + Unpin>(&self, network: S) {
        let end = self.take_over();
        self.carry_with(network, end, true).await;
    }

    /// Ends who carries now, for somebody else to do so.
    fn take_over(&self) -> CancellationToken {
        let mut state = self.state.lock();
        state.carrier.cancel();
        state.carrier = CancellationToken::new();
        if state.over {
            state.carrier.cancel();
        }
        state.carrier.clone()
    }

    /// Carries until the connection is closed or another network connection takes over, waiting for one if this fails.
    async fn carry_with<S: AsyncRead + AsyncWrite + Unpin>(&self, network: S, end: CancellationToken, again: bool) {
        let carried = {
            // Whoever carried before has stopped for good once this is had.
            let _carrying = self.carrying.lock().await;
            tokio::select! {
                () = end.cancelled() => Carried::Replaced,
                carried = self.relay(network, again) => carried.unwrap_or_else(|error| {
                    debug!(%error, "network connection of a resumable connection lost");
                    Carried::Lost
                }),
            }
        };
        match carried {
            Carried::Replaced => {}
            Carried::ToTheEnd => self.end(),
            Carried::Lost => tokio::select! {
                () = end.cancelled() => {}
                () = self.delivered() => {}
                () = sleep(DETACHED) => self.end(),
            },
        }
    }

    async fn relay<S: AsyncRead + AsyncWrite + Unpin>(&self, network: S, again: bool) -> io::Result<Carried> {
        let (read, mut write) = tokio::io::split(network);
        let mut read = BufReader::with_capacity(MAX_FRAME, read);
        if again {
            match timeout(POSITIONS, self.positions(&mut read, &mut write)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Ok(Carried::ToTheEnd),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "waited 5 s for the client's position")),
            }
        } else {
            self.state.lock().sent = 0;
        }
        tokio::select! {
            received = self.receive(&mut read) => received,
            sent = self.send(&mut write) => sent,
        }
    }

    /// Both sides say how much they have received; false when the client has lost what is not here any more.
    async fn positions(
        &self,
        read: &mut (impl AsyncRead + Unpin),
        write: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<bool> {
        let received = {
            let mut state = self.state.lock();
            state.acknowledged = state.received;
            state.received
        };
        let mut position = Vec::new();
        put_number(&mut position, received);
        let tell = async {
            write.write_all(&position).await?;
            write.flush().await
        };
        let (told, theirs) = tokio::join!(tell, get_number(read));
        told?;
        let theirs = theirs?;
        let fits = self.state.lock().resend_from(theirs);
        self.touch();
        if !fits {
            position.clear();
            put_number(&mut position, CLOSED);
            write.write_all(&position).await?;
            write.flush().await?;
        }
        Ok(fits)
    }

    /// Takes frames until the client closes the connection.
    async fn receive(&self, read: &mut (impl AsyncRead + Unpin)) -> io::Result<Carried> {
        let mut changed = self.changed.subscribe();
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
        loop {
            let acknowledged = get_number(read).await?;
            if acknowledged == CLOSED {
                return Ok(Carried::ToTheEnd);
            }
            if !self.state.lock().acknowledge(acknowledged) {
                return Err(invalid("more is acknowledged than was sent"));
            }
            let length = get_number(read).await?;
            let mut length =
                usize::try_from(length).ok().filter(|n| *n <= MAX_FRAME).ok_or(invalid("frame too long"))?;
            while length > 0 {
                let room = RECEIVE_LIMIT.saturating_sub(self.state.lock().inbox_length);
                if room == 0 {
                    changed.changed().await.map_err(io::Error::other)?;
                    continue;
                }
                let mut data = BytesMut::with_capacity(room.min(length));
                let limit = u64::try_from(room.min(length)).map_err(io::Error::other)?;
                let n = (&mut *read).take(limit).read_buf(&mut data).await?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                length -= n;
                self.state.lock().deposit(data.freeze());
                self.touch();
            }
        }
    }

    /// Sends what is there and acknowledges what was received, until SSH has ended and all of it is sent.
    async fn send(&self, write: &mut (impl AsyncWrite + Unpin)) -> io::Result<Carried> {
        let mut changed = self.changed.subscribe();
        let mut head = Vec::with_capacity(32);
        loop {
            changed.borrow_and_update();
            let (acknowledgement, data, last) = self.state.lock().next_frame();
            if acknowledgement > 0 || !data.is_empty() {
                head.clear();
                put_number(&mut head, acknowledgement);
                put_number(&mut head, data.iter().map(|piece| piece.len() as u64).sum());
                write.write_all(&head).await?;
                for piece in data {
                    write.write_all(&piece).await?;
                }
                write.flush().await?;
            } else if last {
                head.clear();
                put_number(&mut head, CLOSED);
                write.write_all(&head).await?;
                write.flush().await?;
                let _ = write.shutdown().await; // the client may have closed it
                return Ok(Carried::ToTheEnd);
            } else {
                changed.changed().await.map_err(io::Error::other)?;
            }
        }
    }
}

impl State {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn deposit(&mut self, data: Bytes) {
        self.received += data.len() as u64;
        self.inbox_length += data.len();
        self.inbox.push_back(data);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Forgets what has arrived; false when that is more than was sent.
    fn acknowledge(&mut self, count: u64) -> bool {
        if count > self.sent - self.start {
            return false;
        }
        self.start += count;
        let mut rest = count;
        while let Some(piece) = self.outbox.front_mut().filter(|_| rest > 0) {
            let n = rest.min(piece.len() as u64);
            piece.advance(usize::try_from(n).unwrap_or(piece.len()));
            rest -= n;
            if piece.is_empty() {
                self.outbox.pop_front();
            }
        }
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        true
    }

    /// Goes back to what the client has; false when that is not kept.
    fn resend_from(&mut self, position: u64) -> bool {
        if position < self.start || position > self.end {
            return false;
        }
        self.sent = self.end;
        let fits = self.acknowledge(position - self.start);
        self.sent = position;
        fits
    }

    /// What goes out next: an acknowledgement, data, and whether it is the end when there is neither.
    fn next_frame(&mut self) -> (u64, Vec<Bytes>, bool) {
        let acknowledgement = self.received - self.acknowledged;
        self.acknowledged = self.received;
        let mut skip = usize::try_from(self.sent - self.start).unwrap_or(usize::MAX);
        let mut room = MAX_FRAME;
        let mut data = Vec::new();
        for piece in &self.outbox {
            if room == 0 {
                break;
            }
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let part = piece.slice(skip..piece.len().min(skip + room));
            skip = 0;
            room -= part.len();
            self.sent += part.len() as u64;
            data.push(part);
        }
        (acknowledgement, data, self.finished)
    }
}

/// The end of a connection on which SSH runs.
pub(super) struct VirtualStream(Arc<Shared>);

impl VirtualStream {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    fn finish(&self) {
        self.0.state.lock().finished = true;
        self.0.touch();
    }
}

impl Drop for VirtualStream {
    fn drop(&mut self) {
        self.finish();
    }
}

impl AsyncRead for VirtualStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state.lock();
        let Some(piece) = state.inbox.front_mut() else {
            if state.over {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        let n = piece.len().min(into.remaining());
        into.put_slice(&piece.split_to(n));
        if piece.is_empty() {
            state.inbox.pop_front();
        }
        state.inbox_length -= n;
        drop(state);
        self.0.touch();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for VirtualStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.state.lock();
        if state.over || state.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = SEND_LIMIT.saturating_sub(usize::try_from(state.end - state.start).unwrap_or(usize::MAX));
        if room == 0 {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let n = room.min(data.len());
        state.outbox.push_back(Bytes::copy_from_slice(data.get(..n).unwrap_or_default()));
        state.end += n as u64;
        drop(state);
        self.0.touch();
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

/// Appends a number as unsigned LEB128.
pub(super) fn put_number(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    into.push(u8::try_from(number).unwrap_or_default());
}

/// Reads a number in unsigned LEB128 of at most 64 bits.
pub(super) async fn get_number(from: &mut (impl AsyncRead + Unpin)) -> io::Result<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = from.read_u8().await?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a number of more than 64 bits"))
}
