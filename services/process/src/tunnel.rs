//! The way to the tunnel port of a cluster's proxies.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use dialer::{Dialer, HostPort, ProxyEndpoint, Service, Traffic};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tunnel::BoxedStream;
use tunnel::agent::ProxyDialer;

/// For how long the proxy's word about its tunnel port is believed.
const FIND_EVERY: Duration = Duration::from_secs(3);
/// Port of tunnels where a proxy names none.
const TUNNEL_PORT: u16 = 3024;
/// Environment variable that says where tunnels go, whatever the proxy says.
const TUNNEL_VARIABLE: &str = "TELEPORT_TUNNEL_PUBLIC_ADDR";

/// Where tunnels end.
#[derive(Clone, Debug)]
enum TunnelPort {
    /// On the public port, by TLS routing.
    Public,
    /// On a port of its own, without TLS.
    Own(HostPort),
}

/// Connects to the tunnel port of a cluster's proxies, wherever they say that it is.
pub struct TunnelDialer {
    proxy: ProxyEndpoint,
    dialer: Dialer,
    found: Mutex<Option<(Instant, TunnelPort)>>,
}

impl TunnelDialer {
    /// Dials the tunnel port of the proxies at an address.
    pub fn new(proxy: ProxyEndpoint, dialer: Dialer) -> Self {
        Self { proxy, dialer, found: Mutex::default() }
    }

    async fn port(&self) -> io::Result<TunnelPort> {
        let mut found = self.found.lock().await;
        if let Some((at, port)) = &*found
            && at.elapsed() < FIND_EVERY
        {
            return Ok(port.clone());
        }
        let answer = self.proxy.find().await.map_err(io::Error::other)?;
        let ssh = &answer.proxy.ssh;
        // A proxy that names no port for tunnels has none but the public one.
        let unnamed = ssh.tunnel_listen_addr.is_empty() && ssh.ssh_tunnel_public_addr.is_empty();
        let told = std::env::var(TUNNEL_VARIABLE).is_ok_and(|text| !text.is_empty());
        let port = if answer.proxy.tls_routing_enabled || unnamed && !told {
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
impl ProxyDialer for TunnelDialer {
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
