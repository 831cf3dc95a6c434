//! Delivering changes to those who watch.
//!
//! Every watcher has its own queue of shared events, so an event costs a pointer per watcher. The writer
//! never waits for a watcher: one that leaves more than its queue size unread for longer than
//! [`GRACE`] is closed with an error.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{BackendError, Item, Key, Result};

/// How many events may wait for a watcher without its falling behind.
pub const DEFAULT_QUEUE: usize = 1024;

/// How long more than the queue size may wait before the watcher is closed.
const GRACE: TimeDelta = TimeDelta::seconds(59);

/// A new watcher first works off what its owner listed: its grace begins this long after its creation.
const WARM_UP: TimeDelta = TimeDelta::seconds(177);

/// However young the watcher, it is closed when this many events wait.
const MAX_BACKLOG: usize = 1 << 18;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first event: from here on nothing is missed.
    Init,
    /// An item was written.
    Put(Arc<Item>),
    /// An item was removed or expired.
    Delete(Arc<Key>),
}

impl Event {
    /// The key that changed; none for [`Event::Init`].
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Init => None,
            Self::Put(item) => Some(&item.key),
            Self::Delete(key) => Some(key),
        }
    }
}

/// What is to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Who watches; appears in logs and errors.
    pub name: String,
    /// The keys of interest and all below them; empty: everything below `/`.
    pub prefixes: Vec<Key>,
    /// How many events may wait before the watcher counts as slow.
    pub queue: usize,
}

impl Watch {
    /// Watches `prefixes` and everything below them.
    pub fn new(name: impl Into<String>, prefixes: impl IntoIterator<Item = Key>) -> Self {
        Self { name: name.into(), prefixes: prefixes.into_iter().collect(), queue: DEFAULT_QUEUE }
    }

    /// The prefixes without those that lie below another.
    fn distinct_prefixes(&self) -> Vec<Key> {
        if self.prefixes.is_empty() {
            return vec![Key::root("/")];
        }
        let mut sorted = self.prefixes.clone();
        sorted.sort_by_key(|prefix| prefix.as_str().len());
        let mut distinct: Vec<Key> = Vec::with_capacity(sorted.len());
        for prefix in sorted {
            if !distinct.iter().any(|wider| prefix.is_under(wider.as_str())) {
                distinct.push(prefix);
            }
        }
        distinct
    }
}

/// Receives the events of one [`Watch`]. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watcher {
    queue: Arc<Queue>,
    fanout: Weak<Fanout>,
}

impl Watcher {
    /// The next event. Safe to cancel: a dropped call loses nothing.
    ///
    /// # Errors
    /// `WatcherTooSlow` when events had to be given up, `Closed` when the backend was closed. Either is final:
    /// the caller watches anew and lists again.
    pub async fn recv(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.try_recv()? {
                return Ok(event);
            }
            self.queue.changed.notified().await;
        }
    }

    /// The next event if one is waiting.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Option<Event>> {
        let mut state = self.queue.state.lock();
        if let Some(event) = state.events.pop_front() {
            if state.events.len() < self.queue.size {
                state.behind_since = None;
            }
            return Ok(Some(event));
        }
        match &state.closed {
            Some(reason) => Err(reason.clone()),
            None => Ok(None),
        }
    }

    /// How many events are waiting.
    pub fn pending(&self) -> usize {
        self.queue.state.lock().events.len()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(fanout) = self.fanout.upgrade()
            && let Some(watchers) = fanout.watchers.lock().as_mut()
        {
            watchers.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        }
    }
}

#[derive(Debug)]
struct Queue {
    name: String,
    prefixes: Vec<Key>,
    size: usize,
    created: DateTime<Utc>,
    state: Mutex<QueueState>,
    changed: Notify,
}

#[derive(Debug)]
struct QueueState {
    events: VecDeque<Event>,
    behind_since: Option<DateTime<Utc>>,
    closed: Option<BackendError>,
}

impl Queue {
    fn wants(&self, event: &Event) -> bool {
        event.key().is_some_and(|key| self.prefixes.iter().any(|prefix| key.is_under(prefix.as_str())))
    }

    /// Queues what this watcher wants; false when it was closed for being too slow.
    fn offer(&self, events: &[Event], now: DateTime<Utc>) -> bool {
        let mut wanted = events.iter().filter(|event| self.wants(event)).peekable();
        if wanted.peek().is_none() {
            return true;
        }
        let mut state = self.state.lock();
        state.events.extend(wanted.cloned());
        let pending = state.events.len();
        let keeps_up = if pending <= self.size {
            true
        } else {
            let since = *state.behind_since.get_or_insert(now);
            let young = now - self.created < WARM_UP;
            pending <= MAX_BACKLOG && (young || now - since < GRACE)
        };
        if !keeps_up {
            state.events = VecDeque::new();
            state.closed = Some(BackendError::WatcherTooSlow { name: self.name.clone(), pending });
        }
        drop(state);
        self.changed.notify_one();
        keeps_up
    }

    fn close(&self) {
        self.end(BackendError::Closed);
    }

    fn end(&self, reason: BackendError) {
        self.state.lock().closed.get_or_insert(reason);
        self.changed.notify_one();
    }
}

/// All watchers of a backend.
#[derive(Debug)]
pub(crate) struct Fanout {
    /// `None` after the backend was closed.
    watchers: Mutex<Option<Vec<Arc<Queue>>>>,
}

impl Default for Fanout {
    fn default() -> Self {
        Self { watchers: Mutex::new(Some(Vec::new())) }
    }
}

impl Fanout {
    pub(crate) fn subscribe(self: &Arc<Self>, watch: &Watch, now: DateTime<Utc>) -> Result<Watcher> {
        let queue = Arc::new(Queue {
            name: watch.name.clone(),
            prefixes: watch.distinct_prefixes(),
            size: watch.queue.max(1),
            created: now,
            state: Mutex::new(QueueState { events: VecDeque::from([Event::Init]), behind_since: None, closed: None }),
            changed: Notify::new(),
        });
        self.watchers.lock().as_mut().ok_or(BackendError::Closed)?.push(Arc::clone(&queue));
        Ok(Watcher { queue, fanout: Arc::downgrade(self) })
    }

    /// Delivers what was committed. Called by one writer, in the order of its commits.
    pub(crate) fn publish(&self, events: &[Event], now: DateTime<Utc>) {
        let mut watchers = self.watchers.lock();
        let Some(watchers) = watchers.as_mut() else {
            return;
        };
        watchers.retain(|queue| {
            let keeps_up = queue.offer(events, now);
            if !keeps_up {
                tracing::warn!(watcher = %queue.name, "watcher is too slow, closing it");
            }
            keeps_up
        });
    }

    /// Ends all watches, because events are missing in them; new ones can begin.
    pub(crate) fn interrupt(&self) {
        let queues = self.watchers.lock().as_mut().map(std::mem::take).unwrap_or_default();
        for queue in queues {
            queue.end(BackendError::ConnectionProblem("changes were missed, read everything anew".to_owned()));
        }
    }

    pub(crate) fn close(&self) {
        for queue in self.watchers.lock().take().unwrap_or_default() {
            queue.close();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn put(number: usize) -> Event {
        let key = Key::root("/nodes").child(number.to_string()).unwrap();
        Event::Put(Arc::new(Item::new(key, "x")))
    }

    #[test]
    fn redundant_prefixes_are_dropped() {
        let watch = Watch::new("test", [Key::root("/nodes/default"), Key::root("/nodes"), Key::root("/nodes2")]);
        assert_eq!(watch.distinct_prefixes(), [Key::root("/nodes"), Key::root("/nodes2")]);
        assert_eq!(Watch::new("test", []).distinct_prefixes(), [Key::root("/")]);
    }

    #[test]
    fn a_watcher_that_stays_behind_is_closed_after_its_grace() {
        let fanout = Arc::new(Fanout::default());
        let start = Utc::now();
        let mut watcher = fanout.subscribe(&Watch { queue: 2, ..Watch::new("slow", []) }, start).unwrap();
        let old = start + WARM_UP;
        for number in 0..5 {
            fanout.publish(&[put(number)], old);
        }
        fanout.publish(&[put(5)], old + TimeDelta::seconds(58));
        assert_eq!(watcher.pending(), 7);
        fanout.publish(&[put(6)], old + TimeDelta::seconds(60));
        assert!(matches!(watcher.try_recv(), Err(BackendError::WatcherTooSlow { pending: 8, .. })));
        assert!(fanout.watchers.lock().as_ref().unwrap().is_empty());
    }

    #[test]
    fn a_watcher_that_catches_up_gets_a_new_grace() {
        let fanout = Arc::new(Fanout::default());
        let start = Utc::now();
        let mut watcher = fanout.subscribe(&Watch { queue: 2, ..Watch::new("bursty", []) }, start).unwrap();
        let old = start + WARM_UP;
        (0..5).for_each(|number| fanout.publish(&[put(number)], old));
        while watcher.try_recv().unwrap().is_some() {}
        (0..5).for_each(|number| fanout.publish(&[put(number)], old + TimeDelta::seconds(90)));
        assert_eq!(watcher.pending(), 5);
    }

    #[test]
    fn a_young_watcher_may_be_behind_but_not_without_bound() {
        let fanout = Arc::new(Fanout::default());
        let start = Utc::now();
        let mut watcher = fanout.subscribe(&Watch { queue: 2, ..Watch::new("young", []) }, start).unwrap();
        let burst: Vec<Event> = (0..1000).map(put).collect();
        fanout.publish(&burst, start);
        fanout.publish(&burst, start + TimeDelta::seconds(100));
        assert_eq!(watcher.try_recv().unwrap(), Some(Event::Init));
        for _ in 0..=MAX_BACKLOG / burst.len() {
            fanout.publish(&burst, start + TimeDelta::seconds(100));
        }
        assert!(watcher.try_recv().is_err());
    }

    #[test]
    fn a_dropped_watcher_is_forgotten() {
        let fanout = Arc::new(Fanout::default());
        drop(fanout.subscribe(&Watch::new("gone", []), Utc::now()).unwrap());
        assert!(fanout.watchers.lock().as_ref().unwrap().is_empty());
    }

    #[tokio::test]
    async fn closing_ends_the_watch_after_what_was_queued() {
        let fanout = Arc::new(Fanout::default());
        let mut watcher = fanout.subscribe(&Watch::new("test", []), Utc::now()).unwrap();
        fanout.publish(&[put(1)], Utc::now());
        fanout.close();
        assert_eq!(watcher.recv().await.unwrap(), Event::Init);
        assert_eq!(watcher.recv().await.unwrap(), put(1));
        assert!(matches!(watcher.recv().await, Err(BackendError::Closed)));
    }
}
