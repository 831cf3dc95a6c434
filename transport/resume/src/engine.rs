//! One side of a resumable connection, without any input or output.
//!
//! Each frame is an acknowledgement (how many bytes arrived since the last one) and data; both lengths are unsigned
//! LEB128. What was sent is kept until it is acknowledged, so that it can be sent again. Bytes of the network go in by
//! [`Engine::receive`] and come out of [`Engine::transmit`]; those of SSH by [`Engine::write`] and [`Engine::read`].

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The most data in a frame.
pub const MAX_FRAME: usize = 128 * 1024;
/// Data that may wait to be read.
pub const RECEIVE_LIMIT: usize = 128 * 1024;
/// Data that is kept until it is acknowledged.
pub const SEND_LIMIT: usize = 2 * 1024 * 1024;
/// In place of an acknowledgement or a position: the connection is closed.
pub const CLOSED: u64 = u64::MAX;
/// So much that was received is acknowledged at once; less waits for data to travel with, or a moment.
const ACKNOWLEDGE_AT: u64 = 128 * 1024;
/// Pieces that may wait to be read: a peer that sends a byte at a time must not cost more memory than one that does not.
const MAX_PIECES: usize = 4096;
/// The longest frame that is made here: with its numbers, as much as one message of what is below holds. A packet of SSH fits.
const FRAME: usize = tunnel::ssh::TUNNEL_PACKET as usize - HEAD;
/// Room for the numbers of a frame, before its data.
const HEAD: usize = 2 * LONGEST_NUMBER;
/// Pieces below this length are copied: they would keep more memory than they need.
const SMALL_PIECE: usize = 1024;
/// The longest number in unsigned LEB128 of 64 bits.
pub(crate) const LONGEST_NUMBER: usize = 10;

/// What a peer must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A number of more than 64 bits.
    #[error("the peer sent a number of more than 64 bits")]
    LongNumber,
    /// A frame longer than [`MAX_FRAME`].
    #[error("the peer sent a frame of {0} bytes, of at most {MAX_FRAME}")]
    LongFrame(u64),
    /// An acknowledgement of what was never sent.
    #[error("the peer acknowledged {acknowledged} bytes when {sent} were on their way")]
    Acknowledgement {
        /// What it acknowledged.
        acknowledged: u64,
        /// What was on its way.
        sent: u64,
    },
}

/// Something to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Numbers; none when they are in one piece with the data.
    pub head: Bytes,
    /// What comes after them.
    pub data: Bytes,
}

/// What comes next from the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expecting {
    /// How much the peer has received.
    Position,
    /// The first number of a frame.
    #[default]
    Acknowledgement,
    /// The second number.
    Length,
    /// So much data of a frame.
    Data(usize),
}

/// One side of a connection.
#[derive(Debug, Default)]
pub struct Engine {
    /// Received and not read yet.
    inbox: VecDeque<Bytes>,
    inbox_length: usize,
    /// How much was received, ever, and how much of it is acknowledged.
    received: u64,
    acknowledged: u64,
    expecting: Expecting,

    /// Written and never sent: frames, each with [`HEAD`] bytes for its numbers first.
    fresh: VecDeque<BytesMut>,
    fresh_length: usize,
    /// Sent on an earlier network connection, to be sent again before anything else.
    again: VecDeque<Bytes>,
    again_length: usize,
    /// Sent and not acknowledged; `start` is the position of its first byte.
    sent: VecDeque<Bytes>,
    sent_length: usize,
    start: u64,

    /// The peer is to be told the position first.
    tell_position: bool,
    /// What the peer wants is not kept any more.
    unfit: bool,
    /// Nothing more is written.
    finished: bool,
    /// The peer was told that the connection is closed.
    told: bool,
    /// The connection is closed.
    over: bool,
}

impl Engine {
    /// A network connection begins: the first one, or `again` one that goes on where another was lost.
    pub fn attach(&mut self, again: bool) {
        self.tell_position = again;
        self.told = false;
        self.expecting = if again { Expecting::Position } else { Expecting::Acknowledgement };
    }

    /// Whether the peer has yet to say how much it has received.
    pub fn awaits_position(&self) -> bool {
        self.expecting == Expecting::Position && !self.over
    }

    /// Whether the connection is closed. What was received before can still be read.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Closes the connection without another word.
    pub fn end(&mut self) {
        self.over = true;
        (self.fresh, self.again, self.sent) = Default::default();
        (self.fresh_length, self.again_length, self.sent_length) = (0, 0, 0);
    }

    /// Takes data to be sent, as much as there is room for.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let n = data.len().min(self.room_to_write());
        self.fresh_length += n;
        let mut rest = data.get(..n).unwrap_or_default();
        while !rest.is_empty() {
            let (part, later) = rest.split_at(rest.len().min(self.room_in_frame(rest.len())));
            if let Some(frame) = self.fresh.back_mut() {
                frame.extend_from_slice(part);
            }
            rest = later;
        }
        n
    }

    /// How much the last frame takes, which is a new one where that is full. A small one grows when it has to.
    fn room_in_frame(&mut self, length: usize) -> usize {
        if self.fresh.back().is_none_or(|frame| frame.len() >= HEAD + FRAME) {
            let capacity = if length < FRAME / 4 { length.max(SMALL_PIECE) } else { FRAME };
            let mut frame = BytesMut::with_capacity(HEAD + capacity);
            frame.put_bytes(0, HEAD);
            self.fresh.push_back(frame);
        }
        let Some(frame) = self.fresh.back_mut() else { return 0 };
        if frame.len() == frame.capacity() {
            frame.reserve(HEAD + FRAME - frame.len());
        }
        frame.capacity().min(HEAD + FRAME) - frame.len()
    }

    /// How much may be written now; nothing once the connection is closed.
    pub fn room_to_write(&self) -> usize {
        let kept = self.fresh_length + self.again_length + self.sent_length;
        if self.is_closing() { 0 } else { SEND_LIMIT.saturating_sub(kept) }
    }

    /// Whether nothing can be written any more.
    pub fn is_closing(&self) -> bool {
        self.over || self.finished
    }

    /// Nothing more will be written: the peer is told when everything is sent.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Gives at most so much of what was received; `None` when there is nothing now.
    pub fn read(&mut self, most: usize) -> Option<Bytes> {
        let first = self.inbox.front_mut()?;
        let piece = first.split_to(most.min(first.len()));
        if first.is_empty() {
            self.inbox.pop_front();
        }
        self.inbox_length -= piece.len();
        Some(piece)
    }

    /// Whether more would be taken from the network.
    pub fn has_room(&self) -> bool {
        !matches!(self.expecting, Expecting::Data(_)) || self.room_to_receive() > 0
    }

    fn room_to_receive(&self) -> usize {
        if self.inbox.len() >= MAX_PIECES { 0 } else { RECEIVE_LIMIT.saturating_sub(self.inbox_length) }
    }

    /// Takes what came from the network, and leaves what is not complete or has no room yet.
    ///
    /// # Errors
    /// When the peer breaks the rules; the network connection is of no use then.
    pub fn receive(&mut self, from: &mut impl Contiguous) -> Result<(), Violation> {
        while !self.over && from.has_remaining() {
            if let Expecting::Data(left) = self.expecting {
                let n = left.min(from.remaining()).min(self.room_to_receive());
                if n == 0 {
                    break;
                }
                self.inbox.push_back(piece(from, n));
                self.inbox_length += n;
                self.received += n as u64;
                self.expect_data(left - n);
                continue;
            }
            let Some(number) = take_number(from)? else { break };
            match self.expecting {
                Expecting::Position | Expecting::Acknowledgement if number == CLOSED => self.end(),
                Expecting::Position => {
                    self.unfit = !self.rewind(number);
                    self.expecting = Expecting::Acknowledgement;
                }
                Expecting::Acknowledgement => {
                    self.forget(number)?;
                    self.expecting = Expecting::Length;
                }
                Expecting::Length => {
                    let length = usize::try_from(number).ok().filter(|length| *length <= MAX_FRAME);
                    self.expect_data(length.ok_or(Violation::LongFrame(number))?);
                }
                Expecting::Data(_) => {} // above
            }
        }
        Ok(())
    }

    fn expect_data(&mut self, left: usize) {
        self.expecting = if left == 0 { Expecting::Acknowledgement } else { Expecting::Data(left) };
    }

    /// Drops what has arrived.
    fn forget(&mut self, count: u64) -> Result<(), Violation> {
        let violation = Violation::Acknowledgement { acknowledged: count, sent: self.sent_length as u64 };
        let count = usize::try_from(count).ok().filter(|count| *count <= self.sent_length).ok_or(violation)?;
        drop_front(&mut self.sent, count);
        self.sent_length -= count;
        self.start += count as u64;
        if self.sent_length + self.again_length + self.fresh_length == 0 {
            // A quiet connection keeps no memory of what it has carried.
            (self.fresh, self.again, self.sent) = Default::default();
        }
        Ok(())
    }

    /// Goes back to what the peer has; false when that is not kept, or was never sent.
    fn rewind(&mut self, position: u64) -> bool {
        let length = self.sent_length + self.again_length;
        let skip = position.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let Some(skip) = skip.filter(|skip| *skip <= length) else { return false };
        let mut pieces = std::mem::take(&mut self.sent);
        pieces.append(&mut self.again);
        drop_front(&mut pieces, skip);
        self.again = pieces;
        (self.again_length, self.sent_length) = (length - skip, 0);
        self.start = position;
        true
    }

    /// Whether something is on its way that the peer has yet to acknowledge, which it does at once.
    pub fn awaits_acknowledgement(&self) -> bool {
        self.sent_length > 0
    }

    /// Whether something received is not acknowledged, and waits for company.
    pub fn owes_acknowledgement(&self) -> bool {
        self.received > self.acknowledged && !self.over
    }

    /// What is to be sent next. An acknowledgement alone is sent when it is large, or `acknowledge` asks for it.
    pub fn transmit(&mut self, acknowledge: bool) -> Option<Frame> {
        if self.over || self.told {
            return None;
        }
        if self.tell_position {
            self.tell_position = false;
            self.acknowledged = self.received;
            return Some(number_alone(self.received));
        }
        if self.unfit {
            self.end();
            return Some(number_alone(CLOSED));
        }
        if self.awaits_position() {
            return None;
        }
        let owed = self.received - self.acknowledged;
        if let Some(frame) = self.next_data(owed) {
            self.acknowledged = self.received;
            return Some(frame);
        }
        if owed >= ACKNOWLEDGE_AT || acknowledge && owed > 0 {
            self.acknowledged = self.received;
            return Some(Frame { head: numbers(owed, 0).freeze(), data: Bytes::new() });
        }
        if self.finished {
            self.told = true;
            return Some(number_alone(CLOSED));
        }
        None
    }

    /// Whether the peer was told on this network connection that the connection is closed.
    pub fn has_told(&self) -> bool {
        self.told
    }

    /// The next data to be sent, after an acknowledgement of so much.
    fn next_data(&mut self, owed: u64) -> Option<Frame> {
        let (frame, data) = if let Some(data) = self.again.pop_front() {
            self.again_length -= data.len();
            (Frame { head: numbers(owed, data.len()).freeze(), data: data.clone() }, data)
        } else {
            let mut frame = self.fresh.pop_front()?;
            let length = frame.len() - HEAD;
            self.fresh_length -= length;
            let numbers = numbers(owed, length);
            let unused = HEAD - numbers.len();
            if let Some(head) = frame.get_mut(unused..HEAD) {
                head.copy_from_slice(&numbers);
            }
            frame.advance(unused);
            // It is kept until it is acknowledged, and must not keep much more memory than it needs.
            let whole =
                if 2 * frame.len() < frame.capacity() { Bytes::copy_from_slice(&frame) } else { frame.freeze() };
            let data = whole.slice(numbers.len()..);
            (Frame { head: Bytes::new(), data: whole }, data)
        };
        self.sent_length += data.len();
        self.sent.push_back(data);
        Some(frame)
    }
}

/// Bytes in one piece, which are taken without copying them.
pub trait Contiguous: Buf {}

impl Contiguous for Bytes {}
impl Contiguous for BytesMut {}

/// Drops so many bytes from the front.
fn drop_front(pieces: &mut VecDeque<Bytes>, mut count: usize) {
    while let Some(piece) = pieces.front_mut() {
        if piece.len() > count {
            piece.advance(count);
            return;
        }
        count -= piece.len();
        pieces.pop_front();
    }
}

fn number_alone(number: u64) -> Frame {
    let mut head = BytesMut::with_capacity(LONGEST_NUMBER);
    put_number(&mut head, number);
    Frame { head: head.freeze(), data: Bytes::new() }
}

/// The numbers before the data of a frame.
fn numbers(owed: u64, length: usize) -> BytesMut {
    let mut head = BytesMut::with_capacity(HEAD);
    put_number(&mut head, owed);
    put_number(&mut head, length as u64);
    head
}

/// Appends a number as unsigned LEB128.
pub fn put_number(into: &mut impl BufMut, mut number: u64) {
    while number >= 0x80 {
        into.put_u8(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    into.put_u8(u8::try_from(number).unwrap_or_default());
}

/// Takes the next `n` bytes. A small piece gets memory of its own: it would keep the whole buffer that it came in.
fn piece(from: &mut impl Contiguous, n: usize) -> Bytes {
    if n >= SMALL_PIECE {
        return from.copy_to_bytes(n);
    }
    let piece = Bytes::copy_from_slice(&from.chunk()[..n]);
    from.advance(n);
    piece
}

/// Takes a number in unsigned LEB128 of at most 64 bits; `None` while it is not complete.
pub fn take_number(from: &mut impl Contiguous) -> Result<Option<u64>, Violation> {
    let mut number = 0u64;
    for (at, byte) in from.chunk().iter().take(LONGEST_NUMBER).enumerate() {
        let (shift, bits) = (7 * at, u64::from(byte & 0x7f));
        if at + 1 == LONGEST_NUMBER && *byte > 1 {
            return Err(Violation::LongNumber);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            from.advance(at + 1);
            return Ok(Some(number));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
