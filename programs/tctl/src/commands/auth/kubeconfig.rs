//! Configuration files of Kubernetes clients, with a certificate in them.

use client::keys::KeyRing;
use pki::cluster_name::{KUBE_SNI_PREFIX, to_server_name};
use pki::x509::Certificate;
use serde_json::json;

use crate::error::Result;
use crate::output;

/// A file with one context, which leads through the proxy at `proxy` (`host:port`).
pub fn text(keys: &KeyRing, cluster: &str, kube_cluster: Option<&str>, proxy: &str) -> Result<String> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    let context = kube_cluster.map_or_else(|| cluster.to_owned(), |kube| format!("{cluster}-{kube}"));
    let authorities: String = keys.tls_authorities().iter().map(Certificate::to_pem).collect();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {
            "server": format!("https://{proxy}"),
            "tls-server-name": format!("{KUBE_SNI_PREFIX}{}", to_server_name(cluster)),
            "certificate-authority-data": STANDARD.encode(authorities),
        }}],
        "users": [{"name": context, "user": {
            "client-certificate-data": STANDARD.encode(keys.tls_certificate.to_pem()),
            "client-key-data": STANDARD.encode(keys.tls_key.to_pem()?.as_bytes()),
        }}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": context}}],
        "current-context": context,
        "preferences": {},
    });
    output::yaml(&config)
}
