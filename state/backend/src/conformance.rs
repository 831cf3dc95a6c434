//! What every implementation of [`Backend`] must do, as tests.
//!
//! An implementation's test module defines `async fn open(clock: ManualClock) -> Fixture`, which gives an
//! empty backend that goes by the clock, and calls [`conformance_tests!`](crate::conformance_tests) with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;

use std::{any::Any, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::timeout;

use crate::{
    Backend, BackendError, Condition, ConditionalAction, Event, Item, Key, KeyRange, ManualClock, Pager, Watch,
    Watcher, get_all,
};

pub use model::it_behaves_like_the_model;

/// A backend under test.
pub struct Fixture {
    backend: Arc<dyn Backend>,
    clock: ManualClock,
    _kept: Vec<Box<dyn Any + Send>>,
}

impl Fixture {
    /// An empty backend that goes by `clock`.
    pub fn new(backend: Arc<dyn Backend>, clock: ManualClock) -> Self {
        Self { backend, clock, _kept: Vec::new() }
    }

    /// Keeps something alive as long as the backend, such as its directory.
    #[must_use]
    pub fn keep(mut self, guard: impl Any + Send) -> Self {
        self._kept.push(Box::new(guard));
        self
    }

    fn soon(&self) -> DateTime<Utc> {
        self.backend.now() + TimeDelta::seconds(10)
    }

    fn let_pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// Runs the suite against the backends that `$open` gives.
#[macro_export]
macro_rules! conformance_tests {
    ($open:path) => {
        $crate::conformance_tests!($open:
            create_needs_a_free_key,
            put_replaces_whatever_was_there,
            update_needs_a_live_item,
            compare_and_swap_compares_values,
            conditional_writes_compare_revisions,
            every_write_makes_a_new_revision,
            ranges_are_sorted_bounded_and_limited,
            pages_cover_a_range,
            large_ranges_come_back_whole,
            delete_needs_a_live_item,
            delete_range_removes_what_lies_in_it,
            expired_items_are_absent,
            expiry_is_announced,
            keep_alive_moves_the_expiry,
            atomic_writes_are_checked,
            atomic_writes_happen_all_or_not_at_all,
            watchers_see_changes_in_order,
            watchers_see_only_what_they_asked_for,
            an_acknowledged_write_is_visible_and_announced,
            of_many_concurrent_updates_each_revision_wins_once,
            closing_ends_everything,
        );

        #[test]
        fn it_behaves_like_the_model() {
            $crate::conformance::it_behaves_like_the_model($open);
        }
    };
    ($open:path: $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::conformance::$name(&$open($crate::ManualClock::default()).await).await;
            }
        )+
    };
}

fn key(name: &str) -> Key {
    Key::root("/things").child(name).unwrap()
}

fn item(name: &str, value: &'static str) -> Item {
    Item::new(key(name), value)
}

async fn value(backend: &dyn Backend, name: &str) -> Option<Bytes> {
    match backend.get(&key(name)).await {
        Ok(item) => Some(item.value),
        Err(error) if error.is_not_found() => None,
        Err(error) => panic!("{error}"),
    }
}

async fn next(watcher: &mut Watcher) -> Event {
    timeout(Duration::from_secs(30), watcher.recv()).await.expect("an event in time").unwrap()
}

async fn watch(backend: &dyn Backend) -> Watcher {
    let mut watcher = backend.watch(Watch::new("conformance", [])).await.unwrap();
    assert_eq!(next(&mut watcher).await, Event::Init);
    watcher
}

pub async fn create_needs_a_free_key(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let revision = backend.create(item("a", "1")).await.unwrap();
    let stored = backend.get(&key("a")).await.unwrap();
    assert_eq!(stored, item("a", "1").with_revision(revision));
    assert!(backend.create(item("a", "2")).await.unwrap_err().is_already_exists());
    assert_eq!(value(backend, "a").await.unwrap(), "1");
    let binary = Item::new(key("binary"), vec![0, 255, 10, 0]);
    backend.create(binary.clone()).await.unwrap();
    assert_eq!(backend.get(&key("binary")).await.unwrap().value, binary.value);
}

pub async fn put_replaces_whatever_was_there(fixture: &Fixture) {
    let backend = &*fixture.backend;
    backend.put(item("a", "1").with_expires(fixture.soon())).await.unwrap();
    backend.put(item("a", "2")).await.unwrap();
    let stored = backend.get(&key("a")).await.unwrap();
    assert_eq!((stored.value.as_ref(), stored.expires), (b"2".as_slice(), None));
}

pub async fn update_needs_a_live_item(fixture: &Fixture) {
    let backend = &*fixture.backend;
    assert!(backend.update(item("a", "1")).await.unwrap_err().is_not_found());
    backend.put(item("a", "1")).await.unwrap();
    backend.update(item("a", "2")).await.unwrap();
    assert_eq!(value(backend, "a").await.unwrap(), "2");
}

pub async fn compare_and_swap_compares_values(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let swap = |expected, new| async move { backend.compare_and_swap(&item("a", expected), item("a", new)).await };
    assert!(swap("1", "2").await.unwrap_err().is_compare_failed());
    backend.put(item("a", "1")).await.unwrap();
    assert!(swap("0", "2").await.unwrap_err().is_compare_failed());
    swap("1", "2").await.unwrap();
    assert_eq!(value(backend, "a").await.unwrap(), "2");
    let other = backend.compare_and_swap(&item("a", "2"), item("b", "3")).await;
    assert!(matches!(other, Err(BackendError::BadParameter(_))));
}

pub async fn conditional_writes_compare_revisions(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let refused = backend.conditional_update(item("a", "1").with_revision("x")).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "resource revision does not match, it may have been concurrently created|modified|deleted; \
         please work from the latest state, or use --force to overwrite"
    );
    let first = backend.put(item("a", "1")).await.unwrap();
    let second = backend.conditional_update(item("a", "2").with_revision(&first)).await.unwrap();
    let stale = backend.conditional_update(item("a", "3").with_revision(&first)).await;
    assert!(stale.unwrap_err().is_compare_failed());
    assert!(backend.conditional_delete(&key("a"), &first).await.unwrap_err().is_compare_failed());
    assert_eq!(value(backend, "a").await.unwrap(), "2");
    backend.conditional_delete(&key("a"), &second).await.unwrap();
    assert_eq!(value(backend, "a").await, None);
    assert!(backend.conditional_delete(&key("a"), &second).await.unwrap_err().is_compare_failed());
}

pub async fn every_write_makes_a_new_revision(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let created = backend.create(item("a", "1").with_revision("ignored")).await.unwrap();
    let put = backend.put(item("a", "1")).await.unwrap();
    let updated = backend.update(item("a", "1")).await.unwrap();
    let swapped = backend.compare_and_swap(&item("a", "1"), item("a", "1")).await.unwrap();
    let mut all = vec![created, put, updated, swapped.clone()];
    assert_eq!(backend.get(&key("a")).await.unwrap().revision, swapped);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4);
}

pub async fn ranges_are_sorted_bounded_and_limited(fixture: &Fixture) {
    let backend = &*fixture.backend;
    for name in ["c", "a", "b", "d"] {
        backend.put(item(name, "x")).await.unwrap();
    }
    backend.put(Item::new(Key::root("/things0"), "neighbour")).await.unwrap();
    backend.put(Item::new(Key::root("/thing/e"), "neighbour")).await.unwrap();
    let things = Key::root("/things").children();
    let names = |items: Vec<Item>| items.iter().map(|item| item.key.name().to_owned()).collect::<Vec<_>>().join(" ");
    assert_eq!(names(backend.get_range(&things, 0).await.unwrap()), "a b c d");
    assert_eq!(names(backend.get_range(&things, 3).await.unwrap()), "a b c");
    let middle = KeyRange::new("/things/b", "/things/d");
    assert_eq!(names(backend.get_range(&middle, 0).await.unwrap()), "b c");
    let from = KeyRange { start: "/things/d".to_owned(), end: None };
    assert_eq!(names(backend.get_range(&from, 0).await.unwrap()), "d things0");
    assert_eq!(backend.get_range(&KeyRange::new("/z", "/a"), 0).await.unwrap(), []);
}

pub async fn pages_cover_a_range(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let things = Key::root("/things").children();
    assert_eq!(Pager::new(backend, things.clone(), 2).next().await.unwrap(), None);
    for name in ["a", "a0", "b", "c"] {
        backend.put(item(name, "x")).await.unwrap();
    }
    let mut pager = Pager::new(backend, things.clone(), 2);
    let mut sizes = Vec::new();
    while let Some(page) = pager.next().await.unwrap() {
        sizes.push(page.len());
    }
    assert_eq!(sizes, [2, 2]);
    assert_eq!(get_all(backend, things).await.unwrap().len(), 4);
}

pub async fn large_ranges_come_back_whole(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let large = Bytes::from(vec![7; 64 << 10]);
    for number in 0..160 {
        backend.put(Item::new(key(&number.to_string()), large.clone())).await.unwrap();
    }
    let items = backend.get_range(&Key::root("/things").children(), 0).await.unwrap();
    assert_eq!(items.iter().map(|item| item.value.len()).sum::<usize>(), 10 << 20);
}

pub async fn delete_needs_a_live_item(fixture: &Fixture) {
    let backend = &*fixture.backend;
    assert!(backend.delete(&key("a")).await.unwrap_err().is_not_found());
    backend.put(item("a", "1")).await.unwrap();
    backend.delete(&key("a")).await.unwrap();
    assert!(backend.delete(&key("a")).await.unwrap_err().is_not_found());
}

pub async fn delete_range_removes_what_lies_in_it(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let things = Key::root("/things").children();
    assert_eq!(backend.delete_range(&things).await.unwrap(), 0);
    for name in ["a", "b"] {
        backend.put(item(name, "x")).await.unwrap();
    }
    backend.put(Item::new(Key::root("/things0"), "neighbour")).await.unwrap();
    let mut watcher = watch(backend).await;
    assert_eq!(backend.delete_range(&things).await.unwrap(), 2);
    assert_eq!(next(&mut watcher).await, Event::Delete(Arc::new(key("a"))));
    assert_eq!(next(&mut watcher).await, Event::Delete(Arc::new(key("b"))));
    assert!(backend.get(&Key::root("/things0")).await.is_ok());
}

pub async fn expired_items_are_absent(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let mut revisions = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        revisions.push(backend.put(item(name, "old").with_expires(fixture.soon())).await.unwrap());
    }
    assert_eq!(backend.get_range(&Key::root("/things").children(), 0).await.unwrap().len(), 6);
    fixture.let_pass(10);
    assert_eq!(value(backend, "a").await, None);
    assert_eq!(backend.get_range(&Key::root("/things").children(), 0).await.unwrap(), []);
    assert!(backend.update(item("a", "new")).await.unwrap_err().is_not_found());
    assert!(backend.delete(&key("a")).await.unwrap_err().is_not_found());
    let expected = item("b", "old");
    assert!(backend.compare_and_swap(&expected, item("b", "new")).await.unwrap_err().is_compare_failed());
    let stale = item("c", "new").with_revision(&revisions[2]);
    assert!(backend.conditional_update(stale).await.unwrap_err().is_compare_failed());
    let lease = item("d", "").lease();
    assert!(backend.keep_alive(&lease, fixture.soon()).await.unwrap_err().is_not_found());
    backend.create(item("e", "new")).await.unwrap();
    let free = ConditionalAction::put(key("f"), Condition::NotExists, "new", None);
    backend.atomic_write(vec![free]).await.unwrap();
    assert_eq!(value(backend, "f").await.unwrap(), "new");
}

pub async fn expiry_is_announced(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let mut watcher = watch(backend).await;
    backend.put(item("a", "1").with_expires(fixture.soon())).await.unwrap();
    backend.put(item("b", "1").with_expires(fixture.soon() + TimeDelta::hours(1))).await.unwrap();
    backend.put(item("c", "1").with_expires(fixture.soon())).await.unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(next(&mut watcher).await.key(), Some(&key(name)));
    }
    fixture.let_pass(11);
    assert_eq!(next(&mut watcher).await, Event::Delete(Arc::new(key("a"))));
    assert_eq!(next(&mut watcher).await, Event::Delete(Arc::new(key("c"))));
    fixture.let_pass(3600);
    assert_eq!(next(&mut watcher).await, Event::Delete(Arc::new(key("b"))));
}

pub async fn keep_alive_moves_the_expiry(fixture: &Fixture) {
    let backend = &*fixture.backend;
    backend.put(item("a", "1").with_expires(fixture.soon())).await.unwrap();
    let mut watcher = watch(backend).await;
    let lease = backend.get(&key("a")).await.unwrap().lease();
    let later = fixture.soon() + TimeDelta::minutes(1);
    let renewed = backend.keep_alive(&lease, later).await.unwrap();
    assert_ne!(renewed.revision, lease.revision);
    let Event::Put(announced) = next(&mut watcher).await else { panic!("a put event") };
    assert_eq!(announced.revision, renewed.revision);
    assert_eq!((announced.value.as_ref(), announced.expires), (b"1".as_slice(), Some(later)));
    fixture.let_pass(30);
    assert_eq!(*announced, backend.get(&key("a")).await.unwrap());
    let gone = item("gone", "").lease();
    assert!(backend.keep_alive(&gone, later).await.unwrap_err().is_not_found());
}

pub async fn atomic_writes_are_checked(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let put = |name: &str| ConditionalAction::put(key(name), Condition::Whatever, "x", None);
    let refused = [
        vec![],
        vec![put("a"), put("a")],
        vec![ConditionalAction::require(key("a"), Condition::NotExists)],
        vec![put("a"), ConditionalAction::require(key("b"), Condition::Whatever)],
        vec![ConditionalAction::put(key("a"), Condition::Whatever, "", None)],
        (0..65).map(|number| put(&number.to_string())).collect(),
    ];
    for actions in refused {
        let error = backend.atomic_write(actions).await.unwrap_err();
        assert!(matches!(error, BackendError::BadParameter(_)), "{error}");
    }
    backend.atomic_write((0..64).map(|number| put(&number.to_string())).collect()).await.unwrap();
}

pub async fn atomic_writes_happen_all_or_not_at_all(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let old = backend.put(item("old", "1")).await.unwrap();
    backend.put(item("doomed", "1")).await.unwrap();
    let write = |exists: &str, revision: &str| {
        vec![
            ConditionalAction::put(key("new"), Condition::NotExists, "2", Some(fixture.soon())),
            ConditionalAction::put(key("old"), Condition::Revision(revision.to_owned()), "2", None),
            ConditionalAction::delete(key("doomed"), Condition::Exists),
            ConditionalAction::delete(key("never was"), Condition::Whatever),
            ConditionalAction::require(key(exists), Condition::Exists),
        ]
    };
    for (exists, revision) in [("missing", old.as_str()), ("old2", "wrong")] {
        backend.put(item("old2", "1")).await.unwrap();
        let refused = backend.atomic_write(write(exists, revision)).await.unwrap_err();
        assert!(refused.is_compare_failed());
        assert_eq!(value(backend, "new").await, None);
        assert_eq!(value(backend, "old").await.unwrap(), "1");
    }
    let mut watcher = watch(backend).await;
    let revision = backend.atomic_write(write("old2", &old)).await.unwrap();
    assert_eq!(value(backend, "doomed").await, None);
    for name in ["new", "old"] {
        let stored = backend.get(&key(name)).await.unwrap();
        assert_eq!((stored.value.as_ref(), &stored.revision), (b"2".as_slice(), &revision));
    }
    let mut changed = Vec::new();
    for _ in 0..3 {
        changed.push(next(&mut watcher).await.key().unwrap().name().to_owned());
    }
    changed.sort();
    assert_eq!(changed, ["doomed", "new", "old"]);
}

pub async fn watchers_see_changes_in_order(fixture: &Fixture) {
    let backend = &*fixture.backend;
    backend.put(item("before", "x")).await.unwrap();
    let mut watcher = watch(backend).await;
    let mut revisions = Vec::new();
    for _ in 0..50 {
        revisions.push(backend.put(item("a", "x")).await.unwrap());
    }
    backend.delete(&key("a")).await.unwrap();
    for revision in revisions {
        let Event::Put(announced) = next(&mut watcher).await else { panic!("a put event") };
        assert_eq!(*announced, item("a", "x").with_revision(revision));
    }
    assert_eq!(next(&mut watcher).await, Event::Delete(Arc::new(key("a"))));
}

pub async fn watchers_see_only_what_they_asked_for(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let prefixes = [Key::root("/things/a"), Key::root("/roles")];
    let mut watcher = backend.watch(Watch::new("test", prefixes)).await.unwrap();
    for path in ["/things/b", "/things/ab", "/things/a", "/rolesx/1", "/roles/1/params", "/other"] {
        backend.put(Item::new(Key::root(path), "x")).await.unwrap();
    }
    assert!(backend.create(item("a", "refused")).await.is_err());
    backend.delete(&Key::root("/roles/1/params")).await.unwrap();
    assert_eq!(next(&mut watcher).await, Event::Init);
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(next(&mut watcher).await.key().unwrap().to_string());
    }
    assert_eq!(keys, ["/things/a", "/roles/1/params", "/roles/1/params"]);
}

pub async fn an_acknowledged_write_is_visible_and_announced(fixture: &Fixture) {
    let backend = Arc::clone(&fixture.backend);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            let key = key(&number.to_string());
            let watch = Watch::new("own", [key.clone()]);
            let mut watcher = backend.watch(watch).await.unwrap();
            assert_eq!(next(&mut watcher).await, Event::Init);
            for round in 0..10 {
                let item = Item::new(key.clone(), format!("{round}"));
                let revision = backend.put(item).await.unwrap();
                assert_eq!(backend.get(&key).await.unwrap().revision, revision);
                let Event::Put(announced) = next(&mut watcher).await else { panic!("a put event") };
                assert_eq!(announced.revision, revision);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

pub async fn of_many_concurrent_updates_each_revision_wins_once(fixture: &Fixture) {
    let backend = Arc::clone(&fixture.backend);
    backend.put(item("counter", "0")).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            let mut done = 0;
            while done < 5 {
                let current = backend.get(&key("counter")).await.unwrap();
                let count: u64 = std::str::from_utf8(&current.value).unwrap().parse().unwrap();
                let next = Item { value: Bytes::from((count + 1).to_string()), ..current };
                match backend.conditional_update(next).await {
                    Ok(_) => done += 1,
                    Err(error) => assert!(error.is_compare_failed(), "{error}"),
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(value(&*backend, "counter").await.unwrap(), "40");
}

pub async fn closing_ends_everything(fixture: &Fixture) {
    let backend = &*fixture.backend;
    let mut watcher = watch(backend).await;
    backend.put(item("a", "1")).await.unwrap();
    backend.close().await;
    assert!(matches!(backend.put(item("b", "1")).await, Err(BackendError::Closed)));
    assert!(matches!(backend.watch(Watch::new("late", [])).await, Err(BackendError::Closed)));
    assert_eq!(next(&mut watcher).await.key(), Some(&key("a")));
    assert!(matches!(watcher.recv().await, Err(BackendError::Closed)));
    backend.close().await;
}
