//! A backend with one writing thread, readers beside it, and events from memory.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    Backend, BackendError, Clock, ConditionalAction, Item, Key, KeyRange, Lease, MAX_RANGE, Result, Watch, Watcher,
    atomic,
    store::{Outcome, Store, Write},
    watch::Fanout,
    writer::{Look, Writer},
};

/// Reads what is committed, beside the writer.
#[async_trait]
pub trait Reader: Send + Sync + 'static {
    /// The item at `key`, expired or not.
    async fn get(&self, key: &Key) -> Result<Option<Item>>;
    /// The items of a range that are live at `now`, in order, at most `limit`.
    async fn range(&self, range: &KeyRange, now: DateTime<Utc>, limit: usize) -> Result<Vec<Item>>;
    /// Lets go of the database.
    fn close(&self);
}

/// A backend whose writes all pass through one thread of this process; see [`Sqlite`](crate::Sqlite),
/// [`Memory`](crate::Memory) and [`Postgres`](crate::Postgres).
pub struct Local<R> {
    writer: Writer,
    reader: R,
    fanout: Arc<Fanout>,
    clock: Arc<dyn Clock>,
    /// Whether other processes write as well.
    shared: bool,
}

impl<R> std::fmt::Debug for Local<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl<R: Reader> Local<R> {
    pub(crate) fn start<S: Store>(store: S, reader: R, clock: Arc<dyn Clock>) -> Self {
        let fanout = Arc::new(Fanout::default());
        let writer = Writer::start(store, Arc::clone(&fanout), Arc::clone(&clock));
        Self { writer, reader, fanout, clock, shared: S::SHARED }
    }

    /// The same for a store that other processes write to as well: `reader` gets a way to have the writer look.
    pub(crate) fn start_shared<S: Store>(store: S, clock: Arc<dyn Clock>, reader: impl FnOnce(Look) -> R) -> Self {
        let fanout = Arc::new(Fanout::default());
        let writer = Writer::start(store, Arc::clone(&fanout), Arc::clone(&clock));
        let reader = reader(writer.look());
        Self { writer, reader, fanout, clock, shared: S::SHARED }
    }

    async fn revision(&self, write: Write) -> Result<String> {
        match self.writer.write(write).await? {
            Outcome::Revision(revision) => Ok(revision),
            Outcome::Removed(_) => Ok(String::new()),
        }
    }
}

#[async_trait]
impl<R: Reader> Backend for Local<R> {
    async fn create(&self, item: Item) -> Result<String> {
        self.revision(Write::Create(item)).await
    }

    async fn put(&self, item: Item) -> Result<String> {
        self.revision(Write::Put(item)).await
    }

    async fn update(&self, item: Item) -> Result<String> {
        self.revision(Write::Update(item)).await
    }

    async fn compare_and_swap(&self, expected: &Item, new: Item) -> Result<String> {
        if expected.key != new.key {
            return Err(BackendError::BadParameter("compare and swap needs the same key twice".to_owned()));
        }
        self.revision(Write::CompareAndSwap { expected: expected.value.clone(), new }).await
    }

    async fn conditional_update(&self, item: Item) -> Result<String> {
        self.revision(Write::ConditionalUpdate(item)).await
    }

    async fn conditional_delete(&self, key: &Key, revision: &str) -> Result<()> {
        let write = Write::ConditionalDelete { key: key.clone(), revision: revision.to_owned() };
        self.writer.write(write).await.map(drop)
    }

    async fn get(&self, key: &Key) -> Result<Item> {
        let item = self.reader.get(key).await?;
        item.filter(|item| !item.is_expired(self.clock.now())).ok_or_else(|| BackendError::not_found(key))
    }

    async fn get_range(&self, range: &KeyRange, limit: usize) -> Result<Vec<Item>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let limit = if limit == 0 { MAX_RANGE } else { limit.min(MAX_RANGE) };
        self.reader.range(range, self.clock.now(), limit).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.writer.write(Write::Delete(key.clone())).await.map(drop)
    }

    async fn delete_range(&self, range: &KeyRange) -> Result<u64> {
        if range.is_empty() {
            return Ok(0);
        }
        match self.writer.write(Write::DeleteRange(range.clone())).await? {
            Outcome::Removed(count) => Ok(count),
            Outcome::Revision(_) => Ok(0),
        }
    }

    async fn keep_alive(&self, lease: &Lease, expires: DateTime<Utc>) -> Result<Lease> {
        let revision = self.revision(Write::KeepAlive { key: lease.key.clone(), expires }).await?;
        Ok(Lease { key: lease.key.clone(), revision })
    }

    async fn atomic_write(&self, actions: Vec<ConditionalAction>) -> Result<String> {
        atomic::check(&actions)?;
        self.revision(Write::Atomic(actions)).await
    }

    async fn watch(&self, watch: Watch) -> Result<Watcher> {
        self.fanout.subscribe(&watch, self.clock.now())
    }

    async fn sync(&self) -> Result<()> {
        if self.shared { self.writer.sync().await } else { Ok(()) }
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    async fn close(&self) {
        self.writer.close().await;
        self.reader.close();
    }
}
