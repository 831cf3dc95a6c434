//! Believing what the proxies of the cluster say about their clients.

use std::net::IpAddr;

use async_trait::async_trait;
use cache::Cache;
use chrono::Utc;
use mux::proxy_protocol::{Addresses, Signature, VerifyError, VerifySignedHeader, signed};
use pki::x509::Certificate;

/// Checks signed PROXY headers against the host authority that a cache knows.
pub struct SignedByProxy(Cache);

impl SignedByProxy {
    /// Checks with the authorities in this cache.
    pub fn new(cache: Cache) -> Self {
        Self(cache)
    }
}

#[async_trait]
impl VerifySignedHeader for SignedByProxy {
    async fn verify(&self, addresses: &Addresses, header: Signature<'_>) -> Result<Option<IpAddr>, VerifyError> {
        let cluster = self.0.cluster_name();
        let authority = self.0.authority("host", &cluster);
        let authority = authority.ok_or_else(|| VerifyError::Unavailable("no host authority is known yet".into()))?;
        let sets = authority.spec.iter().flat_map(|s| s.active_keys.iter().chain(&s.additional_trusted_keys));
        let pems = sets.flat_map(|set| &set.tls).map(|pair| String::from_utf8_lossy(&pair.cert).into_owned());
        let trusted: Vec<_> = pems.filter_map(|pem| Certificate::from_pem(&pem).ok()).collect();
        signed::verify(addresses, header, &cluster, &trusted, Utc::now())
    }
}
