//! Server names (SNI) with a meaning on the public port.

use std::net::IpAddr;

pub use pki::cluster_name::{API_DOMAIN, KUBE_SNI_PREFIX as KUBERNETES_PREFIX, from_server_name, to_server_name};

/// The name a Kubernetes client asks for at the proxy with this host.
pub fn kubernetes(proxy_host: &str) -> String {
    let named = !proxy_host.is_empty() && proxy_host != "localhost" && proxy_host.parse::<IpAddr>().is_err();
    format!("{KUBERNETES_PREFIX}{}", if named { proxy_host } else { API_DOMAIN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_names_need_a_real_host() {
        assert_eq!(kubernetes("proxy.example.com"), "kube-teleport-proxy-alpn.proxy.example.com");
        for host in ["", "localhost", "192.0.2.1", "::1"] {
            assert_eq!(kubernetes(host), "kube-teleport-proxy-alpn.teleport.cluster.local");
        }
    }
}
