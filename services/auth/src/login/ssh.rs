//! Logging in from the command line: credentials against certificates.

use std::time::Duration;

use pki::authority::CaType;
use resources::Resource;
use wire::error::Result;

use super::{Credentials, LoginClient};
use crate::{
    Auth, PublicKeys, UserCertRequest,
    authority::{trusted_ssh, trusted_tls},
};

/// A login from the command line.
#[derive(Clone, Default)]
pub struct SshLogin {
    /// Who, with what proof.
    pub credentials: Credentials,
    /// With what program, from where.
    pub client: LoginClient,
    /// The keys to certify.
    pub keys: PublicKeys,
    /// How long the certificates are to live; zero: as long as a session of this cluster.
    pub ttl: Duration,
    /// `standard`, `oldssh`, or empty.
    pub compatibility: String,
    /// The cluster to route to; empty: this one.
    pub route_to_cluster: String,
    /// The chosen Kubernetes cluster.
    pub kubernetes_cluster: String,
}

/// What a login from the command line gets.
#[derive(Clone, Debug)]
pub struct SshLoginResponse {
    /// The name of the user.
    pub username: String,
    /// The SSH certificate, a line of OpenSSH's form.
    pub cert: Vec<u8>,
    /// The X.509 certificate, PEM.
    pub tls_cert: Vec<u8>,
    /// Which hosts to trust.
    pub host_signers: Vec<TrustedCertificates>,
}

/// The trusted host authority of a cluster.
#[derive(Clone, Debug)]
pub struct TrustedCertificates {
    /// The name of the cluster.
    pub cluster_name: String,
    /// SSH keys, lines of OpenSSH's authorized_keys form.
    pub authorized_keys: Vec<Vec<u8>>,
    /// Certificates, PEM.
    pub tls_certificates: Vec<Vec<u8>>,
}

impl Auth {
    /// Logs a user in and signs the keys of the client.
    ///
    /// # Errors
    /// `AccessDenied` for wrong credentials, in words that do not tell what was wrong; `BadParameter` for unusable keys.
    pub async fn authenticate_ssh_user(&self, login: SshLogin) -> Result<SshLoginResponse> {
        let done = self.authenticate_user(&login.credentials, &login.client).await?;
        let rights = self.rights_at_login(&done.user).await?;
        let certs = self
            .generate_user_certs(UserCertRequest {
                user: done.user.name().to_owned(),
                roles: rights.roles,
                traits: rights.traits,
                ends: rights.ends,
                ttl: login.ttl,
                keys: login.keys,
                compatibility: login.compatibility,
                route_to_cluster: login.route_to_cluster,
                kubernetes_cluster: login.kubernetes_cluster,
                login_ip: login.client.ip(),
                user_agent: login.client.user_agent,
                ..UserCertRequest::default()
            })
            .await?;
        Ok(SshLoginResponse {
            username: done.user.name().to_owned(),
            cert: certs.ssh,
            tls_cert: certs.tls,
            host_signers: vec![self.host_signers()?],
        })
    }

    /// The host authority that clients of this cluster trust.
    ///
    /// # Errors
    /// Only while the storage is being reloaded.
    pub fn host_signers(&self) -> Result<TrustedCertificates> {
        let authority = self.host_authority()?;
        debug_assert_eq!(authority.sub_kind, CaType::Host.as_str());
        Ok(TrustedCertificates {
            cluster_name: self.cluster_name().to_owned(),
            authorized_keys: trusted_ssh(&authority),
            tls_certificates: trusted_tls(&authority),
        })
    }
}
