//! State for the life of the process: tests, and agents that keep nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use parking_lot::RwLock;

use crate::{
    Clock, Event, Item, Key, KeyRange, Result, SystemClock,
    local::{Local, Reader},
    store::{Foreign, Store},
};

/// Storage in memory.
pub type Memory = Local<MemoryReader>;

type Items = Arc<RwLock<BTreeMap<Key, Item>>>;

impl Memory {
    /// Empty storage by the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// Empty storage by the given clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let store = MemoryStore::default();
        let reader = MemoryReader(Arc::clone(&store.items));
        Self::start(store, reader, clock)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads committed items.
#[derive(Debug)]
pub struct MemoryReader(Items);

#[async_trait]
impl Reader for MemoryReader {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        Ok(self.0.read().get(key).cloned())
    }

    async fn range(&self, range: &KeyRange, now: DateTime<Utc>, limit: usize) -> Result<Vec<Item>> {
        let items = self.0.read();
        let live = items.range::<str, _>(bounds(range)).map(|(_, item)| item);
        Ok(live.filter(|item| !item.is_expired(now)).take(limit).cloned().collect())
    }

    fn close(&self) {}
}

#[derive(Default)]
pub(crate) struct MemoryStore {
    items: Items,
    expiries: BTreeSet<(DateTime<Utc>, Key)>,
    /// What the running transaction changed: `None` is removed.
    staged: BTreeMap<Key, Option<Item>>,
}

impl Store for MemoryStore {
    fn begin(&mut self) -> Result<Foreign> {
        self.staged.clear();
        Ok(Foreign::default())
    }

    fn commit(&mut self, _: &[Event]) -> Result<()> {
        let mut items = self.items.write();
        for (key, change) in std::mem::take(&mut self.staged) {
            let expires = change.as_ref().and_then(|item| item.expires);
            let old = match change {
                Some(item) => items.insert(key.clone(), item),
                None => items.remove(&key),
            };
            if let Some(expires) = old.and_then(|item| item.expires) {
                self.expiries.remove(&(expires, key.clone()));
            }
            if let Some(expires) = expires {
                self.expiries.insert((expires, key));
            }
        }
        Ok(())
    }

    fn rollback(&mut self) {
        self.staged.clear();
    }

    fn get(&mut self, key: &Key) -> Result<Option<Item>> {
        match self.staged.get(key) {
            Some(change) => Ok(change.clone()),
            None => Ok(self.items.read().get(key).cloned()),
        }
    }

    fn put(&mut self, item: &Item, _now: DateTime<Utc>) -> Result<()> {
        self.staged.insert(item.key.clone(), Some(item.clone()));
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.staged.insert(key.clone(), None);
        Ok(())
    }

    fn keys(&mut self, range: &KeyRange, now: DateTime<Utc>) -> Result<Vec<(Key, bool)>> {
        let mut found: BTreeMap<Key, bool> = self
            .items
            .read()
            .range::<str, _>(bounds(range))
            .map(|(key, item)| (key.clone(), item.is_expired(now)))
            .collect();
        for (key, change) in self.staged.range::<str, _>(bounds(range)) {
            match change {
                Some(item) => found.insert(key.clone(), item.is_expired(now)),
                None => found.remove(key),
            };
        }
        Ok(found.into_iter().collect())
    }

    fn expired(&mut self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Key>> {
        let due = self.expiries.iter().take_while(|(expires, _)| *expires <= now);
        let mut keys: Vec<Key> = due.take(limit).map(|(_, key)| key.clone()).collect();
        keys.sort();
        Ok(keys)
    }

    fn next_expiry(&mut self) -> Result<Option<DateTime<Utc>>> {
        Ok(self.expiries.first().map(|(expires, _)| *expires))
    }
}

fn bounds(range: &KeyRange) -> (Bound<&str>, Bound<&str>) {
    (Bound::Included(&range.start), Bound::Excluded(range.end_text()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{ManualClock, conformance::Fixture};

    async fn open(clock: ManualClock) -> Fixture {
        Fixture::new(Arc::new(Memory::with_clock(Arc::new(clock.clone()))), clock)
    }

    crate::conformance_tests!(open);
}
