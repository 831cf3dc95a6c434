//! The authorities that vouch for the hosts of a cluster and of those it trusts.

use pki::keys::PublicKey;
use pki::x509::Certificate;
use wire::trust::GetCertAuthoritiesRequest;
use wire::trust::trust_service_client::TrustServiceClient;
use wire::types::{CaKeySet, CertAuthorityV2};

use crate::cluster::ClusterClient;
use crate::error::{Error, Result};
use crate::keys::TrustedCluster;

/// Asks the root cluster for the host authorities of all clusters, the root cluster's first.
pub async fn fetch(client: &ClusterClient) -> Result<Vec<TrustedCluster>> {
    let mut service = TrustServiceClient::new(client.root_channel());
    let request = GetCertAuthoritiesRequest { r#type: "host".to_owned(), include_key: false };
    let answer = service.get_cert_authorities(request).await?.into_inner();
    let mut trusted = answer.cert_authorities_v2.iter().map(from_resource).collect::<Result<Vec<_>>>()?;
    let root = client.account().root_cluster();
    if !trusted.iter().any(|cluster| cluster.name == root) {
        return Err(Error::other(format!("cluster {root} did not name its own host authority")));
    }
    trusted.sort_by_key(|cluster| cluster.name != root);
    Ok(trusted)
}

fn from_resource(authority: &CertAuthorityV2) -> Result<TrustedCluster> {
    let spec = authority.spec.clone().unwrap_or_default();
    let empty = CaKeySet::default();
    let sets = [spec.active_keys.as_ref().unwrap_or(&empty), spec.additional_trusted_keys.as_ref().unwrap_or(&empty)];
    let keys = sets.iter().flat_map(|set| set.ssh.iter().map(|pair| &pair.public_key[..]));
    let certificates = sets.iter().flat_map(|set| set.tls.iter().map(|pair| &pair.cert[..]));
    trusted_cluster(&spec.cluster_name, keys, certificates)
}

/// Reads the authorities of a cluster: SSH keys as lines, certificates as PEM.
pub(super) fn trusted_cluster<'a>(
    name: &str,
    keys: impl Iterator<Item = &'a [u8]>,
    certificates: impl Iterator<Item = &'a [u8]>,
) -> Result<TrustedCluster> {
    let unusable = |error: &dyn std::fmt::Display| {
        Error::other(format!("the host authority of cluster {name:?} cannot be used: {error}"))
    };
    let mut trusted = TrustedCluster { name: name.to_owned(), ..Default::default() };
    for key in keys {
        let line = std::str::from_utf8(key).map_err(|e| unusable(&e))?;
        trusted.ssh_keys.push(PublicKey::from_ssh_line(line).map_err(|e| unusable(&e))?);
    }
    for pem in certificates {
        let text = std::str::from_utf8(pem).map_err(|e| unusable(&e))?;
        trusted.tls_certificates.extend(Certificate::bundle_from_pem(text).map_err(|e| unusable(&e))?);
    }
    Ok(trusted)
}
