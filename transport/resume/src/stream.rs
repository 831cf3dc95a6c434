//! A stream of bytes over one network connection after the other: an [`Engine`] with wakers, and what carries it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::engine::{Engine, Frame, LONGEST_NUMBER};
use crate::network::{poll_give, poll_take};
use crate::plain::Plain;

/// How long both sides may take to say what they have received.
const POSITIONS: Duration = Duration::from_secs(5);
/// How long an acknowledgement waits for data to travel with.
const ACKNOWLEDGEMENT: Duration = Duration::from_millis(20);
/// How long a peer may say nothing at all while it has something to acknowledge, before there is doubt whether the network
/// connection still works. Acknowledgements come whatever SSH does with the data: within a moment, or when the way is slow,
/// one after the other.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);
/// How long a network connection that takes nothing is kept after the end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes read from the network at once: the first time, and at most. Most connections carry little, and wait.
const FIRST_CHUNK: usize = 4 * 1024;
const LARGEST_CHUNK: usize = 128 * 1024;

/// A connection, apart from any network connection.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Which network connection has its turn: the newest.
    turn: watch::Sender<u64>,
    /// Whether the present network connection seems not to work.
    doubt: watch::Sender<bool>,
    /// Cancelled when SSH has ended here.
    finished: CancellationToken,
    /// Cancelled when the connection is closed.
    over: CancellationToken,
    /// Cancelled when nothing is done for it any more.
    gone: CancellationToken,
}

#[derive(Default)]
struct State {
    engine: Engine,
    reader: Option<Waker>,
    writer: Option<Waker>,
    carrier: Option<Waker>,
    /// Why the connection was given up.
    failure: Option<String>,
}

/// How carrying ended.
#[derive(Debug)]
pub(crate) enum Carried {
    /// The connection is closed.
    ToTheEnd,
    /// The network connection failed.
    Lost(io::Error),
    /// Another network connection took over.
    Replaced,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            turn: watch::Sender::new(0),
            doubt: watch::Sender::new(false),
            finished: CancellationToken::new(),
            over: CancellationToken::new(),
            gone: CancellationToken::new(),
        }
    }
}

impl Shared {
    /// Returns when the connection is closed.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Returns when SSH has ended here.
    pub async fn finished(&self) {
        self.finished.cancelled().await;
    }

    /// What is dropped when nothing is done for the connection any more.
    pub fn keeper(&self) -> DropGuard {
        self.gone.clone().drop_guard()
    }

    /// Ends the connection: what is not sent is lost, and whoever reads or writes is told.
    pub fn end(&self) {
        self.state.lock().engine.end();
        self.settle();
    }

    /// Ends the connection, and tells whoever reads or writes why.
    pub fn fail(&self, reason: String) {
        self.state.lock().failure = Some(reason);
        self.end();
    }

    /// Tells everybody that the connection is closed.
    fn settle(&self) {
        let wakers = {
            let mut state = self.state.lock();
            [state.reader.take(), state.writer.take(), state.carrier.clone()]
        };
        self.over.cancel();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Gives the turn to a new network connection, `again` when there was one before.
    pub fn attach(&self, again: bool) -> u64 {
        let (turn, before) = {
            let mut state = self.state.lock();
            state.engine.attach(again);
            let turn = self.turn.borrow().wrapping_add(1);
            self.turn.send_replace(turn);
            self.doubt.send_replace(false); // of the one before: nobody is to replace this one because of that
            (turn, state.carrier.take()) // the next one leaves its own
        };
        if let Some(before) = before {
            before.wake();
        }
        turn
    }

    /// Returns when another network connection than this has its turn.
    pub async fn replaced(&self, turn: u64) {
        let mut turns = self.turn.subscribe();
        // The sender lives as long as `self`.
        let _ = turns.wait_for(|now| *now != turn).await;
    }

    /// Returns while the present network connection seems not to work.
    pub async fn doubted(&self) {
        let mut doubt = self.doubt.subscribe();
        // The sender lives as long as `self`.
        let _ = doubt.wait_for(|doubt| *doubt).await;
    }

    /// Carries the connection over a network connection that has its turn, until either is at its end.
    pub async fn carry<S>(&self, network: &mut S, turn: u64) -> Carried
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let mut carrier = Carrier {
            shared: self,
            turn,
            network,
            input: Bytes::new(),
            buffer: BytesMut::new(),
            chunk: FIRST_CHUNK,
            output: Frame { head: Bytes::new(), data: Bytes::new() },
            unflushed: false,
            patience: None,
            silent_since: None,
            alarm: None,
            doubts: false,
        };
        let begun = poll_fn(|context| carrier.poll(context, true));
        match timeout(POSITIONS, begun).await {
            Ok(None) => {}
            Ok(Some(carried)) => return carried,
            Err(_) => {
                let text = "waited 5 s for the peer's position";
                return Carried::Lost(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
        let farewell = async {
            self.over.cancelled().await;
            sleep(FAREWELL).await;
        };
        tokio::select! {
            carried = poll_fn(|context| carrier.poll(context, false)) => carried.unwrap_or(Carried::ToTheEnd),
            () = farewell => Carried::ToTheEnd,
        }
    }
}

/// Carries a connection over one network connection.
struct Carrier<'a, S> {
    shared: &'a Shared,
    turn: u64,
    network: &'a mut S,
    /// Read and not taken yet.
    input: Bytes,
    /// What it was read into, where it has no memory of its own.
    buffer: BytesMut,
    /// How much to read at once.
    chunk: usize,
    /// Not written yet.
    output: Frame,
    unflushed: bool,
    /// Until an acknowledgement goes out alone.
    patience: Option<Pin<Box<Sleep>>>,
    /// Since when the peer has said nothing and has something to acknowledge.
    silent_since: Option<Instant>,
    /// Goes off when that is long ago, or has been put off since.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Whether it is so long ago that the network connection is doubted.
    doubts: bool,
}

/// What to do next.
enum Step {
    /// Bytes passed: there may be more.
    Moved,
    /// Nothing can be done now.
    Rest,
    End(Carried),
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Carrier<'_, S> {
    /// Carries until the end, or with `begin` until the peer's position is known.
    fn poll(&mut self, context: &mut Context<'_>, begin: bool) -> Poll<Option<Carried>> {
        loop {
            if *self.shared.turn.borrow() != self.turn {
                return Poll::Ready(Some(Carried::Replaced));
            }
            let sent = match self.send(context) {
                Step::End(carried) => return Poll::Ready(Some(carried)),
                Step::Moved => true,
                Step::Rest => false,
            };
            let received = match self.receive(context) {
                Step::End(carried) => return Poll::Ready(Some(carried)),
                Step::Moved => true,
                Step::Rest => false,
            };
            let waits = {
                let state = self.shared.state.lock();
                if begin && !state.engine.awaits_position() {
                    return Poll::Ready(None);
                }
                // Who has no room does not listen.
                state.engine.awaits_acknowledgement() && state.engine.has_room()
            };
            self.listen(context, waits, received);
            if !sent && !received {
                return Poll::Pending;
            }
        }
    }

    /// Casts doubt on the network connection when the peer `waits` to be heard for too long.
    fn listen(&mut self, context: &mut Context<'_>, waits: bool, heard: bool) {
        if heard || !waits {
            self.silent_since = None;
            if std::mem::take(&mut self.doubts) {
                self.shared.doubt.send_replace(false);
            }
        }
        if !waits || self.doubts {
            return;
        }
        let due = *self.silent_since.get_or_insert_with(Instant::now) + SILENCE;
        // It is not moved with every frame, but when it goes off too early.
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while alarm.as_mut().poll(context).is_ready() {
            if alarm.deadline() >= due {
                self.doubts = true;
                self.shared.doubt.send_replace(true);
                return;
            }
            alarm.as_mut().reset(due);
        }
    }

    /// Writes what there is.
    fn send(&mut self, context: &mut Context<'_>) -> Step {
        let mut moved = false;
        loop {
            if self.output.head.is_empty() && self.output.data.is_empty() {
                match self.next_frame(context) {
                    Ok(Some(frame)) => self.output = frame,
                    Ok(None) => break,
                    Err(carried) => return Step::End(carried),
                }
            }
            match self.write(context) {
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(error)) => return Step::End(Carried::Lost(error)),
                Poll::Pending => return if moved { Step::Moved } else { Step::Rest },
            }
        }
        if self.unflushed {
            match Pin::new(&mut *self.network).poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Step::End(Carried::Lost(error)),
                Poll::Pending => return if moved { Step::Moved } else { Step::Rest },
            }
        }
        let over = {
            let state = self.shared.state.lock();
            state.engine.has_told() || state.engine.is_over()
        };
        if over {
            // All that matters is written; the peer may have closed it already.
            if Pin::new(&mut *self.network).poll_shutdown(context).is_pending() {
                return if moved { Step::Moved } else { Step::Rest };
            }
            self.shared.end();
            return Step::End(Carried::ToTheEnd);
        }
        if moved { Step::Moved } else { Step::Rest }
    }

    /// The next frame to be written, or why there will be none.
    fn next_frame(&mut self, context: &mut Context<'_>) -> Result<Option<Frame>, Carried> {
        let mut state = self.shared.state.lock();
        if *self.shared.turn.borrow() != self.turn {
            return Err(Carried::Replaced);
        }
        if !state.carrier.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.carrier = Some(context.waker().clone());
        }
        let mut frame = state.engine.transmit(false);
        if frame.is_none() && state.engine.owes_acknowledgement() {
            let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(ACKNOWLEDGEMENT)));
            if patience.as_mut().poll(context).is_ready() {
                frame = state.engine.transmit(true);
            }
        }
        if frame.is_some() {
            self.patience = None;
        }
        Ok(frame)
    }

    /// Writes a part of a frame.
    fn write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Frame { head, data } = &mut self.output;
        let slices = [IoSlice::new(head), IoSlice::new(data)];
        let n = match (head.is_empty(), data.is_empty()) {
            (true, _) => {
                ready!(poll_give(self.network, context, data))?;
                self.unflushed = true;
                return Poll::Ready(Ok(()));
            }
            (_, true) => Pin::new(&mut *self.network).poll_write(context, head),
            _ => Pin::new(&mut *self.network).poll_write_vectored(context, &slices),
        };
        let n = ready!(n)?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_head = n.min(head.len());
        head.advance(of_head);
        data.advance((n - of_head).min(data.len()));
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }

    /// Reads what there is and hands it over.
    fn receive(&mut self, context: &mut Context<'_>) -> Step {
        let mut read = false;
        // What has no room yet is more than a part of a number, and goes first.
        if self.input.len() < LONGEST_NUMBER && self.shared.state.lock().engine.has_room() {
            match poll_take(self.network, context, &mut self.buffer, self.chunk) {
                Poll::Ready(Ok(data)) if data.is_empty() => {
                    return Step::End(Carried::Lost(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(data)) => {
                    read = true;
                    if data.len() >= self.chunk {
                        self.chunk = (2 * self.chunk).min(LARGEST_CHUNK);
                    }
                    self.input = match self.input.is_empty() {
                        true => data,
                        false => Bytes::from([&self.input[..], &data[..]].concat()), // after a part of a number
                    };
                }
                Poll::Ready(Err(error)) => return Step::End(Carried::Lost(error)),
                Poll::Pending => {}
            }
        }
        let waiting = self.input.len();
        if waiting == 0 {
            return Step::Rest;
        }
        let (wakers, over) = {
            let mut state = self.shared.state.lock();
            if *self.shared.turn.borrow() != self.turn {
                return Step::End(Carried::Replaced);
            }
            if let Err(violation) = state.engine.receive(&mut self.input) {
                return Step::End(Carried::Lost(io::Error::new(io::ErrorKind::InvalidData, violation)));
            }
            let writer = if state.engine.room_to_write() > 0 { state.writer.take() } else { None };
            ([state.reader.take(), writer], state.engine.is_over())
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
        if over {
            self.shared.end();
            return Step::End(Carried::ToTheEnd);
        }
        if read || self.input.len() < waiting { Step::Moved } else { Step::Rest }
    }
}

/// The end of a resumable connection on which SSH runs.
pub struct VirtualStream(Arc<Shared>);

impl VirtualStream {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// A token that is cancelled when the connection is closed and the peer knows, or need not know.
    pub fn closed(&self) -> CancellationToken {
        self.0.gone.clone()
    }

    fn finish(&self) {
        let carrier = {
            let mut state = self.0.state.lock();
            state.engine.finish();
            state.carrier.clone()
        };
        self.0.finished.cancel();
        if let Some(carrier) = carrier {
            carrier.wake();
        }
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
        let stalled = !state.engine.has_room();
        let mut any = false;
        while into.remaining() > 0
            && let Some(piece) = state.engine.read(into.remaining())
        {
            into.put_slice(&piece);
            any = true;
        }
        if any || into.remaining() == 0 {
            let carrier = if stalled { state.carrier.clone() } else { None };
            drop(state);
            if let Some(carrier) = carrier {
                carrier.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if state.engine.is_over() {
            return Poll::Ready(match &state.failure {
                Some(reason) => Err(io::Error::new(io::ErrorKind::ConnectionReset, reason.clone())),
                None => Ok(()),
            });
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for VirtualStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.state.lock();
        if state.engine.is_closing() {
            return Poll::Ready(Err(match &state.failure {
                Some(reason) => io::Error::new(io::ErrorKind::ConnectionReset, reason.clone()),
                None => io::ErrorKind::BrokenPipe.into(),
            }));
        }
        if state.engine.room_to_write() == 0 {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let n = slices.iter().map(|slice| state.engine.write(slice)).sum();
        let carrier = state.carrier.clone();
        drop(state);
        if let Some(carrier) = carrier {
            carrier.wake();
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The peer is told when everything is sent; [`VirtualStream::closed`] says when.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

/// One end of a connection that may or may not be resumed.
pub enum Stream<S> {
    /// The peer does not know how.
    Plain(Plain<S>),
    /// It does.
    Resumable(VirtualStream),
}

impl<S> Stream<S> {
    /// A token that is cancelled when a resumable connection is closed and the peer knows, or need not know.
    pub fn closed(&self) -> Option<CancellationToken> {
        match self {
            Self::Plain(_) => None,
            Self::Resumable(stream) => Some(stream.closed()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Self::Resumable(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, data),
            Self::Resumable(stream) => Pin::new(stream).poll_write(context, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Resumable(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Resumable(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
