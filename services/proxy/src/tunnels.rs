//! The proxy's end of reverse tunnels.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cache::Cache;
use pki::keys::PublicKey;
use tunnel::BoxedStream;
use tunnel::discovery::DiscoveredProxy;
use tunnel::server::{AuthDialer, HostAuthorities, TunnelServer, TunnelServerConfig};
use wire::types::CertAuthorityV2;

use crate::ProxyIdentity;
use crate::dial::dial_auth_server;
use crate::settings::Settings;

/// Keep-alive settings of a cluster that sets none.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5 * 60);
const KEEP_ALIVE_COUNT: u32 = 3;

/// The authorities of hosts, from the cache.
struct CachedAuthorities(Cache);

#[async_trait]
impl HostAuthorities for CachedAuthorities {
    async fn host_authority(&self, cluster: &str) -> Vec<russh::keys::PublicKey> {
        self.0
            .authority("host", cluster)
            .map(|ca| ssh_keys(&ca).iter().map(PublicKey::to_ssh).collect())
            .unwrap_or_default()
    }
}

/// The SSH keys of an authority, signing and trusted ones.
pub(crate) fn ssh_keys(ca: &CertAuthorityV2) -> Vec<PublicKey> {
    let sets = ca.spec.iter().flat_map(|s| s.active_keys.iter().chain(&s.additional_trusted_keys));
    let lines = sets.flat_map(|set| &set.ssh).map(|pair| String::from_utf8_lossy(&pair.public_key).into_owned());
    lines.filter_map(|line| PublicKey::from_ssh_line(&line).ok()).collect()
}

/// Connects agents to the Auth Service.
struct ToAuth(Arc<Settings>);

#[async_trait]
impl AuthDialer for ToAuth {
    async fn dial_auth(&self, _agent: SocketAddr) -> io::Result<BoxedStream> {
        let stream = dial_auth_server(&self.0).await.map_err(|e| io::Error::other(e.message))?;
        Ok(Box::new(stream))
    }
}

/// The server of agents' tunnels.
pub(crate) fn server(settings: &Arc<Settings>, cache: &Cache, identity: &ProxyIdentity) -> TunnelServer {
    let networking = cache.networking();
    let spec = networking.spec.clone().unwrap_or_default();
    let interval = u64::try_from(spec.keep_alive_interval).ok().filter(|n| *n > 0);
    let server = TunnelServer::new(TunnelServerConfig {
        cluster: cache.cluster_name(),
        identity: identity.ssh.clone(),
        authorities: Arc::new(CachedAuthorities(cache.clone())),
        auth: Arc::new(ToAuth(settings.clone())),
        keep_alive_interval: interval.map_or(KEEP_ALIVE_INTERVAL, Duration::from_nanos),
        keep_alive_count: u32::try_from(spec.keep_alive_count_max).ok().filter(|n| *n > 0).unwrap_or(KEEP_ALIVE_COUNT),
    });
    server.set_proxies(&[DiscoveredProxy { id: settings.host_uuid.clone(), group: String::new(), generation: 0 }]);
    server
}
