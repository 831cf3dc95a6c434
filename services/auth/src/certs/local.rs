//! Identities for services of this process and for the administrator of this machine.

use pki::{
    keys::{KeyAlgorithm, PrivateKey},
    suite::{Purpose, algorithm_for},
};
use resources::SystemRole;
use wire::error::{Error, Result};
use zeroize::Zeroizing;

use super::HostCertRequest;
use crate::{Auth, authority::crypto};

/// Which service of this machine needs an identity.
#[derive(Clone, Debug, Default)]
pub struct LocalIdentityRequest {
    /// The UUID of the host; empty: that of this service.
    pub host_uuid: String,
    /// The name of the host; empty: that of this service.
    pub node_name: String,
    /// Names and addresses the service is reached under.
    pub additional_principals: Vec<String>,
    /// Further DNS names.
    pub dns_names: Vec<String>,
    /// The services of an instance.
    pub system_roles: Vec<SystemRole>,
    /// Whether the identity is shown to clients only. Halfway through a rotation they may not know the new authority
    /// yet, so the old one signs.
    pub serving: bool,
}

/// New keys with their certificates.
#[derive(Clone)]
pub struct LocalIdentity {
    /// The TLS key, PEM.
    pub tls_key: Zeroizing<String>,
    /// The X.509 certificate, PEM.
    pub tls_certificate: String,
    /// The SSH key, PEM.
    pub ssh_key: Zeroizing<String>,
    /// The SSH certificate, a line of OpenSSH's form.
    pub ssh_certificate: String,
    /// The trusted host certificates, PEM each.
    pub tls_authorities: Vec<String>,
    /// The trusted host keys, lines of OpenSSH's authorized_keys form.
    pub ssh_authorities: Vec<String>,
}

impl Auth {
    /// Makes keys for a service of this machine and signs them: no token is needed, because the caller is this process.
    ///
    /// # Errors
    /// `BadParameter` for unusable names.
    pub async fn local_identity(&self, role: SystemRole, request: LocalIdentityRequest) -> Result<LocalIdentity> {
        let suite = self.signature_suite();
        // Clients of OpenSSH are configured to accept RSA host certificates only.
        let (tls_key, ssh_key) = tokio::task::spawn_blocking(move || {
            let tls = PrivateKey::generate(algorithm_for(suite, Purpose::HostIdentity))?;
            let ssh = if serves_ssh(role) { PrivateKey::generate(KeyAlgorithm::Rsa2048)? } else { tls.clone() };
            Ok::<_, pki::Error>((tls, ssh))
        })
        .await
        .map_err(|_| Error::other("making a key failed"))?
        .map_err(crypto)?;
        let or_own = |given: String, own: &str| if given.is_empty() { own.to_owned() } else { given };
        let certs = self
            .issue_host_certs(&HostCertRequest {
                host_id: or_own(request.host_uuid, self.host_uuid()),
                node_name: or_own(request.node_name, self.node_name()),
                role,
                additional_principals: request.additional_principals,
                dns_names: request.dns_names,
                public_tls_key: tls_key.public().to_pem(),
                public_ssh_key: ssh_key.public().to_ssh_line(),
                remote_addr: String::new(),
                system_roles: request.system_roles,
                serving: request.serving,
            })
            .await?;
        Ok(LocalIdentity {
            tls_key: tls_key.to_pem().map_err(crypto)?,
            tls_certificate: text(certs.tls)?,
            ssh_key: ssh_key.to_pem().map_err(crypto)?,
            ssh_certificate: text(certs.ssh)?,
            tls_authorities: certs.tlsca_certs.into_iter().map(text).collect::<Result<_>>()?,
            ssh_authorities: certs.sshca_certs.into_iter().map(text).collect::<Result<_>>()?,
        })
    }
}

/// Whether SSH clients meet the host key of a service.
fn serves_ssh(role: SystemRole) -> bool {
    matches!(role, SystemRole::Proxy | SystemRole::Node | SystemRole::Instance)
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::other("a certificate is not text"))
}
