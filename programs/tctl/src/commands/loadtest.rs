//! `loadtest`: artificial load, to see what a cluster can take. What it makes is removed at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::Utc;
use clap::{Args, Subcommand};
use resources::kind;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use uuid::Uuid;
use wire::proto::{Operation, Watch};
use wire::types::{Metadata, ResourceInNamespaceRequest, ServerSpecV2, ServerV2, WatchKind};

use super::labels;
use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{complain, say, time};

/// Most nodes of one test.
const MAX_NODES: usize = 100_000;
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
            let begun = Instant::now();
            let stopped = tokio::select! {
                () = each(api, &nodes, concurrency, &tally, upsert) => false,
                _ = tokio::signal::ctrl_c() => true,
            };
            round += 1;
            let took = begun.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
            say(&format!(
                "round {round}: {} nodes in {took:.2} s, {:.0} a second\n",
                self.count,
                self.count as f64 / took
            ));
            let next = begun + every;
            if stopped || next >= end {
                break;
            }
            tokio::select! {
                () = sleep_until(next) => {}
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        let (done, failed) = (tally.done.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed));
        let seconds = started.elapsed().as_secs_f64();
        say(&format!("{done} heartbeats, {failed} failed, in {seconds:.1} s\nRemoving the nodes...\n"));
        let removed = Arc::new(Tally::default());
        each(api, &nodes, concurrency, &removed, remove).await;
        match (failed, removed.failed.load(Ordering::Relaxed)) {
            (0, 0) => Ok(()),
            (0, left) => Err(Error::other(format!("{left} nodes could not be removed; they end by themselves"))),
            (failed, _) => Err(Error::other(format!("{failed} heartbeats failed"))),
        }
    }
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
    api.auth().delete_node(request).within("removing a node").await
}

/// Makes a call for each node, so many at a time. The first failure is shown.
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
                    Ok(()) => tally.done.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        if tally.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                            complain(&format!("a call failed: {error}"));
                        }
                        0
                    }
                };
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

impl Watching {
    async fn run(self, api: &Api) -> Result<()> {
        let end = Instant::now() + time::lifetime(&self.duration)?;
        if self.count == 0 || self.count > MAX_NODES {
            return Err(Error::bad(format!("--count: expected 1 to {MAX_NODES}")));
        }
        let tally = Arc::new(Tally::default());
        let mut watches = JoinSet::new();
        for _ in 0..self.count {
            let kinds = self.kind.iter().map(|kind| WatchKind { kind: kind.clone(), ..WatchKind::default() });
            let wanted = Watch { kinds: kinds.collect(), ..Watch::default() };
            let mut events = api.auth().watch_events(wanted).within("following resources").await?;
            let tally = Arc::clone(&tally);
            watches.spawn(async move {
                while let Ok(Ok(Some(event))) = timeout_at(end, events.message()).await {
                    if event.r#type() != Operation::Init {
                        tally.done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut ticks = interval(REPORT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut before = 0;
        while Instant::now() < end && !watches.is_empty() {
            tokio::select! {
                _ = ticks.tick() => {
                    let now = tally.done.load(Ordering::Relaxed);
                    say(&format!("{} changes, {} in all\n", now - before, now));
                    before = now;
                }
                _ = watches.join_next() => {}
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        Ok(())
    }
}
