//! `auth sign --host`.

use pki::authority::CaType;
use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::x509::Certificate;
use resources::SystemRole;
use wire::trust::{GenerateHostCertRequest, GetCertAuthorityRequest};

use super::files::Files;
use crate::api::{Api, Call};
use crate::error::Result;

/// A key and a certificate for a host that runs OpenSSH.
pub async fn ssh(api: &Api, principals: &[String]) -> Result<Files> {
    // The configuration that clients generate for OpenSSH accepts RSA host certificates only.
    let key = PrivateKey::generate(KeyAlgorithm::Rsa2048)?;
    let request = GenerateHostCertRequest {
        key: key.public().to_ssh_line().into_bytes(),
        principals: principals.to_vec(),
        cluster_name: api.cluster().to_owned(),
        role: SystemRole::Node.name().to_owned(),
        ttl: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    let answer = api.trust().generate_host_cert(request).within("signing the certificate").await?;
    let mut files = Files::one("", key.to_pem()?.as_bytes());
    files.add("-cert.pub", answer.ssh_certificate);
    Ok(files)
}

/// The key that Snowflake checks tokens of this cluster with.
pub async fn snowflake(api: &Api) -> Result<Files> {
    let request = GetCertAuthorityRequest {
        r#type: CaType::DatabaseClient.as_str().to_owned(),
        domain: api.cluster().to_owned(),
        include_key: false,
    };
    let authority = api.trust().get_cert_authority(request).within("reading an authority").await?;
    let keys = authority.spec.unwrap_or_default().active_keys.unwrap_or_default();
    let mut pem = String::new();
    for pair in keys.tls {
        pem.push_str(&Certificate::from_pem(&String::from_utf8_lossy(&pair.cert))?.public_key()?.to_spki_pem());
    }
    Ok(Files::one(".pub", pem))
}
