//! The way of a process's events to a log elsewhere: first into a file of its own, from there onwards.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, error, info};
use wire::events::OneOf;

use crate::{EventExt, Result, Spool};

/// Takes events to the log of the cluster.
#[async_trait]
pub trait Courier: Send + Sync + 'static {
    /// Hands an event over. It may be handed over again after a failure or a crash, with the same id.
    async fn deliver(&self, event: &OneOf) -> Result<(), Undelivered>;
}

/// Why an event was not handed over, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// The log is out of reach: another attempt may succeed.
    #[error("{0}")]
    Away(String),
    /// The log has read the event and will never take it.
    #[error("{0}")]
    Refused(String),
}

/// Where a process puts its events. Clones share the queue.
///
/// An event is in the file before [`Outbox::put`] returns, so it survives the end of the process, however it ends.
/// When the file cannot be written, because the disk is full, events wait in memory instead, in their order.
#[derive(Clone)]
pub struct Outbox {
    queue: Queue,
    /// Told with every event; closed when nobody can put events any more.
    changed: Arc<watch::Sender<()>>,
}

#[derive(Clone)]
struct Queue {
    spool: Spool,
    /// Events that follow those in the file, while the file cannot be written.
    memory: Arc<Mutex<Memory>>,
    /// Held while something goes to the end of the file: one event after the other.
    writing: Arc<tokio::sync::Mutex<()>>,
}

/// Events in memory, each with a number by which it is known.
#[derive(Default)]
struct Memory {
    events: VecDeque<(u64, OneOf)>,
    next: u64,
}

impl Memory {
    /// Adds an event; false when there is no room.
    fn push(&mut self, event: OneOf) -> bool {
        if self.events.len() >= MEMORY {
            return false;
        }
        self.events.push_back((self.next, event));
        self.next += 1;
        true
    }

    /// Removes the oldest event, if it is this one: whoever looked at it may have been overtaken.
    fn remove(&mut self, number: u64) {
        if self.events.front().is_some_and(|(first, _)| *first == number) {
            self.events.pop_front();
        }
    }
}

/// Delivers what is put into an [`Outbox`].
pub struct Delivery<C> {
    queue: Queue,
    changed: watch::Receiver<()>,
    courier: C,
}

/// Events that may wait in memory while the disk cannot be written.
const MEMORY: usize = 4096;
/// Events taken at once.
const BATCH: usize = 64;
/// How long one delivery may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Waits between attempts while the log is away.
const MIN_RETRY: Duration = Duration::from_millis(200);
const MAX_RETRY: Duration = Duration::from_secs(5);

impl Outbox {
    /// Queues events in `spool` and hands them to `courier`; the delivery is to be run by the caller.
    pub fn new<C: Courier>(spool: Spool, courier: C) -> (Self, Delivery<C>) {
        let (sender, changed) = watch::channel(());
        let queue = Queue { spool, memory: Arc::default(), writing: Arc::default() };
        (Self { queue: queue.clone(), changed: Arc::new(sender) }, Delivery { queue, changed, courier })
    }

    /// Queues an event made complete by [`crate::event::prepare`].
    pub async fn put(&self, event: OneOf) {
        self.queue.keep(event).await;
        self.changed.send_replace(());
    }
}

impl Queue {
    /// Puts an event into the file, or into memory while the file cannot be written.
    async fn keep(&self, event: OneOf) {
        let _turn = self.writing.lock().await;
        // What waits in memory is older: a newer event must not overtake it by way of the file.
        if self.move_to_disk().await {
            match self.spool.push(event.clone()).await {
                Ok(()) => return,
                Err(error) => error!(%error, event = event.name(), "events are kept in memory only"),
            }
        }
        let (name, id) = (event.name().to_owned(), event.uid().to_owned());
        if !self.memory.lock().push(event) {
            error!(event = name, id, "event lost: neither disk nor memory has room for it");
        }
    }

    /// Moves what waits in memory to the file; false when that cannot take it. For who holds `writing`.
    async fn move_to_disk(&self) -> bool {
        loop {
            let Some((number, event)) = self.oldest() else { return true };
            if let Err(error) = self.spool.push(event).await {
                debug!(%error, "events still kept in memory only");
                return false;
            }
            self.memory.lock().remove(number);
        }
    }

    /// The oldest event in memory.
    fn oldest(&self) -> Option<(u64, OneOf)> {
        self.memory.lock().events.front().cloned()
    }

    /// Makes what waits safe against more than the end of this process.
    async fn secure(&self) {
        let turn = self.writing.lock().await;
        self.move_to_disk().await;
        drop(turn);
        if let Err(error) = self.spool.sync().await {
            error!(%error, "flushing kept events");
        }
    }

    fn is_empty(&self) -> bool {
        self.spool.is_empty() && self.memory.lock().events.is_empty()
    }
}

impl<C: Courier> Delivery<C> {
    /// Delivers until all clones of the outbox are gone and the queue is empty or cannot be delivered.
    pub async fn run(mut self) {
        let (mut retry, mut away) = (MIN_RETRY, false);
        loop {
            self.changed.mark_unchanged();
            let delivered = self.deliver_spooled().await;
            let delivered = delivered && self.deliver_memory().await;
            let open = self.changed.has_changed();
            if delivered == away {
                away = !delivered;
                info!(away, "whether the audit log can be reached has changed; events wait on disk while it is away");
            }
            if !delivered {
                self.queue.secure().await;
                if open.is_err() {
                    return;
                }
                sleep(retry.mul_f64(1.0 + jitter())).await;
                retry = (retry * 2).min(MAX_RETRY);
                continue;
            }
            retry = MIN_RETRY;
            // An error means that nobody can put events any more; a last look follows then.
            if self.changed.changed().await.is_err() && self.queue.is_empty() {
                return;
            }
        }
    }

    /// Delivers what waits in the file; false when the log is away.
    async fn deliver_spooled(&self) -> bool {
        while !self.queue.spool.is_empty() {
            let pending = match self.queue.spool.pending(BATCH).await {
                Ok(pending) => pending,
                Err(error) => {
                    error!(%error, "reading kept events");
                    return false;
                }
            };
            for event in &pending.events {
                if !self.deliver(event).await {
                    return false;
                }
            }
            if let Err(error) = self.queue.spool.delivered(&pending).await {
                error!(%error, "marking kept events as delivered");
                return false;
            }
        }
        true
    }

    /// Delivers what waits in memory; false when the log is away. An event that goes to the file meanwhile is delivered
    /// once more from there, with the same id.
    async fn deliver_memory(&self) -> bool {
        // What is in the file is older.
        while self.queue.spool.is_empty()
            && let Some((number, event)) = self.queue.oldest()
        {
            if !self.deliver(&event).await {
                return false;
            }
            self.queue.memory.lock().remove(number);
        }
        true
    }

    /// Hands one event over; false when the log is away.
    async fn deliver(&self, event: &OneOf) -> bool {
        let outcome = timeout(LIMIT, self.courier.deliver(event)).await;
        match outcome.unwrap_or_else(|_| Err(Undelivered::Away("waited 10 s for the audit log".into()))) {
            Ok(()) => true,
            Err(Undelivered::Refused(reason)) => {
                error!(event = event.name(), id = event.uid(), reason, "event refused by the audit log");
                true
            }
            Err(Undelivered::Away(reason)) => {
                debug!(reason, event = event.name(), id = event.uid(), "audit log out of reach");
                false
            }
        }
    }
}

/// A number from 0 to 1 that differs from process to process and from call to call.
fn jitter() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tempfile::TempDir;
    use wire::events::Exec;

    use super::*;
    use crate::codes;

    /// A log that can be away.
    #[derive(Clone, Default)]
    struct Far(Arc<Mutex<(bool, Vec<i64>)>>);

    #[async_trait]
    impl Courier for Far {
        async fn deliver(&self, event: &OneOf) -> Result<(), Undelivered> {
            let mut far = self.0.lock();
            if far.0 {
                return Err(Undelivered::Away("test".into()));
            }
            if event.index() == 13 {
                return Err(Undelivered::Refused("unlucky".into()));
            }
            far.1.push(event.index());
            Ok(())
        }
    }

    fn event(index: i64) -> OneOf {
        let mut event = codes::EXEC.event(Exec::default());
        event.metadata_mut().unwrap().index = index;
        event
    }

    #[tokio::test]
    async fn events_are_delivered_in_order_and_a_refused_one_stops_nothing() {
        let dir = TempDir::new().unwrap();
        let far = Far::default();
        let (outbox, delivery) = Outbox::new(Spool::open(dir.path().join("spool"), 1 << 20).unwrap(), far.clone());
        let delivery = tokio::spawn(delivery.run());
        for i in 10..20 {
            outbox.put(event(i)).await;
        }
        drop(outbox);
        delivery.await.unwrap();
        assert_eq!(far.0.lock().1, [10, 11, 12, 14, 15, 16, 17, 18, 19]);
    }

    #[tokio::test]
    async fn events_of_a_killed_process_are_delivered_by_the_next() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("spool");
        let far = Far::default();
        // Nothing runs the delivery: the process is killed at once.
        let (outbox, _) = Outbox::new(Spool::open(&path, 1 << 20).unwrap(), far.clone());
        outbox.put(event(1)).await;
        outbox.put(event(2)).await;
        drop(outbox);
        let (outbox, delivery) = Outbox::new(Spool::open(&path, 1 << 20).unwrap(), far.clone());
        outbox.put(event(3)).await;
        drop(outbox);
        delivery.run().await;
        assert_eq!(far.0.lock().1, [1, 2, 3]);
    }

    #[tokio::test]
    async fn events_wait_while_the_log_is_away_and_survive_a_stop() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("spool");
        let far = Far::default();
        far.0.lock().0 = true;
        let (outbox, delivery) = Outbox::new(Spool::open(&path, 1 << 20).unwrap(), far.clone());
        outbox.put(event(1)).await;
        drop(outbox);
        delivery.run().await;
        far.0.lock().0 = false;
        let (outbox, delivery) = Outbox::new(Spool::open(&path, 1 << 20).unwrap(), far.clone());
        drop(outbox);
        delivery.run().await;
        assert_eq!(far.0.lock().1, [1]);
    }

    #[tokio::test]
    async fn what_waits_in_memory_goes_to_the_disk_as_soon_as_that_takes_it() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("spool");
        let (spool, far) = (Spool::open(&path, 1 << 20).unwrap(), Far::default());
        far.0.lock().0 = true;
        let (outbox, delivery) = Outbox::new(spool.clone(), far.clone());
        outbox.put(event(0)).await;
        spool.set_limit(0);
        for i in 1..4 {
            outbox.put(event(i)).await;
        }
        assert_eq!(outbox.queue.memory.lock().events.len(), 3);
        spool.set_limit(1 << 20);
        outbox.put(event(4)).await;
        assert!(outbox.queue.memory.lock().events.is_empty());
        spool.set_limit(0);
        outbox.put(event(5)).await;
        spool.set_limit(1 << 20);
        // The log is away: an attempt to deliver is what moves the last one.
        drop(outbox);
        delivery.run().await;
        drop(spool);
        far.0.lock().0 = false;
        let (outbox, delivery) = Outbox::new(Spool::open(&path, 1 << 20).unwrap(), far.clone());
        drop(outbox);
        delivery.run().await;
        assert_eq!(far.0.lock().1, [0, 1, 2, 3, 4, 5]);
    }

    /// Hours pass at once: the clock of the runtime jumps whenever all wait.
    #[tokio::test(start_paused = true)]
    async fn after_an_hour_without_the_log_every_event_arrives_in_order() {
        let dir = TempDir::new().unwrap();
        let far = Far::default();
        far.0.lock().0 = true;
        let (outbox, delivery) = Outbox::new(Spool::open(dir.path().join("spool"), 1 << 30).unwrap(), far.clone());
        let delivery = tokio::spawn(delivery.run());
        let start = tokio::time::Instant::now();
        for i in 100..1900 {
            outbox.put(event(i)).await;
            sleep(Duration::from_secs(2)).await;
        }
        assert!(start.elapsed() >= Duration::from_secs(3600) && far.0.lock().1.is_empty());
        far.0.lock().0 = false;
        sleep(2 * MAX_RETRY).await;
        drop(outbox);
        delivery.await.unwrap();
        assert_eq!(far.0.lock().1, (100..1900).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_full_disk_keeps_the_order() {
        let dir = TempDir::new().unwrap();
        let far = Far::default();
        let (outbox, delivery) = Outbox::new(Spool::open(dir.path().join("spool"), 200).unwrap(), far.clone());
        for i in 0..12 {
            outbox.put(event(i)).await;
        }
        let delivery = tokio::spawn(delivery.run());
        while far.0.lock().1.len() < 12 {
            tokio::task::yield_now().await;
        }
        drop(outbox);
        delivery.await.unwrap();
        assert_eq!(far.0.lock().1, (0..12).collect::<Vec<_>>());
    }
}
