//! What two processes on one storage have to do, whatever the storage is; and helpers of its tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{sync::Arc, time::Duration};

use crate::{Backend, Event, Item, Key, Watch, Watcher};

pub(crate) fn key(name: &str) -> Key {
    Key::root("/things").child(name).unwrap()
}

pub(crate) async fn next(watcher: &mut Watcher) -> Event {
    tokio::time::timeout(Duration::from_secs(30), watcher.recv()).await.expect("an event in time").unwrap()
}

/// For a test that lacks a program; where everything has to be there, it fails.
pub(crate) fn lacks(what: &str) {
    assert!(std::env::var_os("TESTS_COMPLETE").is_none(), "{what} is missing");
    eprintln!("skipped: {what} is missing");
}

/// Processes hear of each other's changes in one order.
pub(crate) async fn hear_of_each_other(a: &dyn Backend, b: &dyn Backend) {
    let mut watchers = [a.watch(Watch::new("a", [])).await.unwrap(), b.watch(Watch::new("b", [])).await.unwrap()];
    for number in 0..40 {
        let writer = if number % 2 == 0 { a } else { b };
        let value = format!("{number}");
        writer.put(Item::new(key("shared"), value.clone())).await.unwrap();
        assert_eq!(a.get(&key("shared")).await.unwrap().value, value);
        assert_eq!(b.get(&key("shared")).await.unwrap().value, value);
    }
    a.delete(&key("shared")).await.unwrap();
    for watcher in &mut watchers {
        assert_eq!(next(watcher).await, Event::Init);
        for number in 0..40 {
            let Event::Put(item) = next(watcher).await else { panic!("expected a put") };
            assert_eq!(item.value, format!("{number}"));
        }
        assert_eq!(next(watcher).await, Event::Delete(Arc::new(key("shared"))));
    }
}

/// Of many writers in two processes each revision wins once.
pub(crate) async fn count_together(a: &dyn Backend, b: &dyn Backend) {
    a.create(Item::new(key("counter"), "0")).await.unwrap();
    let count = async |backend: &dyn Backend| {
        for _ in 0..20 {
            loop {
                let item = backend.get(&key("counter")).await.unwrap();
                let value: u32 = std::str::from_utf8(&item.value).unwrap().parse().unwrap();
                match backend.conditional_update(Item { value: (value + 1).to_string().into(), ..item }).await {
                    Ok(_) => break,
                    Err(error) => assert!(error.is_compare_failed(), "{error}"),
                }
            }
        }
    };
    tokio::join!(count(a), count(b), count(a), count(b));
    assert_eq!(a.get(&key("counter")).await.unwrap().value, "80");
}

/// After a sync the writes of the other process are known.
pub(crate) async fn know_after_a_sync(a: &dyn Backend, b: &dyn Backend) {
    let mut watcher = b.watch(Watch::new("b", [])).await.unwrap();
    assert_eq!(watcher.try_recv().unwrap(), Some(Event::Init));
    for number in 0..50 {
        a.put(Item::new(key("told"), format!("{number}"))).await.unwrap();
        let (first, second) = tokio::join!(b.sync(), b.sync());
        first.and(second).unwrap();
        let Some(Event::Put(item)) = watcher.try_recv().unwrap() else { panic!("{number} is not known yet") };
        assert_eq!(item.value, format!("{number}"));
    }
}
