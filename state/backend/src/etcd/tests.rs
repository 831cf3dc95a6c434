#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tempfile::TempDir;

use super::*;
use crate::{
    Action, Backend, Condition, ConditionalAction, ManualClock, Watch,
    conformance::Fixture,
    shared::{self, key, lacks, next},
};

mod server;

use server::{Server, free};

/// For all tests of this process that want nothing particular.
static SERVER: LazyLock<Option<Server>> = LazyLock::new(|| Server::start("http", &[]));

async fn open_at(options: EtcdOptions, clock: ManualClock) -> Arc<Etcd> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match Etcd::open_with_clock(options.clone(), Arc::new(clock.clone())).await {
            Ok(etcd) => return Arc::new(etcd),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Without a server on this machine the suite runs on memory, which proves nothing about etcd but passes.
async fn open(clock: ManualClock) -> Fixture {
    match &*SERVER {
        Some(server) => Fixture::new(open_at(server.options(), clock.clone()).await, clock),
        None => Fixture::new(Arc::new(crate::Memory::with_clock(Arc::new(clock.clone()))), clock),
    }
}

crate::conformance_tests!(open);

/// Two processes below one new prefix.
async fn two() -> Option<(Arc<Etcd>, Arc<Etcd>, EtcdOptions)> {
    let options = SERVER.as_ref()?.options();
    let clock = ManualClock::default();
    let (a, b) = tokio::join!(open_at(options.clone(), clock.clone()), open_at(options.clone(), clock));
    Some((a, b, options))
}

#[tokio::test]
async fn processes_hear_of_each_others_changes_in_one_order() {
    let Some((a, b, _)) = two().await else { return };
    shared::hear_of_each_other(&*a, &*b).await;
}

#[tokio::test]
async fn of_many_writers_in_two_processes_each_revision_wins_once() {
    let Some((a, b, _)) = two().await else { return };
    shared::count_together(&*a, &*b).await;
}

#[tokio::test]
async fn a_lock_that_a_dead_process_left_is_free_after_its_lease() {
    let Some((a, _, options)) = two().await else { return };
    let client = options.connect().await.unwrap();
    let lease = client.lease().lease_grant(LeaseGrantRequest { ttl: 2, id: 0 }).await.unwrap().into_inner().id;
    let taken = PutRequest { key: options.lock(), value: b"somebody".to_vec(), lease };
    client.kv().put(taken).await.unwrap();
    a.put(Item::new(key("late"), "v")).await.unwrap();
    let question = RangeRequest { key: options.lock(), ..RangeRequest::default() };
    assert!(read::ask(&client, question).await.unwrap().kvs.is_empty());
}

#[tokio::test]
async fn a_process_that_missed_changes_says_so() {
    let Some((a, b, options)) = two().await else { return };
    let mut watcher = b.watch(Watch::new("b", [])).await.unwrap();
    assert_eq!(next(&mut watcher).await, Event::Init);
    // The writer of `b` has a watch that begins where everything is forgotten.
    for number in 0..3 {
        a.put(Item::new(key("x"), format!("{number}"))).await.unwrap();
    }
    let client = options.connect().await.unwrap();
    let question = RangeRequest { key: options.fence(), ..RangeRequest::default() };
    let revision = read::ask(&client, question).await.unwrap().header.unwrap().revision;
    client.kv().compact(api::CompactionRequest { revision }).await.unwrap();
    b.put(Item::new(key("y"), "own")).await.unwrap();
    assert_eq!(b.get(&key("x")).await.unwrap().value, "2");
    // Whether it was too late for its watch or not: what is told is right, or it is told that it is not.
    loop {
        match tokio::time::timeout(Duration::from_secs(30), watcher.recv()).await.expect("an event in time") {
            Ok(Event::Put(item)) if item.key == key("y") => break,
            Ok(_) => {}
            Err(error) => {
                assert!(
                    matches!(error, BackendError::WatcherTooSlow { .. } | BackendError::ConnectionProblem(_)),
                    "{error}"
                );
                break;
            }
        }
    }
}

#[tokio::test]
async fn values_that_etcd_does_not_take_are_refused_alone() {
    let Some((a, _, _)) = two().await else { return };
    let large = a.put(Item::new(key("large"), vec![7; MAX_VALUE + 1]));
    let (large, small) = tokio::join!(large, a.put(Item::new(key("small"), "v")));
    assert!(matches!(large, Err(BackendError::BadParameter(_))), "{large:?}");
    small.unwrap();
    a.put(Item::new(key("longest"), vec![7; MAX_VALUE])).await.unwrap();
    assert_eq!(a.get(&key("longest")).await.unwrap().value.len(), MAX_VALUE);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_secrets() {
    let options = EtcdOptions {
        peers: vec![format!("http://{}", free())],
        dial_timeout: Some(Duration::from_millis(200)),
        username: Some("me".to_owned()),
        ..EtcdOptions::default()
    };
    let error = Etcd::open(options.clone()).await.unwrap_err();
    assert_eq!(error.kind(), wire::error::ErrorKind::ConnectionProblem, "{error}");
    assert!(!format!("{options:?}").contains("me\""));
}

#[tokio::test]
async fn after_a_sync_the_writes_of_the_other_process_are_known() {
    let Some((a, b, _)) = two().await else { return };
    shared::know_after_a_sync(&*a, &*b).await;
}

/// Writes as another process does that has a fence but no lock.
async fn write_beside(options: &EtcdOptions, items: Vec<RequestOp>) {
    let client = options.connect().await.unwrap();
    let mut success = items;
    success.push(put(options.fence(), Uuid::new_v4().as_bytes().to_vec(), 0));
    let request = TxnRequest { compare: Vec::new(), success, failure: Vec::new() };
    client.kv().txn(request).await.unwrap();
}

#[tokio::test]
async fn changes_that_cannot_be_read_are_missed_and_not_passed_over() {
    let Some((_, b, options)) = two().await else { return };
    let mut watcher = b.watch(Watch::new("b", [])).await.unwrap();
    assert_eq!(next(&mut watcher).await, Event::Init);
    let item = Item::new(key("first"), "v").with_revision(Uuid::new_v4().to_string());
    let (first, second) = (options.place(&key("first")), options.place(&key("second")));
    let bytes = value::encode(&item).unwrap();
    write_beside(&options, vec![put(first, bytes, 0), put(second.clone(), b"nonsense".to_vec(), 0)]).await;
    for _ in 0..3 {
        // Neither the changes nor, from then on, what is stored.
        assert!(b.sync().await.is_err());
    }
    write_beside(&options, vec![delete(second)]).await;
    b.sync().await.unwrap();
    let ended = watcher.recv().await.unwrap_err();
    assert_eq!(ended.kind(), crate::ErrorKind::ConnectionProblem, "{ended}");
    assert_eq!(b.get(&key("first")).await.unwrap().value, "v");
}

/// The writing side alone, on a thread where it may wait.
async fn with_store<T: Send + 'static>(work: impl FnOnce(EtcdStore) -> T + Send + 'static) -> Option<T> {
    let Some(server) = &*SERVER else { return None };
    let options = server.options();
    open_at(options.clone(), ManualClock::default()).await.close().await;
    let work = move || work(EtcdStore::open(options).unwrap());
    Some(tokio::task::spawn_blocking(work).await.unwrap())
}

fn item(name: &str, bytes: usize) -> Item {
    Item::new(key(name), vec![7; bytes]).with_revision(Uuid::new_v4().to_string())
}

#[tokio::test]
async fn parts_that_were_committed_before_one_failed_are_told() {
    with_store(|mut store| {
        assert!(store.begin().unwrap().events.is_empty());
        for number in 0..MAX_OPERATIONS + 5 {
            store.put(&item(&format!("{number:03}"), 1), Utc::now()).unwrap();
        }
        let large = item("too-large", 2 << 20);
        store.changed.insert(large.key.clone(), Some(large));
        store.commit(&[]).unwrap_err();
        store.rollback();
        let foreign = store.look().unwrap();
        assert!(!foreign.missed);
        assert_eq!(foreign.events.len(), MAX_OPERATIONS + 5);
        let stored = store.items(&KeyRange::prefix("/things/"), 0).unwrap();
        assert_eq!(stored.len(), foreign.events.len());
        assert!(store.begin().unwrap().events.is_empty(), "they are told once, and the lock is free");
        store.rollback();
    })
    .await;
}

#[tokio::test]
async fn what_belongs_together_is_committed_in_one_part() {
    with_store(|mut store| {
        store.begin().unwrap();
        for number in 0..2 * MAX_OPERATIONS {
            store.put(&item(&format!("m{number:03}"), 1), Utc::now()).unwrap();
        }
        let (first, last) = (item("a", 1), item("z", 1));
        store.together([&first.key, &last.key].into_iter());
        store.put(&first, Utc::now()).unwrap();
        store.put(&last, Utc::now()).unwrap();
        store.commit(&[]).unwrap();
        let made = |name: &str| {
            let question = RangeRequest { key: store.options.place(&key(name)), ..RangeRequest::default() };
            store.run(read::ask(&store.client, question)).unwrap().kvs[0].mod_revision
        };
        assert_eq!(made("a"), made("z"));
        assert_ne!(made("a"), made("m239"));
    })
    .await;
}

#[tokio::test]
async fn an_atomic_write_that_does_not_fit_into_a_transaction_is_refused() {
    let Some((a, _, _)) = two().await else { return };
    let put = |name: &str, bytes: usize| ConditionalAction {
        key: key(name),
        condition: Condition::NotExists,
        action: Action::Put { value: vec![7; bytes].into(), expires: None },
    };
    let half = MAX_VALUE / 2;
    let refused = a.atomic_write(vec![put("a", half), put("b", half + 1)]).await.unwrap_err();
    assert!(matches!(&refused, BackendError::BadParameter(text) if text.contains("at most 1048576")), "{refused}");
    assert!(a.get(&key("a")).await.unwrap_err().is_not_found());
    a.atomic_write(vec![put("a", half), put("b", half)]).await.unwrap();
}

#[tokio::test]
async fn many_expired_items_are_removed_batch_after_batch_without_a_pause() {
    let Some(server) = &*SERVER else { return };
    let clock = ManualClock::default();
    let etcd = open_at(server.options(), clock.clone()).await;
    let ends = clock.now() + chrono::TimeDelta::seconds(10);
    let count = 12 * MAX_OPERATIONS;
    let items = (0..count).map(|number| etcd.put(Item::new(key(&format!("{number}")), "v").with_expires(ends)));
    futures::future::try_join_all(items).await.unwrap();
    let mut watcher = etcd.watch(Watch::new("expiry", [])).await.unwrap();
    assert_eq!(next(&mut watcher).await, Event::Init);
    let started = Instant::now();
    clock.advance(Duration::from_secs(20));
    for _ in 0..count {
        assert!(matches!(next(&mut watcher).await, Event::Delete(_)));
    }
    // There is a second between looks at the clock.
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_server_that_has_lost_the_others_is_left_for_another() {
    let Some(server) = &*SERVER else { return };
    let options = server.options();
    drop(open_at(options.clone(), ManualClock::default()).await);
    let (alone, asked) = server::without_leader().await;
    let options = EtcdOptions { peers: vec![alone, options.peers[0].clone()], ..options };
    let asked = || asked.load(Ordering::Relaxed);

    // What changes nothing is asked of the next one.
    let client = options.connect().await.unwrap();
    for _ in 0..3 {
        let question = RangeRequest { key: options.fence(), ..RangeRequest::default() };
        read::ask(&client, question).await.unwrap();
        assert_eq!(asked(), 1);
    }
    // What changes something is told as failed, and the next one is used from then on.
    let client = options.connect().await.unwrap();
    let wish = LeaseGrantRequest { ttl: 2, id: 0 };
    let grant = || client.call(|client| async move { client.lease().lease_grant(wish).await });
    let refused = grant().await.unwrap_err();
    assert!(refused.to_string().contains("no leader"), "{refused}");
    assert_eq!(refused.kind(), crate::ErrorKind::ConnectionProblem);
    grant().await.unwrap();
    assert_eq!(asked(), 2);

    let etcd = Etcd::open(options).await.unwrap();
    etcd.put(Item::new(key("there"), "v")).await.unwrap();
    assert_eq!(etcd.get(&key("there")).await.unwrap().value, "v");
}

#[tokio::test]
async fn a_server_with_tls_takes_the_certificates_of_its_authority() {
    let folder = TempDir::new().unwrap();
    let Some(server) = server::with_tls(folder.path()) else { return };
    let file = |name: &str| Some(folder.path().join(name));
    let options = EtcdOptions {
        tls_ca_file: file("ca.pem"),
        tls_cert_file: file("client.pem"),
        tls_key_file: file("client.key"),
        ..server.options()
    };
    let etcd = open_at(options.clone(), ManualClock::default()).await;
    etcd.put(Item::new(key("sealed"), "v")).await.unwrap();
    assert_eq!(etcd.get(&key("sealed")).await.unwrap().value, "v");

    let without = EtcdOptions { tls_cert_file: None, tls_key_file: None, ..options.clone() };
    let of_another =
        EtcdOptions { tls_cert_file: file("stranger.pem"), tls_key_file: file("stranger.key"), ..options.clone() };
    let unknown_server = EtcdOptions { tls_ca_file: file("other.pem"), ..options };
    for wrong in [without, of_another, unknown_server] {
        let error = Etcd::open(wrong).await.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::ConnectionProblem, "{error}");
    }
}

#[tokio::test]
async fn a_login_with_a_password_is_renewed_when_the_server_has_ended_it() {
    let folder = TempDir::new().unwrap();
    let Some(server) = Server::start("http", &[]) else { return };
    let options = server.options();
    drop(open_at(options.clone(), ManualClock::default()).await);
    server.protect(&options.prefix, "sesame").await;
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        Some(folder.path().join(name))
    };
    let stranger = Etcd::open(options.clone()).await.unwrap_err();
    assert!(stranger.to_string().contains("user name is empty"), "{stranger}");
    let wrong =
        EtcdOptions { username: Some("us".into()), password_file: write("wrong", "guess\n"), ..options.clone() };
    let refused = Etcd::open(wrong).await.unwrap_err().to_string();
    assert!(refused.contains("authentication failed") && !refused.contains("guess"), "{refused}");

    let options = EtcdOptions { username: Some("us".into()), password_file: write("right", "sesame\n"), ..options };
    let etcd = open_at(options.clone(), ManualClock::default()).await;
    let mut watcher = etcd.watch(Watch::new("a", [])).await.unwrap();
    assert_eq!(next(&mut watcher).await, Event::Init);
    for round in 0..3 {
        etcd.put(Item::new(key("x"), format!("{round}"))).await.unwrap();
        assert_eq!(etcd.get(&key("x")).await.unwrap().value, format!("{round}"));
        assert!(matches!(next(&mut watcher).await, Event::Put(_)));
        server.end_logins("sesame").await;
    }
    // Below another prefix this user may do nothing.
    let elsewhere = EtcdOptions { prefix: "/elsewhere/".into(), ..options };
    let refused = Etcd::open(elsewhere).await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
}
