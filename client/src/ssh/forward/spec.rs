//! Forwards as they are written on the command line.
//!
//! * `-L` and `-R`: `[bind:]port:host:port`; either end may be the path of a Unix socket instead, as OpenSSH has it.
//! * `-D`: `[bind:]port`.
//!
//! IPv6 addresses stand in brackets. Without a bind address only the machine that listens reaches a port; `*` or
//! nothing in front of the first colon means every address of it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The address that is listened on when none is written.
const LOOPBACK: &str = "127.0.0.1";

/// One end of a forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port. As a place to listen on, an empty host means every address.
    Tcp {
        /// Name or address.
        host: String,
        /// Port; 0 only where one is to be chosen.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Connections that a listener takes are made again from the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where connections are taken: here for `-L`, on the host for `-R`.
    pub listen: Endpoint,
    /// Where they go: seen from the host for `-L`, from here for `-R`.
    pub target: Endpoint,
}

/// Connections that go where each of them asks to (`-D`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicForward {
    /// Where connections are taken.
    pub listen: Endpoint,
}

/// A forward that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("forward {text:?}: {problem}")]
pub struct ForwardError {
    text: String,
    problem: &'static str,
}

impl FromStr for Forward {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let bad = |problem| ForwardError { text: text.to_owned(), problem };
        let expected = || bad("expected [bind:]port:host:port, with IPv6 addresses in brackets");
        let fields = fields(text).ok_or_else(expected)?;
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let (listen, target) = match *fields {
            [ref listen @ .., target] if is_path(target) => (listen, Endpoint::Unix(target.into())),
            [ref listen @ .., host, port] if !host.is_empty() => {
                let port = port.parse().ok().filter(|port| *port != 0);
                let port = port.ok_or_else(|| bad("the port of the target is not a number from 1 to 65535"))?;
                (listen, Endpoint::Tcp { host: host.to_owned(), port })
            }
            _ => return Err(expected()),
        };
        let listen = match *listen {
            [path] if is_path(path) => Endpoint::Unix(path.into()),
            _ => listening(listen).ok_or_else(expected)?,
        };
        Ok(Self { listen, target })
    }
}

impl FromStr for DynamicForward {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let problem = "expected [bind:]port, with IPv6 addresses in brackets";
        let bad = || ForwardError { text: text.to_owned(), problem };
        let fields = fields(text).ok_or_else(bad)?;
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        Ok(Self { listen: listening(&fields).ok_or_else(bad)? })
    }
}

/// `host:port`, or the path of a socket.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.is_empty() => write!(f, "*:{port}"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The parts between colons; what stands in brackets is one part.
fn fields(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']')?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        fields.push(field.to_owned());
        match after {
            "" => return Some(fields),
            after => rest = after.strip_prefix(':')?,
        }
    }
}

/// A port to listen on, with or without an address.
fn listening(fields: &[&str]) -> Option<Endpoint> {
    let (host, port) = match *fields {
        [port] => (LOOPBACK, port),
        ["" | "*", port] => ("", port),
        [host, port] => (host, port),
        _ => return None,
    };
    Some(Endpoint::Tcp { host: host.to_owned(), port: port.parse().ok()? })
}

fn is_path(field: &str) -> bool {
    field.contains('/')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.into(), port }
    }

    #[test]
    fn forwards_are_read_in_every_form_of_openssh() {
        let unix = |path: &str| Endpoint::Unix(path.into());
        for (text, listen, target) in [
            ("8080:web:80", tcp("127.0.0.1", 8080), tcp("web", 80)),
            ("0:web:80", tcp("127.0.0.1", 0), tcp("web", 80)),
            ("10.0.0.1:8080:web:80", tcp("10.0.0.1", 8080), tcp("web", 80)),
            ("*:8080:web:80", tcp("", 8080), tcp("web", 80)),
            (":8080:web:80", tcp("", 8080), tcp("web", 80)),
            ("[::1]:8080:[fe80::1]:80", tcp("::1", 8080), tcp("fe80::1", 80)),
            ("8080:/run/x.sock", tcp("127.0.0.1", 8080), unix("/run/x.sock")),
            ("localhost:8080:/run/x.sock", tcp("localhost", 8080), unix("/run/x.sock")),
            ("./here:/run/x.sock", unix("./here"), unix("/run/x.sock")),
            ("/tmp/here:web:80", unix("/tmp/here"), tcp("web", 80)),
        ] {
            assert_eq!(text.parse(), Ok(Forward { listen, target }), "{text}");
        }
        for bad in ["", "80", "80:web", "80:web:x", "80:web:0", "a:b:c:d:e", "80::80", "x:web:80", "[::1:80:web:80"] {
            assert!(bad.parse::<Forward>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn dynamic_forwards_have_an_address_at_most() {
        for (text, listen) in
            [("1080", tcp("127.0.0.1", 1080)), ("*:1080", tcp("", 1080)), ("[::1]:1080", tcp("::1", 1080))]
        {
            assert_eq!(text.parse(), Ok(DynamicForward { listen }), "{text}");
        }
        for bad in ["", "x", "1:2:3", "99999", "a:"] {
            assert!(bad.parse::<DynamicForward>().is_err(), "{bad:?}");
        }
        assert_eq!(tcp("::1", 5).to_string(), "[::1]:5");
    }
}
