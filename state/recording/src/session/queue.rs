//! What waits to be written.

use std::{collections::VecDeque, time::Duration};

use audit::codes;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use parking_lot::Mutex;
use prost::Message;
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};
use wire::{
    events::{Metadata, OneOf, SessionPrint},
    time::timestamp,
};

use super::{SessionInfo, Stamper};
use crate::Result;

/// The most output in one event: with its fields, well below the limit of a message.
pub(super) const PRINT_BYTES: usize = 32 * 1024;
/// Output waits for room above this.
const QUEUE_BYTES: usize = 128 * 1024;
/// Events need no room, but nobody makes this many while a disk works.
const EVENTS_BYTES: usize = 4 * 1024 * 1024;
/// Enough for a part.
const FLUSH_BYTES: usize = 64 * 1024;

/// A bounded queue of output and events.
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to write, or enough of it, or no more to come.
    filled: Notify,
    /// There is room again.
    emptied: Notify,
    /// Whether anything is kept at all.
    recording: bool,
}

struct State {
    items: VecDeque<Item>,
    bytes: usize,
    stamper: Stamper,
    cluster: String,
    chunks: i64,
    offset: i64,
    first_output: Option<Instant>,
    closed: bool,
    failure: Option<String>,
}

/// Something to be written.
pub(super) enum Item {
    /// An event, complete.
    Event(Box<OneOf>),
    /// Output of the terminal.
    Print(Print),
}

/// Output of the terminal, numbered like an event.
pub(super) struct Print {
    index: i64,
    chunk: i64,
    time: DateTime<Utc>,
    delay: i64,
    offset: i64,
    cluster: String,
    data: Vec<u8>,
}

/// Whether the queue has taken what was offered.
pub(super) enum Room {
    /// It has.
    Taken,
    /// It will when [`Queue::room`] says so.
    Full,
}

/// What was taken from the queue at once.
pub(super) struct Batch {
    /// Output and events in their order.
    pub items: VecDeque<Item>,
    /// Whether nothing will follow.
    pub last: bool,
}

impl Queue {
    pub fn new(info: SessionInfo, recording: bool) -> Self {
        let state = State {
            items: VecDeque::new(),
            bytes: 0,
            cluster: info.cluster.clone(),
            stamper: Stamper::new(info),
            chunks: 0,
            offset: 0,
            first_output: None,
            closed: false,
            failure: None,
        };
        Self { state: Mutex::new(state), filled: Notify::new(), emptied: Notify::new(), recording }
    }

    /// Offers output; `Err` says why recording has failed.
    pub fn push_output(&self, data: &[u8]) -> Result<Room, String> {
        if !self.recording || data.is_empty() {
            return Ok(Room::Taken);
        }
        let mut state = self.state.lock();
        if let Some(reason) = &state.failure {
            return Err(reason.clone());
        }
        if state.closed {
            return Ok(Room::Taken);
        }
        if state.bytes > 0 && state.bytes + data.len() > QUEUE_BYTES {
            return Ok(Room::Full);
        }
        let before = state.bytes;
        state.add_output(data);
        let (now, first) = (state.bytes, before == 0);
        drop(state);
        if first || (before < FLUSH_BYTES && now >= FLUSH_BYTES) {
            self.filled.notify_one();
        }
        Ok(Room::Taken)
    }

    /// Adds an event, whatever the room: they are few.
    pub fn push_event(&self, event: OneOf) -> Result<OneOf> {
        let mut state = self.state.lock();
        let event = state.stamper.stamp(event)?;
        if self.recording && !state.closed && state.failure.is_none() {
            state.bytes += event.encoded_len();
            state.items.push_back(Item::Event(Box::new(event.clone())));
            let stuck = state.bytes > EVENTS_BYTES;
            drop(state);
            self.filled.notify_one();
            if stuck {
                self.fail("the disk does not keep up");
            }
        }
        Ok(event)
    }

    pub fn stamp(&self, event: OneOf) -> Result<OneOf> {
        self.state.lock().stamper.stamp(event)
    }

    /// Ends when there may be room.
    pub fn room(&self) -> Notified<'_> {
        self.emptied.notified()
    }

    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }

    /// Drops what is queued and refuses output from now on.
    pub fn fail(&self, reason: &str) {
        let mut state = self.state.lock();
        state.failure.get_or_insert_with(|| reason.to_owned());
        state.items.clear();
        state.bytes = 0;
        drop(state);
        self.emptied.notify_waiters();
        self.filled.notify_one();
    }

    /// Why recording has failed.
    pub fn failure(&self) -> Option<String> {
        self.state.lock().failure.clone()
    }

    /// What there is to write, once something has waited for `delay`, or is enough for a part, or is the last.
    pub async fn take(&self, delay: Duration) -> Batch {
        self.wait_for(|s| !s.items.is_empty()).await;
        tokio::time::timeout(delay, self.wait_for(|s| s.bytes >= FLUSH_BYTES)).await.ok();
        let mut state = self.state.lock();
        state.bytes = 0;
        let last = state.closed || state.failure.is_some();
        let batch = Batch { items: std::mem::take(&mut state.items), last };
        drop(state);
        self.emptied.notify_waiters();
        batch
    }

    /// Waits for a state, or for the end.
    async fn wait_for(&self, wanted: impl Fn(&State) -> bool) {
        loop {
            {
                let state = self.state.lock();
                if state.closed || state.failure.is_some() || wanted(&state) {
                    return;
                }
            }
            self.filled.notified().await;
        }
    }
}

impl State {
    fn add_output(&mut self, data: &[u8]) {
        let now = Instant::now();
        let since = now - *self.first_output.get_or_insert(now);
        let delay = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let length = i64::try_from(data.len()).unwrap_or(i64::MAX);
        self.bytes += data.len();
        self.offset += length;
        // Terminals deliver a flood in small pieces; those of one millisecond are one event.
        if let Some(Item::Print(print)) = self.items.back_mut()
            && print.delay == delay
            && print.data.len() + data.len() <= PRINT_BYTES
        {
            print.data.extend_from_slice(data);
            return;
        }
        self.items.push_back(Item::Print(Print {
            index: self.stamper.next,
            chunk: self.chunks,
            time: self.stamper.info.clock.now(),
            delay,
            offset: self.offset - length,
            cluster: self.cluster.clone(),
            data: data.to_vec(),
        }));
        self.stamper.next += 1;
        self.chunks += 1;
    }
}

impl Print {
    /// The event that stands for the output.
    pub fn into_event(self) -> OneOf {
        codes::SESSION_PRINT.event(SessionPrint {
            metadata: Some(Metadata {
                index: self.index,
                time: Some(timestamp(self.time.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(self.time))),
                cluster_name: self.cluster,
                ..Metadata::default()
            }),
            chunk_index: self.chunk,
            bytes: i64::try_from(self.data.len()).unwrap_or(i64::MAX),
            data: self.data,
            delay_milliseconds: self.delay,
            offset: self.offset,
        })
    }
}
