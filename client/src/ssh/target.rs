//! What `[user@]host` on a command line means.

use std::collections::BTreeMap;
use std::fmt;

use super::SshError;
use crate::nodes::NodeFilter;

/// Where a session is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// On one host: its name, id or address.
    Host {
        /// As typed.
        host: String,
        /// The port, if one was typed.
        port: Option<u16>,
    },
    /// On every host with these labels.
    Labels(BTreeMap<String, String>),
    /// On every host that fits what a proxy template says.
    Search {
        /// An expression that has to be true; nothing for any host.
        query: String,
        /// Words that all have to be found.
        words: Vec<String>,
    },
}

/// A target and the login that was typed with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The account on the host, if one was typed.
    pub login: Option<String>,
    /// The target.
    pub target: Target,
}

/// A host to dial: what the proxy resolves, and what its certificate has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name, id or address: what the proxy is asked for, and a principal of the host's certificate.
    pub address: String,
    /// The port; 0 for any.
    pub port: u16,
    /// What people call it.
    pub name: String,
}

impl Destination {
    /// Reads `[login@]host[:port]` or `[login@]label=value[,label=value…]`.
    pub fn parse(text: &str) -> Result<Self, SshError> {
        let bad = |problem| SshError::Destination { text: text.to_owned(), problem };
        // Logins may contain the sign, hosts do not.
        let (login, target) = text.rsplit_once('@').map_or((None, text), |(login, target)| (Some(login), target));
        if login.is_some_and(str::is_empty) {
            return Err(bad("the login is empty"));
        }
        let target = if target.contains('=') {
            Target::Labels(
                parse_labels(target).ok_or_else(|| bad("labels are written name=value, with commas between"))?,
            )
        } else {
            parse_host(target).ok_or_else(|| bad("that is no host"))?
        };
        Ok(Self { login: login.map(str::to_owned), target })
    }
}

impl Target {
    /// What hosts are listed by; `None` for a single host, which is dialled by its name.
    pub fn filter(&self) -> Option<NodeFilter> {
        match self {
            Self::Host { .. } => None,
            Self::Labels(labels) => Some(NodeFilter { labels: labels.clone(), ..Default::default() }),
            Self::Search { query, words } => {
                Some(NodeFilter { query: query.clone(), search: words.clone(), ..Default::default() })
            }
        }
    }
}

/// As it is written on a command line.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, .. } => f.write_str(host),
            Self::Labels(labels) => {
                let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                f.write_str(&labels.join(","))
            }
            Self::Search { query, words } => {
                let parts = [query.as_str(), &words.join(",")];
                f.write_str(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Host {
    /// A host as typed.
    pub fn new(host: &str, port: Option<u16>) -> Self {
        Self { address: host.to_owned(), port: port.unwrap_or(0), name: host.to_owned() }
    }

    /// Takes off what `tsh config` puts behind the names of hosts: the proxy's name, the cluster's name.
    #[must_use]
    pub fn without_suffixes(self, suffixes: &[&str]) -> Self {
        let mut address = self.address.as_str();
        for suffix in suffixes.iter().filter(|s| !s.is_empty()) {
            address = address.strip_suffix(suffix).and_then(|rest| rest.strip_suffix('.')).unwrap_or(address);
        }
        let name = address.to_owned();
        Self { address: name.clone(), name, ..self }
    }

    /// As the proxy is asked for it.
    pub fn host_port(&self) -> String {
        if self.address.contains(':') {
            format!("[{}]:{}", self.address, self.port)
        } else {
            format!("{}:{}", self.address, self.port)
        }
    }
}

fn parse_host(text: &str) -> Option<Target> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            (host, port)
        }
        // More than one colon: an IPv6 address.
        None if text.matches(':').count() == 1 => text.split_once(':').map(|(host, port)| (host, Some(port)))?,
        None => (text, None),
    };
    if host.is_empty() || host.starts_with('-') || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let port = port.map(str::parse).transpose().ok()?;
    Some(Target::Host { host: host.to_owned(), port })
}

/// Reads `name=value,name=value`; values may be quoted.
pub fn parse_labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = quoted.split_once('"')?;
                let after = if after.is_empty() { after } else { after.strip_prefix(',')? };
                (value, after)
            }
            None => after.split_once(',').unwrap_or((after, "")),
        };
        let name = name.trim().trim_matches('"');
        if name.is_empty() {
            return None;
        }
        labels.insert(name.to_owned(), value.trim().to_owned());
        rest = after.trim_start();
    }
    (!labels.is_empty()).then_some(labels)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(text: &str) -> Option<(Option<String>, Target)> {
        Destination::parse(text).ok().map(|d| (d.login, d.target))
    }

    fn host(host: &str, port: Option<u16>) -> Target {
        Target::Host { host: host.into(), port }
    }

    #[test]
    fn destinations_are_read_in_every_usual_form() {
        assert_eq!(parse("node1"), Some((None, host("node1", None))));
        assert_eq!(parse("root@node1:3022"), Some((Some("root".into()), host("node1", Some(3022)))));
        assert_eq!(parse("a@corp.test@node1"), Some((Some("a@corp.test".into()), host("node1", None))));
        assert_eq!(parse("root@[::1]:22"), Some((Some("root".into()), host("::1", Some(22)))));
        assert_eq!(parse("::1"), Some((None, host("::1", None))));
        let labels = [("env".to_owned(), "test".to_owned()), ("team".to_owned(), "a, b".to_owned())].into();
        assert_eq!(parse("root@env=test,team=\"a, b\""), Some((Some("root".into()), Target::Labels(labels))));
        for bad in ["", "@node1", "root@", "node1:", "node1:x", "node1:99999", "a b", "-oProxyCommand", "=x", "env=a,b"]
        {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn suffixes_of_the_configuration_are_taken_off() {
        let host = Host::new("node1.main.test", Some(3022)).without_suffixes(&["proxy.test", "main.test"]);
        assert_eq!((host.host_port().as_str(), host.name.as_str()), ("node1:3022", "node1"));
        let host = Host::new("main.test", None).without_suffixes(&["proxy.test", "main.test"]);
        assert_eq!(host.host_port(), "main.test:0");
        assert_eq!(Host::new("::1", None).host_port(), "[::1]:0");
    }
}
