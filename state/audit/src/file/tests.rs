#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tempfile::TempDir;
use wire::{
    events::{Exec, SessionData, SessionMetadata, UserMetadata},
    time::timestamp,
};

use super::*;
use crate::{Log, Order, codes};

struct Fixture {
    dir: TempDir,
    now: Arc<parking_lot::Mutex<DateTime<Utc>>>,
    log: Log,
}

fn noon() -> DateTime<Utc> {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

fn open(dir: &TempDir, now: &Arc<parking_lot::Mutex<DateTime<Utc>>>) -> Log {
    let shared = now.clone();
    let clock = Clock::from_fn(move || *shared.lock());
    let log = FileLog::open(FileLogConfig::in_data_dir(dir.path(), "host-1"), clock.clone()).unwrap();
    Log::new(Arc::new(log), "one", clock)
}

impl Fixture {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let now = Arc::new(parking_lot::Mutex::new(noon()));
        let log = open(&dir, &now);
        Self { dir, now, log }
    }

    fn file(&self, day: &str) -> PathBuf {
        self.dir.path().join("log/host-1").join(format!("{day}.00:00:00.log"))
    }

    async fn emit_at(&self, time: DateTime<Utc>, command: &str) {
        let mut exec = Exec::default();
        exec.command.get_or_insert_default().command = command.to_owned();
        let mut event = codes::EXEC.event(exec);
        event.metadata_mut().unwrap().time = Some(timestamp(time));
        self.log.emit(event).await.unwrap();
    }

    async fn commands(&self, query: Query) -> Vec<String> {
        self.page(query).await.0
    }

    async fn page(&self, query: Query) -> (Vec<String>, String) {
        let page = self.log.search(query).await.unwrap();
        (page.events.iter().map(|e| e.fields["command"].as_str().unwrap().to_owned()).collect(), page.next)
    }
}

fn ever() -> Query {
    Query::between(noon() - TimeDelta::days(3), noon() + TimeDelta::days(3))
}

#[tokio::test]
async fn a_day_has_its_file_and_the_link_follows() {
    let f = Fixture::new();
    f.emit_at(noon(), "first").await;
    *f.now.lock() = noon() + TimeDelta::days(1);
    f.emit_at(noon() + TimeDelta::days(1), "second").await;
    f.emit_at(noon(), "late").await;
    let first = fs::read_to_string(f.file("2026-01-31")).unwrap();
    assert!(first.lines().count() == 2 && first.contains("late") && first.ends_with("}\n"));
    let second = f.file("2026-02-01");
    assert_eq!(fs::read_to_string(&second).unwrap().lines().count(), 1);
    let link = f.dir.path().join("log/events.log");
    assert_eq!(fs::canonicalize(link).unwrap(), fs::canonicalize(&second).unwrap());
    assert_eq!(fs::metadata(&second).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::metadata(second.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o770);
}

#[tokio::test]
async fn a_wrong_clock_does_not_make_files_of_other_centuries() {
    let f = Fixture::new();
    f.emit_at(noon() + TimeDelta::days(36_500), "future").await;
    f.emit_at(noon() - TimeDelta::days(3_650), "past").await;
    assert_eq!(fs::read_to_string(f.file("2026-01-31")).unwrap().lines().count(), 2);
    let folder = fs::read_dir(f.dir.path().join("log/host-1")).unwrap();
    assert_eq!(folder.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "log")).count(), 1);
}

#[tokio::test]
async fn events_emitted_together_are_all_stored() {
    let f = Fixture::new();
    let emit = |i: i64| {
        let log = f.log.clone();
        let mut event = codes::EXEC.event(Exec::default());
        event.metadata_mut().unwrap().index = i;
        tokio::spawn(async move { log.emit(event).await.unwrap() })
    };
    let tasks: Vec<_> = (0..3000).map(emit).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let text = fs::read_to_string(f.file("2026-01-31")).unwrap();
    let seen: BTreeSet<i64> =
        text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["ei"].as_i64().unwrap()).collect();
    assert_eq!(seen.len(), 3000);
}

#[tokio::test]
async fn half_a_line_left_by_a_crash_is_removed_and_a_whole_one_kept() {
    let f = Fixture::new();
    f.emit_at(noon(), "before").await;
    let Fixture { dir, now, log } = f;
    drop(log);
    let path = dir.path().join("log/host-1/2026-01-31.00:00:00.log");
    let before = fs::read(&path).unwrap();
    let whole = br#"{"ei":0,"event":"exec","code":"T3002I","time":"2026-01-31T12:00:01Z","command":"whole"}"#;
    for cut in 0..=whole.len() {
        fs::write(&path, [&before[..], &whole[..cut]].concat()).unwrap();
        let log = open(&dir, &now);
        let page = log.search(Query { order: Order::Ascending, ..ever() }).await.unwrap();
        assert_eq!(page.events.len(), if cut == whole.len() { 2 } else { 1 }, "cut at {cut}");
        log.emit(codes::EXEC.event(Exec::default())).await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()), "cut at {cut}: {text}");
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_the_log_goes_on_when_there_is_room() {
    let f = Fixture::new();
    let tomorrow = f.file("2026-02-01");
    std::os::unix::fs::symlink("/dev/full", &tomorrow).unwrap();
    *f.now.lock() = noon() + TimeDelta::days(1);
    let refused = f.log.emit(codes::EXEC.event(Exec::default())).await.unwrap_err();
    assert!(refused.to_string().contains("No space left"), "{refused}");
    fs::remove_file(&tomorrow).unwrap();
    f.log.emit(codes::EXEC.event(Exec::default())).await.unwrap();
    assert_eq!(fs::read_to_string(&tomorrow).unwrap().lines().count(), 1);
    assert!(!fs::symlink_metadata(&tomorrow).unwrap().is_symlink());
}

#[tokio::test]
async fn pages_in_both_orders_hold_every_event_once() {
    let f = Fixture::new();
    for i in 0..25_i64 {
        // Out of order, over three days, and several at the same moment.
        let time = noon() - TimeDelta::hours((i * 7) % 60 / 2 * 2);
        f.emit_at(time, &i.to_string()).await;
    }
    for order in [Order::Ascending, Order::Descending] {
        let all = f.commands(Query { order, ..ever() }).await;
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 25);
        let (mut paged, mut key) = (Vec::new(), String::new());
        loop {
            let (events, next) = f.page(Query { order, limit: 4, start_key: key, ..ever() }).await;
            paged.extend(events);
            if next.is_empty() {
                break;
            }
            key = next;
        }
        assert_eq!(paged, all, "{order:?}");
    }
    let mut ascending = f.commands(Query { order: Order::Ascending, ..ever() }).await;
    ascending.reverse();
    assert_eq!(ascending, f.commands(ever()).await);
}

#[tokio::test]
async fn a_key_stays_good_while_events_arrive_and_after_a_restart() {
    let f = Fixture::new();
    for i in 0..3 {
        f.emit_at(noon() + TimeDelta::seconds(i), &i.to_string()).await;
    }
    let (_, key) = f.page(Query { order: Order::Ascending, limit: 2, ..ever() }).await;
    f.emit_at(noon() + TimeDelta::seconds(9), "9").await;
    let Fixture { dir, now, log } = f;
    drop(log);
    let f = Fixture { log: open(&dir, &now), dir, now };
    assert_eq!(f.commands(Query { order: Order::Ascending, start_key: key, ..ever() }).await, ["2", "9"]);
}

#[tokio::test]
async fn a_search_is_narrowed_by_time_type_user_session_and_filter() {
    let f = Fixture::new();
    f.emit_at(noon() - TimeDelta::hours(2), "early").await;
    f.emit_at(noon(), "now").await;
    let data = SessionData {
        session: Some(SessionMetadata { session_id: "s1".into(), ..Default::default() }),
        user: Some(UserMetadata { user: "alice".into(), ..Default::default() }),
        ..Default::default()
    };
    f.log.emit(codes::SESSION_DATA.event(data)).await.unwrap();
    let names = async |query: Query| {
        let page = f.log.search(query).await.unwrap();
        page.events.iter().map(|e| e.event().name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(Query::between(noon() - TimeDelta::hours(3), noon() - TimeDelta::hours(1))).await, ["exec"]);
    assert_eq!(names(ever().of_types(["session.data"])).await, ["session.data"]);
    assert_eq!(names(Query { session: Some("s1".into()), ..ever() }).await, ["session.data"]);
    assert_eq!(names(Query { user: Some("alice".into()), ..ever() }).await, ["session.data"]);
    assert!(names(Query { user: Some("bob".into()), ..ever() }).await.is_empty());
    let filter: crate::Filter = Arc::new(|e| e.get("command").and_then(|c| c.as_str()) == Some("early"));
    assert_eq!(f.commands(Query { filter: Some(filter), ..ever() }).await, ["early"]);
}

#[tokio::test]
async fn events_of_one_moment_follow_their_index_in_the_session() {
    let f = Fixture::new();
    for index in [2, 0, 1] {
        let mut event = codes::SESSION_DATA.event(SessionData::default());
        event.session_mut().unwrap().session_id = "s".into();
        event.metadata_mut().unwrap().index = index;
        f.log.emit(event).await.unwrap();
    }
    let page = f.log.search(Query { order: Order::Ascending, ..ever() }).await.unwrap();
    assert_eq!(page.events.iter().map(|e| e.event().index()).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn old_files_and_files_of_other_hosts_are_found() {
    let f = Fixture::new();
    let other = f.dir.path().join("log/host-2");
    fs::create_dir(&other).unwrap();
    for folder in [&other, &f.dir.path().join("log/host-1")] {
        let line =
            r#"{"ei": 0, "event": "user.login", "code": "T1000I", "time": "2021-03-04T05:06:07Z", "user": "old"}"#;
        fs::write(folder.join("2021-03-04.00:00:00.log"), format!("{line}\n")).unwrap();
    }
    for not_logs in ["records", "upload"] {
        fs::create_dir(f.dir.path().join("log").join(not_logs)).unwrap();
        fs::write(f.dir.path().join("log").join(not_logs).join("2021-03-04.00:00:00.log"), "{}\n").unwrap();
    }
    let (from, to) = ("2021-03-04T00:00:00Z".parse().unwrap(), "2021-03-05T00:00:00Z".parse().unwrap());
    let page = f.log.search(Query::between(from, to)).await.unwrap();
    assert_eq!(page.events.len(), 2);
    assert_eq!(page.events[0].event().user().unwrap().user, "old");
}

#[tokio::test]
async fn the_newest_page_is_found_without_reading_old_files() {
    let f = Fixture::new();
    for minute in 0..10 {
        f.emit_at(noon() + TimeDelta::minutes(minute), &format!("{minute}")).await;
    }
    // Whoever reads this fails.
    fs::create_dir(f.file("2026-01-29")).unwrap();
    let newest = Query { limit: 3, ..ever() };
    assert_eq!(f.commands(newest.clone()).await, ["9", "8", "7"]);
    let oldest = Query { order: Order::Ascending, ..newest };
    assert!(f.log.search(oldest).await.is_err());
}

#[tokio::test]
async fn pages_are_bounded() {
    let f = Fixture::new();
    for _ in 0..30 {
        f.emit_at(noon(), &"x".repeat(50_000)).await;
    }
    let (events, next) = f.page(Query { limit: 100, ..ever() }).await;
    assert!(events.len() < 25 && !next.is_empty(), "{} events", events.len());
    let refused = f.log.search(Query { limit: 10_001, ..ever() }).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{refused}");
    for key in ["x", "1:zz:0:0:f", ":::::"] {
        assert!(f.log.search(Query { start_key: key.into(), ..ever() }).await.is_err(), "{key}");
    }
}

/// Run by hand: `cargo test -p audit --release -- --ignored --nocapture speed`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, asserts nothing"]
async fn speed_of_emitting_and_searching() {
    let f = Fixture::new();
    let start = std::time::Instant::now();
    let emitters: Vec<_> = (0..500)
        .map(|_| {
            let log = f.log.clone();
            tokio::spawn(async move {
                for i in 0..200 {
                    let mut event = codes::EXEC.event(Exec::default());
                    event.metadata_mut().unwrap().time = Some(timestamp(noon() - TimeDelta::seconds(200 - i)));
                    log.emit(event).await.unwrap();
                }
            })
        })
        .collect();
    for emitter in emitters {
        emitter.await.unwrap();
    }
    println!("{:.0} events/s", 100_000.0 / start.elapsed().as_secs_f64());
    let path = f.file("2026-01-31");
    let once = fs::read(&path).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    for _ in 0..9 {
        file.write_all(&once).unwrap();
    }
    println!("{} MB", file.metadata().unwrap().size() / 1_000_000);
    for round in ["cold", "warm"] {
        let start = std::time::Instant::now();
        let page = f.log.search(ever()).await.unwrap();
        println!("first page of a million, {round}: {:?}, {} events", start.elapsed(), page.events.len());
    }
    let start = std::time::Instant::now();
    f.log.search(ever().of_types(["user.login"])).await.unwrap();
    println!("none of a type: {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(60));
}
