//! How long a change of one resource takes to all who watch.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::Cluster;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Streaming;
use wire::proto::{Event, Operation, Watch};
use wire::types::WatchKind;

use crate::calls::{Caller, node};

/// Watches on one connection, as a proxy has many for its users.
const ON_ONE_CONNECTION: usize = 100;
/// How long a change may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Changes a node so many times, and says for each how long the first and the last of the watchers waited for it.
pub async fn changes(
    cluster: &Cluster,
    identity: &Path,
    watchers: usize,
    changes: usize,
) -> (Vec<Duration>, Vec<Duration>) {
    let (sender, mut seen) = mpsc::channel(watchers);
    let mut caller = Caller::new(cluster, identity);
    let mut followers = JoinSet::new();
    for number in 0..watchers {
        if number % ON_ONE_CONNECTION == 0 {
            caller = Caller::new(cluster, identity);
        }
        let kinds = vec![WatchKind { kind: "node".to_owned(), ..WatchKind::default() }];
        let events = caller.auth().watch_events(Watch { kinds, ..Watch::default() }).await.expect("a watch");
        followers.spawn(follow(events.into_inner(), sender.clone()));
    }
    let mut all = async || {
        let mut times = Vec::with_capacity(watchers);
        for _ in 0..watchers {
            times.push(timeout(LIMIT, seen.recv()).await.expect("a change is seen in time").expect("a watcher"));
        }
        times
    };
    all().await; // Every watch says that it has begun.
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for _ in 0..changes {
        let start = Instant::now();
        caller.auth().upsert_node(node(0)).await.expect("a change");
        let times = all().await;
        first.push(times.iter().min().expect("a watcher").duration_since(start));
        last.push(times.iter().max().expect("a watcher").duration_since(start));
    }
    (first, last)
}

/// Says when each event came.
async fn follow(mut events: Streaming<Event>, seen: mpsc::Sender<Instant>) {
    while let Some(event) = events.message().await.expect("an event") {
        assert!(matches!(event.r#type(), Operation::Init | Operation::Put), "{event:?}");
        if seen.send(Instant::now()).await.is_err() {
            return;
        }
    }
}
