#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::testing::PostgresServer;
use crate::{
    Backend, ManualClock, Watch,
    conformance::Fixture,
    shared::{self, key, lacks, next},
};

async fn open_at(options: PostgresOptions, clock: ManualClock) -> Arc<Postgres> {
    Arc::new(Postgres::open_with_clock(options, Arc::new(clock)).await.unwrap())
}

/// Without a server on this machine the suite runs on memory, which proves nothing about PostgreSQL but passes.
async fn open(clock: ManualClock) -> Fixture {
    match PostgresServer::get() {
        Some(server) => Fixture::new(open_at(server.database().await, clock.clone()).await, clock),
        None => {
            lacks("PostgreSQL");
            Fixture::new(Arc::new(crate::Memory::with_clock(Arc::new(clock.clone()))), clock)
        }
    }
}

crate::conformance_tests!(open);

/// Two processes on one new database.
async fn two() -> Option<(Arc<Postgres>, Arc<Postgres>, PostgresOptions)> {
    let Some(server) = PostgresServer::get() else {
        lacks("PostgreSQL");
        return None;
    };
    let options = server.database().await;
    let (a, b) = tokio::join!(
        open_at(options.clone(), ManualClock::default()),
        open_at(options.clone(), ManualClock::default())
    );
    Some((a, b, options))
}

#[tokio::test]
async fn processes_hear_of_each_others_changes_in_one_order() {
    let Some((a, b, _)) = two().await else { return };
    shared::hear_of_each_other(&*a, &*b).await;
}

#[tokio::test]
async fn of_updates_by_two_processes_each_revision_wins_once() {
    let Some((a, b, _)) = two().await else { return };
    shared::count_together(&*a, &*b).await;
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_and_no_change_is_missed() {
    let Some((a, b, options)) = two().await else { return };
    let mut watcher = a.watch(Watch::new("a", [])).await.unwrap();
    assert_eq!(next(&mut watcher).await, Event::Init);
    a.put(Item::new(key("before"), "x")).await.unwrap();
    assert_eq!(next(&mut watcher).await.key(), Some(&key("before")));
    let judge = options.connect().await.unwrap();
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    judge.batch_execute(kill).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = b.put(Item::new(key("after"), "x")).await {
        assert!(Instant::now() < deadline, "{error}");
        assert_eq!(error.kind(), crate::ErrorKind::ConnectionProblem, "{error}");
    }
    // Writes that were answered with an error may have happened as well.
    assert_eq!(next(&mut watcher).await.key(), Some(&key("after")));
    while let Err(error) = a.get(&key("after")).await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_told_as_such_and_not_made_twice() {
    let (Some(server), lossy) = (PostgresServer::get(), crate::testing::Lossy::new()) else { return };
    let (through, direct) = server.database_behind(&lossy).await;
    let a = open_at(through, ManualClock::default()).await;
    let b = open_at(direct, ManualClock::default()).await;
    a.put(Item::new(key("counter"), "0")).await.unwrap();
    let mut watcher = a.watch(Watch::new("a", [])).await.unwrap();
    assert_eq!(next(&mut watcher).await, Event::Init);
    let current = a.get(&key("counter")).await.unwrap();
    let raised = Item { value: Bytes::from("1"), ..current };
    lossy.lose_next_answer();
    let error = a.conditional_update(raised.clone()).await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::ConnectionProblem, "{error}");
    // It has happened: whoever repeats it does not raise the counter again, and who watches hears of it.
    let deadline = Instant::now() + Duration::from_secs(30);
    let repeated = loop {
        match a.conditional_update(raised.clone()).await {
            Err(error) if error.kind() == crate::ErrorKind::ConnectionProblem && Instant::now() < deadline => {}
            other => break other,
        }
    };
    assert!(repeated.as_ref().is_err_and(|error| error.is_compare_failed()), "{repeated:?}");
    assert_eq!(b.get(&key("counter")).await.unwrap().value, "1");
    let Event::Put(item) = next(&mut watcher).await else { panic!("a put event") };
    assert_eq!(item.value, "1");
}

#[tokio::test]
async fn watchers_end_when_changes_were_missed() {
    let Some((a, b, options)) = two().await else { return };
    let mut watcher = a.watch(Watch::new("a", [])).await.unwrap();
    assert_eq!(next(&mut watcher).await, Event::Init);
    b.put(Item::new(key("first"), "x")).await.unwrap();
    assert_eq!(next(&mut watcher).await.key(), Some(&key("first")));
    // As if this process had been away while events were made and removed.
    let judge = options.connect().await.unwrap();
    let vanish = "INSERT INTO kv_events (key) SELECT 'x' FROM generate_series(1, 5);
                  DELETE FROM kv_events WHERE id < (SELECT max(id) FROM kv_events); NOTIFY teleport_kv";
    judge.batch_execute(&format!("BEGIN; {vanish}; COMMIT")).await.unwrap();
    let ended = loop {
        match tokio::time::timeout(Duration::from_secs(30), watcher.recv()).await.expect("in time") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(ended.kind(), crate::ErrorKind::ConnectionProblem, "{ended}");
    assert!(a.watch(Watch::new("again", [])).await.is_ok());
}

#[tokio::test]
async fn after_a_sync_the_writes_of_the_other_process_are_known() {
    let Some((a, b, _)) = two().await else { return };
    shared::know_after_a_sync(&*a, &*b).await;
}
