//! Which node a client means: from a host name, UUID or address to one registered node.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use wire::types::{RoutingStrategy, ServerV2};

/// The text by which clients recognise that they must choose.
pub const AMBIGUOUS: &str = "err-node-is-ambiguous";

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host name, UUID or address.
    pub host: String,
    /// Port; `None` or 0 in a request mean any.
    pub port: Option<u16>,
}

/// Why no node was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The request is not `host:port`.
    #[error("dial target contains an invalid hostport")]
    InvalidTarget,
    /// Several nodes match equally well.
    #[error("{AMBIGUOUS}")]
    Ambiguous,
    /// A UUID that no node has.
    #[error("unable to locate node matching {kind}-like target {host}")]
    UnknownId {
        /// `uuid` or `ec2`.
        kind: &'static str,
        /// What was asked for.
        host: String,
    },
    /// A name that no node has.
    #[error("no node named {0:?} is registered in this cluster")]
    Unknown(String),
}

impl Target {
    /// Reads `host:port`, `[ipv6]:port` or a bare host.
    pub fn parse(text: &str) -> Result<Self, ResolveError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or(ResolveError::InvalidTarget)?;
                (host, tail.strip_prefix(':').unwrap_or(tail))
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, port),
                _ => (text, ""),
            },
        };
        let port = match port {
            "" => None,
            digits => Some(digits.parse().map_err(|_| ResolveError::InvalidTarget)?),
        };
        if host.is_empty() {
            return Err(ResolveError::InvalidTarget);
        }
        Ok(Self { host: host.to_owned(), port: port.filter(|p| *p != 0) })
    }
}

/// How names are compared and ties are broken, from the cluster's networking settings.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What to do with several matches.
    pub strategy: RoutingStrategy,
    /// Whether upper-case host names match lower-case requests.
    pub case_insensitive: bool,
}

/// Finds the node a target means. `addresses` are what the host resolves to, if anything.
pub fn resolve<'a>(
    target: &Target,
    addresses: &HashSet<IpAddr>,
    nodes: impl Iterator<Item = &'a Arc<ServerV2>>,
    rules: Rules,
) -> Result<Arc<ServerV2>, ResolveError> {
    let id_kind = id_like(&target.host);
    let mut best: Vec<&Arc<ServerV2>> = Vec::new();
    let mut best_score = 0;
    for node in nodes {
        if id_kind.is_some() && name(node) == target.host {
            return Ok(node.clone());
        }
        let score = score(target, addresses, node, rules.case_insensitive);
        if score > best_score {
            best_score = score;
            best.clear();
        }
        if score > 0 && score == best_score {
            best.push(node);
        }
    }
    match (best.as_slice(), rules.strategy) {
        ([one], _) => Ok((*one).clone()),
        ([], _) => Err(match id_kind {
            Some(kind) => ResolveError::UnknownId { kind, host: target.host.clone() },
            None => ResolveError::Unknown(target.host.clone()),
        }),
        (many, RoutingStrategy::MostRecent) => {
            let newest = many.iter().max_by_key(|node| expiry(node));
            newest.map(|node| (*node).clone()).ok_or(ResolveError::Ambiguous)
        }
        _ => Err(ResolveError::Ambiguous),
    }
}

fn name(node: &ServerV2) -> &str {
    node.metadata.as_ref().map_or("", |m| &m.name)
}

fn expiry(node: &ServerV2) -> i64 {
    node.metadata.as_ref().and_then(|m| m.expires.as_ref()).map_or(0, |t| t.seconds)
}

/// How well a node matches: 2 by name, 1 by resolved address, 0 not at all.
fn score(target: &Target, addresses: &HashSet<IpAddr>, node: &ServerV2, case_insensitive: bool) -> u8 {
    let Some(spec) = &node.spec else { return 0 };
    let named = same_name(&target.host, &spec.hostname, case_insensitive);
    if spec.use_tunnel {
        return if named { 2 } else { 0 };
    }
    let own = std::iter::once(&spec.addr).chain(&spec.public_addrs);
    let scores = own.filter_map(|address| {
        let address = Target::parse(address).ok()?;
        if target.port.is_some() && address.port != target.port {
            return Some(0);
        }
        if named || same_name(&target.host, &address.host, case_insensitive) {
            return Some(2);
        }
        let ip = address.host.parse::<IpAddr>().ok()?;
        Some(u8::from(addresses.contains(&ip)))
    });
    scores.max().unwrap_or(0)
}

/// Whether names are equal; insensitively, a lower-case letter asked for also matches the upper-case one.
fn same_name(asked: &str, name: &str, case_insensitive: bool) -> bool {
    if asked == name {
        return true;
    }
    case_insensitive
        && asked.len() == name.len()
        && asked
            .bytes()
            .zip(name.bytes())
            .all(|(a, n)| a == n || (a.is_ascii_lowercase() && a == n.to_ascii_lowercase()))
}

/// Whether a host is an id, and of which kind.
fn id_like(host: &str) -> Option<&'static str> {
    if uuid::Uuid::parse_str(host).is_ok() {
        return Some("uuid");
    }
    let (account, instance) = host.split_once("-i-")?;
    let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let hex = matches!(instance.len(), 8 | 17) && instance.bytes().all(|b| b.is_ascii_hexdigit());
    (digits && hex).then_some("ec2")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use wire::types::{Metadata, ServerSpecV2};

    use super::*;

    const STRICT: Rules = Rules { strategy: RoutingStrategy::UnambiguousMatch, case_insensitive: false };

    fn node(uuid: &str, hostname: &str, addr: &str, expires: i64) -> Arc<ServerV2> {
        Arc::new(ServerV2 {
            metadata: Some(Metadata {
                name: uuid.into(),
                expires: Some(prost_types::Timestamp { seconds: expires, nanos: 0 }),
                ..Default::default()
            }),
            spec: Some(ServerSpecV2 {
                hostname: hostname.into(),
                addr: addr.into(),
                use_tunnel: addr.is_empty(),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    fn find(nodes: &[Arc<ServerV2>], target: &str, rules: Rules) -> Result<String, ResolveError> {
        let target = Target::parse(target)?;
        resolve(&target, &HashSet::new(), nodes.iter(), rules).map(|n| name(&n).to_owned())
    }

    #[test]
    fn a_node_is_found_by_name_by_id_and_by_address() {
        let id = "11111111-1111-4111-8111-111111111111";
        let nodes = [node(id, "web", "", 0), node("b", "db", "10.0.0.5:3022", 0)];
        assert_eq!(find(&nodes, "web:0", STRICT).unwrap(), id);
        assert_eq!(find(&nodes, &format!("{id}:0"), STRICT).unwrap(), id);
        assert_eq!(find(&nodes, "10.0.0.5:3022", STRICT).unwrap(), "b");
        assert_eq!(find(&nodes, "10.0.0.5:22", STRICT), Err(ResolveError::Unknown("10.0.0.5".into())));
    }

    #[test]
    fn two_nodes_of_one_name_are_ambiguous_unless_the_newest_is_wanted() {
        let nodes = [node("a", "web", "", 10), node("b", "web", "", 20)];
        assert_eq!(find(&nodes, "web", STRICT), Err(ResolveError::Ambiguous));
        assert_eq!(find(&nodes, "web", Rules { strategy: RoutingStrategy::MostRecent, ..STRICT }).unwrap(), "b");
    }

    #[test]
    fn an_unknown_id_is_told_apart_from_an_unknown_name() {
        let id = "22222222-2222-4222-8222-222222222222";
        assert_eq!(find(&[], id, STRICT), Err(ResolveError::UnknownId { kind: "uuid", host: id.into() }));
        assert_eq!(find(&[], "nowhere:0", STRICT), Err(ResolveError::Unknown("nowhere".into())));
    }

    #[test]
    fn case_matters_unless_it_is_said_not_to() {
        let nodes = [node("a", "Web", "", 0)];
        assert!(find(&nodes, "web", STRICT).is_err());
        assert_eq!(find(&nodes, "web", Rules { case_insensitive: true, ..STRICT }).unwrap(), "a");
        assert!(find(&nodes, "WEB", Rules { case_insensitive: true, ..STRICT }).is_err());
    }

    #[test]
    fn a_malformed_target_is_refused() {
        for bad in ["", ":22", "host:port", "[::1", "host:99999"] {
            assert_eq!(Target::parse(bad), Err(ResolveError::InvalidTarget), "{bad}");
        }
        assert_eq!(Target::parse("[::1]:22").unwrap(), Target { host: "::1".into(), port: Some(22) });
    }
}
