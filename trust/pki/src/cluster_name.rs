//! How a cluster's name travels in TLS server names.
//!
//! Every Auth API server answers to one made-up name, [`API_DOMAIN`]. A client that knows which cluster it means
//! puts the cluster's name in front, in hexadecimal: that keeps the dots of the name out of the label, so that one
//! wildcard certificate covers every cluster.

use crate::Error;

/// The made-up DNS name of every Auth API server.
pub const API_DOMAIN: &str = "teleport.cluster.local";

/// Matches every server name made by [`to_server_name`].
pub const API_DOMAIN_WILDCARD: &str = "*.teleport.cluster.local";

/// The start of the ALPN name that routes a connection to a cluster's Auth API.
pub const AUTH_ALPN_PREFIX: &str = "teleport-auth@";

/// The start of server names that mean a Kubernetes API.
pub const KUBE_SNI_PREFIX: &str = "kube-teleport-proxy-alpn.";

/// The longest cluster name whose hexadecimal form is a valid DNS label (RFC 1035 §2.3.4).
///
/// Longer names cannot be carried in a server name by TLS stacks that check it.
pub const MAX_NAME_IN_SERVER_NAME: usize = 31;

/// The server name that stands for a cluster's Auth API: `root` gives `726f6f74.teleport.cluster.local`.
#[must_use]
pub fn to_server_name(cluster: &str) -> String {
    format!("{}.{API_DOMAIN}", hex::encode(cluster))
}

/// The cluster that a server name stands for.
///
/// # Errors
/// [`Error::NoClusterInServerName`] for [`API_DOMAIN`] itself and for names of another form;
/// [`Error::Malformed`] when the label is not hexadecimal.
pub fn from_server_name(server_name: &str) -> Result<String, Error> {
    let lower = server_name.to_ascii_lowercase();
    let label = lower
        .strip_suffix(API_DOMAIN)
        .and_then(|rest| rest.strip_suffix('.'))
        .ok_or_else(|| Error::NoClusterInServerName(server_name.to_owned()))?;
    let bytes = hex::decode(label).map_err(|error| Error::malformed("cluster in server name", error))?;
    String::from_utf8(bytes).map_err(|error| Error::malformed("cluster in server name", error))
}

/// The ALPN name that routes a connection to a cluster's Auth API.
#[must_use]
pub fn auth_alpn(cluster: &str) -> String {
    format!("{AUTH_ALPN_PREFIX}{}", to_server_name(cluster))
}

/// The cluster in an ALPN name made by [`auth_alpn`].
///
/// # Errors
/// As [`from_server_name`]; an ALPN name of another protocol names no cluster.
pub fn from_auth_alpn(alpn: &str) -> Result<String, Error> {
    match alpn.strip_prefix(AUTH_ALPN_PREFIX) {
        Some(server_name) => from_server_name(server_name),
        None => Err(Error::NoClusterInServerName(alpn.to_owned())),
    }
}

/// The name of a host everywhere: `<host uuid>.<cluster>`.
#[must_use]
pub fn host_fqdn(host_id: &str, cluster: &str) -> String {
    format!("{host_id}.{cluster}")
}

/// The names that a service's certificate gets because of its system role: those by which clients dial it through
/// a proxy or as an API server.
#[must_use]
pub fn api_dns_names(system_role: &str) -> &'static [&'static str] {
    match system_role {
        "Auth" | "Admin" | "Proxy" | "Kube" | "App" | "Db" | "WindowsDesktop" | "Okta" => {
            &[API_DOMAIN_WILDCARD, API_DOMAIN]
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    #[test]
    fn a_cluster_becomes_a_hexadecimal_label() {
        assert_eq!(to_server_name("root"), "726f6f74.teleport.cluster.local");
        assert_eq!(auth_alpn("root"), "teleport-auth@726f6f74.teleport.cluster.local");
    }

    #[test]
    fn names_without_a_cluster_are_not_found_and_bad_labels_are_refused() {
        for name in ["teleport.cluster.local", "example.com", "726f6f74teleport.cluster.local", ""] {
            assert_eq!(from_server_name(name).unwrap_err().kind(), ErrorKind::NotFound, "{name}");
        }
        for name in ["xyz.teleport.cluster.local", "ff.teleport.cluster.local"] {
            assert_eq!(from_server_name(name).unwrap_err().kind(), ErrorKind::BadParameter, "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_cluster_name_round_trips(name in "\\PC{1,40}") {
            prop_assert_eq!(from_server_name(&to_server_name(&name)).unwrap(), name.clone());
            prop_assert_eq!(from_auth_alpn(&auth_alpn(&name)).unwrap(), name);
        }

        #[test]
        fn hostile_names_never_panic(name in "\\PC{0,60}(\\.teleport\\.cluster\\.local)?") {
            let _ = from_server_name(&name);
        }
    }
}
