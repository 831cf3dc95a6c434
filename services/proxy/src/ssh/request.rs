//! What a client asks of a session channel, from the name of the subsystem.

/// The subsystem's prefix for connections.
const PROXY: &str = "proxy:";
/// The subsystem that lists clusters; a prefix, as clients append options.
const SITES: &str = "proxysites";

/// A subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subsystem {
    /// A connection to a node.
    Node {
        /// `host:port`; the port may be 0 or missing.
        target: String,
        /// The node's cluster; empty for the one that the certificate routes to, or the proxy's own.
        cluster: String,
    },
    /// A connection to the Auth Service of a cluster.
    Auth {
        /// The cluster.
        cluster: String,
    },
    /// The list of clusters.
    Sites,
}

impl Subsystem {
    /// Reads the name of a subsystem; the error is for the client.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        if name.starts_with(SITES) {
            return Ok(Self::Sites);
        }
        let request = name.strip_prefix(PROXY).ok_or_else(|| format!("unrecognized subsystem: {name}"))?;
        let malformed = || format!("invalid format for proxy request: {name:?}, expected 'proxy:host:port@cluster'");
        let (target, rest) = request.split_once('@').unwrap_or((request, ""));
        // `host:port@namespace@cluster` is an old form; what follows a second @ belongs to the cluster's name.
        let cluster = rest.split_once('@').map_or(rest, |(_, cluster)| cluster).to_owned();
        match (target.is_empty(), cluster.is_empty()) {
            (true, true) => Err(malformed()),
            (true, false) => Ok(Self::Auth { cluster }),
            (false, _) if target.starts_with(':') => Err(malformed()),
            (false, _) => Ok(Self::Node { target: target.to_owned(), cluster }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_subsystem_names_a_node_a_cluster_or_the_list() {
        let node = |target: &str, cluster: &str| Subsystem::Node { target: target.into(), cluster: cluster.into() };
        for (name, expected) in [
            ("proxy:web:22", node("web:22", "")),
            ("proxy:web:0@leaf", node("web:0", "leaf")),
            ("proxy:web", node("web", "")),
            ("proxy:[::1]:22@default@leaf", node("[::1]:22", "leaf")),
            ("proxy:web:22@default@a@b", node("web:22", "a@b")),
            ("proxy:@leaf", Subsystem::Auth { cluster: "leaf".into() }),
            ("proxysites", Subsystem::Sites),
        ] {
            assert_eq!(Subsystem::parse(name).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        for name in ["proxy:", "proxy:@", "proxy::22"] {
            assert!(Subsystem::parse(name).unwrap_err().contains("expected 'proxy:host:port@cluster'"), "{name}");
        }
        assert_eq!(Subsystem::parse("sftp").unwrap_err(), "unrecognized subsystem: sftp");
    }
}
