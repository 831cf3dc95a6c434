//! The clusters that trust this one: what their proxies' tunnels lead to.
//!
//! As long as a leaf's proxy holds a tunnel to this proxy, a cache of the leaf's servers is kept, fed by the leaf's own
//! Auth Service through that tunnel.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cache::{Cache, Change, Kind};
use chrono::{TimeDelta, Utc};
use dialer::{Connect, DialError, TlsSetup, Verify};
use futures::StreamExt;
use parking_lot::RwLock;
use pki::tls::TrustedAuthorities;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use tunnel::server::{DialError as TunnelError, Registry, TunnelEvent, TunnelServer};
use tunnel::{BoxedStream, DialRequest, TunnelType};
use wire::client::api_channel;
use wire::types::{Metadata, TunnelConnectionSpecV2, TunnelConnectionV2};

use crate::settings::Settings;
use crate::shown::Shown;
use crate::tls::tls_certificates;
use crate::told;
use crate::upstream::Upstream;

/// How long a first look at a leaf may take while a client waits.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How often the cluster is told which leaves are online, and how long it believes that.
const REPEAT: Duration = Duration::from_secs(60);
const RECORD_TTL: TimeDelta = TimeDelta::minutes(3);
/// Leaves whose records are sent at the same time.
const TOLD_AT_ONCE: usize = 16;
/// What happens within this time is looked at once.
const TOGETHER: Duration = Duration::from_millis(100);

/// The leaves. Clones are the same.
#[derive(Clone)]
pub(crate) struct Leaves {
    shared: Arc<Shared>,
}

struct Shared {
    host_uuid: String,
    cache: Cache,
    server: TunnelServer,
    tunnels: Registry,
    upstream: Upstream,
    shown: Shown,
    known: RwLock<HashMap<String, Leaf>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

struct Leaf {
    cache: Cache,
    _until_dropped: DropGuard,
}

impl Leaves {
    /// No leaves yet; `shown` is the proxy's own identity, which leaves know.
    pub(crate) fn new(
        settings: &Settings,
        cache: Cache,
        server: TunnelServer,
        upstream: Upstream,
        shown: Shown,
        (tasks, shutdown): (TaskTracker, CancellationToken),
    ) -> Self {
        let (host_uuid, tunnels) = (settings.host_uuid.clone(), server.registry().clone());
        let known = RwLock::default();
        let shared = Shared { host_uuid, cache, server, tunnels, upstream, shown, known, tasks, shutdown };
        Self { shared: Arc::new(shared) }
    }

    /// Follows the tunnels for ever, and tells the cluster which leaves are online.
    pub(crate) async fn follow(self) {
        let mut events = self.shared.tunnels.subscribe();
        let mut changes = self.shared.cache.subscribe();
        let mut repeat = tokio::time::interval(REPEAT);
        repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(TunnelEvent::Registered(info) | TunnelEvent::Unregistered(info))
                        if info.tunnel_type == TunnelType::Proxy => {}
                    Ok(_) => continue,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                change = changes.recv() => match change {
                    Ok(Change::Authority(..) | Change::Everything) | Err(RecvError::Lagged(_)) => {}
                    Ok(_) => continue,
                    Err(RecvError::Closed) => return,
                },
                _ = repeat.tick() => {}
            }
            sleep(TOGETHER).await;
            self.review().await;
        }
    }

    /// Begins with leaves that have a tunnel now, forgets those without, and cuts those that are not to be any more.
    async fn review(&self) {
        let (online, gone) = self.compare();
        for name in gone {
            if let Err(error) = self.shared.upstream.delete(&self.record_path(&name)).await {
                debug!(cluster = name, %error, "a leaf's record was not removed; it expires");
            }
        }
        let (trusted, removed): (Vec<_>, Vec<_>) =
            online.into_iter().partition(|name| self.shared.cache.authority("host", name).is_some());
        for name in removed {
            info!(cluster = name, "leaf cluster was removed: closing its tunnels");
            self.shared.server.disconnect_cluster(&name).await;
        }
        let told = futures::stream::iter(trusted).for_each_concurrent(TOLD_AT_ONCE, |name| async move {
            let told = self.shared.upstream.post("/v2/tunnelconnections", &self.record(&name)).await;
            if let Err(error) = told {
                warn!(cluster = name, %error, "a leaf's state was not recorded, trying again");
            }
        });
        told.await;
    }

    /// The leaves that are online, and those that were until now.
    fn compare(&self) -> (Vec<String>, Vec<String>) {
        let tunnels = self.shared.tunnels.list();
        let of_leaves = tunnels.iter().filter(|t| t.tunnel_type == TunnelType::Proxy).map(|t| t.cluster.clone());
        let online: BTreeSet<String> = of_leaves.collect();
        let mut known = self.shared.known.write();
        let gone: Vec<String> = known.keys().filter(|name| !online.contains(*name)).cloned().collect();
        for name in &gone {
            info!(cluster = name, "leaf cluster is offline");
            known.remove(name);
        }
        for name in &online {
            if !known.contains_key(name) {
                info!(cluster = name, "leaf cluster is online");
                known.insert(name.clone(), self.begin(name));
            }
        }
        (online.into_iter().collect(), gone)
    }

    /// The record of this proxy's tunnel from a leaf.
    fn record(&self, leaf: &str) -> Value {
        let connection = TunnelConnectionV2 {
            kind: "tunnel_connection".into(),
            version: "v2".into(),
            metadata: Some(Metadata {
                name: self.record_name(leaf),
                expires: Some(wire::time::timestamp(Utc::now() + RECORD_TTL)),
                ..Default::default()
            }),
            spec: Some(TunnelConnectionSpecV2 {
                cluster_name: leaf.to_owned(),
                proxy_name: self.shared.host_uuid.clone(),
                last_heartbeat: Some(wire::time::timestamp(Utc::now())),
                r#type: "proxy".into(),
            }),
            ..Default::default()
        };
        json!({"tunnel_connection": connection})
    }

    fn record_name(&self, leaf: &str) -> String {
        format!("{}-{leaf}", self.shared.host_uuid)
    }

    fn record_path(&self, leaf: &str) -> String {
        let part = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        format!("/v2/tunnelconnections/{}/{}", part(leaf), part(&self.record_name(leaf)))
    }

    fn begin(&self, name: &str) -> Leaf {
        let connect = ToLeafAuth { leaves: self.clone(), cluster: name.to_owned() };
        let channel = api_channel(dialer::channel(Arc::new(connect), None));
        let stop = self.shared.shutdown.child_token();
        let (cache, leaf, to_leaf, until) = (self.shared.cache.clone(), name.to_owned(), channel.clone(), stop.clone());
        self.shared.tasks.spawn(async move {
            tokio::select! {
                () = told::keep_told(cache, told::KNOWN_TO_LEAVES, &leaf, || Ok(to_leaf.clone())) => {}
                () = until.cancelled() => {}
            }
        });
        let cache = Cache::start(channel, vec![Kind::ClusterSettings, Kind::Nodes], &self.shared.tasks, stop.clone());
        Leaf { cache, _until_dropped: stop.drop_guard() }
    }

    /// What is known of a leaf that is online; waits a moment for one that has just come.
    pub(crate) async fn get(&self, name: &str) -> Option<Cache> {
        let cache = self.shared.known.read().get(name).map(|leaf| leaf.cache.clone())?;
        cache.ready(FIRST_LOOK).await.then_some(cache)
    }

    /// A stream through a leaf's proxy.
    pub(crate) async fn dial(&self, cluster: &str, request: &DialRequest) -> Result<BoxedStream, TunnelError> {
        Ok(Box::new(self.shared.tunnels.dial_cluster(cluster, request).await?))
    }
}

/// Connects to the Auth Service of a leaf, through the leaf's tunnel, with the proxy's own certificate.
struct ToLeafAuth {
    leaves: Leaves,
    cluster: String,
}

#[async_trait]
impl Connect for ToLeafAuth {
    async fn connect(&self) -> Result<dialer::BoxStream, DialError> {
        let shared = &self.leaves.shared;
        let target = format!("auth service of leaf cluster {}", self.cluster);
        let failed = |what: String| DialError::Connect { target: target.clone(), source: std::io::Error::other(what) };
        let authority = shared.cache.authority("host", &self.cluster);
        let authority = authority.ok_or_else(|| failed("its authority is not known".to_owned()))?;
        let certificates = tls_certificates(&authority).map_err(|e| failed(e.message))?;
        let trusted = TrustedAuthorities::new(&certificates).map_err(|e| failed(e.to_string()))?;
        let stream = self.leaves.dial(&self.cluster, &DialRequest::auth_server()).await;
        let stream = stream.map_err(|e| failed(e.to_string()))?;
        // The server name says whose client this is, so that the leaf looks at that cluster's authorities.
        let name = pki::cluster_name::to_server_name(&shared.cache.cluster_name());
        let verify = Verify::Cluster { authorities: Arc::new(trusted), cluster: self.cluster.clone() };
        let setup = TlsSetup::new(&name, &[mux::alpn::H2], &verify, Some(&shared.shown.client()))?;
        let stream: dialer::BoxStream = Box::new(stream);
        debug!(cluster = self.cluster, "asking the leaf's auth service");
        Ok(Box::new(setup.connect(&target, stream).await?))
    }
}
