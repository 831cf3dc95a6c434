#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tempfile::TempDir;

use super::*;
use crate::{Backend, ManualClock, Watch, Watcher, conformance::Fixture};

/// A server of the machine's etcd in a temporary folder, for all tests of this process.
struct Server {
    peer: String,
    made: AtomicU32,
    /// The server and its folder go when this is closed, however this process ends.
    _leash: Child,
}

static SERVER: LazyLock<Option<Server>> = LazyLock::new(Server::start);

/// Runs a server until standard input ends, then removes its folder.
const ON_LEASH: &str = r#"
    etcd --data-dir "$1" --listen-client-urls "$2" --advertise-client-urls "$2" --listen-peer-urls "$3" \
        --initial-advertise-peer-urls "$3" --initial-cluster "default=$3" --unsafe-no-fsync >/dev/null 2>&1 &
    cat >/dev/null; kill -KILL $!; wait; rm -rf "$1"
"#;

/// An address nobody listens at.
fn free() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

impl Server {
    fn start() -> Option<Self> {
        Command::new("etcd").arg("--version").stdout(Stdio::null()).status().ok()?;
        let (folder, peer) = (TempDir::new().unwrap().keep(), free());
        let mut command = Command::new("sh");
        command.args(["-c", ON_LEASH, "server"]).arg(folder).arg(&peer).arg(free());
        let leash = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some(Self { peer, made: AtomicU32::new(0), _leash: leash })
    }

    /// A prefix nobody has used.
    fn options(&self) -> EtcdOptions {
        let prefix = format!("/test{}/", self.made.fetch_add(1, Ordering::Relaxed));
        EtcdOptions { peers: vec![self.peer.clone()], prefix, ..EtcdOptions::default() }
    }
}

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

fn key(name: &str) -> Key {
    Key::root("/things").child(name).unwrap()
}

async fn next(watcher: &mut Watcher) -> Event {
    tokio::time::timeout(Duration::from_secs(30), watcher.recv()).await.expect("an event in time").unwrap()
}

#[tokio::test]
async fn processes_hear_of_each_others_changes_in_one_order() {
    let Some((a, b, _)) = two().await else { return };
    let mut watchers = [a.watch(Watch::new("a", [])).await.unwrap(), b.watch(Watch::new("b", [])).await.unwrap()];
    for number in 0..40 {
        let writer = if number % 2 == 0 { &a } else { &b };
        let value = format!("{number}");
        writer.put(Item::new(key("shared"), value.clone())).await.unwrap();
        assert_eq!(a.get(&key("shared")).await.unwrap().value, value);
        assert_eq!(b.get(&key("shared")).await.unwrap().value, value);
    }
    for watcher in &mut watchers {
        assert_eq!(next(watcher).await, Event::Init);
        for number in 0..40 {
            let Event::Put(item) = next(watcher).await else { panic!("expected a put") };
            assert_eq!(item.value, format!("{number}"));
        }
    }
}

#[tokio::test]
async fn of_many_writers_in_two_processes_each_revision_wins_once() {
    let Some((a, b, _)) = two().await else { return };
    a.create(Item::new(key("counter"), "0")).await.unwrap();
    let count = |backend: Arc<Etcd>| async move {
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
    tokio::join!(count(a.clone()), count(b.clone()), count(a.clone()), count(b));
    assert_eq!(a.get(&key("counter")).await.unwrap().value, "80");
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
        peers: vec![free()],
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
