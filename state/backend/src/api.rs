//! The trait every storage engine implements.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{ConditionalAction, Item, Key, KeyRange, Lease, Result, Watch, Watcher};

/// What one `get_range` returns at most, when its limit is 0.
pub const MAX_RANGE: usize = 2_000_000;

/// Default and largest size of a page of a [`Pager`].
pub const MAX_PAGE: usize = 10_000;

/// Key/value storage. See the [crate](crate) for what every implementation promises.
///
/// Every write returns the new revision of what it wrote. A write whose future is dropped may still happen.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Stores an item whose key is free; an expired item does not count.
    ///
    /// # Errors
    /// `AlreadyExists` when a live item has the key.
    async fn create(&self, item: Item) -> Result<String>;

    /// Stores an item, whatever was there.
    async fn put(&self, item: Item) -> Result<String>;

    /// Stores an item in place of a live one.
    ///
    /// # Errors
    /// `NotFound` when no live item has the key.
    async fn update(&self, item: Item) -> Result<String>;

    /// Stores `new` when the value at its key equals that of `expected`.
    ///
    /// # Errors
    /// `BadParameter` when the keys differ; `CompareFailed` when the item is absent or its value another.
    async fn compare_and_swap(&self, expected: &Item, new: Item) -> Result<String>;

    /// Stores an item in place of a live one that has the same revision.
    ///
    /// # Errors
    /// `IncorrectRevision` when the item is absent or its revision another.
    async fn conditional_update(&self, item: Item) -> Result<String>;

    /// Removes an item that has this revision.
    ///
    /// # Errors
    /// `IncorrectRevision` when the item is absent or its revision another.
    async fn conditional_delete(&self, key: &Key, revision: &str) -> Result<()>;

    /// The live item at `key`.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    async fn get(&self, key: &Key) -> Result<Item>;

    /// The live items of a range in the order of their keys, at most `limit` (0: [`MAX_RANGE`]).
    async fn get_range(&self, range: &KeyRange, limit: usize) -> Result<Vec<Item>>;

    /// Removes the item at `key`.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    async fn delete(&self, key: &Key) -> Result<()>;

    /// Removes every item of a range and says how many live ones there were.
    async fn delete_range(&self, range: &KeyRange) -> Result<u64>;

    /// Gives a live item a new expiry and with it a new revision. Only the key of the lease counts: its owner
    /// renews it whatever else was written to the item.
    ///
    /// # Errors
    /// `NotFound` when the item is gone.
    async fn keep_alive(&self, lease: &Lease, expires: DateTime<Utc>) -> Result<Lease>;

    /// Does all actions when all conditions hold, otherwise nothing. All puts share the returned revision.
    ///
    /// # Errors
    /// `BadParameter` unless there are 1 to [`MAX_ATOMIC_ACTIONS`](crate::MAX_ATOMIC_ACTIONS) entries with
    /// distinct keys, at least one of them writing, none without both condition and action, and no put
    /// empty, and for more bytes than the storage can write together (etcd: 1 MiB); `ConditionFailed` when a condition
    /// does not hold.
    async fn atomic_write(&self, actions: Vec<ConditionalAction>) -> Result<String>;

    /// Begins to deliver changes. Its first event is [`Event::Init`](crate::Event::Init); everything
    /// written after it was received follows, so a reader that lists after it misses nothing.
    async fn watch(&self, watch: Watch) -> Result<Watcher>;

    /// Waits until whatever was acknowledged anywhere before this call is in the queues of the watchers: what another
    /// process on the same storage has written as well.
    ///
    /// # Errors
    /// `ConnectionProblem` when that cannot be known at the moment.
    async fn sync(&self) -> Result<()>;

    /// The time by which items expire.
    fn now(&self) -> DateTime<Utc>;

    /// Finishes queued writes, closes all watchers and releases the database. Later calls fail with `Closed`.
    async fn close(&self);
}

/// Reads a range page by page, so that a large one is never in memory as a whole.
pub struct Pager<'a> {
    backend: &'a dyn Backend,
    rest: Option<KeyRange>,
    page: usize,
}

impl<'a> Pager<'a> {
    /// Pages of at most `page` items (0 or more than [`MAX_PAGE`]: [`MAX_PAGE`]).
    pub fn new(backend: &'a dyn Backend, range: KeyRange, page: usize) -> Self {
        let page = if page == 0 { MAX_PAGE } else { page.min(MAX_PAGE) };
        Self { backend, rest: Some(range), page }
    }

    /// The next page, or `None` after the last.
    ///
    /// Pages are read one after the other: a change between two pages may or may not be seen.
    pub async fn next(&mut self) -> Result<Option<Vec<Item>>> {
        let Some(range) = self.rest.take() else {
            return Ok(None);
        };
        let items = self.backend.get_range(&range, self.page).await?;
        match items.last() {
            Some(last) if items.len() == self.page => self.rest = Some(range.after(&last.key)),
            Some(_) => {}
            None => return Ok(None),
        }
        Ok(Some(items))
    }
}

/// All live items of a range, read page by page.
pub async fn get_all(backend: &dyn Backend, range: KeyRange) -> Result<Vec<Item>> {
    let mut pager = Pager::new(backend, range, MAX_PAGE);
    let mut all = Vec::new();
    while let Some(mut page) = pager.next().await? {
        all.append(&mut page);
    }
    Ok(all)
}
