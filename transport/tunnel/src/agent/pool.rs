//! Keeps an agent's tunnels up.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::backoff::{Backoff, GOOD_TUNNEL};
use super::link::{self, Link};
use super::tracker::Tracker;
use super::{AgentConfig, AgentError};

/// All tunnels of one agent. [`run`](Self::run) does the work; everything else may be asked from elsewhere.
#[derive(Debug)]
pub struct AgentPool {
    config: AgentConfig,
    tracker: Arc<Tracker>,
    backoff: Mutex<Backoff>,
    /// A good tunnel was lost: whoever waits for the next try need not wait so long.
    hurry: Notify,
    /// What takes the streams.
    handlers: TaskTracker,
}

impl AgentPool {
    /// A pool without any tunnels yet.
    pub fn new(config: AgentConfig) -> Self {
        let tracker = Tracker::new(config.strategy);
        Self { config, tracker, backoff: Mutex::default(), hurry: Notify::new(), handlers: TaskTracker::new() }
    }

    /// The host UUIDs of the proxies that have a tunnel, the oldest tunnel first.
    pub fn connected(&self) -> watch::Receiver<Vec<String>> {
        self.tracker.connected()
    }

    /// Holds the tunnels until `stop` is cancelled; then new streams are refused, and open ones may go on until they
    /// end or [`AgentConfig::drain_timeout`] has passed.
    pub async fn run(self, stop: CancellationToken) {
        let mut links = JoinSet::new();
        let attempt = self.attempt(&stop);
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                lived = next_end(&mut links) => {
                    self.note_end(lived);
                    if links.is_empty() {
                        self.config.dialer.cut_off();
                    }
                }
                outcome = &mut attempt => {
                    self.note_attempt(outcome, &mut links);
                    attempt.set(self.attempt(&stop));
                }
            }
        }
        // The streams end with their connections; what takes them needs a moment more.
        self.handlers.close();
        let drained = async {
            while links.join_next().await.is_some() {}
            self.handlers.wait().await;
        };
        if tokio::time::timeout(self.config.drain_timeout, drained).await.is_err() {
            warn!("streams were still open when the agent's tunnels were closed");
        }
    }

    /// Waits until a connection is wanted, then tries one.
    async fn attempt(&self, stop: &CancellationToken) -> Result<Link, AgentError> {
        let _lease = self.tracker.lease().await;
        self.pause().await;
        link::establish(&self.config, &self.tracker, &self.handlers, stop).await
    }

    async fn pause(&self) {
        loop {
            let delay = self.backoff.lock().delay(random_fraction());
            tokio::select! {
                () = tokio::time::sleep(delay) => return,
                () = self.hurry.notified() => {}
            }
        }
    }

    fn note_attempt(&self, outcome: Result<Link, AgentError>, links: &mut JoinSet<Duration>) {
        self.config.dialer.led_to_a_proxy(matches!(outcome, Ok(_) | Err(AgentError::AlreadyClaimed(_))));
        match outcome {
            Ok(link) => {
                info!("tunnel to a proxy is up");
                links.spawn(link.run());
            }
            Err(error) => {
                self.backoff.lock().failed();
                report(&error);
            }
        }
    }

    fn note_end(&self, lived: Option<Duration>) {
        match lived {
            Some(lived) if lived >= GOOD_TUNNEL => {
                self.backoff.lock().succeeded();
                self.hurry.notify_waiters();
            }
            _ => self.backoff.lock().failed(),
        }
        info!(?lived, "tunnel to a proxy ended");
    }
}

/// How long the next tunnel to end has lived; never returns while there is none.
async fn next_end(links: &mut JoinSet<Duration>) -> Option<Duration> {
    match links.join_next().await {
        Some(lived) => lived.ok(),
        None => std::future::pending().await,
    }
}

fn report(error: &AgentError) {
    match error {
        // What happens when a load balancer does not lead where we want, and while a proxy restarts.
        AgentError::AlreadyClaimed(_) => debug!(%error, "no new tunnel"),
        _ => warn!(%error, "no tunnel to a proxy"),
    }
}

/// From 0 up to and without 1. Only for spreading retries.
fn random_fraction() -> f64 {
    let [a, b, c, d, ..] = uuid::Uuid::new_v4().into_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}
