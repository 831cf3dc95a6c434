//! Who is there: servers that announce themselves.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chrono::TimeDelta;
use resources::Resource;
use wire::{
    error::{Error, Result},
    types::{Metadata, ServerSpecV2, ServerV2},
};

use crate::{Auth, random, store::kind, store::kind::Kind};

/// How long a server counts as present after it was heard of.
pub const SERVER_TTL: TimeDelta = TimeDelta::minutes(10);

/// How long a server is not missed after it was heard of: agents speak every five minutes at least.
const PATIENCE: TimeDelta = TimeDelta::minutes(6);

/// How often this service says that it is there.
const ANNOUNCE: Duration = Duration::from_secs(5 * 60);

/// The port of the web interface when no proxy has said where it is.
const UNKNOWN_PROXY: &str = "<proxyhost>:3080";

impl Auth {
    /// Stores an SSH agent; addresses that mean nothing to others are replaced by where it connects from.
    ///
    /// # Errors
    /// `BadParameter` for malformed servers.
    pub async fn upsert_node(&self, server: ServerV2, remote_addr: Option<SocketAddr>) -> Result<Arc<ServerV2>> {
        self.upsert_server::<kind::Node>(server, remote_addr).await
    }

    /// Stores a Proxy Service.
    ///
    /// # Errors
    /// `BadParameter` for malformed servers.
    pub async fn upsert_proxy(&self, server: ServerV2, remote_addr: Option<SocketAddr>) -> Result<Arc<ServerV2>> {
        self.upsert_server::<kind::Proxy>(server, remote_addr).await
    }

    /// Stores an Auth Service.
    ///
    /// # Errors
    /// `BadParameter` for malformed servers.
    pub async fn upsert_auth_server(&self, server: ServerV2, remote_addr: Option<SocketAddr>) -> Result<Arc<ServerV2>> {
        self.upsert_server::<kind::AuthServer>(server, remote_addr).await
    }

    /// How many SSH servers are still listed although they should have been heard of. Those without an agent say nothing.
    pub(crate) fn missed_heartbeats(&self) -> usize {
        let last = self.now() + SERVER_TTL - PATIENCE;
        self.store().cached_where::<kind::Node>(|node| node.expires().is_some_and(|end| end < last)).len()
    }

    async fn upsert_server<K: Kind<Value = ServerV2>>(
        &self,
        mut server: ServerV2,
        remote_addr: Option<SocketAddr>,
    ) -> Result<Arc<ServerV2>> {
        server.kind = K::NAME.to_owned();
        if let (Some(spec), Some(remote)) = (&mut server.spec, remote_addr) {
            spec.addr = reachable(&spec.addr, remote);
        }
        server.check_and_set_defaults().map_err(Error::from)?;
        let now = self.now();
        let latest = now + SERVER_TTL;
        // Servers without an agent do not announce themselves: they stay until somebody removes them.
        if has_agent(&server) && server.expires().is_none_or(|at| at > latest) {
            server.set_expires(Some(latest));
        }
        self.store().upsert::<K>(server).await
    }

    /// Says that this service is there.
    pub(crate) async fn announce(&self) -> Result<()> {
        let config = &self.0.config;
        let server = ServerV2 {
            metadata: Some(Metadata { name: self.host_uuid().to_owned(), ..Metadata::default() }),
            spec: Some(ServerSpecV2 {
                addr: config.advertise_addr.clone(),
                hostname: config.node_name.clone(),
                version: wire::VERSION.to_owned(),
                ..ServerSpecV2::default()
            }),
            ..ServerV2::default()
        };
        self.upsert_auth_server(server, None).await.map(drop)
    }

    /// Says that this service is there no longer.
    pub(crate) async fn retract(&self) {
        if let Err(error) = self.store().delete::<kind::AuthServer>(self.host_uuid()).await {
            tracing::debug!(%error, "the record of this service could not be removed");
        }
    }

    /// Keeps saying so; ends only by being dropped.
    pub(crate) async fn keep_announcing(&self) {
        loop {
            tokio::time::sleep(random::jitter(ANNOUNCE)).await;
            if let Err(error) = self.announce().await {
                tracing::warn!(%error, "this service could not be announced, trying again later");
            }
        }
    }

    /// Where people reach the web interface, with port.
    pub(crate) async fn proxy_web_addr(&self) -> Result<String> {
        let proxies = self.store().cached_list::<kind::Proxy>();
        let specs = proxies.iter().filter_map(|proxy| proxy.spec.as_ref());
        let public = specs.clone().find_map(|spec| spec.public_addrs.first().cloned());
        let named =
            || specs.clone().find(|spec| !spec.hostname.is_empty()).map(|spec| format!("{}:3080", spec.hostname));
        Ok(public.or_else(named).unwrap_or_else(|| UNKNOWN_PROXY.to_owned()))
    }

    /// The host of the web interface; the cluster's name when no proxy is known.
    pub(crate) async fn proxy_host(&self) -> Result<String> {
        let addr = self.proxy_web_addr().await?;
        if addr == UNKNOWN_PROXY {
            return Ok(self.cluster_name().to_owned());
        }
        Ok(addr.rsplit_once(':').map_or(addr.as_str(), |(host, _)| host).to_owned())
    }
}

/// Whether a server runs an agent, which decides about connections by itself. To the others proxies log in, with
/// certificates that the hosts themselves take for anybody's.
pub(crate) fn has_agent(server: &ServerV2) -> bool {
    matches!(server.sub_kind.as_str(), "" | "teleport")
}

/// Refuses what an agent says of itself when it says that it is none: connections would go to any address that it gives,
/// allowed by labels of its choice.
pub(crate) fn require_agent(server: &ServerV2) -> Result<()> {
    if has_agent(server) {
        return Ok(());
    }
    Err(Error::access_denied(format!(
        "access denied: an agent registers itself, found sub_kind {:?}: servers without an agent are registered by \
         administrators and the discovery service",
        server.sub_kind
    )))
}

/// An address that others can reach: hosts that mean "here" are replaced by where the server connects from.
fn reachable(addr: &str, remote: SocketAddr) -> String {
    let Some((host, port)) = addr.rsplit_once(':') else { return addr.to_owned() };
    let here = matches!(host.trim_matches(['[', ']']), "" | "localhost" | "0.0.0.0" | "::" | "127.0.0.1" | "::1");
    let ip = remote.ip().to_canonical();
    match port.parse::<u16>() {
        Ok(port) if here => SocketAddr::new(ip, port).to_string(),
        _ => addr.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mean_here_are_replaced_by_where_the_server_is() {
        let remote = SocketAddr::from(([192, 0, 2, 7], 50_000));
        for (given, wanted) in [
            ("0.0.0.0:3022", "192.0.2.7:3022"),
            ("[::]:3022", "192.0.2.7:3022"),
            ("localhost:3022", "192.0.2.7:3022"),
            (":3022", "192.0.2.7:3022"),
            ("node.example.com:3022", "node.example.com:3022"),
            ("10.0.0.1:3022", "10.0.0.1:3022"),
            ("", ""),
        ] {
            assert_eq!(reachable(given, remote), wanted, "{given}");
        }
    }
}
