//! `loadtest`: artificial load, to see what a cluster can take. What it makes is removed at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::Utc;
use clap::{Args, Subcommand};
use resources::kind;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use tonic::Streaming;
use uuid::Uuid;
use wire::proto::{Event, Operation, Watch};
use wire::types::{Metadata, ResourceInNamespaceRequest, ServerSpecV2, ServerV2, WatchKind};

use super::labels;
use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{complain, say, time};

/// Most nodes of one test.
const MAX_NODES: usize = 100_000;
/// Most watches of one test: half of the calls that an Auth Service takes from one connection.
const MAX_WATCHES: usize = 500;
/// Most calls at the same time.
const MAX_CONCURRENCY: usize = 256;
/// How often a watch says how it goes.
const REPORT: Duration = Duration::from_secs(1);

/// Artificial load.
#[derive(Debug, Subcommand)]
pub enum Loadtest {
    /// Register nodes that do not exist, and keep them alive.
    NodeHeartbeats(NodeHeartbeats),
    /// Count the changes of resources.
    Watch(Watching),
}

/// Register nodes that do not exist, and keep them alive.
#[derive(Args, Debug)]
pub struct NodeHeartbeats {
    /// How many.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// How often each says that it is there.
    #[arg(long, default_value = "1m")]
    interval: String,
    /// How long.
    #[arg(long, default_value = "1m")]
    duration: String,
    /// How many calls at the same time.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// Their labels, as key=value.
    #[arg(long, default_value = "", hide_default_value = true)]
    labels: String,
}

/// Count the changes of resources.
#[derive(Args, Debug)]
pub struct Watching {
    /// The kinds to follow.
    #[arg(long, value_delimiter = ',', default_value = kind::NODE)]
    kind: Vec<String>,
    /// How many watches.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// How long.
    #[arg(long, default_value = "1m")]
    duration: String,
}

impl Loadtest {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::NodeHeartbeats(command) => command.run(api).await,
            Self::Watch(command) => command.run(api).await,
        }
    }
}

/// What was done so far.
#[derive(Default)]
struct Tally {
    done: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// The first failure is shown, the others are counted.
    fn fail(&self, what: &str, error: &Error) {
        if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
            complain(&format!("{what} failed: {error}"));
        }
    }
}

impl NodeHeartbeats {
    async fn run(self, api: &Api) -> Result<()> {
        if self.count == 0 || self.count > MAX_NODES {
            return Err(Error::bad(format!("--count: expected 1 to {MAX_NODES}")));
        }
        let every = time::lifetime(&self.interval)?;
        let end = Instant::now() + time::lifetime(&self.duration)?;
        let labels = labels::parse(&self.labels)?;
        let nodes: Vec<ServerV2> = (0..self.count).map(|number| node(number, &labels, every)).collect();
        let nodes: Arc<[ServerV2]> = nodes.into();
        let tally = Arc::new(Tally::default());
        let started = Instant::now();
        let concurrency = self.concurrency.clamp(1, MAX_CONCURRENCY);
        let mut round = 0u64;
        loop {
            let (begun, before) = (Instant::now(), tally.done());
            let stopped = interrupted(each(api, &nodes, concurrency, &tally, upsert)).await;
            round += 1;
            say(&round_text(round, tally.done() - before, begun.elapsed()));
            let next = begun + every;
            if stopped || next >= end || interrupted(sleep_until(next)).await {
                break;
            }
        }
        let (done, failed) = (tally.done(), tally.failed());
        let seconds = started.elapsed().as_secs_f64();
        say(&format!("{done} heartbeats, {failed} failed, in {seconds:.1} s\nRemoving the nodes...\n"));
        let removed = Arc::new(Tally::default());
        if interrupted(each(api, &nodes, concurrency, &removed, remove)).await {
            return Err(Error::other("interrupted: the nodes that are left end by themselves"));
        }
        match (failed, removed.failed()) {
            (0, 0) => Ok(()),
            (0, left) => Err(Error::other(format!("{left} nodes could not be removed; they end by themselves"))),
            (failed, _) => Err(Error::other(format!("{failed} heartbeats failed"))),
        }
    }
}

/// Does something, and says whether the user did not wait for it.
async fn interrupted(work: impl Future<Output = ()>) -> bool {
    tokio::select! {
        () = work => false,
        _ = tokio::signal::ctrl_c() => true,
    }
}

fn round_text(round: u64, done: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
    format!("round {round}: {done} nodes in {seconds:.2} s, {:.0} a second\n", done as f64 / seconds)
}

fn node(number: usize, labels: &std::collections::BTreeMap<String, String>, every: Duration) -> ServerV2 {
    let life = every.saturating_mul(2).max(Duration::from_secs(600)).min(Duration::from_secs(24 * 3600));
    let expires = time::after(Utc::now(), life).ok().map(wire::time::timestamp);
    ServerV2 {
        kind: kind::NODE.to_owned(),
        version: "v2".to_owned(),
        metadata: Some(Metadata {
            name: Uuid::new_v4().to_string(),
            namespace: resources::NAMESPACE.to_owned(),
            labels: labels.clone(),
            expires,
            ..Metadata::default()
        }),
        spec: Some(ServerSpecV2 {
            hostname: format!("loadtest-{number}"),
            addr: "127.0.0.1:3022".to_owned(),
            version: wire::VERSION.to_owned(),
            ..ServerSpecV2::default()
        }),
        ..ServerV2::default()
    }
}

async fn upsert(api: Api, node: ServerV2) -> Result<()> {
    api.auth().upsert_node(node).within("a heartbeat").await.map(drop)
}

async fn remove(api: Api, node: ServerV2) -> Result<()> {
    let name = node.metadata.map(|metadata| metadata.name).unwrap_or_default();
    let request = ResourceInNamespaceRequest { name, namespace: resources::NAMESPACE.to_owned() };
    match api.auth().delete_node(request).within("removing a node").await {
        // Whoever interrupts a round leaves some unregistered.
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// Makes a call for each node, so many at a time.
async fn each<F, W>(api: &Api, nodes: &Arc<[ServerV2]>, concurrency: usize, tally: &Arc<Tally>, call: F)
where
    F: Fn(Api, ServerV2) -> W + Copy + Send + 'static,
    W: Future<Output = Result<()>> + Send + 'static,
{
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let (api, nodes, tally, next) = (api.clone(), Arc::clone(nodes), Arc::clone(tally), Arc::clone(&next));
        workers.spawn(async move {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(node) = usize::try_from(at).ok().and_then(|at| nodes.get(at)) else { return };
                match call(api.clone(), node.clone()).await {
                    Ok(()) => tally.count(),
                    Err(error) => tally.fail("a call", &error),
                }
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

impl Watching {
    async fn run(self, api: &Api) -> Result<()> {
        let end = Instant::now() + time::lifetime(&self.duration)?;
        if self.count == 0 || self.count > MAX_WATCHES {
            return Err(Error::bad(format!("--count: expected 1 to {MAX_WATCHES}")));
        }
        let tally = Arc::new(Tally::default());
        let mut watches = JoinSet::new();
        for _ in 0..self.count {
            let kinds = self.kind.iter().map(|kind| WatchKind { kind: kind.clone(), ..WatchKind::default() });
            let wanted = Watch { kinds: kinds.collect(), ..Watch::default() };
            let events = api.auth().watch_events(wanted).within("following resources").await?;
            let tally = Arc::clone(&tally);
            watches.spawn(async move {
                if let Ok(error) = timeout_at(end, follow(events, &tally)).await {
                    tally.fail("a watch", &error);
                }
            });
        }
        let mut ticks = interval(REPORT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut before = 0;
        while !watches.is_empty() {
            tokio::select! {
                _ = ticks.tick() => {
                    let now = tally.done();
                    say(&format!("{} changes, {} in all\n", now - before, now));
                    before = now;
                }
                _ = watches.join_next() => {}
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        say(&format!("{} changes in all, seen by {} watches\n", tally.done(), self.count));
        match tally.failed() {
            0 => Ok(()),
            failed => Err(Error::other(format!("{failed} of {} watches failed", self.count))),
        }
    }
}

/// Counts changes until the watch ends, and says why it did.
async fn follow(mut events: Streaming<Event>, tally: &Tally) -> Error {
    loop {
        match events.message().await {
            Ok(Some(event)) if event.r#type() == Operation::Init => {}
            Ok(Some(_)) => tally.count(),
            Ok(None) => return Error::other("the Auth Service closed it"),
            Err(status) => return status.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::testing::Service;

    fn watching(count: usize) -> Watching {
        Watching { kind: vec![kind::NODE.to_owned()], count, duration: "1m".to_owned() }
    }

    #[tokio::test]
    async fn a_watch_that_ends_before_its_time_has_failed() {
        let api = Service::default().api();
        let error = watching(2).run(&api).await.unwrap_err().to_string();
        assert!(error.contains("2 of 2 watches failed"), "{error}");
    }

    #[tokio::test]
    async fn watches_fit_into_one_connection() {
        let api = Service::default().api();
        let error = watching(MAX_WATCHES + 1).run(&api).await.unwrap_err().to_string();
        assert!(error.contains("--count: expected 1 to 500"), "{error}");
    }

    #[test]
    fn a_round_counts_what_was_done() {
        let text = round_text(1, 50, Duration::from_millis(500));
        assert_eq!(text, "round 1: 50 nodes in 0.50 s, 100 a second\n");
    }
}
