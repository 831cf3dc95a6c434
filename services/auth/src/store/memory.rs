//! The decoded resources, and who follows their changes.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use backend::{Backend, BackendError, Event, Item, Key, Watcher};
use chrono::{DateTime, Utc};
use parking_lot::{Mutex, RwLock};
use wire::error::{Error, Result};

use super::{
    Page,
    changes::{Change, Subscribers, Watch, WatchedKind},
    kind::{self, Kind, KindInfo},
    log_undecodable, storage,
};

/// How many changes may wait for this process; it works them off at every write and twice a second.
const QUEUE: usize = 1 << 16;

#[derive(Default)]
struct Table {
    rows: BTreeMap<String, Row>,
}

struct Row {
    value: Arc<dyn Any + Send + Sync>,
    expires: Option<DateTime<Utc>>,
}

/// All resources of the kinds kept in memory.
pub(super) struct Memory {
    tables: HashMap<&'static str, RwLock<Table>>,
    feed: Mutex<Feed>,
    loading: tokio::sync::Mutex<()>,
    policy: AtomicU64,
    authorities: AtomicU64,
    memberships: AtomicU64,
}

struct Feed {
    watcher: Option<Watcher>,
    subscribers: Subscribers,
}

impl Memory {
    pub(super) fn new() -> Self {
        let tables = kind::all().iter().filter(|k| k.cached).map(|k| (k.name, RwLock::default())).collect();
        let feed = Mutex::new(Feed { watcher: None, subscribers: Subscribers::default() });
        let loading = tokio::sync::Mutex::default();
        let [policy, authorities, memberships] = [1; 3].map(AtomicU64::new);
        Self { tables, feed, loading, policy, authorities, memberships }
    }

    pub(super) fn policy_generation(&self) -> u64 {
        self.policy.load(Ordering::Acquire)
    }

    pub(super) fn authority_generation(&self) -> u64 {
        self.authorities.load(Ordering::Acquire)
    }

    pub(super) fn membership_generation(&self) -> u64 {
        self.memberships.load(Ordering::Acquire)
    }

    /// Reads everything anew and follows from there. Those who follow this memory are sent away to list again.
    pub(super) async fn load(&self, backend: &dyn Backend) -> Result<()> {
        let _one_at_a_time = self.loading.lock().await;
        if self.feed.lock().watcher.is_some() && self.pump().is_ok() {
            return Ok(());
        }
        let roots = kind::all().iter().map(|k| k.place.root());
        let mut watch = backend::Watch::new("resources", roots);
        watch.queue = QUEUE;
        let watcher = backend.watch(watch).await.map_err(|e| storage(&e))?;
        let mut loaded: HashMap<&'static str, Table> = HashMap::new();
        for info in kind::all().iter().filter(|k| k.cached) {
            let items = backend::get_all(backend, info.place.root().children()).await.map_err(|e| storage(&e))?;
            let table = loaded.entry(info.name).or_default();
            for item in items.iter().filter(|item| info.place.matches(&item.key)) {
                if let Some(row) = row(info, item) {
                    table.rows.insert(item.key.as_str().to_owned(), row);
                }
            }
        }
        let mut feed = self.feed.lock();
        for (name, table) in loaded {
            if let Some(place) = self.tables.get(name) {
                *place.write() = table;
            }
        }
        feed.watcher = Some(watcher);
        feed.subscribers.close();
        for generation in [&self.policy, &self.authorities, &self.memberships] {
            generation.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Applies the changes that are waiting.
    ///
    /// # Errors
    /// When changes were lost and everything has to be loaded anew.
    pub(super) fn pump(&self) -> Result<(), BackendError> {
        let mut feed = self.feed.lock();
        let Feed { watcher, subscribers } = &mut *feed;
        let Some(following) = watcher else { return Err(BackendError::Closed) };
        loop {
            match following.try_recv() {
                Ok(Some(Event::Init)) => {}
                Ok(Some(Event::Put(item))) => self.put(&item, subscribers),
                Ok(Some(Event::Delete(key))) => self.delete(&key, subscribers),
                Ok(None) => return Ok(()),
                Err(error) => {
                    *watcher = None;
                    return Err(error);
                }
            }
        }
    }

    fn put(&self, item: &Item, subscribers: &mut Subscribers) {
        let Some(info) = info_of(&item.key) else { return };
        if !info.cached && !subscribers.want(info.name) {
            return;
        }
        let Some(row) = row(info, item) else { return };
        let value = row.value.clone();
        if let Some(table) = self.tables.get(info.name) {
            table.write().rows.insert(item.key.as_str().to_owned(), row);
        }
        self.changed(info);
        subscribers.send(Change::put(info, item.key.clone(), value));
    }

    fn delete(&self, key: &Key, subscribers: &mut Subscribers) {
        let Some(info) = info_of(key) else { return };
        if let Some(table) = self.tables.get(info.name) {
            table.write().rows.remove(key.as_str());
        }
        self.changed(info);
        subscribers.send(Change::delete(info, key.clone()));
    }

    fn changed(&self, info: &KindInfo) {
        if info.policy {
            self.policy.fetch_add(1, Ordering::AcqRel);
        }
        if info.name == kind::CertAuthority::NAME {
            self.authorities.fetch_add(1, Ordering::AcqRel);
        }
        if info.name == kind::AccessListMember::NAME {
            self.memberships.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn get<K: Kind>(&self, key: &Key, now: DateTime<Utc>) -> Option<Arc<K::Value>> {
        let table = self.tables.get(K::NAME)?.read();
        let row = table.rows.get(key.as_str())?;
        if row.is_expired(now) {
            return None;
        }
        row.value.clone().downcast().ok()
    }

    pub(super) fn page<K: Kind>(
        &self,
        start: &str,
        limit: usize,
        now: DateTime<Utc>,
        mut wanted: impl FnMut(&K::Value) -> bool,
    ) -> Page<K::Value> {
        let mut page = Page { items: Vec::new(), next_key: String::new() };
        let Some(table) = self.tables.get(K::NAME) else { return page };
        let from = match (start, K::key(start)) {
            ("", _) => Bound::Unbounded,
            (_, Ok(key)) => Bound::Included(key.as_str().to_owned()),
            (_, Err(_)) => return page,
        };
        let table = table.read();
        for (key, row) in table.rows.range((from, Bound::Unbounded)) {
            let Ok(value) = row.value.clone().downcast::<K::Value>() else { continue };
            if row.is_expired(now) || !wanted(&value) {
                continue;
            }
            if page.items.len() == limit {
                page.next_key = Key::parse(key.clone()).map(|key| K::PLACE.name_in(&key)).unwrap_or_default();
                break;
            }
            page.items.push(value);
        }
        page
    }

    /// Shows every value of a kind whose name begins with `first`, as a whole part.
    pub(super) fn visit_below<K: Kind>(
        &self,
        first: &str,
        now: DateTime<Utc>,
        mut visit: impl FnMut(&Arc<dyn Any + Send + Sync>),
    ) {
        let (Some(table), Ok(key)) = (self.tables.get(K::NAME), K::PLACE.root().child(first)) else { return };
        let range = key.children();
        let table = table.read();
        let end = range.end.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = table.rows.range((Bound::Included(range.start), end));
        rows.filter(|(_, row)| !row.is_expired(now)).for_each(|(_, row)| visit(&row.value));
    }

    pub(super) fn watchers(&self) -> usize {
        self.feed.lock().subscribers.len()
    }

    pub(super) fn subscribe(&self, kinds: Vec<WatchedKind>) -> Result<Watch> {
        if let Some(unknown) = kinds.iter().find(|k| !super::is_watchable(&k.kind)) {
            return Err(Error::bad_parameter(format!("resources of kind {:?} cannot be watched", unknown.kind)));
        }
        // Changes acknowledged before this call are applied first: a new follower lists them.
        let lost = self.pump().is_err();
        if lost {
            return Err(Error::connection_problem("resources are being reloaded, try again"));
        }
        Ok(self.feed.lock().subscribers.add(kinds))
    }
}

impl Row {
    fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

fn row(info: &KindInfo, item: &Item) -> Option<Row> {
    let value = (info.decode)(item).map_err(log_undecodable).ok()?;
    Some(Row { value, expires: item.expires })
}

fn info_of(key: &Key) -> Option<&'static KindInfo> {
    kind::all().iter().find(|info| info.place.matches(key))
}
