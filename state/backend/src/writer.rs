//! The one thread that writes.
//!
//! Writes that arrive while the disk is busy with the last transaction are committed together by the next
//! one, so that many writers share the price of making their writes durable. Each is acknowledged after
//! that commit, and after its events are in the queues of the watchers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    BackendError, Clock, ErrorKind, Event, GroupCommit, Result,
    store::{Foreign, Outcome, Store, Transaction, Write},
    watch::Fanout,
};

/// How many writes may wait; further writers wait for a place.
const QUEUE: usize = 4096;

/// How often expired items are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// How often changes of other processes are looked for when none was announced.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The way to the writing thread.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: Sender<Job>,
    look_waiting: Arc<AtomicBool>,
    /// Who waits for the next look.
    lookers: Lookers,
    places: Arc<Semaphore>,
}

/// Those who are told when a look that began after they asked is over; `None` when nobody looks any more.
type Lookers = Arc<Mutex<Option<Vec<Looker>>>>;
type Looker = oneshot::Sender<Result<()>>;

enum Job {
    Write {
        write: Write,
        reply: oneshot::Sender<Result<Outcome>>,
        _place: OwnedSemaphorePermit,
    },
    /// Another process may have written.
    Look,
    Close {
        done: oneshot::Sender<()>,
    },
}

/// Has the writer look for what other processes have written.
pub(crate) struct Look {
    jobs: Sender<Job>,
    /// Whether it will look anyway.
    waiting: Arc<AtomicBool>,
}

impl Look {
    /// Has it look soon.
    pub(crate) fn now(&self) {
        if !self.waiting.swap(true, Ordering::SeqCst) {
            // The writer has ended: nobody wants to know.
            let _ = self.jobs.send(Job::Look);
        }
    }
}

impl Writer {
    /// Starts the thread that owns `store`. It ends when the writer is closed or dropped.
    ///
    /// When the machine cannot start another thread, every write fails with `Closed`.
    pub(crate) fn start<S: Store>(store: S, fanout: Arc<Fanout>, clock: Arc<dyn Clock>) -> Self {
        let (jobs, queue) = channel();
        let look_waiting = Arc::new(AtomicBool::new(false));
        let looking = Arc::clone(&look_waiting);
        let lookers = Lookers::new(Mutex::new(Some(Vec::new())));
        let of_thread = Arc::clone(&lookers);
        let thread = WriterThread {
            store,
            fanout,
            clock,
            looking,
            lookers: of_thread,
            next_expiry: None,
            last_expiry: None,
            group: GroupCommit::default(),
        };
        let started = std::thread::Builder::new()
            .name("backend-writer".to_owned())
            .stack_size(512 << 10)
            .spawn(move || thread.run(&queue));
        if let Err(error) = started {
            tracing::error!(%error, "starting the storage thread failed");
        }
        Self { jobs, look_waiting, lookers, places: Arc::new(Semaphore::new(QUEUE)) }
    }

    /// A way to have it look for what other processes have written.
    pub(crate) fn look(&self) -> Look {
        Look { jobs: self.jobs.clone(), waiting: Arc::clone(&self.look_waiting) }
    }

    /// Waits until what other processes have written before this call is taken in. Many callers share one look.
    pub(crate) async fn sync(&self) -> Result<()> {
        let (done, looked) = oneshot::channel();
        {
            let mut lookers = self.lookers.lock();
            let lookers = lookers.as_mut().ok_or(BackendError::Closed)?;
            // While the storage hangs, callers give up and others come.
            if lookers.len() == lookers.capacity() {
                lookers.retain(|looker| !looker.is_closed());
            }
            lookers.push(done);
        }
        self.look().now();
        looked.await.map_err(|_| BackendError::Closed)?
    }

    /// Queues a write and waits until it is durable.
    pub(crate) async fn write(&self, write: Write) -> Result<Outcome> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| BackendError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Write { write, reply, _place: place }).map_err(|_| BackendError::Closed)?;
        answer.await.map_err(|_| BackendError::Closed)?
    }

    /// Waits until everything queued is done and the thread has let go of the store.
    pub(crate) async fn close(&self) {
        self.places.close();
        let (done, finished) = oneshot::channel();
        if self.jobs.send(Job::Close { done }).is_ok() {
            // An error means that the thread is gone, which is what was asked for.
            let _ = finished.await;
        }
    }
}

struct WriterThread<S> {
    store: S,
    fanout: Arc<Fanout>,
    clock: Arc<dyn Clock>,
    looking: Arc<AtomicBool>,
    lookers: Lookers,
    /// No item expires before this time.
    next_expiry: Option<DateTime<Utc>>,
    last_expiry: Option<Instant>,
    group: GroupCommit,
}

type Waiting = (Write, oneshot::Sender<Result<Outcome>>);
type Batch = Vec<Waiting>;

impl<S: Store> WriterThread<S> {
    fn run(mut self, queue: &Receiver<Job>) {
        self.next_expiry = self.store.next_expiry().unwrap_or_else(|error| {
            tracing::warn!(%error, "looking for expired items failed");
            Some(self.clock.now())
        });
        let closing = loop {
            let waiting = queue.try_recv().ok();
            let came_before = waiting.is_some();
            let first = match (waiting, self.pause()) {
                (Some(job), _) => Ok(job),
                (None, None) => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                (None, Some(pause)) => queue.recv_timeout(pause),
            };
            match first {
                Ok(Job::Write { write, reply, .. }) => {
                    let (batch, end) = gather::<S>((write, reply), queue, &self.group, came_before);
                    // After gathering, which passes over wishes to look: the transaction begins with a look.
                    let lookers = self.lookers();
                    let (began, callers) = (Instant::now(), batch.len());
                    let looked = self.commit(batch);
                    self.group.flushed(callers, began, Instant::now());
                    tell(lookers, &looked);
                    match end {
                        End::Waiting => {}
                        End::Closing(done) => break Some(done),
                        End::Abandoned => break None,
                    }
                }
                Ok(Job::Close { done }) => break Some(done),
                Ok(Job::Look) | Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            self.expire_if_due();
        };
        self.fanout.close();
        drop(self);
        if let Some(done) = closing {
            // Nobody waiting any more is fine.
            let _ = done.send(());
        }
    }

    /// How long to wait for a write before looking at the clock; `None` while nothing expires.
    ///
    /// The clock may be set or be a test's, so it is looked at every second and not trusted further.
    fn pause(&self) -> Option<Duration> {
        if S::SHARED {
            return Some(LOOK_INTERVAL);
        }
        let next = self.next_expiry?;
        let left = (next - self.clock.now()).to_std().unwrap_or(Duration::ZERO);
        let rest = self.last_expiry.map_or(Duration::ZERO, |last| EXPIRY_INTERVAL.saturating_sub(last.elapsed()));
        Some(left.max(rest).min(EXPIRY_INTERVAL))
    }

    /// Takes in what other processes have written.
    fn look(&mut self) {
        if !S::SHARED {
            return;
        }
        let lookers = self.lookers();
        let looked = self.store.look().map(|foreign| self.take_in(foreign, self.clock.now()));
        if let Err(error) = &looked {
            tracing::debug!(%error, "looking for changes of other processes failed");
        }
        tell(lookers, &looked);
    }

    /// Those who wait for the look that begins now; whoever comes later waits for the next one.
    fn lookers(&self) -> Vec<Looker> {
        self.looking.store(false, Ordering::SeqCst);
        self.lookers.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn take_in(&mut self, foreign: Foreign, now: DateTime<Utc>) {
        if foreign.missed {
            tracing::warn!("changes of other processes were missed: everything is read anew");
            self.fanout.interrupt();
            self.next_expiry = Some(now);
        }
        self.note_expiries(&foreign.events);
        self.fanout.publish(&foreign.events, now);
    }

    /// Does the writes; whether the look before them was made.
    fn commit(&mut self, batch: Batch) -> Result<()> {
        let now = self.clock.now();
        let (writes, replies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let (answers, looked) = match self.transaction(now, writes) {
            Ok(answers) => (answers, Ok(())),
            Err(error) => {
                tracing::error!(%error, writes = replies.len(), "writing to storage failed");
                (replies.iter().map(|_| Err(error.clone())).collect(), Err(error))
            }
        };
        for (reply, answer) in replies.into_iter().zip(answers) {
            // A caller that went away does not need the answer.
            let _ = reply.send(answer);
        }
        looked
    }

    /// Does all writes in one transaction. After an error none of them has happened, unless the store is in another
    /// process and the connection to it broke while they were committed: what has happened then is told as what others
    /// have written (see [`Store::commit`]).
    fn transaction(&mut self, now: DateTime<Utc>, writes: Vec<Write>) -> Result<Vec<Result<Outcome>>> {
        self.in_transaction(now, |transaction| {
            let mut answers = Vec::with_capacity(writes.len());
            for write in writes {
                let answer = transaction.apply(write);
                if let Err(error) = &answer
                    && matches!(error.kind(), ErrorKind::Other | ErrorKind::ConnectionProblem)
                {
                    return Err(error.clone());
                }
                answers.push(answer);
            }
            Ok(answers)
        })
    }

    fn in_transaction<T>(
        &mut self,
        now: DateTime<Utc>,
        work: impl FnOnce(&mut Transaction<'_, S>) -> Result<T>,
    ) -> Result<T> {
        match self.store.begin() {
            Ok(foreign) => self.take_in(foreign, now),
            Err(error) => {
                self.store.rollback();
                return Err(error);
            }
        }
        let mut transaction = Transaction { store: &mut self.store, now, events: Vec::new() };
        let done = work(&mut transaction);
        let events = transaction.events;
        let result = match done {
            Ok(result) if events.is_empty() => {
                self.store.rollback();
                return Ok(result);
            }
            Ok(result) => self.store.commit(&events).map(|()| result),
            Err(error) => Err(error),
        };
        match result {
            Ok(result) => {
                self.note_expiries(&events);
                self.fanout.publish(&events, now);
                Ok(result)
            }
            Err(error) => {
                self.store.rollback();
                Err(error)
            }
        }
    }

    fn note_expiries(&mut self, events: &[Event]) {
        let first = events
            .iter()
            .filter_map(|event| match event {
                Event::Put(item) => item.expires,
                _ => None,
            })
            .min();
        if let Some(first) = first {
            self.next_expiry = Some(self.next_expiry.map_or(first, |known| known.min(first)));
        }
    }

    fn expire_if_due(&mut self) {
        let now = self.clock.now();
        let due = self.next_expiry.is_some_and(|next| next <= now)
            && self.last_expiry.is_none_or(|last| last.elapsed() >= EXPIRY_INTERVAL);
        if !due {
            return;
        }
        let removed = self.in_transaction(now, |transaction| transaction.expire(S::MAX_EXPIRED));
        // After a full batch the next one follows at once, between the writes that wait.
        let more = removed.as_ref().is_ok_and(|count| *count >= S::MAX_EXPIRED);
        self.last_expiry = if more { None } else { Some(Instant::now()) };
        match removed.and_then(|_| self.store.next_expiry()) {
            Ok(next) => self.next_expiry = next,
            Err(error) => tracing::warn!(%error, "removing expired items failed"),
        }
    }
}

impl<S> Drop for WriterThread<S> {
    /// However the thread ends, whoever waits for a look is let go, and so is whoever asks later.
    fn drop(&mut self) {
        self.lookers.lock().take();
    }
}

/// Says how a look went.
fn tell(lookers: Vec<Looker>, looked: &Result<()>) {
    for looker in lookers {
        // A caller that went away does not want to know.
        let _ = looker.send(looked.clone());
    }
}

enum End {
    Waiting,
    Closing(oneshot::Sender<()>),
    Abandoned,
}

/// Takes everything that waits, and what is expected to come at once, up to the size of a batch. `came_before` is
/// whether the first has come during the flush before.
fn gather<S: Store>(first: Waiting, queue: &Receiver<Job>, group: &GroupCommit, came_before: bool) -> (Batch, End) {
    let (mut keys, mut bytes) = (first.0.keys(), first.0.weight());
    let mut batch = vec![first];
    let mut before = None;
    while keys < S::MAX_BATCH && bytes < S::MAX_BATCH_BYTES {
        let next = queue.try_recv().or_else(|error| match error {
            TryRecvError::Disconnected => Err(RecvTimeoutError::Disconnected),
            TryRecvError::Empty => {
                let before = *before.get_or_insert(if came_before { batch.len() } else { 0 });
                let wait = group.wait(batch.len(), before, Instant::now());
                wait.map_or(Err(RecvTimeoutError::Timeout), |wait| queue.recv_timeout(wait))
            }
        });
        match next {
            Ok(Job::Write { write, reply, .. }) => {
                keys += write.keys();
                bytes += write.weight();
                batch.push((write, reply));
            }
            Ok(Job::Close { done }) => return (batch, End::Closing(done)),
            // The transaction begins with a look.
            Ok(Job::Look) => {}
            Err(RecvTimeoutError::Timeout) => return (batch, End::Waiting),
            Err(RecvTimeoutError::Disconnected) => return (batch, End::Abandoned),
        }
    }
    (batch, End::Waiting)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tokio::time::timeout;

    use super::*;
    use crate::{SystemClock, memory::MemoryStore};

    /// Of storage that is not shared, whose thread never looks: like one that hangs.
    fn writer() -> Writer {
        Writer::start(MemoryStore::default(), Arc::default(), Arc::new(SystemClock))
    }

    #[tokio::test]
    async fn whoever_waits_for_a_look_is_let_go_when_the_thread_ends() {
        let writer = writer();
        let (waiting, ()) = tokio::join!(timeout(Duration::from_secs(20), writer.sync()), writer.close());
        assert!(matches!(waiting.unwrap(), Err(BackendError::Closed)));
        let later = timeout(Duration::from_secs(20), writer.sync()).await.unwrap();
        assert!(matches!(later, Err(BackendError::Closed)));
    }

    #[tokio::test]
    async fn those_who_gave_up_waiting_for_a_look_are_not_kept() {
        let writer = writer();
        for _ in 0..1000 {
            assert!(timeout(Duration::ZERO, writer.sync()).await.is_err());
        }
        assert!(writer.lookers.lock().as_ref().unwrap().len() < 10);
    }
}
