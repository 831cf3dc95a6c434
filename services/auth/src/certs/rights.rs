//! What the roles of a user allow a certificate to say.

use std::time::Duration;

use pki::ssh_cert::{CertificateFormat, Permits};
use rbac::{CertificateLogins, KeyPolicy, ListField, RoleSet};
use wire::error::{Error, Result};

use super::UserCertRequest;
use crate::Auth;

/// The roles of a request, ready to be asked.
pub(super) struct Rights {
    roles: RoleSet,
}

/// What certificates list besides logins.
#[derive(Default)]
pub(super) struct Resources {
    pub(super) kubernetes_users: Vec<String>,
    pub(super) kubernetes_groups: Vec<String>,
    pub(super) database_names: Vec<String>,
    pub(super) database_users: Vec<String>,
    pub(super) aws_role_arns: Vec<String>,
    pub(super) azure_identities: Vec<String>,
    pub(super) gcp_service_accounts: Vec<String>,
}

impl Rights {
    /// The rights of a request, whose key is protected as much as its roles and the cluster want.
    ///
    /// # Errors
    /// `NotFound` for unknown roles; `BadParameter` naming the wanted protection, in words that clients read.
    pub(super) fn of(auth: &Auth, request: &UserCertRequest) -> Result<Self> {
        let roles = auth.role_set(&request.roles, &request.traits, &request.user)?;
        let cluster = auth.auth_preference()?.spec.as_ref().map_or(0, |spec| spec.require_mfa_type);
        let wanted = roles.options().key_policy(cluster);
        let attested = KeyPolicy::from_name(&request.attested_policy).unwrap_or(KeyPolicy::None);
        // What the administrator signs on this machine is kept in files by intention.
        if !request.override_ttl && !attested.satisfies(wanted) {
            return Err(Error::bad_parameter(format!("private key policy not met: {}", wanted.name())));
        }
        Ok(Self { roles })
    }

    /// How long the certificate may live.
    pub(super) fn ttl(&self, asked: Duration, overridden: bool) -> Duration {
        if overridden { asked } else { self.roles.adjust_session_ttl(asked) }
    }

    /// The logins for a certificate of this life; none when no role is about logins.
    pub(super) fn logins(&self, ttl: Duration, overridden: bool) -> Result<Vec<String>> {
        let ttl = if overridden { Duration::ZERO } else { ttl };
        match self.roles.logins_for_ttl(ttl) {
            Ok(CertificateLogins::Names(names)) => Ok(names),
            Ok(CertificateLogins::NoneDefined) => Ok(Vec::new()),
            // A user without any login at all still gets into everything that is not SSH.
            Err(_) if self.roles.logins_for_ttl(Duration::ZERO).is_err() => Ok(Vec::new()),
            Err(denial) => Err(denial.into()),
        }
    }

    pub(super) fn resources(&self, _ttl: Duration, _overridden: bool) -> Resources {
        Resources {
            kubernetes_users: self.roles.collect(ListField::KubernetesUsers),
            kubernetes_groups: self.roles.collect(ListField::KubernetesGroups),
            database_names: self.roles.collect(ListField::DatabaseNames),
            database_users: self.roles.collect(ListField::DatabaseUsers),
            aws_role_arns: self.roles.collect(ListField::AwsRoleArns),
            azure_identities: self.roles.collect(ListField::AzureIdentities),
            gcp_service_accounts: self.roles.collect(ListField::GcpServiceAccounts),
        }
    }

    pub(super) fn permits(&self) -> Permits {
        let options = self.roles.options();
        Permits {
            port_forwarding: options.port_forwarding,
            agent_forwarding: options.forward_agent,
            x11_forwarding: options.x11_forwarding,
        }
    }

    pub(super) fn format(&self) -> CertificateFormat {
        match self.roles.options().certificate_format {
            rbac::CertificateFormat::Standard => CertificateFormat::Standard,
            rbac::CertificateFormat::OldSsh => CertificateFormat::OldSsh,
        }
    }

    /// Extensions that roles define.
    pub(super) fn extensions(&self) -> Vec<(String, String)> {
        let defined = &self.roles.options().certificate_extensions;
        defined.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The only address the certificate is good for; empty when roles do not care.
    pub(super) fn pinned_ip(&self, login_ip: &str) -> Result<String> {
        match (self.roles.options().pin_source_ip, login_ip) {
            (false, _) => Ok(String::new()),
            (true, "") => {
                Err(Error::bad_parameter("IP pinning is enabled for this user but there is no client IP information"))
            }
            (true, ip) => Ok(ip.to_owned()),
        }
    }
}
