//! State in an etcd cluster that any number of Auth Services share.
//!
//! Below a prefix there are three kinds of keys: `kv…` are the items, `lock` belongs to whoever writes, and `fence` is
//! written last in every transaction. A writer takes the lock together with a look at the fence, and its transaction
//! commits only while the lock is its own; the lock goes with it. Changes of other processes come from one watch over
//! fence and items, in the order in which they were made: when the fence has come, everything before it has.
//! A process that was away until etcd had forgotten changes is told that it missed some.
//!
//! etcd bounds transactions ([`MAX_OPERATIONS`], [`MAX_BYTES`]). What is more than that in one batch, such as the removal
//! of thousands of items, is committed in parts ([`Parts`]), each under the lock and with a fence of its own: should a
//! later part fail, everybody knows the earlier ones. What has to happen together is in the first part.

mod connect;
mod parts;
mod read;
mod value;

/// The messages of etcd.
#[allow(clippy::all, clippy::pedantic, missing_docs, rustdoc::all)]
mod api {
    tonic::include_proto!("etcdserverpb");
}

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tokio::runtime::Runtime;
use tonic::Streaming;
use uuid::Uuid;

use crate::{
    BackendError, Clock, Event, Item, Key, KeyRange, Result, SystemClock,
    local::Local,
    store::{Foreign, Store},
};

pub use connect::EtcdOptions;
pub use read::EtcdReader;

use api::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
    WatchResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    event::EventType,
    request_op::Request,
    response_op::Response,
};
use connect::Client;
use parts::Parts;

/// Storage in an etcd cluster.
pub type Etcd = Local<EtcdReader>;

/// How long one call may take, and how long the lock is waited for.
const LIMIT: Duration = Duration::from_secs(30);
/// How long the lock outlives a process that died, in seconds.
const LEASE: i64 = 30;
/// When the lock is bound to a new lease.
const LEASE_AGE: Duration = Duration::from_secs(10);
/// Most operations of one transaction: etcd's default is 128, of which fence and lock take two.
const MAX_OPERATIONS: usize = 120;
/// Bytes of values in one transaction: etcd's default for a whole request is 1.5 MiB, keys included.
const MAX_BYTES: usize = 5 << 18;
/// Longest value, and most bytes of values that are written together.
const MAX_VALUE: usize = 1 << 20;
/// Items that are read at once.
const PAGE: i64 = 500;
/// Waits between attempts to take the lock.
const MIN_WAIT: Duration = Duration::from_millis(1);
const MAX_WAIT: Duration = Duration::from_millis(20);

impl Etcd {
    /// Opens the state below a prefix.
    ///
    /// # Errors
    /// `ConnectionProblem` when no server can be reached, `Storage` when it refuses.
    pub async fn open(options: EtcdOptions) -> Result<Self> {
        Self::open_with_clock(options, Arc::new(SystemClock)).await
    }

    /// The same with a clock by which items expire.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with_clock(options: EtcdOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        // First, for nothing may fail once there is a store: its runtime must not be dropped here.
        let client = options.connect().await?;
        let of_writer = options.clone();
        let opened = tokio::task::spawn_blocking(move || EtcdStore::open(of_writer)).await;
        let store = opened.map_err(|error| BackendError::Storage(error.to_string()))??;
        Ok(Self::start_shared(store, clock, |look| EtcdReader::new(options, client, look)))
    }
}

/// The writing side: a connection that only the writing thread uses, with the runtime that drives it.
struct EtcdStore {
    runtime: Runtime,
    options: EtcdOptions,
    client: Client,
    /// Changes from the last fence on; `None` when some of them were lost.
    watch: Option<Streaming<WatchResponse>>,
    /// The revision of the last fence that the watch has delivered.
    seen: i64,
    /// Revisions made here that the watch has not delivered yet.
    own: VecDeque<i64>,
    lease: Option<(i64, Instant)>,
    /// What the lock holds while it is this store's.
    locked: Option<Vec<u8>>,
    /// What the transaction has changed: the item, or that it is gone.
    changed: BTreeMap<Key, Option<Item>>,
    /// Keys that the transaction changes together with others or not at all.
    together: HashSet<Key>,
    expiries: Expiries,
}

/// When items expire.
#[derive(Default)]
struct Expiries {
    by_time: BTreeSet<(DateTime<Utc>, Key)>,
    by_key: HashMap<Key, DateTime<Utc>>,
}

impl Expiries {
    fn note(&mut self, key: &Key, expires: Option<DateTime<Utc>>) {
        if let Some(before) = self.by_key.remove(key) {
            self.by_time.remove(&(before, key.clone()));
        }
        if let Some(expires) = expires {
            self.by_key.insert(key.clone(), expires);
            self.by_time.insert((expires, key.clone()));
        }
    }

    fn note_events(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Init => {}
                Event::Put(item) => self.note(&item.key, item.expires),
                Event::Delete(key) => self.note(key, None),
            }
        }
    }
}

impl EtcdStore {
    fn open(options: EtcdOptions) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| BackendError::Storage(error.to_string()))?;
        let client = runtime.block_on(options.connect())?;
        let mut store = Self {
            runtime,
            options,
            client,
            watch: None,
            seen: 0,
            own: VecDeque::new(),
            lease: None,
            locked: None,
            changed: BTreeMap::new(),
            together: HashSet::new(),
            expiries: Expiries::default(),
        };
        store.begin_anew()?;
        Ok(store)
    }

    /// Runs something on the connection; without an answer in time that is given up.
    fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(self.client.within(work))
    }

    /// Commits operations when comparisons hold. It is made once: whether a call that broke was done is not known.
    fn transact(&self, compare: Compare, success: Vec<RequestOp>) -> Result<TxnResponse> {
        let request = TxnRequest { compare: vec![compare], success, failure: Vec::new() };
        self.run(self.client.call(|client| {
            let request = request.clone();
            async move { client.kv().txn(request).await }
        }))
    }

    /// The revision in which the fence was written, and that of the whole storage.
    fn fence(&self) -> Result<(i64, i64)> {
        let question = RangeRequest { key: self.options.fence(), ..RangeRequest::default() };
        let answer = self.run(read::ask(&self.client, question))?;
        let now = answer.header.map_or(0, |header| header.revision);
        Ok((answer.kvs.first().map_or(0, |kv| kv.mod_revision), now))
    }

    /// Follows changes from now on, and learns when what is there expires.
    fn begin_anew(&mut self) -> Result<()> {
        (self.watch, self.own) = (None, VecDeque::new());
        let (fence, now) = self.fence()?;
        let (start, end) = (self.options.fence(), self.options.items_end());
        let watch = self.run(read::follow(&self.client, start, end, now + 1))?;
        let mut expiries = Expiries::default();
        for item in self.items(&KeyRange::prefix(""), now)? {
            expiries.note(&item.key, item.expires);
        }
        (self.watch, self.seen, self.expiries) = (Some(watch), fence, expiries);
        Ok(())
    }

    /// The stored items of a range, as they were at a revision; 0 stands for now.
    fn items(&self, range: &KeyRange, revision: i64) -> Result<Vec<Item>> {
        self.run(read::range(&self.client, &self.options, range, revision, |_| true, usize::MAX))
    }

    /// Takes in what the watch says, until the fence of this revision has come.
    fn catch_up(&mut self, fence: i64) -> Result<Foreign> {
        if self.watch.is_none() {
            return self.missed();
        }
        match self.until(fence) {
            Ok(Some(foreign)) => {
                self.expiries.note_events(&foreign.events);
                Ok(foreign)
            }
            Ok(None) => self.missed(),
            Err(error) => {
                // What the watch has delivered since the last fence is lost with it.
                self.watch = None;
                Err(error)
            }
        }
    }

    /// What others have changed until this fence; `None` when that cannot be told any more.
    fn until(&mut self, fence: i64) -> Result<Option<Foreign>> {
        let mut foreign = Foreign::default();
        while self.seen < fence {
            let Some(watch) = &mut self.watch else { return Ok(None) };
            let next = self.client.within(async { Ok(watch.message().await) });
            let message = match self.runtime.block_on(next)? {
                Ok(Some(message)) if !message.canceled => message,
                // Compacted, or the stream broke: where it could go on from is not worth knowing.
                _ => return Ok(None),
            };
            for event in message.events {
                let kind = event.r#type();
                let Some(kv) = event.kv else { continue };
                let revision = kv.mod_revision;
                while self.own.front().is_some_and(|own| *own < revision) {
                    self.own.pop_front();
                }
                if kv.key == self.options.fence() {
                    self.seen = self.seen.max(revision);
                } else if self.own.front() != Some(&revision)
                    && let Some(key) = self.options.key(&kv.key)
                {
                    foreign.events.push(match kind {
                        EventType::Delete => Event::Delete(Arc::new(key)),
                        EventType::Put => Event::Put(Arc::new(value::decode(key, &kv.value)?)),
                    });
                }
            }
        }
        Ok(Some(foreign))
    }

    fn missed(&mut self) -> Result<Foreign> {
        self.begin_anew()?;
        Ok(Foreign { events: Vec::new(), missed: true })
    }

    /// A lease for the lock, so that it does not outlive this process for long.
    fn lease(&mut self) -> Result<i64> {
        if let Some((id, granted)) = self.lease
            && granted.elapsed() < LEASE_AGE
        {
            return Ok(id);
        }
        let wish = LeaseGrantRequest { ttl: LEASE, id: 0 };
        let id = self.run(self.client.call(|client| async move { client.lease().lease_grant(wish).await }))?.id;
        self.lease = Some((id, Instant::now()));
        Ok(id)
    }

    /// Takes the lock; the revision of the fence at that moment.
    fn lock(&mut self) -> Result<i64> {
        let (deadline, mut wait) = (Instant::now() + LIMIT, MIN_WAIT);
        let (lock, fence) = (self.options.lock(), self.options.fence());
        let holder = Uuid::new_v4().as_bytes().to_vec();
        loop {
            let lease = self.lease()?;
            let look = RangeRequest { key: fence.clone(), ..RangeRequest::default() };
            let take = vec![put(lock.clone(), holder.clone(), lease), operation(Request::RequestRange(look))];
            let taken = match self.transact(is_free(lock.clone()), take) {
                Ok(taken) => taken,
                Err(error) => {
                    // The lease may be gone, and whether the lock was taken is unknown.
                    self.lease = None;
                    self.locked = Some(holder);
                    return Err(error);
                }
            };
            if taken.succeeded {
                self.locked = Some(holder);
                let fence = taken.responses.into_iter().find_map(|answer| match answer.response {
                    Some(Response::ResponseRange(answer)) => answer.kvs.first().map(|kv| kv.mod_revision),
                    _ => None,
                });
                return Ok(fence.unwrap_or(0));
            }
            if Instant::now() + wait > deadline {
                return Err(BackendError::ConnectionProblem(
                    "another process holds the lock of the storage for longer than 30 s".to_owned(),
                ));
            }
            let share = f64::from(Uuid::new_v4().as_bytes()[0]) / 512.0;
            std::thread::sleep(wait.mul_f64(0.5 + share));
            wait = (wait * 2).min(MAX_WAIT);
        }
    }

    /// Commits some operations, while the lock is this store's; after the last ones it is free.
    fn commit_part(&mut self, mut operations: Vec<RequestOp>, last: bool) -> Result<()> {
        let lost = || BackendError::ConnectionProblem("the lock of the storage was lost".to_owned());
        let holder = self.locked.clone().ok_or_else(lost)?;
        operations.push(put(self.options.fence(), Uuid::new_v4().as_bytes().to_vec(), 0));
        if last {
            operations.push(delete(self.options.lock()));
        }
        let answer = self.transact(is_held(self.options.lock(), holder), operations)?;
        if !answer.succeeded {
            return Err(lost());
        }
        self.own.push_back(answer.header.map_or(0, |header| header.revision));
        Ok(())
    }

    fn commit_parts(&mut self, parts: Parts<RequestOp>) -> Result<()> {
        let parts = parts.finish();
        let end = parts.len();
        parts.into_iter().zip(1..).try_for_each(|(part, number)| self.commit_part(part, number == end))
    }
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put(key: Vec<u8>, value: Vec<u8>, lease: i64) -> RequestOp {
    operation(Request::RequestPut(PutRequest { key, value, lease }))
}

fn delete(key: Vec<u8>) -> RequestOp {
    operation(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end: Vec::new() }))
}

/// That nobody has a key.
fn is_free(key: Vec<u8>) -> Compare {
    let target_union = Some(TargetUnion::CreateRevision(0));
    Compare { result: CompareResult::Equal.into(), target: CompareTarget::Create.into(), key, target_union }
}

/// That a key has this value.
fn is_held(key: Vec<u8>, value: Vec<u8>) -> Compare {
    let target_union = Some(TargetUnion::Value(value));
    Compare { result: CompareResult::Equal.into(), target: CompareTarget::Value.into(), key, target_union }
}

impl Store for EtcdStore {
    const SHARED: bool = true;
    // With one atomic write more, what is committed fits into one transaction, with room for the keys.
    const MAX_BATCH: usize = MAX_OPERATIONS - crate::MAX_ATOMIC_ACTIONS;
    const MAX_BATCH_BYTES: usize = (MAX_BYTES - MAX_VALUE) / 2;
    const MAX_ATOMIC_BYTES: usize = MAX_VALUE;
    const MAX_EXPIRED: usize = MAX_OPERATIONS;

    fn begin(&mut self) -> Result<Foreign> {
        self.changed.clear();
        self.together.clear();
        let fence = self.lock()?;
        self.catch_up(fence)
    }

    fn together<'a>(&mut self, keys: impl Iterator<Item = &'a Key>) {
        self.together.extend(keys.cloned());
    }

    fn commit(&mut self, events: &[Event]) -> Result<()> {
        let mut parts = Parts::new(MAX_OPERATIONS, MAX_BYTES);
        let together = std::mem::take(&mut self.together);
        let changed = std::mem::take(&mut self.changed).into_iter();
        let (first, rest): (Vec<_>, Vec<_>) = changed.partition(|(key, _)| together.contains(key));
        for (key, item) in first.into_iter().chain(rest) {
            let place = self.options.place(&key);
            match &item {
                Some(item) => {
                    let encoded = value::encode(item)?;
                    let bytes = place.len() + encoded.len();
                    parts.add(put(place, encoded, 0), bytes);
                }
                None => parts.add(delete(place), 0),
            }
        }
        let own = self.own.len();
        if let Err(error) = self.commit_parts(parts) {
            // What was done nevertheless comes back as if another process had done it.
            self.own.truncate(own);
            return Err(error);
        }
        self.locked = None;
        self.expiries.note_events(events);
        Ok(())
    }

    fn rollback(&mut self) {
        self.changed.clear();
        self.together.clear();
        let Some(holder) = self.locked.take() else { return };
        let lock = self.options.lock();
        if let Err(error) = self.transact(is_held(lock.clone(), holder), vec![delete(lock)]) {
            tracing::warn!(%error, "the lock of the storage is not released before its lease ends");
        }
    }

    fn look(&mut self) -> Result<Foreign> {
        let (fence, _) = self.fence()?;
        self.catch_up(fence)
    }

    fn get(&mut self, key: &Key) -> Result<Option<Item>> {
        if let Some(changed) = self.changed.get(key) {
            return Ok(changed.clone());
        }
        self.run(read::one(&self.client, &self.options, key))
    }

    fn put(&mut self, item: &Item, _: DateTime<Utc>) -> Result<()> {
        if item.value.len() > MAX_VALUE {
            let text = format!("a value of {} bytes is too long for etcd: at most {MAX_VALUE}", item.value.len());
            return Err(BackendError::BadParameter(text));
        }
        self.changed.insert(item.key.clone(), Some(item.clone()));
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.changed.insert(key.clone(), None);
        Ok(())
    }

    fn keys(&mut self, range: &KeyRange, now: DateTime<Utc>) -> Result<Vec<(Key, bool)>> {
        let mut found: BTreeMap<Key, bool> =
            self.items(range, 0)?.into_iter().map(|item| (item.key.clone(), item.is_expired(now))).collect();
        for (key, item) in self.changed.iter().filter(|(key, _)| range.contains(key)) {
            match item {
                Some(item) => found.insert(key.clone(), item.is_expired(now)),
                None => found.remove(key),
            };
        }
        Ok(found.into_iter().collect())
    }

    fn expired(&mut self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Key>> {
        let due = self.expiries.by_time.iter().take_while(|(expires, _)| *expires <= now);
        let mut keys: Vec<Key> = due.take(limit).map(|(_, key)| key.clone()).collect();
        keys.sort();
        Ok(keys)
    }

    fn next_expiry(&mut self) -> Result<Option<DateTime<Utc>>> {
        Ok(self.expiries.by_time.first().map(|(expires, _)| *expires))
    }
}

#[cfg(test)]
mod tests;
