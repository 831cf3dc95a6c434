//! State in an etcd cluster that any number of Auth Services share.
//!
//! Below a prefix there are three kinds of keys: `kv…` are the items, `lock` belongs to whoever writes, and `fence` is
//! written last in every transaction. A writer takes the lock together with a look at the fence, and its transaction
//! commits only while the lock is its own; the lock goes with it. Changes of other processes come from one watch over
//! fence and items, in the order in which they were made: when the fence has come, everything before it has.
//! A process that was away until etcd had forgotten changes is told that it missed some.
//!
//! etcd bounds transactions ([`MAX_OPERATIONS`]) and values ([`MAX_VALUE`]). What is more than that in one batch, such
//! as the removal of thousands of items, is committed in parts, each under the lock.

mod connect;
mod read;
mod value;

/// The messages of etcd.
#[allow(clippy::all, clippy::pedantic, missing_docs, rustdoc::all)]
mod api {
    tonic::include_proto!("etcdserverpb");
}

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tokio::runtime::Runtime;
use tonic::{Status, Streaming};
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
/// Bytes of values in one transaction: etcd's default for a whole request is 1.5 MiB.
const MAX_BYTES: usize = 1 << 20;
/// Longest value.
const MAX_VALUE: usize = 1 << 20;
/// Items that are read at once.
const PAGE: i64 = 500;
/// Most expired items removed in one transaction.
const EXPIRED: usize = MAX_OPERATIONS;
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
        let of_writer = options.clone();
        let opened = tokio::task::spawn_blocking(move || EtcdStore::open(of_writer)).await;
        let store = opened.map_err(|error| BackendError::Storage(error.to_string()))??;
        let client = options.connect().await?;
        Ok(Self::start_shared(store, clock, |look| EtcdReader::new(options, client, look)))
    }
}

/// The writing side: a connection that only the writing thread uses, with the runtime that drives it.
struct EtcdStore {
    runtime: Runtime,
    options: EtcdOptions,
    client: Client,
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
            expiries: Expiries::default(),
        };
        store.begin_anew()?;
        Ok(store)
    }

    /// Runs something on the connection; without an answer in time that is given up.
    fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let limited = self.runtime.block_on(async { tokio::time::timeout(LIMIT, work).await });
        limited.unwrap_or_else(|_| Err(connect::late()))
    }

    /// Commits operations when comparisons hold. It is made once: whether a call that broke was done is not known.
    fn transact(&self, compare: Compare, success: Vec<RequestOp>) -> Result<TxnResponse> {
        let request = TxnRequest { compare: vec![compare], success, failure: Vec::new() };
        self.run(async {
            // A refused login changed nothing.
            let answer = match self.client.kv().txn(request.clone()).await {
                Err(status) if self.client.renewed(&status).await => self.client.kv().txn(request).await,
                answered => answered,
            };
            answer.map(tonic::Response::into_inner).map_err(|status| connect::storage_error(&status))
        })
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
        self.watch = Some(self.run(read::follow(&self.client, start, end, now + 1))?);
        self.seen = fence;
        self.expiries = Expiries::default();
        for item in self.items(&KeyRange::prefix(""), now)? {
            self.expiries.note(&item.key, item.expires);
        }
        Ok(())
    }

    /// The stored items of a range, as they were at a revision; 0 stands for now.
    fn items(&self, range: &KeyRange, revision: i64) -> Result<Vec<Item>> {
        self.run(read::range(&self.client, &self.options, range, revision, |_| true, usize::MAX))
    }

    /// Takes in what the watch says, until the fence of this revision has come.
    fn catch_up(&mut self, fence: i64) -> Result<Foreign> {
        let mut foreign = Foreign::default();
        while self.seen < fence {
            let Some(watch) = &mut self.watch else { return self.missed() };
            let message = self.runtime.block_on(async { tokio::time::timeout(LIMIT, watch.message()).await });
            let message = match message {
                Ok(Ok(Some(message))) if !message.canceled => message,
                // Compacted, or the stream broke: where it could go on from is not worth knowing.
                Ok(_) => return self.missed(),
                Err(_) => return Err(connect::late()),
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
        self.expiries.note_events(&foreign.events);
        Ok(foreign)
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
        let id = self.run(async {
            let wish = LeaseGrantRequest { ttl: LEASE, id: 0 };
            let granted = match self.client.lease().lease_grant(wish).await {
                Err(status) if self.client.renewed(&status).await => self.client.lease().lease_grant(wish).await,
                answered => answered,
            };
            granted.map(|granted| granted.into_inner().id).map_err(|status: Status| connect::storage_error(&status))
        })?;
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

    /// Commits some operations, while the lock is this store's.
    fn commit_part(&mut self, operations: Vec<RequestOp>) -> Result<()> {
        let lost = || BackendError::ConnectionProblem("the lock of the storage was lost".to_owned());
        let holder = self.locked.clone().ok_or_else(lost)?;
        let answer = self.transact(is_held(self.options.lock(), holder), operations)?;
        if !answer.succeeded {
            return Err(lost());
        }
        self.own.push_back(answer.header.map_or(0, |header| header.revision));
        Ok(())
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
    // With one atomic write more, what is committed fits into one transaction.
    const MAX_BATCH: usize = MAX_OPERATIONS - crate::MAX_ATOMIC_ACTIONS;
    const MAX_BATCH_BYTES: usize = MAX_BYTES / 2;

    fn begin(&mut self) -> Result<Foreign> {
        self.changed.clear();
        let fence = self.lock()?;
        self.catch_up(fence)
    }

    fn commit(&mut self, events: &[Event]) -> Result<()> {
        let mut operations = Vec::new();
        let mut bytes = 0;
        for (key, item) in std::mem::take(&mut self.changed) {
            let place = self.options.place(&key);
            let operation = match &item {
                Some(item) => {
                    let encoded = value::encode(item)?;
                    bytes += encoded.len();
                    put(place, encoded, 0)
                }
                None => delete(place),
            };
            if operations.len() >= MAX_OPERATIONS || (bytes > MAX_BYTES && !operations.is_empty()) {
                bytes = 0;
                let part = std::mem::take(&mut operations);
                self.commit_part(part)?;
            }
            operations.push(operation);
        }
        operations.push(put(self.options.fence(), Uuid::new_v4().as_bytes().to_vec(), 0));
        operations.push(delete(self.options.lock()));
        self.commit_part(operations)?;
        self.locked = None;
        self.expiries.note_events(events);
        Ok(())
    }

    fn rollback(&mut self) {
        self.changed.clear();
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
        let mut keys: Vec<Key> = due.take(limit.min(EXPIRED)).map(|(_, key)| key.clone()).collect();
        keys.sort();
        Ok(keys)
    }

    fn next_expiry(&mut self) -> Result<Option<DateTime<Utc>>> {
        Ok(self.expiries.by_time.first().map(|(expires, _)| *expires))
    }
}

#[cfg(test)]
mod tests;
