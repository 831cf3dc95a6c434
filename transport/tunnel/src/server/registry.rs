//! Which tunnels there are, and dialling through them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::connection::{Connection, OpenError};
use crate::dial::{DialRequest, TunnelType};
use crate::protocol::DRAINING;
use crate::stream::TunnelStream;

/// The longest a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one tunnel may take before another one is tried as well. An agent answers at once, or after it has reached
/// what is asked for; a tunnel that the network forgot never does.
const HEAD_START: Duration = Duration::from_secs(2);

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
    /// Who waits for which tunnel: after a restart many may, and each is told of its own only.
    awaited: Mutex<HashMap<Key, Vec<oneshot::Sender<()>>>>,
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
        let events = broadcast::Sender::new(EVENT_QUEUE);
        let inner = Inner { offline_threshold, tunnels: RwLock::default(), events, awaited: Mutex::default() };
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
        let find = || self.inner.tunnels.read().get(&key).cloned().unwrap_or_default();
        self.dial_any(find, (server_id, tunnel_type), request).await
    }

    /// Waits until a tunnel to that agent ends here, for as long as `limit`. Says whether one does.
    pub async fn comes(&self, server_id: &str, tunnel_type: TunnelType, limit: Duration) -> bool {
        let key = Key { name: server_id.to_owned(), tunnel_type };
        let (told, coming) = oneshot::channel();
        self.await_with(&key, Some(told));
        // After the entry was made, so that no tunnel comes up unnoticed in between.
        if self.contains(server_id, tunnel_type) {
            drop(coming);
        } else {
            let _ = timeout(limit, coming).await; // whether it came is seen below
        }
        self.await_with(&key, None);
        self.contains(server_id, tunnel_type)
    }

    /// Notes somebody who waits, and forgets those who gave up.
    fn await_with(&self, key: &Key, told: Option<oneshot::Sender<()>>) {
        let mut awaited = self.inner.awaited.lock();
        let waiting = awaited.entry(key.clone()).or_default();
        waiting.retain(|told| !told.is_closed());
        waiting.extend(told);
        if waiting.is_empty() {
            awaited.remove(key);
        }
    }

    /// How many wait for a tunnel.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.inner.awaited.lock().values().map(Vec::len).sum()
    }

    /// Opens a stream through any of the proxies of a trusted cluster.
    pub async fn dial_cluster(&self, cluster: &str, request: &DialRequest) -> Result<TunnelStream, DialError> {
        let tunnel_type = TunnelType::Proxy;
        let of_cluster = |connection: &Arc<Connection>| {
            let info = connection.info();
            info.tunnel_type == tunnel_type && info.cluster == cluster
        };
        let find = || {
            let mut found = self.connections();
            found.retain(of_cluster);
            found.sort_by_key(|connection| connection.since());
            found
        };
        self.dial_any(find, (cluster, tunnel_type), request).await
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

    /// Tries tunnels from the best to the worst, and those that come up meanwhile: the next one when the last has failed,
    /// or has not answered for [`HEAD_START`]. `find` gives them in the order in which they connected.
    async fn dial_any(
        &self,
        find: impl Fn() -> Vec<Arc<Connection>>,
        (name, tunnel_type): (&str, TunnelType),
        request: &DialRequest,
    ) -> Result<TunnelStream, DialError> {
        let mut waiting = self.best_first(find());
        if waiting.is_empty() {
            return Err(DialError::NotFound { server_id: name.to_owned(), tunnel_type });
        }
        let open = |Asked { connection, answers }: Asked| async move {
            (connection.open(request, &answers).await, connection)
        };
        let (mut asked, mut opening) = (Vec::<Asked>::new(), FuturesUnordered::new());
        let mut arrivals = None;
        let mut late = pin!(sleep(DIAL_TIMEOUT));
        loop {
            match waiting.pop_front() {
                Some(connection) => {
                    let next = Asked { connection, answers: Arc::default() };
                    asked.push(next.clone());
                    opening.push(open(next));
                }
                None if opening.is_empty() => return Err(DialError::Offline(tunnel_type)),
                None => {}
            }
            let (outcome, connection) = tokio::select! {
                Some(opened) = opening.next() => opened,
                // Few dials hang: only those ask to be told of new tunnels.
                () = sleep(HEAD_START), if arrivals.is_none() || !waiting.is_empty() => {
                    arrivals.get_or_insert_with(|| self.subscribe());
                    waiting = self.best_first(untried(find(), &asked));
                    continue;
                }
                () = arrival(&mut arrivals) => {
                    waiting = self.best_first(untried(find(), &asked));
                    continue;
                }
                () = &mut late => {
                    asked.iter().for_each(Asked::give_up);
                    return Err(DialError::Timeout);
                }
            };
            match outcome {
                Ok(stream) => {
                    asked.iter().for_each(Asked::give_up);
                    return Ok(stream);
                }
                Err(OpenError::Refused(reason)) if reason.ends_with(DRAINING) => connection.invalidate(),
                Err(OpenError::Refused(reason)) => return Err(DialError::Refused(reason)),
                Err(OpenError::Ssh(error)) => {
                    debug!(tunnel = %connection.info().server_id, %error, "a tunnel does not work");
                    connection.invalidate();
                }
            }
        }
    }

    /// Puts tunnels into the order in which to try them; `found` is in the order in which they connected.
    fn best_first(&self, mut found: Vec<Arc<Connection>>) -> VecDeque<Arc<Connection>> {
        found.reverse();
        // Stable: within the valid and within the invalid ones the newest comes first.
        found.sort_by_key(|connection| !connection.is_valid(self.inner.offline_threshold));
        found.into()
    }

    pub(super) fn register(&self, connection: &Arc<Connection>) {
        let info = connection.info();
        let key = Key::of(info);
        self.inner.tunnels.write().entry(key.clone()).or_default().push(connection.clone());
        for told in self.inner.awaited.lock().remove(&key).unwrap_or_default() {
            let _ = told.send(()); // whoever waited may have given up
        }
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

fn untried(mut found: Vec<Arc<Connection>>, tried: &[Asked]) -> Vec<Arc<Connection>> {
    found.retain(|connection| !tried.iter().any(|other| Arc::ptr_eq(connection, &other.connection)));
    found
}

/// A tunnel that was asked for a stream.
#[derive(Clone)]
struct Asked {
    connection: Arc<Connection>,
    /// Whether its agent has taken the stream, which agents do by themselves.
    answers: Arc<AtomicBool>,
}

impl Asked {
    /// The tunnel is waited for no longer. It does not work if its agent said nothing at all: one that has taken the stream may
    /// still be dialling, which takes the proxy of a leaf as long as its node needs.
    fn give_up(&self) {
        if !self.answers.load(Ordering::Relaxed) {
            self.connection.invalidate();
        }
    }
}

/// Waits for a tunnel to come up; for ever if nobody listens for that.
async fn arrival(events: &mut Option<broadcast::Receiver<TunnelEvent>>) {
    let Some(events) = events else { return std::future::pending().await };
    while matches!(events.recv().await, Ok(TunnelEvent::Heartbeat(_) | TunnelEvent::Unregistered(_))) {}
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("tunnels", &self.len()).finish_non_exhaustive()
    }
}
