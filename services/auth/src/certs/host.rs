//! Certificates of services.

use std::{net::SocketAddr, time::Duration};

use audit::codes;
use chrono::{DateTime, TimeDelta, Utc};
use pki::{
    authority::CaType,
    cluster_name::{api_dns_names, host_fqdn},
    identity::Identity,
    ssh_cert::{self, HostCertificateParams},
    x509::{self, AlternativeNames, LeafTemplate},
};
use resources::SystemRole;
use wire::{
    error::{Error, Result},
    events, proto,
};

use super::{claims, keys};
use crate::{
    Auth,
    authority::{crypto, trusted_ssh, trusted_tls},
    join::{check_name, check_names},
};

/// A wish for the certificates of a service.
#[derive(Clone, Debug)]
pub struct HostCertRequest {
    /// The UUID of the host.
    pub host_id: String,
    /// The name of the host, for people; may be empty.
    pub node_name: String,
    /// The service.
    pub role: SystemRole,
    /// Further names and addresses it is reached under; `0.0.0.0` stands for where it connects from.
    pub additional_principals: Vec<String>,
    /// Further DNS names of TLS services, which may be wildcards.
    pub dns_names: Vec<String>,
    /// PEM.
    pub public_tls_key: String,
    /// A line of OpenSSH's authorized_keys form.
    pub public_ssh_key: String,
    /// Where the service connects from, with or without port.
    pub remote_addr: String,
    /// The services of an instance.
    pub system_roles: Vec<SystemRole>,
    /// See [`LocalIdentityRequest::serving`](super::LocalIdentityRequest::serving).
    pub serving: bool,
}

impl Default for HostCertRequest {
    /// A request of nobody.
    fn default() -> Self {
        Self {
            host_id: String::new(),
            node_name: String::new(),
            role: SystemRole::Nop,
            additional_principals: Vec::new(),
            dns_names: Vec::new(),
            public_tls_key: String::new(),
            public_ssh_key: String::new(),
            remote_addr: String::new(),
            system_roles: Vec::new(),
            serving: false,
        }
    }
}

impl Auth {
    /// Signs the keys of a service; the answer also holds the host authority of this cluster.
    ///
    /// # Errors
    /// `BadParameter` for unusable keys and names, and for instances without services.
    pub async fn generate_host_certs(&self, request: HostCertRequest) -> Result<proto::Certs> {
        let _counted = self.0.metrics.generating();
        let certs = self.issue_host_certs(&request).await?;
        self.emit_host_certificate(&self.host_identity(&request)).await?;
        Ok(certs)
    }

    /// The same for services of this process, which is no news for the audit log.
    pub(super) async fn issue_host_certs(&self, request: &HostCertRequest) -> Result<proto::Certs> {
        if request.host_id.is_empty() {
            return Err(Error::bad_parameter("missing parameter HostID"));
        }
        if request.role == SystemRole::Instance && request.system_roles.is_empty() {
            return Err(Error::bad_parameter("cannot generate instance cert with no system roles"));
        }
        check_name("host id", &request.host_id)?;
        check_name("node name", &request.node_name)?;
        check_names("DNS names", &request.dns_names)?;
        let principals = reachable_principals(request);
        check_names("additional principals", &principals)?;
        claims::check(request, &principals, self.cluster_name())?;

        let signers = match request.serving {
            true => self.serving_signers(CaType::Host).await?,
            false => self.signers(CaType::Host).await?,
        };
        let signers = match request.role {
            SystemRole::Auth | SystemRole::Admin => self.own_signers(CaType::Host, signers).await?,
            _ => signers,
        };
        let now = self.now();
        let missing = || Error::not_found("the host authority has no usable keys");
        let identity = self.host_identity(request);
        let tls_key = keys::tls_key(&request.public_tls_key)?;
        let mut template = LeafTemplate::new(identity.to_subject().map_err(crypto)?, tls_key, now, end_of_host(now)?);
        template.alternative_names = alternative_names(request, &principals);
        let tls = signers.tls.as_ref().ok_or_else(missing)?.issue(&template).map_err(crypto)?;
        let params = HostCertificateParams {
            public_key: &keys::ssh_key(&request.public_ssh_key)?,
            host_id: &request.host_id,
            node_name: &request.node_name,
            cluster: self.cluster_name(),
            role: request.role.name(),
            additional_principals: &principals,
            now,
            not_after: None,
        };
        let ssh = signers.ssh.as_ref().ok_or_else(missing)?.issue_host(&params).map_err(crypto)?;
        let authority = self.host_authority()?;
        Ok(proto::Certs {
            ssh: ssh_cert::to_line(&ssh).map_err(crypto)?.into_bytes(),
            tls: x509::to_pem(&tls).into_bytes(),
            tlsca_certs: trusted_tls(&authority),
            sshca_certs: trusted_ssh(&authority),
        })
    }

    /// Signs an SSH host key alone, for example of an OpenSSH server without an agent. `ttl` `None` means forever.
    ///
    /// # Errors
    /// `BadParameter` for unusable keys and names, and without any name.
    pub async fn sign_host_ssh_certificate(
        &self,
        public_key: &str,
        host_id: &str,
        node_name: &str,
        principals: &[String],
        role: SystemRole,
        ttl: Option<Duration>,
    ) -> Result<String> {
        if host_id.is_empty() && principals.is_empty() {
            return Err(Error::bad_parameter("a host certificate needs a host id or principals"));
        }
        check_name("host id", host_id)?;
        check_name("node name", node_name)?;
        check_names("principals", principals)?;
        let now = self.now();
        let too_long = || Error::bad_parameter("ttl is too long");
        let ttl = ttl.map(TimeDelta::from_std).transpose().map_err(|_| too_long())?;
        let not_after = ttl.map(|ttl| now.checked_add_signed(ttl).ok_or_else(too_long)).transpose()?;
        let params = HostCertificateParams {
            public_key: &keys::ssh_key(public_key)?,
            host_id,
            node_name,
            cluster: self.cluster_name(),
            role: role.name(),
            additional_principals: principals,
            now,
            not_after,
        };
        let signers = self.signers(CaType::Host).await?;
        let issuer = signers.ssh.as_ref().ok_or_else(|| Error::not_found("the host authority has no usable keys"))?;
        ssh_cert::to_line(&issuer.issue_host(&params).map_err(crypto)?).map_err(crypto)
    }

    fn host_identity(&self, request: &HostCertRequest) -> Identity {
        Identity {
            username: host_fqdn(&request.host_id, self.cluster_name()),
            groups: vec![request.role.name().to_owned()],
            teleport_cluster: self.cluster_name().to_owned(),
            system_roles: request.system_roles.iter().map(|role| role.name().to_owned()).collect(),
            ..Identity::default()
        }
    }

    async fn emit_host_certificate(&self, identity: &Identity) -> Result<()> {
        let expires = end_of_host(self.now())?;
        self.emit(codes::CERTIFICATE_CREATE.event(events::CertificateCreate {
            certificate_type: "host".to_owned(),
            identity: Some(events::Identity {
                user: identity.username.clone(),
                roles: identity.groups.clone(),
                expires: Some(wire::time::timestamp(expires)),
                teleport_cluster: identity.teleport_cluster.clone(),
                ..Default::default()
            }),
            ..Default::default()
        }))
        .await
    }
}

fn end_of_host(now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    let lifetime = TimeDelta::from_std(x509::CA_LIFETIME).map_err(|e| Error::other(e.to_string()))?;
    Ok(now + lifetime)
}

/// The asked names, with "any address" replaced by where the service connects from.
fn reachable_principals(request: &HostCertRequest) -> Vec<String> {
    let remote = match request.remote_addr.parse::<SocketAddr>() {
        Ok(addr) => addr.ip().to_canonical().to_string(),
        Err(_) => request.remote_addr.clone(),
    };
    let mut principals = Vec::with_capacity(request.additional_principals.len());
    for name in &request.additional_principals {
        let name = if name == "0.0.0.0" { &remote } else { name };
        if !name.is_empty() && !principals.contains(name) {
            principals.push(name.clone());
        }
    }
    principals
}

fn alternative_names(request: &HostCertRequest, principals: &[String]) -> AlternativeNames {
    let serves_tls = matches!(
        request.role,
        SystemRole::Auth | SystemRole::Admin | SystemRole::Proxy | SystemRole::Kube | SystemRole::WindowsDesktop
    );
    let asked = request.dns_names.iter().filter(|_| serves_tls).map(String::as_str);
    let fixed = api_dns_names(request.role.name()).iter().copied();
    // What cannot be a name in X.509, such as internationalised text, is left to SSH.
    let usable = |name: &&str| name.is_ascii() && !name.contains(char::is_whitespace);
    AlternativeNames::from_hosts(principals.iter().map(String::as_str).chain(fixed).chain(asked).filter(usable))
}
