//! The way to the tunnel port of a cluster's proxies.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dialer::{BoxStream, Connect, DialError, Dialer, HostPort, ProxyEndpoint, Service, Traffic};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tunnel::BoxedStream;
use tunnel::agent::ProxyDialer;

/// For how long the proxy's word about its tunnel port is believed once nothing more is reached there. A proxy that
/// restarts is away for less, and need not tell all its agents again.
const BELIEVED: Duration = Duration::from_secs(3);
/// For how long other connections to a proxy that was away let the tunnel come first.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after an agent's own tunnel the tunnels of the others are let come first as well.
const HEAD_START: Duration = Duration::from_secs(2);
/// The time over which the agents of a proxy that was away spread their other connections then.
const SPREAD: Duration = Duration::from_secs(3);
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
    found: Mutex<Option<Found>>,
    /// Whether the last dial led to a proxy, and a tunnel has been there since.
    leads: watch::Sender<bool>,
}

/// What the proxy said about its tunnel port.
#[derive(Debug)]
struct Found {
    port: TunnelPort,
    /// Since when no dial has led to a proxy.
    lost: Option<Instant>,
}

impl TunnelDialer {
    /// Dials the tunnel port of the proxies at an address.
    pub fn new(proxy: ProxyEndpoint, dialer: Dialer) -> Self {
        Self { proxy, dialer, found: Mutex::default(), leads: watch::Sender::new(true) }
    }

    /// Connects to the same proxies in another way, such as to the Auth Service. When they were away, tunnels come first:
    /// users wait for them, and what a connection to the Auth Service costs all agents at once, who fetch the state of the
    /// cluster anew, would keep them waiting.
    pub fn after_tunnel(&self, connect: Arc<dyn Connect>) -> Arc<dyn Connect> {
        Arc::new(AfterTunnel { connect, leads: self.leads.subscribe() })
    }

    async fn port(&self) -> io::Result<TunnelPort> {
        if let Some(found) = &*self.found.lock()
            && found.lost.is_none_or(|since| since.elapsed() < BELIEVED)
        {
            return Ok(found.port.clone());
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
        *self.found.lock() = Some(Found { port: port.clone(), lost: None });
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

    fn led_to_a_proxy(&self, led: bool) {
        self.leads.send_replace(led);
        if let Some(found) = &mut *self.found.lock() {
            found.lost = if led { None } else { found.lost.or_else(|| Some(Instant::now())) };
        }
    }

    fn cut_off(&self) {
        self.leads.send_replace(false);
    }
}

struct AfterTunnel {
    connect: Arc<dyn Connect>,
    leads: watch::Receiver<bool>,
}

#[async_trait]
impl Connect for AfterTunnel {
    async fn connect(&self) -> Result<BoxStream, DialError> {
        let mut leads = self.leads.clone();
        if *leads.borrow_and_update() {
            tokio::select! {
                // A proxy that ends may accept as its last act: when both are true, the connection leads nowhere.
                biased;
                true = cut_off(&mut leads) => {}
                outcome = self.connect.connect() => return outcome,
            }
        }
        let _ = timeout(PATIENCE, leads.wait_for(|leads| *leads)).await;
        sleep(HEAD_START + SPREAD.mul_f64(rand::random_range(0.0..=1.0))).await;
        self.connect.connect().await
    }
}

/// Waits until there is no tunnel. `false` when nobody will tell.
async fn cut_off(leads: &mut watch::Receiver<bool>) -> bool {
    leads.wait_for(|leads| !*leads).await.is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpListener;

    use dialer::Verify;
    use tokio::io::duplex;
    use tokio::time::advance;

    use super::*;

    /// A server that lets clients wait until it answers.
    struct Answers(watch::Receiver<bool>);

    #[async_trait]
    impl Connect for Answers {
        async fn connect(&self) -> Result<BoxStream, DialError> {
            let _ = self.0.clone().wait_for(|answers| *answers).await;
            Ok(Box::new(duplex(1).0))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_connections_come_after_the_tunnel() {
        let proxy = ProxyEndpoint::new(Dialer::direct(), HostPort::new("localhost", 1), Verify::Insecure);
        let tunnel = TunnelDialer::new(proxy, Dialer::direct());
        let answers = watch::Sender::new(true);
        let other = tunnel.after_tunnel(Arc::new(Answers(answers.subscribe())));
        let begin = Instant::now();
        let try_once = async || {
            let before = begin.elapsed();
            other.connect().await.unwrap();
            begin.elapsed() - before
        };
        // A connection that ends while the tunnel is there is made anew at once.
        tunnel.led_to_a_proxy(true);
        assert_eq!(try_once().await, Duration::ZERO);
        // The proxy has ended: what was under way to it waits, and so does what comes after.
        for under_way in [true, false] {
            answers.send_replace(!under_way);
            let back = async {
                sleep(Duration::from_secs(1)).await;
                tunnel.cut_off();
                answers.send_replace(true);
                sleep(PATIENCE / 2).await;
                tunnel.led_to_a_proxy(true);
            };
            if !under_way {
                tunnel.cut_off();
            }
            let (after, ()) = tokio::join!(try_once(), back);
            let earliest = Duration::from_secs(1) + PATIENCE / 2 + HEAD_START;
            assert!((earliest..=earliest + SPREAD).contains(&after), "{under_way}: {after:?}");
        }
        // A tunnel that stays away keeps nobody waiting for ever.
        tunnel.led_to_a_proxy(false);
        let (after, earliest) = (try_once().await, PATIENCE + HEAD_START);
        assert!((earliest..=earliest + SPREAD).contains(&after), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_is_asked_again_only_when_it_was_away_for_long() {
        // Nothing listens there, so that to ask is to fail.
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let proxy = ProxyEndpoint::new(Dialer::direct(), HostPort::from(closed), Verify::Insecure);
        let dialer = TunnelDialer::new(proxy, Dialer::direct());
        dialer.port().await.unwrap_err();
        *dialer.found.lock() = Some(Found { port: TunnelPort::Public, lost: None });
        advance(Duration::from_secs(3600)).await;
        dialer.port().await.unwrap();
        dialer.led_to_a_proxy(false);
        advance(BELIEVED / 2).await;
        dialer.led_to_a_proxy(false);
        dialer.port().await.unwrap();
        advance(BELIEVED / 2).await;
        dialer.port().await.unwrap_err();
        dialer.led_to_a_proxy(true);
        dialer.port().await.unwrap();
    }
}
