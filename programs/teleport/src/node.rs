//! The SSH Service of this process.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auth_service::SystemRole;
use dialer::{Dialer, HostPort, ProxyEndpoint, Service, Traffic};
use ssh_service::{NodeConfig, Reach, SshService};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tunnel::BoxedStream;
use tunnel::agent::ProxyDialer;

use crate::error::Result;
use crate::member::{Names, Process};
use crate::proxy::{socket, ssh_identity};

/// For how long the proxy's word about its tunnel port is believed.
const FIND_EVERY: Duration = Duration::from_secs(3);
/// Port of tunnels where a proxy names none.
const TUNNEL_PORT: u16 = 3024;
/// Environment variable that says where tunnels go, whatever the proxy says.
const TUNNEL_VARIABLE: &str = "TELEPORT_TUNNEL_PUBLIC_ADDR";

/// Starts the node; returns when it can be reached.
pub async fn start(process: &Process) -> Result<SshService> {
    let ssh = &process.config.ssh;
    let principals = ssh.public_addrs.iter().map(|a| a.host.clone());
    let advertised = process.config.global.advertise.iter().map(|a| a.host.to_string());
    let names = Names { principals: principals.chain(advertised).collect(), dns_names: Vec::new() };
    let member = process.member(SystemRole::Node, names).await?;
    let identity = ssh_identity(&member.identity)?;
    let (reach, address) = match member.proxy {
        Some(proxy) => {
            let dialer = ToProxy { proxy, dialer: process.dialer.clone(), found: Mutex::default() };
            (Reach::Tunnel { dialer: Arc::new(dialer) }, None)
        }
        None => {
            let listen = socket(&ssh.listen_addr)?;
            let mut address = listen;
            if let Some(advertise) = &process.config.global.advertise
                && let Ok(ip) = advertise.host.to_string().parse()
            {
                address.set_ip(ip);
            }
            (Reach::Listener { address: listen }, Some(address))
        }
    };
    let config = NodeConfig {
        host_uuid: process.host_uuid.clone(),
        hostname: process.config.global.nodename.clone(),
        cluster: member.identity.cluster.clone(),
        labels: ssh.labels.clone(),
        address,
        public_addrs: ssh.public_addrs.iter().map(ToString::to_string).collect(),
    };
    Ok(SshService::start(config, identity, member.channel, &process.config.global.data_dir, reach).await?)
}

/// Where tunnels end.
#[derive(Clone, Debug)]
enum TunnelPort {
    /// On the public port, by TLS routing.
    Public,
    /// On a port of its own, without TLS.
    Own(HostPort),
}

/// Connects to the proxy's tunnel port.
struct ToProxy {
    proxy: ProxyEndpoint,
    dialer: Dialer,
    found: Mutex<Option<(Instant, TunnelPort)>>,
}

impl ToProxy {
    async fn port(&self) -> io::Result<TunnelPort> {
        let mut found = self.found.lock().await;
        if let Some((at, port)) = &*found
            && at.elapsed() < FIND_EVERY
        {
            return Ok(port.clone());
        }
        let answer = self.proxy.find().await.map_err(io::Error::other)?;
        let port = if answer.proxy.tls_routing_enabled {
            TunnelPort::Public
        } else {
            TunnelPort::Own(self.own_port(&answer)?)
        };
        *found = Some((Instant::now(), port.clone()));
        Ok(port)
    }

    /// The tunnel port as a proxy with separate ports names it.
    fn own_port(&self, answer: &dialer::webapi::PingResponse) -> io::Result<HostPort> {
        let ssh = &answer.proxy.ssh;
        let parse = |text: &str, port| HostPort::parse(text, port).map_err(io::Error::other);
        if let Ok(text) = std::env::var(TUNNEL_VARIABLE)
            && !text.is_empty()
        {
            return parse(&text, TUNNEL_PORT);
        }
        let listen = parse(or(&ssh.tunnel_listen_addr, "0.0.0.0"), TUNNEL_PORT)?;
        if !ssh.ssh_tunnel_public_addr.is_empty() {
            return parse(&ssh.ssh_tunnel_public_addr, listen.port);
        }
        for public in [&ssh.ssh_public_addr, &ssh.public_addr] {
            if !public.is_empty() {
                return Ok(HostPort::new(parse(public, listen.port)?.host, listen.port));
            }
        }
        let unspecified = listen.ip().is_some_and(|ip| ip.is_unspecified());
        let host = if unspecified { self.proxy.address().host.clone() } else { listen.host };
        Ok(HostPort::new(host, listen.port))
    }
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

#[async_trait]
impl ProxyDialer for ToProxy {
    async fn dial(&self) -> io::Result<BoxedStream> {
        match self.port().await? {
            TunnelPort::Public => {
                let stream = self.proxy.open(&Service::reverse_tunnel(false)).await.map_err(io::Error::other)?;
                Ok(Box::new(stream))
            }
            TunnelPort::Own(address) => {
                let stream = self.dialer.tcp(&address, Traffic::Raw).await.map_err(io::Error::other)?;
                Ok(Box::new(stream))
            }
        }
    }
}
