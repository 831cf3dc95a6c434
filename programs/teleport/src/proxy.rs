//! The Proxy Service of this process.

use std::net::SocketAddr;
use std::sync::Arc;

use auth_service::SystemRole;
use config::{HostPort, Version};
use process::HostIdentity;
use proxy_service::{ProxyIdentity, ProxyService, Settings, Upstream};

use crate::error::{Failure, Result};
use crate::member::{Names, Process, Route};
use crate::rotation::Identities;

/// The port for other proxies of the cluster, opened when peering is on.
const PEER_PORT: u16 = 3021;

/// Starts the proxy; returns when its ports are open.
pub async fn start(process: &Process) -> Result<(ProxyService, Identities)> {
    let mut settings = settings(process)?;
    let names = Names { principals: settings.principals(), dns_names: settings.dns_names() };
    let member = process.member(SystemRole::Proxy, names).await?;
    settings.auth_servers = match &member.route {
        Route::Auth(addresses) => addresses.clone(),
        Route::Proxy(_) => {
            return Err(Failure("a proxy needs the address of the Auth Service: set teleport.auth_server".into()));
        }
    };
    let shown = identity(&member.identity)?;
    let upstream = Upstream::new(member.channel.clone(), member.http.clone());
    let service = ProxyService::start(settings, shown, member.channel.clone(), upstream).await?;
    let show = service.identity_setter();
    let serve = Box::new(move |renewed: &HostIdentity| Ok(show(&identity(renewed)?)?));
    let identities = process.identities(member, service.cache().clone(), serve);
    Ok((service, identities))
}

fn identity(identity: &HostIdentity) -> Result<ProxyIdentity> {
    Ok(ProxyIdentity {
        tls_certificate: identity.tls_certificate.clone(),
        tls_key: identity.tls_key.clone(),
        ssh: ssh_identity(identity)?,
    })
}

/// The SSH half of an identity.
pub fn ssh_identity(identity: &HostIdentity) -> Result<tunnel::HostIdentity> {
    let key = Arc::new(identity.ssh_key.to_ssh()?);
    Ok(tunnel::HostIdentity { key, certificate: identity.ssh_certificate.clone() })
}

fn settings(process: &Process) -> Result<Settings> {
    let (global, proxy) = (&process.config.global, &process.config.proxy);
    Ok(Settings {
        host_uuid: process.host_uuid.clone(),
        hostname: global.nodename.clone(),
        data_dir: global.data_dir.clone(),
        auth_servers: Vec::new(),
        legacy_listeners: process.config.version == Version::V1,
        web: proxy.web.clone(),
        ssh: proxy.ssh.clone(),
        tunnel: proxy.tunnel.clone(),
        kube: proxy.kube.clone(),
        mysql: proxy.mysql.clone(),
        postgres: proxy.postgres.clone(),
        mongo: proxy.mongo.clone(),
        kube_enabled: proxy.kube_enabled,
        public_addrs: proxy.public_addrs.clone(),
        ssh_public_addrs: proxy.ssh_public_addrs.clone(),
        tunnel_public_addrs: proxy.tunnel_public_addrs.clone(),
        kube_public_addrs: proxy.kube_public_addrs.clone(),
        postgres_public_addrs: proxy.postgres_public_addrs.clone(),
        mysql_public_addrs: proxy.mysql_public_addrs.clone(),
        mongo_public_addrs: proxy.mongo_public_addrs.clone(),
        peer: Some(proxy.peer.clone().unwrap_or_else(|| HostPort::new("0.0.0.0", PEER_PORT))),
        peer_public_addr: proxy.peer_public_addr.clone(),
        redis: proxy.redis.clone(),
        https_keypairs: proxy.https_keypairs.clone(),
        https_keypairs_reload_interval: proxy.https_keypairs_reload_interval,
        beside_auth: process.auth.is_some(),
        dialer: process.dialer.clone(),
        proxy_verify: process.verify(),
        trust_x_forwarded_for: proxy.trust_x_forwarded_for,
        max_connections: usize::try_from(global.limits.max_connections).unwrap_or(usize::MAX),
        rates: rates(global),
        algorithms: algorithms(global),
        proxy_protocol: crate::auth::proxy_protocol(proxy.proxy_protocol),
    })
}

/// How often one address may ask services of this process for something.
pub fn rates(global: &config::Global) -> Vec<mux::rate::Rate> {
    let rate = |rate: &config::Rate| mux::rate::Rate { period: rate.period, average: rate.average, burst: rate.burst };
    global.limits.rates.iter().map(rate).collect()
}

/// The SSH algorithms of this process's services.
pub fn algorithms(global: &config::Global) -> tunnel::ssh::Algorithms {
    tunnel::ssh::Algorithms {
        ciphers: global.ciphers.clone(),
        key_exchanges: global.key_exchanges.clone(),
        macs: global.macs.clone(),
    }
}

/// The socket address of a listener.
pub fn socket(address: &HostPort) -> Result<SocketAddr> {
    let ip = if address.host == "localhost" { Some([127, 0, 0, 1].into()) } else { address.ip() };
    ip.map(|ip| SocketAddr::new(ip, address.port))
        .ok_or_else(|| Failure(format!("{address}: a listener needs an IP address, not a name")))
}
