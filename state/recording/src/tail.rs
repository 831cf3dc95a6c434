//! The rest of a recording whose upload follows it, in memory, once the disk takes no more.
//!
//! Events stay until the other end has acknowledged them, so that a lost connection loses none. There is a limit: a
//! recorder waits at it, and fails when the other end stays away.

use std::{collections::VecDeque, time::Duration};

use audit::EventExt;
use prost::Message;
use tokio::{sync::watch, time::timeout};
use wire::events::OneOf;

/// The most that may wait for the other end.
const LIMIT_BYTES: usize = 4 * 1024 * 1024;

/// Events in the order of their indexes.
pub(crate) struct Tail {
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    events: VecDeque<OneOf>,
    bytes: usize,
    /// Nothing more is added.
    closed: bool,
    /// The other end has completed the recording.
    arrived: bool,
}

impl State {
    /// The first event after an index.
    fn after(&self, index: i64) -> Option<&OneOf> {
        self.events.get(self.events.partition_point(|event| event.index() <= index))
    }
}

impl Tail {
    pub fn new() -> Self {
        Self { state: watch::Sender::new(State::default()) }
    }

    /// Adds events, once those before them have made room.
    pub async fn push(&self, events: Vec<OneOf>) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| state.bytes < LIMIT_BYTES).await; // the sender is in `self`
        self.state.send_modify(|state| {
            state.bytes += events.iter().map(OneOf::encoded_len).sum::<usize>();
            state.events.extend(events);
        });
    }

    /// Says that nothing more is added.
    pub fn close(&self) {
        self.state.send_modify(|state| state.closed = true);
    }

    /// The first event after an index, waiting for it; `None` when there will be none.
    pub async fn next(&self, index: i64) -> Option<OneOf> {
        let mut state = self.state.subscribe();
        let ready = state.wait_for(|state| state.closed || state.after(index).is_some()).await.ok()?;
        ready.after(index).cloned()
    }

    /// The other end has everything up to this index.
    pub fn acknowledge(&self, index: i64) {
        self.state.send_if_modified(|state| {
            let known = state.events.partition_point(|event| event.index() <= index);
            state.bytes -= state.events.drain(..known).map(|event| event.encoded_len()).sum::<usize>();
            known > 0
        });
    }

    /// The other end has completed the recording.
    pub fn arrived(&self) {
        self.state.send_modify(|state| state.arrived = true);
    }

    /// Waits for [`Self::arrived`]; false when it does not come in time.
    pub async fn wait_for_arrival(&self, patience: Duration) -> bool {
        let mut state = self.state.subscribe();
        matches!(timeout(patience, state.wait_for(|state| state.arrived)).await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use audit::codes;
    use wire::events::{Metadata, SessionPrint};

    use super::*;

    fn event(index: i64, bytes: usize) -> OneOf {
        let metadata = Some(Metadata { index, ..Metadata::default() });
        codes::SESSION_PRINT.event(SessionPrint { metadata, data: vec![b'x'; bytes], ..SessionPrint::default() })
    }

    #[tokio::test]
    async fn events_stay_until_they_are_acknowledged() {
        let tail = Tail::new();
        tail.push((5..8).map(|index| event(index, 1)).collect()).await;
        assert_eq!(tail.next(-1).await.unwrap().index(), 5);
        tail.acknowledge(5);
        assert_eq!(tail.next(-1).await.unwrap().index(), 6);
        assert_eq!(tail.next(6).await.unwrap().index(), 7);
        tail.close();
        assert!(tail.next(7).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_adds_waits_for_room() {
        let tail = Tail::new();
        tail.push(vec![event(0, LIMIT_BYTES)]).await;
        let second = tail.push(vec![event(1, 1)]);
        tokio::pin!(second);
        assert!(timeout(Duration::from_secs(1), second.as_mut()).await.is_err());
        tail.acknowledge(0);
        second.await;
        assert_eq!(tail.next(0).await.unwrap().index(), 1);
        assert!(!tail.wait_for_arrival(Duration::from_secs(1)).await);
        tail.arrived();
        assert!(tail.wait_for_arrival(Duration::from_secs(1)).await);
    }
}
