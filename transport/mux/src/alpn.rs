//! Application protocol names (ALPN, RFC 7301) that the public port knows.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::cluster_name;

/// Plain HTTPS.
pub const HTTP_1_1: &str = "http/1.1";
/// HTTP/2; gRPC clients always offer it besides a name of their own.
pub const H2: &str = "h2";
/// Certificate orders by TLS-ALPN-01 (RFC 8737).
pub const ACME_TLS: &str = "acme-tls/1";
/// SSH proxy, SSH inside TLS.
pub const PROXY_SSH: &str = "teleport-proxy-ssh";
/// Reverse tunnels of agents and leaf clusters, SSH inside TLS.
pub const REVERSE_TUNNEL: &str = "teleport-reversetunnel";
/// Offered by agents that know proxy peering, always together with [`REVERSE_TUNNEL`].
pub const REVERSE_TUNNEL_V2: &str = "teleport-reversetunnelv2";
/// Prefix of the names that lead to an Auth Service; see [`auth`].
pub const AUTH_PREFIX: &str = cluster_name::AUTH_ALPN_PREFIX;
/// TCP application access.
pub const TCP: &str = "teleport-tcp";
/// gRPC transport service for user sessions, mutual TLS.
pub const PROXY_SSH_GRPC: &str = "teleport-proxy-ssh-grpc";
/// gRPC join service, no client certificate.
pub const PROXY_GRPC: &str = "teleport-proxy-grpc";
/// gRPC services of the proxy that need a client certificate.
pub const PROXY_GRPC_MTLS: &str = "teleport-proxy-grpc-mtls";
/// Postgres, and databases that speak like it.
pub const POSTGRES: &str = "teleport-postgres";
/// MySQL; clients may append `-` and the server version, see [`mysql_server_version`].
pub const MYSQL: &str = "teleport-mysql";
/// Suffix of names whose content is framed as [`pingconn`](crate::pingconn) says.
pub const PING_SUFFIX: &str = "-ping";

/// Databases whose clients speak TLS from the first byte, in the order of server preference.
pub const DATABASE_TLS: [&str; 11] = [
    "teleport-mongodb",
    "teleport-oracle",
    "teleport-redis",
    "teleport-sqlserver",
    "teleport-snowflake",
    "teleport-cassandra",
    "teleport-elasticsearch",
    "teleport-opensearch",
    "teleport-dynamodb",
    "teleport-clickhouse",
    "teleport-spanner",
];

/// The names with [`PING_SUFFIX`], in the order of server preference.
pub const WITH_PING: [&str; 14] = [
    "teleport-tcp-ping",
    "teleport-postgres-ping",
    "teleport-mysql-ping",
    "teleport-mongodb-ping",
    "teleport-oracle-ping",
    "teleport-redis-ping",
    "teleport-sqlserver-ping",
    "teleport-snowflake-ping",
    "teleport-cassandra-ping",
    "teleport-elasticsearch-ping",
    "teleport-opensearch-ping",
    "teleport-dynamodb-ping",
    "teleport-clickhouse-ping",
    "teleport-spanner-ping",
];

/// Names of the public port in order of preference: the first that the client offers, too, is negotiated.
///
/// The framed variants come first so that clients that know pings get them. HTTP/1.1 precedes HTTP/2 because browsers
/// open WebSockets over the protocol they negotiated. With `acme` the names that a certificate authority's check
/// needs lead the list.
pub fn server_preference(acme: bool) -> Vec<&'static str> {
    let web = [HTTP_1_1, H2];
    let own =
        [PROXY_SSH, REVERSE_TUNNEL, AUTH_PREFIX, TCP, PROXY_SSH_GRPC, PROXY_GRPC, PROXY_GRPC_MTLS, POSTGRES, MYSQL];
    let mut names = Vec::with_capacity(40);
    if acme {
        names.extend(web);
        names.push(ACME_TLS);
    }
    names.extend(WITH_PING);
    if !acme {
        names.extend(web);
    }
    names.extend(own);
    names.extend(DATABASE_TLS);
    names
}

/// List for a TLS configuration from names.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Vec<u8>> {
    names.into_iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// The name that leads to the Auth Service of `cluster`: `teleport-auth@<hex>.teleport.cluster.local`.
pub fn auth(cluster: &str) -> String {
    cluster_name::auth_alpn(cluster)
}

/// The cluster that a name made by [`auth`] stands for.
pub fn auth_cluster(name: &[u8]) -> Option<String> {
    cluster_name::from_auth_alpn(std::str::from_utf8(name).ok()?).ok().filter(|cluster| !cluster.is_empty())
}

/// Whether the content of a connection with this negotiated name is framed with pings.
pub fn is_ping(name: &[u8]) -> bool {
    name.ends_with(PING_SUFFIX.as_bytes())
}

/// The MySQL server version that a client passes on in one of its names: `teleport-mysql-<base64>`.
///
/// Names that do not decode are skipped.
pub fn mysql_server_version(offered: &[Vec<u8>]) -> Option<String> {
    offered.iter().filter(|name| name.len() <= 255 && !is_ping(name)).find_map(|name| {
        let encoded = name.strip_prefix(MYSQL.as_bytes())?.strip_prefix(b"-")?;
        String::from_utf8(STANDARD.decode(encoded).ok()?).ok().filter(|version| !version.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_preference_starts_with_ping_names_and_has_http_1_1_before_h2() {
        let names = server_preference(false);
        let at = |name: &str| names.iter().position(|n| *n == name);
        assert_eq!(at("teleport-tcp-ping"), Some(0));
        assert_eq!(at("teleport-spanner-ping"), Some(13));
        assert_eq!(at(HTTP_1_1), Some(14));
        assert_eq!(at(H2), Some(15));
        assert_eq!(at(PROXY_SSH), Some(16));
        assert_eq!(at(POSTGRES), Some(23));
        assert_eq!(names.len(), 36);
        for (with_ping, plain) in WITH_PING.iter().zip([TCP, POSTGRES, MYSQL].iter().chain(&DATABASE_TLS)) {
            assert_eq!(with_ping.strip_suffix(PING_SUFFIX), Some(*plain));
        }
    }

    #[test]
    fn with_acme_the_certificate_check_leads_and_nothing_is_listed_twice() {
        let names = server_preference(true);
        assert_eq!(names[..4], [HTTP_1_1, H2, ACME_TLS, "teleport-tcp-ping"]);
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), names.len());
    }

    #[test]
    fn auth_names_carry_the_cluster() {
        assert_eq!(auth("root"), "teleport-auth@726f6f74.teleport.cluster.local");
        assert_eq!(auth_cluster(auth("root").as_bytes()).as_deref(), Some("root"));
        for wrong in
            ["teleport-auth@", "teleport-auth@zz.teleport.cluster.local", "h2", "teleport-auth@726f6f74.example"]
        {
            assert_eq!(auth_cluster(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn mysql_versions_are_decoded_and_others_skipped() {
        let version = |names: &[&str]| mysql_server_version(&list(names.iter().copied()));
        assert_eq!(
            version(&["teleport-mysql-ping", "teleport-mysql", "teleport-mysql-OC4wLjI4"]).as_deref(),
            Some("8.0.28")
        );
        assert_eq!(version(&["teleport-mysql-!", "teleport-mysql-", "teleport-mysql"]), None);
        assert_eq!(version(&[&format!("teleport-mysql-{}", "A".repeat(256))]), None);
    }
}
