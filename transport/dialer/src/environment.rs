//! Which dials go through an HTTP proxy: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
//!
//! Each variable may be written in upper or lower case; upper case wins, an empty value counts as unset.
//!
//! * Values are `scheme://[user[:password]@]host[:port]` with scheme `http`, `https` or `socks5`; `host:port` alone
//!   means `http`. User and password are percent-decoded.
//! * Web requests (to an `https` URL) follow `HTTPS_PROXY`; other connections follow `HTTPS_PROXY` and, when that is
//!   unset, `HTTP_PROXY`.
//! * `NO_PROXY` lists, separated by commas, what is dialled directly: `*`, IP addresses, networks (`10.0.0.0/8`, for
//!   targets written as addresses), domains (with everything below), `.domain` or `*.domain` (only what is below);
//!   all but networks with an optional `:port`.
//! * This machine itself (`localhost`, `127.0.0.0/8`, `::1`) is always dialled directly, and refused as a proxy: such
//!   values are usually meant for another program of the same environment.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use crate::address::{HostPort, PartialAddress, is_loopback_host};

/// The proxy settings of an environment.
#[derive(Debug, Clone, Default)]
pub struct ProxyEnvironment {
    https: Option<ProxyServer>,
    http: Option<ProxyServer>,
    no_proxy: Vec<Exception>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Requests to an `https` URL.
    Web,
    /// Any other connection: SSH, tunnels, gRPC, TLS routing.
    Raw,
}

/// A proxy that carries connections.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyServer {
    /// How it is spoken to.
    pub scheme: ProxyScheme,
    /// Where it is.
    pub address: HostPort,
    /// What it asks for.
    pub credentials: Option<Credentials>,
    /// The variable it was named by, as written.
    pub variable: String,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyScheme {
    /// HTTP CONNECT.
    Http,
    /// HTTP CONNECT inside TLS.
    Https,
    /// SOCKS version 5 (RFC 1928).
    Socks5,
}

/// User and password for a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

/// A variable with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// Not a proxy URL.
    #[error("{variable}: not a proxy address, expected scheme://[user[:password]@]host:port: {problem}")]
    Malformed {
        /// The variable.
        variable: String,
        /// What is wrong.
        problem: String,
    },
    /// A scheme that is not spoken.
    #[error("{variable}: proxy url scheme {scheme:?} not supported, use http, https or socks5")]
    Scheme {
        /// The variable.
        variable: String,
        /// The scheme.
        scheme: String,
    },
    /// A proxy on this machine.
    #[error(
        "{variable}: {host:?} is not valid as the host of a proxy; name a proxy on this machine by another DNS name \
         or by a private IP address of the machine"
    )]
    Loopback {
        /// The variable.
        variable: String,
        /// The host.
        host: String,
    },
}

impl ProxyEnvironment {
    /// The settings of this process.
    pub fn from_env() -> Result<Self, EnvironmentError> {
        Self::parse(|name| std::env::var(name).ok())
    }

    /// No proxy at all.
    pub fn direct() -> Self {
        Self::default()
    }

    /// Reads the variables through a function that returns the value of one.
    pub fn parse(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let find = |name: &str| {
            [name.to_owned(), name.to_ascii_lowercase()].into_iter().find_map(|name| {
                let value = lookup(&name)?.trim().to_owned();
                (!value.is_empty()).then_some((name, value))
            })
        };
        let proxy = |name| find(name).map(|(variable, value)| ProxyServer::parse(&variable, &value)).transpose();
        Ok(Self {
            https: proxy("HTTPS_PROXY")?,
            http: proxy("HTTP_PROXY")?,
            no_proxy: find("NO_PROXY").map(|(_, value)| exceptions(&value)).unwrap_or_default(),
        })
    }

    /// The proxy to use for a target, if any.
    pub fn proxy_for(&self, target: &HostPort, traffic: Traffic) -> Option<&ProxyServer> {
        let proxy = match traffic {
            Traffic::Web => self.https.as_ref(),
            Traffic::Raw => self.https.as_ref().or(self.http.as_ref()),
        }?;
        let excepted = target.is_loopback() || self.no_proxy.iter().any(|exception| exception.covers(target));
        (!excepted).then_some(proxy)
    }

    #[cfg(test)]
    pub(crate) fn with_proxy(proxy: ProxyServer) -> Self {
        Self { https: Some(proxy), ..Self::default() }
    }
}

impl ProxyServer {
    /// Reads the value of `variable`.
    pub fn parse(variable: &str, value: &str) -> Result<Self, EnvironmentError> {
        let malformed =
            |problem: &str| EnvironmentError::Malformed { variable: variable.to_owned(), problem: problem.to_owned() };
        let written = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let url = Url::parse(&written).map_err(|error| malformed(&error.to_string()))?;
        let (scheme, default_port) = match url.scheme() {
            "http" => (ProxyScheme::Http, 80),
            "https" => (ProxyScheme::Https, 443),
            "socks5" | "socks5h" => (ProxyScheme::Socks5, 1080),
            other => {
                return Err(EnvironmentError::Scheme { variable: variable.to_owned(), scheme: other.to_owned() });
            }
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| malformed("the host is missing"))?;
        let address = HostPort::new(host, url.port().unwrap_or(default_port));
        if is_loopback_host(&address.host) {
            return Err(EnvironmentError::Loopback { variable: variable.to_owned(), host: address.host });
        }
        let credentials = if url.username().is_empty() && url.password().is_none() {
            None
        } else {
            let decode = |text| percent_decode(text).ok_or_else(|| malformed("user or password is not UTF-8"));
            Some(Credentials { user: decode(url.username())?, password: decode(url.password().unwrap_or_default())? })
        };
        Ok(Self { scheme, address, credentials, variable: variable.to_owned() })
    }
}

impl Credentials {
    /// User and password in clear.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    /// The value of a `Proxy-Authorization` header (RFC 7617); an empty password keeps its colon.
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }
}

/// Never shows credentials: `http proxy gate.example.com:8080 (HTTPS_PROXY)`.
impl std::fmt::Display for ProxyServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.scheme {
            ProxyScheme::Http => "http",
            ProxyScheme::Https => "https",
            ProxyScheme::Socks5 => "socks5",
        };
        write!(f, "{scheme} proxy {} ({})", self.address, self.variable)
    }
}

impl std::fmt::Debug for ProxyServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProxyServer({self}, credentials: {})", self.credentials.is_some())
    }
}

/// One entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    Everything,
    Network {
        address: IpAddr,
        prefix: u32,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
    /// `name` in lower case; `itself` is false when only names below it are meant.
    Domain {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Exception {
    /// `None` for an entry that means nothing; it is skipped, as everywhere.
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some((address, prefix)) = entry.split_once('/') {
            let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse::<u32>().ok()?);
            return (prefix <= bits(address).1).then_some(Self::Network { address, prefix });
        }
        let entry = entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(&entry);
        let (below_only, entry) = entry.strip_prefix('.').map_or((false, entry), |rest| (true, rest));
        let PartialAddress { host, port } = entry.parse().ok()?;
        match host.parse() {
            Ok(address) => Some(Self::Address { address, port }),
            Err(_) => Some(Self::Domain { name: without_dot(&host).to_owned(), itself: !below_only, port }),
        }
    }

    fn covers(&self, target: &HostPort) -> bool {
        let same_port = |port: &Option<u16>| port.is_none_or(|port| port == target.port);
        match self {
            Self::Everything => true,
            Self::Network { address, prefix } => target.ip().is_some_and(|ip| in_network(ip, *address, *prefix)),
            Self::Address { address, port } => {
                same_port(port) && target.ip().is_some_and(|ip| ip.to_canonical() == address.to_canonical())
            }
            Self::Domain { name, itself, port } => {
                let host = target.host.to_ascii_lowercase();
                let host = without_dot(&host);
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                same_port(port) && target.ip().is_none() && (below || (*itself && host == name))
            }
        }
    }
}

fn exceptions(list: &str) -> Vec<Exception> {
    list.split(',').filter_map(Exception::parse).collect()
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn in_network(ip: IpAddr, network: IpAddr, prefix: u32) -> bool {
    let ((ip, width), (network, network_width)) = (bits(ip.to_canonical()), bits(network));
    let shift = width.saturating_sub(prefix);
    width == network_width && (shift >= 128 || ip >> shift == network >> shift)
}

/// An address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u32::from(v4).into(), 32),
        IpAddr::V6(v6) => (v6.into(), 128),
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|pair| hex::decode(pair).ok());
        rest = if escaped.is_some() { &tail[2..] } else { tail };
        decoded.extend(escaped.unwrap_or_else(|| vec![*first]));
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests;
