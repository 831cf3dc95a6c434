//! TCP connections, directly or through a proxy of the environment.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mux::Rewind;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::address::HostPort;
use crate::deadline::Deadline;
use crate::environment::{EnvironmentError, ProxyEnvironment, ProxyScheme, ProxyServer, Traffic};
use crate::stream::{BoxStream, TlsStream};
use crate::tls::{TlsSetup, Verify};
use crate::{DialError, http_head, socks};

/// Time for a whole dial: name service, TCP, proxy, TLS, upgrade.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Head start of one address of a host before the next is tried as well (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Makes outbound connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Dialer {
    environment: Arc<ProxyEnvironment>,
    timeout: Duration,
    proxy_verify: Verify,
}

impl Dialer {
    /// With the proxy settings of this process, which are checked here.
    pub fn from_env() -> Result<Self, EnvironmentError> {
        Ok(Self::new(ProxyEnvironment::from_env()?))
    }

    /// With the given proxy settings.
    pub fn new(environment: ProxyEnvironment) -> Self {
        Self { environment: Arc::new(environment), timeout: DIAL_TIMEOUT, proxy_verify: Verify::System }
    }

    /// Without any proxy.
    pub fn direct() -> Self {
        Self::new(ProxyEnvironment::direct())
    }

    /// Another limit for whole dials than [`DIAL_TIMEOUT`].
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How `https` proxies are verified; the system's authorities unless set.
    #[must_use]
    pub fn with_proxy_verify(mut self, verify: Verify) -> Self {
        self.proxy_verify = verify;
        self
    }

    /// A TCP connection.
    pub async fn tcp(&self, target: &HostPort, traffic: Traffic) -> Result<BoxStream, DialError> {
        self.tcp_until(&self.deadline(target), target, traffic).await
    }

    /// A TLS connection with these settings.
    pub async fn tls(&self, target: &HostPort, traffic: Traffic, setup: &TlsSetup) -> Result<TlsStream, DialError> {
        let deadline = self.deadline(target);
        let stream = self.tcp_until(&deadline, target, traffic).await?;
        setup.handshake(&deadline, target, stream).await
    }

    /// The proxy that a dial of this target goes through.
    pub fn proxy_for(&self, target: &HostPort, traffic: Traffic) -> Option<&ProxyServer> {
        self.environment.proxy_for(target, traffic)
    }

    pub(crate) fn deadline(&self, target: &HostPort) -> Deadline {
        Deadline::new(target, self.timeout)
    }

    pub(crate) async fn tcp_until(
        &self,
        deadline: &Deadline,
        target: &HostPort,
        traffic: Traffic,
    ) -> Result<BoxStream, DialError> {
        let Some(proxy) = self.proxy_for(target, traffic) else {
            return Ok(Box::new(connect(deadline, target, &target.to_string()).await?));
        };
        tracing::debug!(%target, %proxy, "dialling through a proxy");
        let name = proxy.to_string();
        let stream = connect(deadline, &proxy.address, &name).await?;
        match proxy.scheme {
            ProxyScheme::Http => http_connect(deadline, target, proxy, Box::new(stream)).await,
            ProxyScheme::Https => {
                let setup = TlsSetup::new(&proxy.address.host, &["http/1.1"], &self.proxy_verify, None)?;
                let stream = setup.handshake(deadline, &name, Box::new(stream)).await?;
                http_connect(deadline, target, proxy, Box::new(stream)).await
            }
            ProxyScheme::Socks5 => socks_connect(deadline, target, proxy, stream).await,
        }
    }
}

async fn http_connect(
    deadline: &Deadline,
    target: &HostPort,
    proxy: &ProxyServer,
    mut stream: BoxStream,
) -> Result<BoxStream, DialError> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(credentials) = &proxy.credentials {
        request.push_str(&format!("Proxy-Authorization: {}\r\n", credentials.basic()));
    }
    request.push_str("\r\n");
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        http_head::read(&mut stream).await
    };
    let failed = |problem: String| DialError::ProxyAnswer { target: target.clone(), proxy: proxy.to_string(), problem };
    let step = format!("{proxy} to answer CONNECT {target}");
    let (head, rest) = deadline.wait(step, exchange).await?.map_err(|error| failed(error.to_string()))?;
    if head.status != 200 {
        let (target, proxy, status) = (target.clone(), proxy.to_string(), head.status_text());
        return Err(DialError::ProxyRefused { target, proxy, status });
    }
    Ok(if rest.is_empty() { stream } else { Box::new(Rewind::new(rest, stream)) })
}

async fn socks_connect(
    deadline: &Deadline,
    target: &HostPort,
    proxy: &ProxyServer,
    mut stream: TcpStream,
) -> Result<BoxStream, DialError> {
    let step = format!("{proxy} to connect to {target}");
    let outcome = deadline.wait(step, socks::connect(&mut stream, target, proxy.credentials.as_ref())).await?;
    let (target, proxy) = (target.clone(), proxy.to_string());
    match outcome {
        Ok(()) => Ok(Box::new(stream)),
        Err(socks::SocksError::Refused(status)) => {
            Err(DialError::ProxyRefused { target, proxy, status: status.to_owned() })
        }
        Err(error) => Err(DialError::ProxyAnswer { target, proxy, problem: error.to_string() }),
    }
}

/// A plain TCP connection; `name` is what errors call the other side.
async fn connect(deadline: &Deadline, address: &HostPort, name: &str) -> Result<TcpStream, DialError> {
    let addresses = match address.ip() {
        Some(ip) => vec![SocketAddr::new(ip, address.port)],
        None => resolve(deadline, address).await?,
    };
    let stream = deadline
        .wait(format!("{name} to accept a TCP connection"), first_of(addresses))
        .await?
        .map_err(|source| DialError::Connect { target: name.to_owned(), source })?;
    if let Err(error) = mux::listener::tune(&stream) {
        tracing::debug!(target = name, %error, "set socket options");
    }
    Ok(stream)
}

async fn resolve(deadline: &Deadline, address: &HostPort) -> Result<Vec<SocketAddr>, DialError> {
    let host = &address.host;
    let failed = |source| DialError::Resolve { host: host.clone(), source };
    let lookup = lookup_host((host.as_str(), address.port));
    let found: Vec<_> =
        deadline.wait(format!("the name service to resolve {host}"), lookup).await?.map_err(failed)?.collect();
    if found.is_empty() {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(found)
}

/// Tries all addresses, each with a head start before the next, and keeps the first connection.
async fn first_of(addresses: Vec<SocketAddr>) -> std::io::Result<TcpStream> {
    if let [only] = addresses[..] {
        return TcpStream::connect(only).await;
    }
    let mut waiting = interleaved(addresses);
    let mut attempts = JoinSet::new();
    let mut last_error = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = waiting.pop_front() {
            attempts.spawn(TcpStream::connect(address));
        }
        let more = !waiting.is_empty();
        tokio::select! {
            () = sleep(HEAD_START), if more => {}
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => last_error = error,
                Some(Err(error)) => last_error = std::io::Error::other(error),
                None if more => {}
                None => return Err(last_error),
            },
        }
    }
}

/// Alternates address families, the first one's family first (RFC 8305 §4).
fn interleaved(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut order = VecDeque::new();
    loop {
        match (preferred.next(), other.next()) {
            (None, None) => return order,
            (one, two) => order.extend(one.into_iter().chain(two)),
        }
    }
}

#[cfg(test)]
mod tests;
