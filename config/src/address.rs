//! Addresses as the configuration gives them.

use std::{fmt, net::IpAddr};

/// A host, by name or IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A DNS name or an IP address; an IPv6 address has no brackets here.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// A host and a port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Reads `host`, `host:port`, `[v6]:port`, `v6` or `:port`; a missing port is `default_port`, a missing
    /// host every interface.
    ///
    /// # Errors
    /// What is wrong with the text, as one clause.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let text = text.trim();
        let (host, port) = split(text)?;
        let port = match port {
            None | Some("") => default_port,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().map_err(|_| format!("port {port} is larger than 65535"))?
            }
            Some(port) => return Err(format!("port {port:?} is not a number")),
        };
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        if host.parse::<IpAddr>().is_err() && !is_name(host) {
            return Err(format!("host {host:?} is neither a name nor an IP address"));
        }
        Ok(Self::new(host, port))
    }

    /// The host as an IP address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether the host stands for every interface, so that nobody can dial it.
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
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

fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("bracket \"[\" is not closed")?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("{host:?} in brackets is not an IPv6 address"));
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("{rest:?} follows the bracket")),
        };
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text, None));
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

/// Whether the text can be a DNS name; underscores are common in private networks.
fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_missing_port_is_the_default() {
        for (text, expected) in [
            ("example.com", "example.com:3080"),
            ("example.com:443", "example.com:443"),
            ("10.0.0.1", "10.0.0.1:3080"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("::1", "[::1]:3080"),
            ("[::1]", "[::1]:3080"),
            ("[::1]:443", "[::1]:443"),
            (":443", "0.0.0.0:443"),
            ("host:", "host:3080"),
            ("my_host-1.internal.", "my_host-1.internal.:3080"),
        ] {
            assert_eq!(HostPort::parse(text, 3080).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, reason) in [
            ("", "it is empty"),
            ("not an address:xyz", "port \"xyz\" is not a number"),
            ("host:65536", "port 65536 is larger than 65535"),
            ("a:b:c", "port \"b:c\" is not a number"),
            ("https://host", "port \"//host\" is not a number"),
            ("[::1", "bracket \"[\" is not closed"),
            ("[::1]x", "\"x\" follows the bracket"),
            ("[host]:1", "\"host\" in brackets is not an IPv6 address"),
            ("two words", "host \"two words\" is neither a name nor an IP address"),
            ("a..b", "host \"a..b\" is neither a name nor an IP address"),
        ] {
            assert_eq!(HostPort::parse(text, 1).unwrap_err(), reason, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(text in any::<String>(), port: u16) {
            if let Ok(address) = HostPort::parse(&text, port) {
                prop_assert_eq!(HostPort::parse(&address.to_string(), 0).unwrap(), address);
            }
        }
    }
}
