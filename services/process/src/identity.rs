//! A host's keys and certificates for one role.

use chrono::{DateTime, Utc};
use dialer::{ClientIdentity, ClusterCredentials, Credentials};
use pki::keys::{KeyAlgorithm, PrivateKey, PublicKey};
use pki::ssh_cert::{self, HostCertificate};
use pki::x509::Certificate;

/// New keys of a host.
///
/// TLS uses P-256. SSH uses RSA: the client configuration that existing programs generate accepts RSA host
/// certificates only.
#[derive(Clone, Debug)]
pub struct NewHostKeys {
    /// For TLS.
    pub tls: PrivateKey,
    /// For SSH.
    pub ssh: PrivateKey,
}

impl NewHostKeys {
    /// Makes both. Takes tens of milliseconds: call it off the runtime's threads.
    pub fn generate() -> Result<Self, pki::Error> {
        Ok(Self {
            tls: PrivateKey::generate(KeyAlgorithm::EcdsaP256)?,
            ssh: PrivateKey::generate(KeyAlgorithm::Rsa2048)?,
        })
    }
}

/// Who a process is in one role.
#[derive(Clone, Debug)]
pub struct HostIdentity {
    /// UUID of the host.
    pub host_uuid: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the role, such as `Node`.
    pub role: String,
    /// Key of the TLS certificate.
    pub tls_key: PrivateKey,
    /// The TLS certificate.
    pub tls_certificate: Certificate,
    /// Key of the SSH certificate.
    pub ssh_key: PrivateKey,
    /// The SSH host certificate.
    pub ssh_certificate: ssh_key::Certificate,
    /// The cluster's host authorities, for TLS.
    pub tls_authorities: Vec<Certificate>,
    /// The cluster's host authorities, for SSH.
    pub ssh_authorities: Vec<PublicKey>,
}

/// What is wrong with an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A key or certificate cannot be read.
    #[error("{what}: {source}")]
    Material {
        /// Which one.
        what: &'static str,
        /// What is wrong with it.
        source: pki::Error,
    },
    /// A certificate is for another key.
    #[error("{0} is not for this host's key")]
    WrongKey(&'static str),
}

/// The parts in the forms in which they travel and are stored.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// SSH certificate, one line.
    pub ssh: &'a [u8],
    /// TLS certificate, PEM.
    pub tls: &'a [u8],
    /// Host authorities, PEM each.
    pub tls_authorities: &'a [Vec<u8>],
    /// Host authorities, one line each.
    pub ssh_authorities: &'a [Vec<u8>],
}

impl HostIdentity {
    /// Puts an identity together and checks that it fits.
    pub fn assemble(keys: NewHostKeys, parts: &Parts<'_>) -> Result<Self, IdentityError> {
        let of = |what: &'static str| move |source| IdentityError::Material { what, source };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let tls_certificate = Certificate::from_pem(&text(parts.tls)).map_err(of("TLS certificate"))?;
        let ssh_certificate = ssh_cert::from_line(&text(parts.ssh)).map_err(of("SSH certificate"))?;
        let host = HostCertificate::from_certificate(ssh_certificate.clone()).map_err(of("SSH certificate"))?;
        if tls_certificate.spki_der() != keys.tls.public().to_spki_der() {
            return Err(IdentityError::WrongKey("TLS certificate"));
        }
        if ssh_certificate.public_key() != keys.ssh.public().to_ssh().key_data() {
            return Err(IdentityError::WrongKey("SSH certificate"));
        }
        let mut tls_authorities = Vec::new();
        for pem in parts.tls_authorities {
            tls_authorities.extend(Certificate::bundle_from_pem(&text(pem)).map_err(of("host authority"))?);
        }
        let keys_of = parts.ssh_authorities.iter().map(|line| PublicKey::from_ssh_line(&text(line)));
        let ssh_authorities = keys_of.collect::<Result<Vec<_>, _>>().map_err(of("host authority"))?;
        Ok(Self {
            host_uuid: host.host_id().to_owned(),
            cluster: host.cluster,
            role: host.role,
            tls_key: keys.tls,
            tls_certificate,
            ssh_key: keys.ssh,
            ssh_certificate,
            tls_authorities,
            ssh_authorities,
        })
    }

    /// Name under which the host is known everywhere: `<uuid>.<cluster>`.
    pub fn fqdn(&self) -> String {
        pki::cluster_name::host_fqdn(&self.host_uuid, &self.cluster)
    }

    /// Whether the certificate is still good at `now`.
    pub fn is_valid_at(&self, now: DateTime<Utc>) -> bool {
        self.tls_certificate.is_valid_at(now)
    }

    /// Whether the certificate is good for all of these names and addresses.
    pub fn covers(&self, principals: &[String]) -> bool {
        let listed = self.ssh_certificate.valid_principals();
        principals.iter().all(|p| listed.contains(p))
    }

    /// What the host shows to services of the cluster, and whom it believes there.
    pub fn credentials(&self) -> Credentials {
        Credentials::new(ClusterCredentials {
            cluster: self.cluster.clone(),
            identity: Some(ClientIdentity { certificate: self.tls_certificate.clone(), key: self.tls_key.clone() }),
            authorities: self.tls_authorities.clone(),
        })
    }
}
