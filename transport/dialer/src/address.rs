//! Addresses as users write them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A host, by name or IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Name or IP address; IPv6 addresses without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// An address whose port may be left to a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialAddress {
    /// Name or IP address; IPv6 addresses without brackets.
    pub host: String,
    /// The port, if one was written.
    pub port: Option<u16>,
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("address {text:?}: {problem}")]
pub struct AddressError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl HostPort {
    /// From parts; brackets around an IPv6 address are taken off.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::to_owned);
        Self { host: bare.unwrap_or(host), port }
    }

    /// The host as an IP address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether the target is this very machine by its usual names.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(&self.host)
    }

    /// Reads an address whose port is `default_port` when none is written.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, AddressError> {
        Ok(text.parse::<PartialAddress>()?.or_port(default_port))
    }
}

impl PartialAddress {
    /// Completes the address.
    pub fn or_port(self, default: u16) -> HostPort {
        HostPort { host: self.host, port: self.port.unwrap_or(default) }
    }
}

/// Understands `host`, `host:port`, `192.0.2.1`, `[2001:db8::1]:443`, `2001:db8::1` and the same after `https://`
/// (or another scheme), with an optional path that is dropped.
impl FromStr for PartialAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |problem| AddressError { text: text.to_owned(), problem };
        let rest = text.trim();
        let rest = rest.split_once("://").map_or(rest, |(_, rest)| rest);
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if rest.contains('@') {
            return Err(wrong("user names do not belong here"));
        }
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, rest) = bracketed.split_once(']').ok_or_else(|| wrong("missing closing bracket"))?;
            host.parse::<Ipv6Addr>().map_err(|_| wrong("not an IPv6 address in brackets"))?;
            let port = match rest {
                "" => None,
                _ => Some(rest.strip_prefix(':').ok_or_else(|| wrong("unexpected text after the bracket"))?),
            };
            (host, port)
        } else if rest.parse::<Ipv6Addr>().is_ok() {
            (rest, None)
        } else {
            rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)))
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        if host.chars().any(|c| c.is_whitespace() || c.is_control() || (c == ':' && host.parse::<Ipv6Addr>().is_err()))
        {
            return Err(wrong("the host has characters that no host name has"));
        }
        let port = match port {
            None => None,
            Some(port) => Some(parse_port(port).ok_or_else(|| wrong("the port is not a number from 1 to 65535"))?),
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let PartialAddress { host, port } = text.parse()?;
        let port = port.ok_or_else(|| AddressError { text: text.to_owned(), problem: "the port is missing" })?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<std::net::SocketAddr> for HostPort {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

/// `localhost`, `127.0.0.0/8` and `::1`, also when written as IPv6.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    name.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok().filter(|port| *port != 0) } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_read_in_every_usual_form() {
        let cases = [
            ("proxy.example.com", "proxy.example.com", None),
            ("proxy.example.com:3080", "proxy.example.com", Some(3080)),
            ("https://proxy.example.com", "proxy.example.com", None),
            ("https://proxy.example.com:443/web/login?x=1", "proxy.example.com", Some(443)),
            ("tcp://10.0.0.1:3025", "10.0.0.1", Some(3025)),
            ("[2001:db8::1]:443", "2001:db8::1", Some(443)),
            ("https://[2001:db8::1]", "2001:db8::1", None),
            ("2001:db8::1", "2001:db8::1", None),
            (" localhost:1 ", "localhost", Some(1)),
        ];
        for (text, host, port) in cases {
            assert_eq!(text.parse(), Ok(PartialAddress { host: host.to_owned(), port }), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            ":443",
            "host:",
            "host:0",
            "host:65536",
            "host:+5",
            "[::1",
            "[host]:1",
            "[::1]x",
            "a b:1",
            "a:1:2",
            "user@host:1",
        ] {
            assert!(text.parse::<PartialAddress>().is_err(), "{text}");
        }
        assert!("host".parse::<HostPort>().is_err());
    }

    #[test]
    fn addresses_are_written_with_brackets_where_needed() {
        assert_eq!(HostPort::new("[::1]", 5).to_string(), "[::1]:5");
        assert_eq!(HostPort::parse("host", 443).unwrap().to_string(), "host:443");
    }

    #[test]
    fn loopback_has_many_names() {
        for host in ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["localhost.example.com", "10.0.0.1", "::2", "127.example"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
