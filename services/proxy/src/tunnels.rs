//! The proxy's end of reverse tunnels.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use cache::Cache;
use mux::proxy_protocol::signed::HeaderSigner;
use pki::keys::PublicKey;
use tunnel::BoxedStream;
use tunnel::discovery::DiscoveredProxy;
use tunnel::server::{AuthDialer, HostAuthorities, TunnelServer, TunnelServerConfig};
use wire::error::Error;
use wire::types::{CertAuthorityV2, ServerV2};

use crate::dial::{dial_auth_server, say_who};
use crate::follow::Lists;
use crate::settings::Settings;
use crate::shown::Shown;

/// Labels of a proxy's record that say to which deployment it belongs.
const GROUP_LABEL: &str = "teleport.internal/proxygroup-id";
const GENERATION_LABEL: &str = "teleport.internal/proxygroup-gen";

/// The authorities of hosts, from the cache.
struct CachedAuthorities(Cache);

#[async_trait]
impl HostAuthorities for CachedAuthorities {
    async fn host_authority(&self, cluster: &str) -> Vec<PublicKey> {
        self.0.authority("host", cluster).map(|ca| ssh_keys(&ca)).unwrap_or_default()
    }
}

/// The SSH keys of an authority, signing and trusted ones.
pub(crate) fn ssh_keys(ca: &CertAuthorityV2) -> Vec<PublicKey> {
    let sets = ca.spec.iter().flat_map(|s| s.active_keys.iter().chain(&s.additional_trusted_keys));
    let lines = sets.flat_map(|set| &set.ssh).map(|pair| String::from_utf8_lossy(&pair.public_key).into_owned());
    lines.filter_map(|line| PublicKey::from_ssh_line(&line).ok()).collect()
}

/// Connects agents to the Auth Service.
struct ToAuth {
    settings: Arc<Settings>,
    signer: HeaderSigner,
}

#[async_trait]
impl AuthDialer for ToAuth {
    async fn dial_auth(&self, agent: SocketAddr) -> io::Result<BoxedStream> {
        let failed = |e: Error| io::Error::other(e.message);
        let mut stream = dial_auth_server(&self.settings).await.map_err(failed)?;
        let server = self.settings.web_socket().unwrap_or(agent);
        say_who(&self.signer, &mut stream, (agent, agent.ip()), server).await.map_err(failed)?;
        Ok(Box::new(stream))
    }
}

/// The server of agents' tunnels.
pub(crate) fn server(settings: &Arc<Settings>, cache: &Cache, shown: &Shown) -> TunnelServer {
    let server = TunnelServer::new(TunnelServerConfig {
        cluster: cache.cluster_name(),
        identity: shown.ssh(),
        authorities: Arc::new(CachedAuthorities(cache.clone())),
        auth: Arc::new(ToAuth { settings: settings.clone(), signer: shown.signer() }),
        keep_alive: process::keep_alive(cache),
    });
    server.set_proxies(&[itself(settings)]);
    server
}

fn itself(settings: &Settings) -> DiscoveredProxy {
    DiscoveredProxy { id: settings.host_uuid.clone(), group: String::new(), generation: 0 }
}

/// Tells agents of all proxies of the cluster, whenever the list changes, for ever.
pub(crate) async fn tell_of_proxies(
    server: TunnelServer,
    settings: Arc<Settings>,
    mut lists: tokio::sync::watch::Receiver<Lists>,
) {
    loop {
        let mut proxies: Vec<_> = lists.borrow_and_update().proxies.iter().filter_map(discovered).collect();
        if !proxies.iter().any(|proxy| proxy.id == settings.host_uuid) {
            proxies.push(itself(&settings));
        }
        proxies.sort_by(|a, b| a.id.cmp(&b.id));
        server.set_proxies(&proxies);
        if lists.changed().await.is_err() {
            return;
        }
    }
}

/// A proxy from its record. Records that have expired are not told on.
fn discovered(record: &ServerV2) -> Option<DiscoveredProxy> {
    let metadata = record.metadata.as_ref()?;
    let expired = wire::time::moment(metadata.expires.as_ref()).is_some_and(|end| end < chrono::Utc::now());
    let label = |name: &str| metadata.labels.get(name).cloned().unwrap_or_default();
    let (group, generation) = (label(GROUP_LABEL), label(GENERATION_LABEL).parse().unwrap_or(0));
    (!expired && !metadata.name.is_empty()).then(|| DiscoveredProxy { id: metadata.name.clone(), group, generation })
}
