//! Decides how many tunnels an agent holds, and to which proxies.
//!
//! Proxies are *tracked* as long as discovery messages name them, and *claimed* while a tunnel to them is up. A *lease*
//! is the permission to try one more connection; which proxy it reaches is up to whatever balances the load in front
//! of the proxies.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::discovery::DiscoveredProxy;

/// How long a proxy is remembered that no discovery message names any more.
const TRACKED_FOR: Duration = Duration::from_secs(3 * 60);

/// How often to look for what time alone changes: proxies that are forgotten.
const REVIEW_INTERVAL: Duration = Duration::from_secs(5);

/// How long after its tunnel came up a proxy may take to tell which others there are. One that tells nothing may be one of
/// several: then they are looked for.
const UNTOLD: Duration = Duration::from_secs(5);

/// Discovery messages may not make an agent remember more proxies than this.
const MOST_TRACKED: usize = 1024;

/// How many tunnels an agent keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelStrategy {
    /// One to every proxy.
    #[default]
    AgentMesh,
    /// One to so many of the proxies; they find the agent through each other.
    ProxyPeering {
        /// How many, at least one.
        connections: usize,
    },
}

#[derive(Debug)]
pub(crate) struct Tracker {
    strategy: TunnelStrategy,
    state: Mutex<State>,
    changed: Notify,
    claimed: watch::Sender<Vec<String>>,
}

#[derive(Debug, Default)]
struct State {
    tracked: HashMap<String, Tracked>,
    claimed: HashSet<String>,
    /// Claimed proxies, oldest first.
    order: Vec<String>,
    /// When the last one was claimed.
    latest: Option<Instant>,
    leased: usize,
}

#[derive(Debug)]
struct Tracked {
    group: String,
    generation: u64,
    until: Instant,
}

/// The permission to try one connection. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Tracker>);

/// A tunnel to a proxy that nobody else of this pool may have. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Claim {
    tracker: Arc<Tracker>,
    proxy: String,
}

impl Tracker {
    pub(crate) fn new(strategy: TunnelStrategy) -> Arc<Self> {
        Arc::new(Self {
            strategy,
            state: Mutex::default(),
            changed: Notify::new(),
            claimed: watch::Sender::new(Vec::new()),
        })
    }

    /// The proxies with a tunnel, oldest first.
    pub(crate) fn connected(&self) -> watch::Receiver<Vec<String>> {
        self.claimed.subscribe()
    }

    /// Takes in a discovery message.
    pub(crate) fn track(&self, proxies: Vec<DiscoveredProxy>) {
        let until = Instant::now() + TRACKED_FOR;
        let mut state = self.state.lock();
        for proxy in proxies {
            if state.tracked.len() >= MOST_TRACKED && !state.tracked.contains_key(&proxy.id) {
                continue;
            }
            let entry = Tracked { group: proxy.group, generation: proxy.generation, until };
            state.tracked.insert(proxy.id, entry);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits until one more connection should be tried.
    pub(crate) async fn lease(self: &Arc<Self>) -> Lease {
        loop {
            if let Some(lease) = self.try_lease() {
                return lease;
            }
            let _ = tokio::time::timeout(REVIEW_INTERVAL, self.changed.notified()).await;
        }
    }

    fn try_lease(self: &Arc<Self>) -> Option<Lease> {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.tracked.retain(|_, tracked| tracked.until > now);
        if !state.wants_more(self.strategy) {
            return None;
        }
        state.leased += 1;
        Some(Lease(self.clone()))
    }

    /// Claims a proxy, unless this pool has a tunnel to it already.
    pub(crate) fn claim(self: &Arc<Self>, proxy: &str) -> Option<Claim> {
        let mut state = self.state.lock();
        if !state.claimed.insert(proxy.to_owned()) {
            return None;
        }
        state.order.push(proxy.to_owned());
        state.latest = Some(Instant::now());
        self.claimed.send_replace(state.order.clone());
        Some(Claim { tracker: self.clone(), proxy: proxy.to_owned() })
    }
}

impl State {
    fn wants_more(&self, strategy: TunnelStrategy) -> bool {
        let untold = self.tracked.is_empty() && self.latest.is_none_or(|claimed| claimed.elapsed() >= UNTOLD);
        if self.leased == 0 && (self.claimed.is_empty() || untold) {
            return true;
        }
        let mut newest: HashMap<&str, u64> = HashMap::new();
        for tracked in self.tracked.values() {
            let generation = newest.entry(&tracked.group).or_default();
            *generation = tracked.generation.max(*generation);
        }
        let desired = || {
            self.tracked
                .iter()
                .filter(|(_, tracked)| newest.get(tracked.group.as_str()) == Some(&tracked.generation))
                .map(|(id, _)| id)
        };
        let held = desired().filter(|id| self.claimed.contains(*id)).count();
        let wanted = match strategy {
            TunnelStrategy::AgentMesh => desired().count(),
            TunnelStrategy::ProxyPeering { connections } => desired().count().min(connections.max(1)),
        };
        wanted > held + self.leased
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.state.lock().leased -= 1;
        self.0.changed.notify_one();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.tracker.state.lock();
        state.claimed.remove(&self.proxy);
        state.order.retain(|proxy| *proxy != self.proxy);
        self.tracker.claimed.send_replace(state.order.clone());
        drop(state);
        self.tracker.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn proxies(ids: &[&str]) -> Vec<DiscoveredProxy> {
        ids.iter().map(|id| DiscoveredProxy { id: (*id).to_owned(), ..DiscoveredProxy::default() }).collect()
    }

    fn grouped(id: &str, generation: u64) -> DiscoveredProxy {
        DiscoveredProxy { id: id.to_owned(), group: "g".to_owned(), generation }
    }

    #[tokio::test]
    async fn the_first_connection_needs_no_discovery() {
        let tracker = Tracker::new(TunnelStrategy::AgentMesh);
        let lease = tracker.try_lease().unwrap();
        assert!(tracker.try_lease().is_none(), "one at a time");
        drop(lease);
        assert!(tracker.try_lease().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_has_a_moment_to_tell_of_others() {
        let tracker = Tracker::new(TunnelStrategy::AgentMesh);
        let _claim = tracker.claim("a").unwrap();
        assert!(tracker.try_lease().is_none());
        tokio::time::advance(UNTOLD).await;
        assert!(tracker.try_lease().is_some());
        tracker.track(proxies(&["a"]));
        assert!(tracker.try_lease().is_none());
    }

    #[tokio::test]
    async fn a_mesh_wants_a_tunnel_to_every_proxy() {
        let tracker = Tracker::new(TunnelStrategy::AgentMesh);
        let first = tracker.claim("a").unwrap();
        tracker.track(proxies(&["a", "b", "c"]));
        let leases = [tracker.try_lease().unwrap(), tracker.try_lease().unwrap()];
        assert!(tracker.try_lease().is_none());
        drop(leases);
        let others = [tracker.claim("b").unwrap(), tracker.claim("c").unwrap()];
        assert!(tracker.try_lease().is_none());
        assert_eq!(*tracker.connected().borrow(), ["a", "b", "c"]);
        drop(first);
        assert!(tracker.try_lease().is_some());
        assert_eq!(*tracker.connected().borrow(), ["b", "c"]);
        drop(others);
    }

    #[tokio::test]
    async fn a_proxy_is_claimed_once() {
        let tracker = Tracker::new(TunnelStrategy::AgentMesh);
        let claim = tracker.claim("a").unwrap();
        assert!(tracker.claim("a").is_none());
        drop(claim);
        assert!(tracker.claim("a").is_some());
    }

    #[tokio::test]
    async fn peering_wants_only_so_many() {
        let tracker = Tracker::new(TunnelStrategy::ProxyPeering { connections: 1 });
        let claim = tracker.claim("a").unwrap();
        tracker.track(proxies(&["a", "b", "c"]));
        assert!(tracker.try_lease().is_none());
        drop(claim);
        assert!(tracker.try_lease().is_some());
    }

    #[tokio::test]
    async fn only_the_newest_generation_of_a_group_counts() {
        let tracker = Tracker::new(TunnelStrategy::AgentMesh);
        let _old = tracker.claim("old").unwrap();
        tracker.track(vec![grouped("old", 1)]);
        assert!(tracker.try_lease().is_none());
        tracker.track(vec![grouped("new", 2)]);
        let _lease = tracker.try_lease().unwrap();
        assert!(tracker.try_lease().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_is_named_no_more_is_forgotten() {
        let tracker = Tracker::new(TunnelStrategy::AgentMesh);
        let _claim = tracker.claim("a").unwrap();
        tracker.track(proxies(&["a", "b"]));
        tokio::time::advance(TRACKED_FOR / 2).await;
        tracker.track(proxies(&["a"]));
        assert!(tracker.try_lease().is_some());
        tokio::time::advance(TRACKED_FOR / 2).await;
        assert!(tracker.try_lease().is_none());
    }
}
