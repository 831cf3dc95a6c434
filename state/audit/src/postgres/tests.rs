#![allow(clippy::unwrap_used, clippy::panic)]

use backend::testing::PostgresServer;
use chrono::TimeDelta;
use wire::events::{Exec, Metadata, SessionMetadata, UserLogin, UserMetadata};

use super::*;
use crate::{Clock, Log, Order, codes};

const START: &str = "2026-03-04T05:06:07Z";

fn at(second: i64) -> DateTime<Utc> {
    START.parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(second)
}

fn login(second: i64, user: &str) -> OneOf {
    let metadata = Some(Metadata { time: Some(wire::time::timestamp(at(second))), ..Metadata::default() });
    let user = Some(UserMetadata { user: user.into(), ..UserMetadata::default() });
    codes::USER_LOGIN.event(UserLogin { metadata, user, ..UserLogin::default() })
}

/// A new database; `None` without a server on this machine.
async fn database() -> Option<PostgresLogOptions> {
    let Some(server) = PostgresServer::get() else {
        assert!(std::env::var_os("TESTS_COMPLETE").is_none(), "PostgreSQL is missing");
        return None;
    };
    let database = server.database().await;
    Some(PostgresLogOptions { database, retention: Duration::from_secs(3600), cleanup: None })
}

/// A log in a new database; `None` without a server on this machine.
async fn open() -> Option<(Log, PostgresLogOptions)> {
    let options = database().await?;
    let log = PostgresLog::open(options.clone()).await.unwrap();
    Some((Log::new(Arc::new(log), "one", Clock::system()), options))
}

fn all(order: Order, limit: usize) -> Query {
    Query { order, limit, ..Query::between(at(0), at(3600)) }
}

async fn pages(log: &Log, mut query: Query) -> Vec<String> {
    let mut users = Vec::new();
    loop {
        let page = log.search(query.clone()).await.unwrap();
        users.extend(page.events.iter().map(|e| e.fields["user"].as_str().unwrap_or_default().to_owned()));
        if page.next.is_empty() {
            return users;
        }
        query.start_key = page.next;
    }
}

#[tokio::test]
async fn events_are_found_by_time_kind_user_and_session_in_both_orders() {
    let Some((log, options)) = open().await else { return };
    let emits = (0..25).map(|second| log.emit(login(second, &format!("u{second}"))));
    futures::future::join_all(emits).await.into_iter().for_each(|stored| stored.unwrap());
    let session = Uuid::new_v4().to_string();
    let named = Some(SessionMetadata { session_id: session.clone(), ..SessionMetadata::default() });
    let metadata = Some(Metadata { time: Some(wire::time::timestamp(at(100))), ..Metadata::default() });
    log.emit(codes::EXEC.event(Exec { metadata, session: named, ..Exec::default() })).await.unwrap();

    let expected: Vec<_> = (0..25).map(|second| format!("u{second}")).collect();
    let of_logins = |order, limit| all(order, limit).of_types(["user.login"]);
    assert_eq!(pages(&log, of_logins(Order::Ascending, 7)).await, expected);
    let backwards: Vec<_> = expected.iter().rev().cloned().collect();
    assert_eq!(pages(&log, of_logins(Order::Descending, 25)).await, backwards);
    let one = Query { user: Some("u3".into()), ..all(Order::Ascending, 0) };
    assert_eq!(pages(&log, one).await, ["u3"]);
    let of_session = Query { session: Some(session), ..all(Order::Ascending, 0) };
    assert_eq!(log.search(of_session).await.unwrap().events[0].fields["event"], "exec");
    let few = Query {
        filter: Some(Arc::new(|e| e.get("user").is_some_and(|user| user == "u24"))),
        ..all(Order::Ascending, 5)
    };
    assert_eq!(pages(&log, few).await, ["u24"]);
    let wrong = Query { start_key: "nonsense".into(), ..all(Order::Ascending, 0) };
    assert!(log.search(wrong).await.is_err());

    // Another process sees the same, and what is said twice is there once.
    let other = PostgresLog::open(options).await.unwrap();
    let mut again = login(1, "u1");
    crate::event::prepare(&mut again, "one", at(1)).unwrap();
    other.emit(again.clone()).await.unwrap();
    other.emit(again).await.unwrap();
    assert_eq!(pages(&log, of_logins(Order::Ascending, 100)).await.len(), 26);
}

#[tokio::test]
async fn a_lost_connection_loses_no_event() {
    let Some((log, options)) = open().await else { return };
    let killer = options.database.connect().await.unwrap();
    for round in 0..5 {
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid != pg_backend_pid()";
        killer.execute(kill, &[]).await.unwrap();
        log.emit(login(round, &format!("u{round}"))).await.unwrap();
    }
    assert_eq!(pages(&log, all(Order::Ascending, 0)).await.len(), 5);
}

#[tokio::test]
async fn several_processes_may_be_the_first_at_once() {
    let Some(options) = database().await else { return };
    let opened = (0..12).map(|_| PostgresLog::open(options.clone()));
    for opened in futures::future::join_all(opened).await {
        opened.unwrap();
    }
}

#[tokio::test]
async fn old_events_are_removed_in_batches_and_young_ones_stay() {
    let Some((log, options)) = open().await else { return };
    log.emit(login(1, "young")).await.unwrap();
    let many = 2 * REMOVED + 7;
    let fill = format!(
        "INSERT INTO events SELECT now(), gen_random_uuid(), 'user.login', '{}', '{{}}', now() - interval '61 minutes'
         FROM generate_series(1, {many})",
        Uuid::nil()
    );
    options.database.connect().await.unwrap().batch_execute(&fill).await.unwrap();
    let connections = Connections::new(options.database.clone());
    assert_eq!(i64::try_from(remove_old(&connections, options.retention).await.unwrap()).unwrap(), many);
    assert_eq!(remove_old(&connections, options.retention).await.unwrap(), 0);
    assert_eq!(pages(&log, all(Order::Ascending, 0)).await, ["young"]);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_says_nothing_keeps_an_event_waiting_for_a_bounded_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("postgresql://me@{}/db", silent.local_addr().unwrap());
    let connections = Connections::new(PostgresOptions::parse(&address).unwrap());
    let started = Instant::now();
    let refused = store(&connections, &[Row::of(&login(1, "alice")).unwrap()]).await.unwrap_err();
    assert!(refused.to_string().contains("waited 8 s"), "{refused}");
    assert!(started.elapsed() < PATIENCE + Duration::from_secs(1));
}

#[test]
fn options_are_read_or_named() {
    let options =
        PostgresLogOptions::parse("postgresql://me@localhost/db#retention_period=24h&disable_cleanup=true").unwrap();
    assert_eq!((options.retention, options.cleanup), (Duration::from_secs(86400), None));
    for (fragment, word) in
        [("retention_period=long", "retention_period"), ("colour=blue", "colour"), ("auth_mode=azure", "auth_mode")]
    {
        let said = PostgresLogOptions::parse(&format!("postgresql://me:sesame@localhost/db#{fragment}")).unwrap_err();
        assert!(said.to_string().contains(word) && !said.to_string().contains("sesame"), "{said}");
    }
}
