//! A read cache of the cluster's state, fed by the Auth Service's event stream.
//!
//! Proxies and agents decide from here. The cache first subscribes, then fetches, then applies events, so nothing
//! that changes in between is missed. While the Auth Service is away it keeps answering with what it last knew;
//! [`Cache::stale_for`] says for how long that has been so.

mod feed;
mod state;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Request;
use tracing::debug;
use wire::client::ApiChannel;
use wire::proto::{GetRoleRequest, auth_service_client::AuthServiceClient};
use wire::types::{
    AuthPreferenceV2, CertAuthorityV2, ClusterNetworkingConfigV2, LockV2, RemoteClusterV3, RoleV6, ServerV2,
    SessionRecordingConfigV2,
};

pub use feed::events;
pub use state::{Change, Kind, State, in_force};

/// Changes a subscriber may fall behind before it is told to look at the whole state again.
const SUBSCRIBER_QUEUE: usize = 256;
/// How long a question about one resource may take.
const QUESTION: Duration = Duration::from_secs(5);

/// The state of one cluster as seen by one process. Clones share it.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    /// Where what is not here yet can be asked for.
    source: Option<ApiChannel>,
    state: RwLock<State>,
    changes: broadcast::Sender<Change>,
    freshness: watch::Sender<Freshness>,
}

/// How current the cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing was fetched yet.
    Empty,
    /// Events arrive.
    Live,
    /// The Auth Service has been unreachable since this moment.
    Stale(std::time::Instant),
}

impl Cache {
    /// Starts feeding a cache of `kinds` from `channel`. The task ends with `shutdown`.
    pub fn start(channel: ApiChannel, kinds: Vec<Kind>, tasks: &TaskTracker, shutdown: CancellationToken) -> Self {
        let cache = Self::empty(Some(channel.clone()));
        let feed = feed::Feed::new(cache.clone(), channel, kinds);
        tasks.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = feed.run() => {}
            }
        });
        cache
    }

    /// A cache that nothing feeds: for tests and for state that is known beforehand.
    pub fn fixed(state: State) -> Self {
        let cache = Self::empty(None);
        cache.replace(state);
        cache
    }

    fn empty(source: Option<ApiChannel>) -> Self {
        let (changes, _) = broadcast::channel(SUBSCRIBER_QUEUE);
        let (freshness, _) = watch::channel(Freshness::Empty);
        Self { inner: Arc::new(Inner { source, state: RwLock::default(), changes, freshness }) }
    }

    /// Waits until the first fetch is complete; false when `limit` passes first.
    pub async fn ready(&self, limit: Duration) -> bool {
        let mut freshness = self.inner.freshness.subscribe();
        let filled = freshness.wait_for(|f| *f != Freshness::Empty);
        matches!(timeout(limit, filled).await, Ok(Ok(_)))
    }

    /// How long the Auth Service has been out of sight; `None` while events arrive or before the first fetch.
    pub fn stale_for(&self) -> Option<Duration> {
        match *self.inner.freshness.borrow() {
            Freshness::Stale(since) => Some(since.elapsed()),
            Freshness::Live | Freshness::Empty => None,
        }
    }

    /// Changes from now on. A subscriber that lags sees an error and must read the state anew.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.inner.changes.subscribe()
    }

    /// Name of the cluster; empty before the first fetch.
    pub fn cluster_name(&self) -> String {
        self.inner.state.read().cluster_name.clone()
    }

    /// The authority of a type (`host`, `user`, …) of a cluster, without private keys.
    pub fn authority(&self, ca_type: &str, cluster: &str) -> Option<Arc<CertAuthorityV2>> {
        self.inner.state.read().authorities.get(&(ca_type.to_owned(), cluster.to_owned())).cloned()
    }

    /// All authorities of a type, own and trusted clusters.
    pub fn authorities(&self, ca_type: &str) -> Vec<Arc<CertAuthorityV2>> {
        let state = self.inner.state.read();
        state.authorities.iter().filter(|((t, _), _)| t == ca_type).map(|(_, ca)| ca.clone()).collect()
    }

    /// A role by name.
    pub fn role(&self, name: &str) -> Option<Arc<RoleV6>> {
        self.inner.state.read().roles.get(name).cloned()
    }

    /// A role by name, asked of the Auth Service if it is not here: a user may come with a role that was made a moment ago.
    /// `None` for one that is unknown there, and while the Auth Service does not answer within 5 s.
    pub async fn find_role(&self, name: &str) -> Option<Arc<RoleV6>> {
        if let Some(role) = self.role(name) {
            return Some(role);
        }
        let mut auth = AuthServiceClient::new(self.inner.source.clone()?);
        let request = Request::new(GetRoleRequest { name: name.to_owned() });
        match timeout(QUESTION, auth.get_role(request)).await {
            Ok(Ok(role)) => Some(Arc::new(role.into_inner())),
            Ok(Err(status)) => {
                debug!(role = name, message = status.message(), "role is not known");
                None
            }
            Err(_) => {
                debug!(role = name, "waited {QUESTION:?} for a role");
                None
            }
        }
    }

    /// A number that changes whenever a role changes: compiled role sets are kept as long as it stays the same.
    pub fn roles_revision(&self) -> u64 {
        self.inner.state.read().roles_revision
    }

    /// A node by host UUID.
    pub fn node(&self, host_uuid: &str) -> Option<Arc<ServerV2>> {
        self.inner.state.read().nodes.get(host_uuid).cloned()
    }

    /// Runs `look` over all nodes without copying them.
    pub fn with_nodes<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &Arc<ServerV2>>) -> T) -> T {
        look(&mut self.inner.state.read().nodes.values())
    }

    /// Clusters that trust this one.
    pub fn remote_clusters(&self) -> Vec<Arc<RemoteClusterV3>> {
        self.inner.state.read().remote_clusters.values().cloned().collect()
    }

    /// Locks, in force or not.
    pub fn locks(&self) -> Vec<Arc<LockV2>> {
        self.inner.state.read().locks.values().cloned().collect()
    }

    /// Cluster-wide authentication settings.
    pub fn auth_preference(&self) -> Arc<AuthPreferenceV2> {
        self.inner.state.read().auth_preference.clone()
    }

    /// Cluster-wide networking settings.
    pub fn networking(&self) -> Arc<ClusterNetworkingConfigV2> {
        self.inner.state.read().networking.clone()
    }

    /// Cluster-wide recording settings.
    pub fn recording(&self) -> Arc<SessionRecordingConfigV2> {
        self.inner.state.read().recording.clone()
    }

    fn replace(&self, mut state: State) {
        {
            let mut current = self.inner.state.write();
            state.roles_revision = current.roles_revision + 1;
            *current = state;
        }
        self.inner.freshness.send_replace(Freshness::Live);
        let _ = self.inner.changes.send(Change::Everything); // no subscriber is fine
    }

    fn apply(&self, event: wire::proto::Event) {
        let change = self.inner.state.write().apply(event);
        if let Some(change) = change {
            let _ = self.inner.changes.send(change); // no subscriber is fine
        }
    }

    fn lost(&self) {
        self.inner.freshness.send_if_modified(|f| {
            let was_live = *f == Freshness::Live;
            if was_live {
                *f = Freshness::Stale(std::time::Instant::now());
            }
            was_live
        });
    }
}
