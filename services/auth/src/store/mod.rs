//! Typed resources over the key/value backend.
//!
//! Most kinds are kept decoded in memory, fed by one watch of the backend, so that reads and lists cost no I/O. A
//! writer always reads its own writes: every write applies the events that are waiting for this process before it
//! returns, and the backend queues the event of a write before acknowledging it.

mod changes;
pub mod kind;
mod memory;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use backend::{Backend, BackendError, Condition, ConditionalAction, Item, Key};
use chrono::{DateTime, Utc};
use resources::Resource;
use tokio_util::sync::CancellationToken;
use wire::error::{Error, Result};

pub use changes::{Watch, WatchedKind};
use kind::Kind;
use memory::Memory;

/// How often changes that others made (expiry, other writers) are taken over when nobody writes here.
const IDLE_PUMP: Duration = Duration::from_millis(500);

/// How long a call waits to know what others have written.
const REFRESH: std::time::Duration = std::time::Duration::from_secs(2);

/// How often a read-modify-write is tried before its caller learns that others were faster.
const UPDATE_ATTEMPTS: usize = 16;

/// One page of a list.
#[derive(Debug)]
pub struct Page<V> {
    /// The values, in the order of their keys.
    pub items: Vec<Arc<V>>,
    /// Where the next page starts; empty when this was the last.
    pub next_key: String,
}

/// The resources of the cluster.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    memory: Arc<Memory>,
}

impl Store {
    /// Loads what is kept in memory and starts to follow the backend.
    ///
    /// # Errors
    /// When the backend cannot be read.
    pub async fn open(backend: Arc<dyn Backend>) -> Result<Self> {
        let memory = Arc::new(Memory::new());
        let store = Self { backend, memory };
        store.memory.load(&*store.backend).await?;
        Ok(store)
    }

    /// Takes over changes made elsewhere until `closing`; the caller owns the task that runs this.
    pub(crate) async fn follow(&self, closing: CancellationToken) {
        let mut tick = tokio::time::interval(IDLE_PUMP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = tick.tick() => self.catch_up().await,
            }
        }
    }

    /// The storage below, for what is no resource. A direct write must be followed by [`catch_up`](Self::catch_up).
    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The time by which things expire.
    pub fn now(&self) -> DateTime<Utc> {
        self.backend.now()
    }

    /// A number that grows whenever a user, a role, a lock or the authentication settings change: what was decided
    /// under another number has to be decided again.
    pub fn policy_generation(&self) -> u64 {
        self.memory.policy_generation()
    }

    /// A number that grows whenever an authority changes.
    pub(crate) fn authority_generation(&self) -> u64 {
        self.memory.authority_generation()
    }

    /// A number that grows whenever a member of an access list changes.
    pub(crate) fn membership_generation(&self) -> u64 {
        self.memory.membership_generation()
    }

    /// Applies every change that was acknowledged before this call, by this process or by another on the same storage.
    /// While that cannot be known, what is known has to do.
    pub(crate) async fn refresh(&self) {
        match tokio::time::timeout(REFRESH, self.backend.sync()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "what other Auth Services have written is not known"),
            Err(_) => tracing::debug!("what other Auth Services have written was not known within 2 s"),
        }
        self.catch_up().await;
    }

    /// Applies every change that is already known to the backend of this process.
    pub(crate) async fn catch_up(&self) {
        if self.memory.pump().is_err()
            && let Err(error) = self.memory.load(&*self.backend).await
        {
            tracing::warn!(%error, "cannot reload the resources from storage, trying again");
        }
    }

    /// The resource of a name: `""` for kinds that exist once, `"host/example.com"` for kinds with two-part names.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get<K: Kind>(&self, name: &str) -> Result<Arc<K::Value>> {
        if K::CACHED {
            return self.cached::<K>(name);
        }
        let key = K::key(name)?;
        let item = self.backend.get(&key).await.map_err(|e| failed::<K>(name, &e))?;
        Ok(Arc::new(kind::decode::<K>(&item)?))
    }

    /// The resource of a name, of a kind that is kept in memory.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn cached<K: Kind>(&self, name: &str) -> Result<Arc<K::Value>> {
        self.memory.get::<K>(&K::key(name)?, self.now()).ok_or_else(|| not_found::<K>(name))
    }

    /// All resources of a kind that is kept in memory.
    pub fn cached_list<K: Kind>(&self) -> Vec<Arc<K::Value>> {
        self.cached_where::<K>(|_| true)
    }

    /// Those of them that are `wanted`.
    pub fn cached_where<K: Kind>(&self, wanted: impl FnMut(&K::Value) -> bool) -> Vec<Arc<K::Value>> {
        self.memory.page::<K>("", usize::MAX, self.now(), wanted).items
    }

    /// The resources of a kind with two-part names whose first part is `first`, in the order of their names.
    pub fn cached_below<K: Kind>(&self, first: &str) -> Vec<Arc<K::Value>> {
        let mut found = Vec::new();
        self.memory.visit_below::<K>(first, self.now(), |value| found.extend(value.clone().downcast().ok()));
        found
    }

    /// How many [`cached_below`](Self::cached_below) would find.
    pub fn count_below<K: Kind>(&self, first: &str) -> usize {
        let mut count = 0;
        self.memory.visit_below::<K>(first, self.now(), |_| count += 1);
        count
    }

    /// How many follow changes.
    pub fn watchers(&self) -> usize {
        self.memory.watchers()
    }

    /// Whether a resource exists.
    ///
    /// # Errors
    /// When the name is malformed or the backend cannot be read.
    pub async fn exists<K: Kind>(&self, name: &str) -> Result<bool> {
        match self.get::<K>(name).await {
            Ok(_) => Ok(true),
            Err(e) if e.kind == wire::error::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// All resources of a kind, in the order of their keys.
    ///
    /// # Errors
    /// When the backend cannot be read.
    pub async fn list<K: Kind>(&self) -> Result<Vec<Arc<K::Value>>> {
        if K::CACHED {
            return Ok(self.cached_list::<K>());
        }
        let range = K::PLACE.root().children();
        let items = backend::get_all(&*self.backend, range).await.map_err(|e| failed::<K>("", &e))?;
        let of_kind = items.iter().filter(|item| K::PLACE.matches(&item.key));
        Ok(of_kind.filter_map(|item| kind::decode::<K>(item).map(Arc::new).map_err(log_undecodable).ok()).collect())
    }

    /// One page of a kind that is kept in memory: at most `limit` values that `wanted` accepts, from `start_key` on.
    /// Pages are full as long as there is more.
    ///
    /// # Errors
    /// When the backend cannot be read.
    pub async fn page<K: Kind>(
        &self,
        start_key: &str,
        limit: usize,
        mut wanted: impl FnMut(&K::Value) -> bool,
    ) -> Result<Page<K::Value>> {
        if K::CACHED {
            return Ok(self.memory.page::<K>(start_key, limit, self.now(), wanted));
        }
        let mut items = self.list::<K>().await?;
        items.retain(|value| resource_name::<K>(value).as_str() >= start_key && wanted(value));
        let next_key = items.get(limit).map(|value| resource_name::<K>(value)).unwrap_or_default();
        items.truncate(limit);
        Ok(Page { items, next_key })
    }

    /// Stores a resource whose name is free.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub async fn create<K: Kind>(&self, value: K::Value) -> Result<Arc<K::Value>> {
        let item = kind::encode::<K>(&value)?;
        let revision = self.backend.create(item).await.map_err(|e| failed::<K>(value.name(), &e))?;
        self.written::<K>(value, revision).await
    }

    /// Stores a resource, whatever was there.
    ///
    /// # Errors
    /// When the backend cannot be written.
    pub async fn upsert<K: Kind>(&self, value: K::Value) -> Result<Arc<K::Value>> {
        let item = kind::encode::<K>(&value)?;
        let revision = self.backend.put(item).await.map_err(|e| failed::<K>(value.name(), &e))?;
        self.written::<K>(value, revision).await
    }

    /// Stores a resource under a name of this kind, whatever was there.
    ///
    /// # Errors
    /// When the backend cannot be written.
    pub async fn upsert_at<K: Kind>(&self, name: &str, value: K::Value) -> Result<Arc<K::Value>> {
        let item = kind::encode_at::<K>(K::key(name)?, &value)?;
        let revision = self.backend.put(item).await.map_err(|e| failed::<K>(name, &e))?;
        self.written::<K>(value, revision).await
    }

    /// Stores a resource in place of the state its `metadata.revision` names.
    ///
    /// # Errors
    /// `CompareFailed` when the stored state is another, or gone.
    pub async fn update<K: Kind>(&self, value: K::Value) -> Result<Arc<K::Value>> {
        let item = kind::encode::<K>(&value)?.with_revision(value.revision());
        let revision = self.backend.conditional_update(item).await.map_err(|e| failed::<K>(value.name(), &e))?;
        self.written::<K>(value, revision).await
    }

    /// Reads a resource, changes it and stores it; starts again when somebody else was faster.
    ///
    /// # Errors
    /// `NotFound`, what `change` returns, or `CompareFailed` after many attempts.
    pub async fn change<K: Kind>(
        &self,
        name: &str,
        change: impl FnMut(&mut K::Value) -> Result<()>,
    ) -> Result<Arc<K::Value>> {
        self.change_with::<K>(name, change, &[]).await
    }

    /// The same together with other writes, all or none of them.
    ///
    /// # Errors
    /// As [`change`](Self::change); `CompareFailed` also when the condition of another write does not hold.
    pub(crate) async fn change_with<K: Kind>(
        &self,
        name: &str,
        mut change: impl FnMut(&mut K::Value) -> Result<()>,
        others: &[ConditionalAction],
    ) -> Result<Arc<K::Value>> {
        let key = K::key(name)?;
        for attempt in 0..UPDATE_ATTEMPTS {
            let item = self.backend.get(&key).await.map_err(|e| failed::<K>(name, &e))?;
            let mut value = kind::decode::<K>(&item)?;
            change(&mut value)?;
            match self.update_with::<K>(value, others).await {
                Err(e) if e.kind == wire::error::ErrorKind::CompareFailed && attempt + 1 < UPDATE_ATTEMPTS => {
                    tokio::time::sleep(crate::random::jitter(Duration::from_millis(4 << attempt.min(6)))).await;
                }
                other => return other,
            }
        }
        Err(Error::compare_failed(format!("{} is being changed by others, try again", K::NAME)))
    }

    async fn update_with<K: Kind>(&self, value: K::Value, others: &[ConditionalAction]) -> Result<Arc<K::Value>> {
        if others.is_empty() {
            return self.update::<K>(value).await;
        }
        let mut writes = vec![put::<K>(&value, Condition::Revision(value.revision().to_owned()))?];
        writes.extend_from_slice(others);
        let revision = self.atomic(writes).await?;
        self.written::<K>(value, revision).await
    }

    /// Removes a resource.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete<K: Kind>(&self, name: &str) -> Result<()> {
        let key = K::key(name)?;
        self.backend.delete(&key).await.map_err(|e| failed::<K>(name, &e))?;
        self.catch_up().await;
        Ok(())
    }

    /// Removes every resource of a kind and says how many there were.
    ///
    /// # Errors
    /// When the backend cannot be written.
    pub async fn delete_all<K: Kind>(&self) -> Result<u64> {
        let mut deleted = 0;
        for value in self.list::<K>().await? {
            match self.backend.delete(&kind::key_of::<K>(&value)?).await {
                Ok(()) => deleted += 1,
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(failed::<K>(value.name(), &e)),
            }
        }
        self.catch_up().await;
        Ok(deleted)
    }

    /// Gives a resource a new expiry.
    ///
    /// # Errors
    /// `NotFound` when it is gone.
    pub async fn keep_alive<K: Kind>(&self, name: &str, expires: DateTime<Utc>) -> Result<()> {
        let lease = backend::Lease { key: K::key(name)?, revision: String::new() };
        self.backend.keep_alive(&lease, expires).await.map_err(|e| failed::<K>(name, &e))?;
        self.catch_up().await;
        Ok(())
    }

    /// Follows changes of some kinds. What is returned is already live: a caller that lists after this misses
    /// nothing.
    ///
    /// # Errors
    /// `BadParameter` when a kind cannot be watched.
    pub fn watch(&self, kinds: Vec<WatchedKind>) -> Result<Watch> {
        self.memory.subscribe(kinds)
    }

    /// Does several writes together or not at all.
    ///
    /// # Errors
    /// `CompareFailed` when a condition does not hold.
    pub(crate) async fn atomic(&self, actions: Vec<ConditionalAction>) -> Result<String> {
        let written = self.backend.atomic_write(actions).await.map_err(|e| storage(&e));
        // Also after a failed condition: what made it fail is then known here.
        self.catch_up().await;
        written
    }

    async fn written<K: Kind>(&self, mut value: K::Value, revision: String) -> Result<Arc<K::Value>> {
        value.set_revision(revision);
        self.catch_up().await;
        Ok(Arc::new(value))
    }
}

/// The write of one resource as part of an atomic write.
///
/// # Errors
/// When the resource cannot be encoded.
pub(crate) fn put<K: Kind>(value: &K::Value, condition: Condition) -> Result<ConditionalAction> {
    let item = kind::encode::<K>(value)?;
    Ok(ConditionalAction::put(item.key, condition, item.value, item.expires))
}

/// Whether a kind can be watched.
pub fn is_watchable(kind: &str) -> bool {
    kind::all().iter().any(|info| info.name == kind && info.watchable)
}

/// What users are told about a failure of the storage.
pub(crate) fn storage(error: &BackendError) -> Error {
    Error::new(error_kind(error), error.to_string())
}

/// The name of a resource as its kind is looked up by.
pub(crate) fn resource_name<K: Kind>(value: &K::Value) -> String {
    kind::key_of::<K>(value).map(|key| K::PLACE.name_in(&key)).unwrap_or_default()
}

fn error_kind(error: &BackendError) -> wire::error::ErrorKind {
    use backend::ErrorKind as B;
    use wire::error::ErrorKind as W;
    match error.kind() {
        B::NotFound => W::NotFound,
        B::AlreadyExists => W::AlreadyExists,
        B::AccessDenied => W::AccessDenied,
        B::BadParameter => W::BadParameter,
        B::CompareFailed => W::CompareFailed,
        B::LimitExceeded => W::LimitExceeded,
        B::ConnectionProblem => W::ConnectionProblem,
        B::NotImplemented => W::NotImplemented,
        B::Other => W::Other,
    }
}

fn title<K: Kind>(name: &str) -> String {
    match name {
        _ if K::SECRET_NAME => K::NAME.to_owned(),
        "" => K::NAME.to_owned(),
        name => format!("{} {name:?}", K::NAME),
    }
}

fn not_found<K: Kind>(name: &str) -> Error {
    Error::not_found(format!("{} not found", title::<K>(name)))
}

fn failed<K: Kind>(name: &str, error: &BackendError) -> Error {
    match error.kind() {
        backend::ErrorKind::NotFound => not_found::<K>(name),
        backend::ErrorKind::AlreadyExists => Error::already_exists(format!("{} already exists", title::<K>(name))),
        _ => storage(error),
    }
}

fn log_undecodable(error: Error) {
    tracing::error!(%error, "a stored resource cannot be read and is left out");
}

/// Decodes an item that is no resource.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(what: &str, item: &Item) -> Result<T> {
    serde_json::from_slice(&item.value).map_err(|e| Error::other(format!("stored {what} cannot be read: {e}")))
}

/// Builds a storage key from a place.
pub(crate) fn key_at(place: &resources::Place) -> Result<Key> {
    place.parts.iter().try_fold(Key::root(place.prefix), |key, part| key.child(part)).map_err(|e| storage(&e))
}
