//! What a write means, told once for every engine that lives in this process.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{Action, BackendError, Condition, ConditionalAction, Event, Item, Key, KeyRange, Result};

/// Where the writer keeps items. One thread owns it; nothing is visible to readers before `commit`.
pub(crate) trait Store: Send + 'static {
    /// Whether other processes write as well.
    const SHARED: bool = false;
    /// How many keys one transaction writes before no further write joins it.
    const MAX_BATCH: usize = 1024;
    /// The same for bytes of values.
    const MAX_BATCH_BYTES: usize = 8 << 20;
    /// Most bytes of values that one atomic write stores.
    const MAX_ATOMIC_BYTES: usize = usize::MAX;
    /// How many expired items are removed in one transaction.
    const MAX_EXPIRED: usize = 1024;

    /// Begins a transaction; says what others have committed since the last time, all of which comes before it.
    fn begin(&mut self) -> Result<Foreign>;
    /// Makes the transaction durable, and known to others with its events. After an error nobody is told of it by the
    /// caller; a store in another process may have done it nevertheless, or some of it, and then tells of that as of
    /// what others have committed. Keys that were named to [`together`](Self::together) are never parted.
    fn commit(&mut self, events: &[Event]) -> Result<()>;
    fn rollback(&mut self);
    /// That these keys are to change all or none, for a store that may commit a transaction in parts.
    fn together<'a>(&mut self, keys: impl Iterator<Item = &'a Key>) {
        let _ = keys;
    }
    /// What others have committed since the last time.
    fn look(&mut self) -> Result<Foreign> {
        Ok(Foreign::default())
    }
    /// The item at `key`, expired or not, as this transaction sees it.
    fn get(&mut self, key: &Key) -> Result<Option<Item>>;
    fn put(&mut self, item: &Item, now: DateTime<Utc>) -> Result<()>;
    fn delete(&mut self, key: &Key) -> Result<()>;
    /// Keys of a range, each with whether it is expired at `now`.
    fn keys(&mut self, range: &KeyRange, now: DateTime<Utc>) -> Result<Vec<(Key, bool)>>;
    /// Some keys that are expired at `now`, in order, at most `limit`.
    fn expired(&mut self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Key>>;
    /// When the first item expires.
    fn next_expiry(&mut self) -> Result<Option<DateTime<Utc>>>;
}

/// What other processes have changed.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    /// Their changes, in the order in which they happened.
    pub(crate) events: Vec<Event>,
    /// Whether there were others that cannot be told any more.
    pub(crate) missed: bool,
}

/// A write as it waits for the writer.
#[derive(Debug)]
pub(crate) enum Write {
    Create(Item),
    Put(Item),
    Update(Item),
    CompareAndSwap { expected: Bytes, new: Item },
    ConditionalUpdate(Item),
    ConditionalDelete { key: Key, revision: String },
    Delete(Key),
    DeleteRange(KeyRange),
    KeepAlive { key: Key, expires: DateTime<Utc> },
    Atomic(Vec<ConditionalAction>),
}

impl Write {
    /// How many keys it writes, as far as it says.
    pub(crate) fn keys(&self) -> usize {
        match self {
            Self::Atomic(actions) => actions.len(),
            _ => 1,
        }
    }

    /// About how many bytes it adds to a transaction.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Create(item) | Self::Put(item) | Self::Update(item) | Self::ConditionalUpdate(item) => {
                item.value.len()
            }
            Self::CompareAndSwap { new, .. } => new.value.len(),
            Self::Atomic(actions) => actions.iter().map(weight).sum(),
            _ => 0,
        }
    }
}

/// The bytes that an action stores.
fn weight(entry: &ConditionalAction) -> usize {
    match &entry.action {
        Action::Put { value, .. } => value.len(),
        Action::Nop | Action::Delete => 0,
    }
}

/// What a write answers: the new revision, or how many items it removed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Revision(String),
    Removed(u64),
}

/// One transaction of the writer: the writes done so far and the events they will cause.
pub(crate) struct Transaction<'a, S> {
    pub(crate) store: &'a mut S,
    pub(crate) now: DateTime<Utc>,
    pub(crate) events: Vec<Event>,
}

impl<S: Store> Transaction<'_, S> {
    /// Does one write. An error of kind `ConnectionProblem` or `Other` leaves the transaction unusable; any
    /// other is the answer to this write, which then changed nothing.
    pub(crate) fn apply(&mut self, write: Write) -> Result<Outcome> {
        let revision = match write {
            Write::Put(item) => self.store_item(item)?,
            Write::Create(item) => match self.live(&item.key)? {
                Some(_) => {
                    return Err(BackendError::AlreadyExists { key: item.key.to_string() });
                }
                None => self.store_item(item)?,
            },
            Write::Update(item) => match self.live(&item.key)? {
                Some(_) => self.store_item(item)?,
                None => return Err(BackendError::not_found(&item.key)),
            },
            Write::CompareAndSwap { expected, new } => match self.live(&new.key)? {
                Some(current) if current.value == expected => self.store_item(new)?,
                _ => {
                    return Err(BackendError::CompareFailed { key: new.key.to_string() });
                }
            },
            Write::ConditionalUpdate(item) => {
                self.require_revision(&item.key, &item.revision)?;
                self.store_item(item)?
            }
            Write::KeepAlive { key, expires } => match self.live(&key)? {
                Some(current) => self.store_item(current.with_expires(expires))?,
                None => return Err(BackendError::not_found(&key)),
            },
            Write::Atomic(actions) => self.atomic(actions)?,
            Write::ConditionalDelete { key, revision } => {
                self.require_revision(&key, &revision)?;
                self.remove(key)?;
                return Ok(Outcome::Removed(1));
            }
            Write::Delete(key) => {
                if self.live(&key)?.is_none() {
                    return Err(BackendError::not_found(&key));
                }
                self.remove(key)?;
                return Ok(Outcome::Removed(1));
            }
            Write::DeleteRange(range) => return self.remove_range(&range),
        };
        Ok(Outcome::Revision(revision))
    }

    /// Removes up to `limit` expired items and says how many there were.
    pub(crate) fn expire(&mut self, limit: usize) -> Result<usize> {
        let keys = self.store.expired(self.now, limit)?;
        let count = keys.len();
        for key in keys {
            self.remove(key)?;
        }
        Ok(count)
    }

    fn live(&mut self, key: &Key) -> Result<Option<Item>> {
        let now = self.now;
        Ok(self.store.get(key)?.filter(|item| !item.is_expired(now)))
    }

    fn require_revision(&mut self, key: &Key, revision: &str) -> Result<()> {
        match self.live(key)? {
            Some(current) if current.revision == revision => Ok(()),
            _ => Err(BackendError::incorrect_revision(key)),
        }
    }

    fn atomic(&mut self, actions: Vec<ConditionalAction>) -> Result<String> {
        let bytes: usize = actions.iter().map(weight).sum();
        if bytes > S::MAX_ATOMIC_BYTES {
            let most = S::MAX_ATOMIC_BYTES;
            let text = format!("an atomic write of {bytes} bytes is too long for this storage: at most {most}");
            return Err(BackendError::BadParameter(text));
        }
        for entry in &actions {
            let holds = match &entry.condition {
                Condition::Whatever => true,
                Condition::Exists => self.live(&entry.key)?.is_some(),
                Condition::NotExists => self.live(&entry.key)?.is_none(),
                Condition::Revision(revision) => self.live(&entry.key)?.is_some_and(|item| item.revision == *revision),
            };
            if !holds {
                return Err(BackendError::ConditionFailed);
            }
        }
        self.store.together(actions.iter().map(|entry| &entry.key));
        let revision = Uuid::new_v4().to_string();
        for ConditionalAction { key, action, .. } in actions {
            match action {
                Action::Nop => {}
                Action::Put { value, expires } => {
                    self.store_as(Item { key, value, expires, revision: revision.clone() })?;
                }
                Action::Delete => {
                    if self.store.get(&key)?.is_some() {
                        self.remove(key)?;
                    }
                }
            }
        }
        Ok(revision)
    }

    fn remove_range(&mut self, range: &KeyRange) -> Result<Outcome> {
        let mut live = 0;
        for (key, expired) in self.store.keys(range, self.now)? {
            live += u64::from(!expired);
            self.remove(key)?;
        }
        Ok(Outcome::Removed(live))
    }

    fn store_item(&mut self, item: Item) -> Result<String> {
        let revision = Uuid::new_v4().to_string();
        self.store_as(Item { revision: revision.clone(), ..item })?;
        Ok(revision)
    }

    fn store_as(&mut self, item: Item) -> Result<()> {
        self.store.put(&item, self.now)?;
        self.events.push(Event::Put(Arc::new(item)));
        Ok(())
    }

    fn remove(&mut self, key: Key) -> Result<()> {
        self.store.delete(&key)?;
        self.events.push(Event::Delete(Arc::new(key)));
        Ok(())
    }
}
