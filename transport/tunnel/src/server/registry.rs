//! Which tunnels there are, and dialling through them.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tracing::{debug, info};

use super::connection::{Connection, OpenError};
use crate::dial::{DialRequest, TunnelType};
use crate::protocol::DRAINING;
use crate::stream::TunnelStream;

/// The longest a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Events that a subscriber may fall behind before it misses some.
const EVENT_QUEUE: usize = 1024;

/// One tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelInfo {
    /// The name the agent logged in with, `<host uuid>.<cluster name>`.
    pub server_id: String,
    /// What is reached through it.
    pub tunnel_type: TunnelType,
    /// The agent's cluster.
    pub cluster: String,
    /// Where the agent connects from.
    pub peer: SocketAddr,
    /// The version of the Auth Service of the agent's cluster; known for other clusters only.
    pub auth_version: Option<String>,
}

/// Something happened to a tunnel.
#[derive(Clone, Debug)]
pub enum TunnelEvent {
    /// An agent sent its first heartbeat.
    Registered(Arc<TunnelInfo>),
    /// An agent sent another heartbeat.
    Heartbeat(Arc<TunnelInfo>),
    /// The connection ended.
    Unregistered(Arc<TunnelInfo>),
}

/// Why a dial failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No tunnel to that agent ends here. It may end at another proxy.
    #[error("no {tunnel_type} reverse tunnel for {server_id} found")]
    NotFound {
        /// The agent.
        server_id: String,
        /// The kind of service.
        tunnel_type: TunnelType,
    },
    /// There are tunnels, but none works.
    #[error("{0} is offline: no active {0} tunnels found")]
    Offline(TunnelType),
    /// The agent said no.
    #[error("{0}")]
    Refused(String),
    /// The agent did not answer.
    #[error("the agent did not answer within {} seconds", DIAL_TIMEOUT.as_secs())]
    Timeout,
}

/// All tunnels of one proxy. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    offline_threshold: Duration,
    tunnels: RwLock<HashMap<Key, Vec<Arc<Connection>>>>,
    events: broadcast::Sender<TunnelEvent>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    name: String,
    tunnel_type: TunnelType,
}

impl Key {
    fn of(info: &TunnelInfo) -> Self {
        Self { name: info.server_id.clone(), tunnel_type: info.tunnel_type }
    }
}

impl Registry {
    pub(super) fn new(offline_threshold: Duration) -> Self {
        let inner =
            Inner { offline_threshold, tunnels: RwLock::default(), events: broadcast::Sender::new(EVENT_QUEUE) };
        Self { inner: Arc::new(inner) }
    }

    /// Opens a stream to the service of an agent.
    pub async fn dial(
        &self,
        server_id: &str,
        tunnel_type: TunnelType,
        request: &DialRequest,
    ) -> Result<TunnelStream, DialError> {
        let key = Key { name: server_id.to_owned(), tunnel_type };
        let found = self.inner.tunnels.read().get(&key).cloned().unwrap_or_default();
        if found.is_empty() {
            return Err(DialError::NotFound { server_id: server_id.to_owned(), tunnel_type });
        }
        self.dial_first(found, tunnel_type, request).await
    }

    /// Opens a stream through any of the proxies of a trusted cluster.
    pub async fn dial_cluster(&self, cluster: &str, request: &DialRequest) -> Result<TunnelStream, DialError> {
        let tunnel_type = TunnelType::Proxy;
        let of_cluster = |connection: &Arc<Connection>| {
            let info = connection.info();
            info.tunnel_type == tunnel_type && info.cluster == cluster
        };
        let mut found = self.connections();
        found.retain(of_cluster);
        if found.is_empty() {
            return Err(DialError::NotFound { server_id: cluster.to_owned(), tunnel_type });
        }
        found.sort_by_key(|connection| connection.since());
        self.dial_first(found, tunnel_type, request).await
    }

    /// Whether a tunnel to that agent ends here.
    pub fn contains(&self, server_id: &str, tunnel_type: TunnelType) -> bool {
        self.inner.tunnels.read().contains_key(&Key { name: server_id.to_owned(), tunnel_type })
    }

    /// Whether a tunnel to that agent ends here and works as far as is known.
    pub fn is_online(&self, server_id: &str, tunnel_type: TunnelType) -> bool {
        let tunnels = self.inner.tunnels.read();
        let found = tunnels.get(&Key { name: server_id.to_owned(), tunnel_type });
        found.is_some_and(|found| found.iter().any(|tunnel| tunnel.is_valid(self.inner.offline_threshold)))
    }

    /// All tunnels.
    pub fn list(&self) -> Vec<Arc<TunnelInfo>> {
        self.connections().iter().map(|connection| connection.info().clone()).collect()
    }

    /// How many tunnels there are.
    pub fn len(&self) -> usize {
        self.inner.tunnels.read().values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inner.tunnels.read().is_empty()
    }

    /// Waits until there are none.
    pub async fn emptied(&self) {
        let mut events = self.subscribe();
        while !self.is_empty() {
            let _ = events.recv().await;
        }
    }

    /// What happens from now on. A subscriber that falls far behind misses events and is told so.
    pub fn subscribe(&self) -> broadcast::Receiver<TunnelEvent> {
        self.inner.events.subscribe()
    }

    /// Tries the candidates from the best to the worst; `found` is in the order in which they connected.
    async fn dial_first(
        &self,
        mut found: Vec<Arc<Connection>>,
        tunnel_type: TunnelType,
        request: &DialRequest,
    ) -> Result<TunnelStream, DialError> {
        let threshold = self.inner.offline_threshold;
        found.reverse();
        // Stable: within the valid and within the invalid ones the newest comes first.
        found.sort_by_key(|connection| !connection.is_valid(threshold));
        let deadline = Instant::now() + DIAL_TIMEOUT;
        let mut failure = DialError::Offline(tunnel_type);
        for connection in found {
            match tokio::time::timeout_at(deadline, connection.open(request)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(OpenError::Refused(reason))) if reason.ends_with(DRAINING) => {
                    connection.invalidate();
                    failure = DialError::Offline(tunnel_type);
                }
                Ok(Err(OpenError::Refused(reason))) => return Err(DialError::Refused(reason)),
                Ok(Err(OpenError::Ssh(error))) => {
                    debug!(tunnel = %connection.info().server_id, %error, "a tunnel does not work");
                    connection.invalidate();
                }
                Err(_) => {
                    connection.invalidate();
                    return Err(DialError::Timeout);
                }
            }
        }
        Err(failure)
    }

    pub(super) fn register(&self, connection: &Arc<Connection>) {
        let info = connection.info();
        self.inner.tunnels.write().entry(Key::of(info)).or_default().push(connection.clone());
        info!(tunnel = %info.server_id, kind = %info.tunnel_type, peer = %info.peer, "tunnel established");
        let _ = self.inner.events.send(TunnelEvent::Registered(info.clone()));
    }

    pub(super) fn heartbeat(&self, connection: &Connection) {
        connection.heartbeat();
        let _ = self.inner.events.send(TunnelEvent::Heartbeat(connection.info().clone()));
    }

    pub(super) fn unregister(&self, connection: &Arc<Connection>) {
        let info = connection.info();
        let key = Key::of(info);
        let mut tunnels = self.inner.tunnels.write();
        let Some(found) = tunnels.get_mut(&key) else { return };
        let before = found.len();
        found.retain(|other| !Arc::ptr_eq(other, connection));
        let removed = found.len() < before;
        if found.is_empty() {
            tunnels.remove(&key);
        }
        drop(tunnels);
        if removed {
            info!(tunnel = %info.server_id, kind = %info.tunnel_type, peer = %info.peer, "tunnel ended");
            let _ = self.inner.events.send(TunnelEvent::Unregistered(info.clone()));
        }
    }

    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        self.inner.tunnels.read().values().flatten().cloned().collect()
    }

    pub(super) fn offline_threshold(&self) -> Duration {
        self.inner.offline_threshold
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("tunnels", &self.len()).finish_non_exhaustive()
    }
}
