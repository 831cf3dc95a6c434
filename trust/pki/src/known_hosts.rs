//! Lines by which OpenSSH and our own clients trust authorities (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT and
//! AUTHORIZED_KEYS FILE FORMAT).
//!
//! The comment of such a line is a URL query: what it says is for our own programs.

use std::collections::BTreeSet;

use url::form_urlencoded;

use crate::Error;
use crate::keys::PublicKey;

const MARKER: &str = "@cert-authority";

/// One line of a known_hosts file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whether the key is an authority's rather than a host's own.
    pub is_authority: bool,
    /// The names it is good for; a name may begin with `*.`.
    pub hosts: Vec<String>,
    /// The key.
    pub key: PublicKey,
    /// The rest of the line.
    pub comment: String,
}

impl Entry {
    /// Reads one line.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::UnsupportedKey`]; empty lines and comments are malformed too.
    pub fn parse(line: &str) -> Result<Self, Error> {
        let line = line.trim();
        let (is_authority, rest) = match line.strip_prefix(MARKER) {
            Some(rest) => (true, rest.trim_start()),
            None => (false, line),
        };
        let (hosts, key) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::malformed("known_hosts line", "expected hosts and a key"))?;
        let mut fields = key.trim_start().splitn(3, char::is_whitespace);
        let (kind, blob) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        Ok(Self {
            is_authority,
            hosts: hosts.split(',').map(str::to_owned).collect(),
            key: PublicKey::from_ssh_line(&format!("{kind} {blob}"))?,
            comment: fields.next().unwrap_or_default().trim().to_owned(),
        })
    }

    /// Reads every line of a file that can be understood.
    #[must_use]
    pub fn parse_all(text: &str) -> Vec<Self> {
        text.lines().filter_map(|line| Self::parse(line).ok()).collect()
    }

    /// The proxy's host, which stands first when there are three names.
    #[must_use]
    pub fn proxy(&self) -> Option<&str> {
        (self.hosts.len() >= 3).then(|| self.hosts.first().map(String::as_str)).flatten()
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        let position = usize::from(self.hosts.len() >= 3);
        self.hosts.get(position).map(String::as_str)
    }

    /// Whether the line is about a host: the same name, or one label in front of a `*.` name.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.hosts.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => pattern == host,
        })
    }

    /// The line, with a newline at the end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let marker = if self.is_authority { "@cert-authority " } else { "" };
        let key = self.key.to_ssh_line();
        let space = if self.comment.is_empty() { "" } else { " " };
        format!("{marker}{} {}{space}{}\n", self.hosts.join(","), key.trim_end(), self.comment)
    }
}

/// The line by which a client trusts the hosts of a cluster that it reaches through a proxy.
#[must_use]
pub fn host_authority_line(proxy_host: Option<&str>, cluster: &str, key: &PublicKey) -> String {
    let mut hosts: Vec<String> = proxy_host.into_iter().map(str::to_owned).collect();
    hosts.push(cluster.to_owned());
    hosts.push(format!("*.{cluster}"));
    let entry = Entry { is_authority: true, hosts, key: key.clone(), comment: query(&[("type", "host")]) };
    entry.to_line()
}

/// The line by which an OpenSSH server trusts the users of a cluster.
#[must_use]
pub fn user_authority_line(cluster: &str, key: &PublicKey) -> String {
    let key = key.to_ssh_line();
    let comment = query(&[("clustername", cluster), ("type", "user")]);
    format!("cert-authority {} {comment}\n", key.trim_end())
}

/// Adds lines to the text of a known_hosts file.
///
/// Repeated lines are dropped, and so are old lines about a single host once an authority's line with the same key
/// covers it.
#[must_use]
pub fn merge(existing: &str, added: &[String]) -> String {
    let mut seen = BTreeSet::new();
    let lines: Vec<&str> = existing
        .lines()
        .chain(added.iter().map(String::as_str))
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && seen.insert(*line))
        .collect();
    let parsed: Vec<Option<Entry>> = lines.iter().map(|line| Entry::parse(line).ok()).collect();
    let outdated = |entry: &Entry| {
        let [host] = entry.hosts.as_slice() else {
            return false;
        };
        let covering = format!("*.{host}");
        let covers = |other: &Entry| other.is_authority && other.key == entry.key && other.hosts.contains(&covering);
        !entry.is_authority && entry.comment.is_empty() && parsed.iter().flatten().any(covers)
    };
    let mut text = String::with_capacity(existing.len() + 512);
    for (line, entry) in lines.iter().zip(&parsed) {
        if !entry.as_ref().is_some_and(&outdated) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{KeyAlgorithm, PrivateKey};

    fn key() -> PublicKey {
        PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap().public().clone()
    }

    #[test]
    fn a_line_names_proxy_cluster_and_every_node() {
        let key = key();
        let line = host_authority_line(Some("proxy.example.com"), "root", &key);
        let blob = key.to_ssh_line();
        assert_eq!(line, format!("@cert-authority proxy.example.com,root,*.root {} type=host\n", blob.trim()));
        let entry = Entry::parse(&line).unwrap();
        assert_eq!((entry.proxy(), entry.cluster()), (Some("proxy.example.com"), Some("root")));
        assert_eq!(entry.to_line(), line);
        assert!(entry.matches("node.root") && entry.matches("root.") && !entry.matches("a.b.root"));
        assert!(!entry.matches(".root") && !entry.matches("example.com"));
    }

    #[test]
    fn without_a_proxy_the_cluster_comes_first() {
        let entry = Entry::parse(&host_authority_line(None, "root", &key())).unwrap();
        assert_eq!((entry.proxy(), entry.cluster()), (None, Some("root")));
    }

    #[test]
    fn user_authorities_are_exported_with_their_cluster() {
        let key = key();
        let blob = key.to_ssh_line();
        let expected = format!("cert-authority {} clustername=a+%26+b&type=user\n", blob.trim());
        assert_eq!(user_authority_line("a & b", &key), expected);
    }

    #[test]
    fn merging_keeps_foreign_lines_and_drops_repeated_and_outdated_ones() {
        let key = key();
        let authority = host_authority_line(Some("p"), "root", &key);
        let blob = key.to_ssh_line();
        let old = format!("root {}", blob.trim());
        let existing = format!("# mine\n{old}\n{authority}something else\n");
        let merged = merge(&existing, std::slice::from_ref(&authority));
        assert_eq!(merged, format!("# mine\n{authority}something else\n"));
    }

    proptest! {
        #[test]
        fn hostile_lines_never_panic(line in "(@cert-authority )?[a-z*.,]{0,10} ?(ssh-ed25519|ssh-rsa)? ?[A-Za-z0-9+/=]{0,80} ?.{0,10}") {
            let _ = Entry::parse(&line);
            let _ = merge(&line, std::slice::from_ref(&line));
        }
    }
}
