//! What a host does about its identity while the cluster's host authority is being rotated.
//!
//! Nothing about a rotation is remembered: what is to be done follows from the identity there is and from the authority
//! as it is now, so a host that slept through a phase does the right thing when it wakes up.

use chrono::{DateTime, Utc};
use pki::keys::PublicKey;
use pki::x509::Certificate;
use tonic::Request;
use wire::client::ApiChannel;
use wire::proto::HostCertsRequest;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::types::{CaKeySet, CertAuthorityV2};

use crate::identity::{HostIdentity, IdentityError, NewHostKeys, Parts};

/// The phase in which new certificates are shown to servers and not yet to clients.
const UPDATE_CLIENTS: &str = "update_clients";

/// What an authority asks of a host.
#[derive(Debug)]
pub struct Outlook {
    /// Every certificate that is trusted.
    pub tls_authorities: Vec<Certificate>,
    /// Every SSH key that is trusted.
    pub ssh_authorities: Vec<PublicKey>,
    signing: Vec<Certificate>,
    /// Whether clients may not know the keys that sign yet.
    pub clients_first: bool,
}

impl Outlook {
    /// Reads the host authority.
    ///
    /// # Errors
    /// When one of its certificates or keys cannot be read.
    pub fn of(ca: &CertAuthorityV2) -> Result<Self, IdentityError> {
        let spec = ca.spec.clone().unwrap_or_default();
        let (active, more) = (spec.active_keys.unwrap_or_default(), spec.additional_trusted_keys.unwrap_or_default());
        let signing = certificates(&active)?;
        let tls_authorities = signing.iter().cloned().chain(certificates(&more)?).collect();
        let ssh_authorities = ssh_keys(&active)?.into_iter().chain(ssh_keys(&more)?).collect();
        let clients_first = spec.rotation.is_some_and(|rotation| rotation.phase == UPDATE_CLIENTS);
        Ok(Self { tls_authorities, ssh_authorities, signing, clients_first })
    }

    /// Whether an identity was signed with the keys that sign now.
    pub fn is_current(&self, identity: &HostIdentity, now: DateTime<Utc>) -> bool {
        identity.tls_certificate.verify_issued_by(&self.signing, now).is_some()
    }

    /// Whether an identity is believed at all.
    pub fn is_trusted(&self, identity: &HostIdentity, now: DateTime<Utc>) -> bool {
        identity.tls_certificate.verify_issued_by(&self.tls_authorities, now).is_some()
    }

    /// Whether an identity knows all that is trusted, and nothing else.
    pub fn knows(&self, identity: &HostIdentity) -> bool {
        identity.tls_authorities == self.tls_authorities && identity.ssh_authorities == self.ssh_authorities
    }

    /// The identity with what is trusted now.
    #[must_use]
    pub fn teach(&self, mut identity: HostIdentity) -> HostIdentity {
        identity.tls_authorities.clone_from(&self.tls_authorities);
        identity.ssh_authorities.clone_from(&self.ssh_authorities);
        identity
    }
}

fn certificates(keys: &CaKeySet) -> Result<Vec<Certificate>, IdentityError> {
    let unreadable = |source| IdentityError::Material { what: "host authority", source };
    let read = |pem: &[u8]| Certificate::from_pem(&String::from_utf8_lossy(pem)).map_err(unreadable);
    keys.tls.iter().map(|pair| read(&pair.cert)).collect()
}

fn ssh_keys(keys: &CaKeySet) -> Result<Vec<PublicKey>, IdentityError> {
    let unreadable = |source| IdentityError::Material { what: "host authority", source };
    let read = |line: &[u8]| PublicKey::from_ssh_line(&String::from_utf8_lossy(line)).map_err(unreadable);
    keys.ssh.iter().map(|pair| read(&pair.public_key)).collect()
}

/// Why an identity was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The Auth Service refused, or is away.
    #[error("renewing the identity of role {role}: {message}")]
    Refused {
        /// Whose.
        role: String,
        /// The answer.
        message: String,
    },
    /// What came back is unusable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Keys could not be made.
    #[error("making keys: {0}")]
    Keys(String),
}

/// A new identity, with new keys, for a host that can still prove who it is.
///
/// # Errors
/// When the Auth Service refuses or is away; the old identity is then as good as before.
pub async fn renew(
    channel: ApiChannel,
    identity: &HostIdentity,
    node_name: &str,
    principals: &[String],
    dns_names: &[String],
) -> Result<HostIdentity, RenewError> {
    let made = tokio::task::spawn_blocking(NewHostKeys::generate).await;
    let keys = made.map_err(|e| RenewError::Keys(e.to_string()))?.map_err(|e| RenewError::Keys(e.to_string()))?;
    let request = HostCertsRequest {
        host_id: identity.host_uuid.clone(),
        node_name: node_name.to_owned(),
        role: identity.role.clone(),
        additional_principals: principals.to_vec(),
        dns_names: dns_names.to_vec(),
        public_tls_key: keys.tls.public().to_pem().into_bytes(),
        public_ssh_key: keys.ssh.public().to_ssh_line().into_bytes(),
        ..Default::default()
    };
    let answer = AuthServiceClient::new(channel).generate_host_certs(Request::new(request)).await;
    let refused = |status: tonic::Status| RenewError::Refused {
        role: identity.role.clone(),
        message: status.message().to_owned(),
    };
    let certs = answer.map_err(refused)?.into_inner();
    let parts = Parts {
        ssh: &certs.ssh,
        tls: &certs.tls,
        tls_authorities: &certs.tlsca_certs,
        ssh_authorities: &certs.sshca_certs,
    };
    Ok(HostIdentity::assemble(keys, &parts)?)
}
