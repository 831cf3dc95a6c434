//! Certificates of users.

use std::time::Duration;

use audit::codes;
use chrono::{DateTime, TimeDelta, Utc};
use pki::{
    authority::CaType,
    identity::{
        Identity, RouteToApp, RouteToDatabase, Traits, USAGE_APPS, USAGE_DATABASE, USAGE_KUBE, USAGE_WINDOWS_DESKTOP,
        certificate_logins,
    },
    ssh_cert::{self, CertificateFormat, UserCertificateParams},
    x509::{self, LeafTemplate},
};
use rbac::{LockSubject, lock_targets};
use wire::{
    error::{Error, Result},
    events, proto,
    proto::user_certs_request,
    time,
    types::ResourceId,
    wrappers::{LabelValues, StringValues},
};

use super::{PublicKeys, rights::Rights};
use crate::{
    Auth,
    authority::{crypto, trusted_ssh, trusted_tls},
    store::kind,
};

/// SSH certificates live at least so long: clocks of hosts differ.
const MIN_SSH_TTL: TimeDelta = TimeDelta::minutes(1);
/// The longest life of a user's certificate that roles can allow.
const MAX_TTL: Duration = Duration::from_secs(30 * 3600);

/// The shortest life of a certificate for a server without an agent.
const MIN_AGENTLESS: Duration = Duration::from_secs(60);

/// How long a session lasts when neither the request nor the cluster says.
const DEFAULT_TTL: Duration = Duration::from_secs(12 * 3600);

/// How a private key is protected when nothing is known about it.
const NO_POLICY: &str = "none";

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertUsage {
    /// Everything.
    #[default]
    All,
    /// SSH; such certificates are not restricted.
    Ssh,
    /// Kubernetes only.
    Kubernetes,
    /// Applications only.
    Apps,
    /// Databases only.
    Database,
    /// Desktops only.
    WindowsDesktop,
}

impl From<user_certs_request::CertUsage> for CertUsage {
    fn from(usage: user_certs_request::CertUsage) -> Self {
        use user_certs_request::CertUsage as Asked;
        match usage {
            Asked::All => Self::All,
            Asked::Ssh => Self::Ssh,
            Asked::Kubernetes => Self::Kubernetes,
            Asked::Database => Self::Database,
            Asked::App => Self::Apps,
            Asked::WindowsDesktop => Self::WindowsDesktop,
        }
    }
}

impl CertUsage {
    fn restriction(self) -> Vec<String> {
        let word = match self {
            Self::All | Self::Ssh => return Vec::new(),
            Self::Kubernetes => USAGE_KUBE,
            Self::Apps => USAGE_APPS,
            Self::Database => USAGE_DATABASE,
            Self::WindowsDesktop => USAGE_WINDOWS_DESKTOP,
        };
        vec![word.to_owned()]
    }
}

/// A wish for the certificates of a user, whose right to them was checked before.
#[derive(Clone, Debug, Default)]
pub struct UserCertRequest {
    /// The user.
    pub user: String,
    /// The roles in the certificate.
    pub roles: Vec<String>,
    /// The traits in the certificate.
    pub traits: Traits,
    /// How long it is to live; zero: as long as a session of this cluster. Roles may allow less.
    pub ttl: Duration,
    /// The keys.
    pub keys: PublicKeys,
    /// `standard`, `oldssh`, or empty for what the roles say.
    pub compatibility: String,
    /// The cluster to route to; empty: this one.
    pub route_to_cluster: String,
    /// The chosen Kubernetes cluster.
    pub kubernetes_cluster: String,
    /// The chosen application.
    pub route_to_app: Option<proto::RouteToApp>,
    /// The chosen database.
    pub route_to_database: Option<proto::RouteToDatabase>,
    /// Where the client logged in from, without port.
    pub login_ip: String,
    /// The id of the device that was proven for this certificate.
    pub mfa_verified: String,
    /// What it may be used for.
    pub usage: CertUsage,
    /// Who asked for it in the name of the user.
    pub impersonator: String,
    /// Whether it may not be exchanged for another one.
    pub disallow_reissue: bool,
    /// Whether a bot may renew it.
    pub renewable: bool,
    /// Counts renewals.
    pub generation: u64,
    /// The access requests whose roles are included.
    pub active_requests: Vec<String>,
    /// The only resources that may be reached; empty: all that the roles reach.
    pub only_resources: Vec<ResourceId>,
    /// When the certificate ends that this one was made from.
    pub previous_expiry: Option<DateTime<Utc>>,
    /// The latest end of the certificate, because the roles end then that it holds.
    pub ends: Option<DateTime<Utc>>,
    /// Whether the roles' longest session does not count, nor how long each login is allowed for.
    pub override_ttl: bool,
    /// Whether the answer holds the host authority as well.
    pub include_host_ca: bool,
    /// How the private key is protected, as far as it was proven; empty: not at all.
    pub attested_policy: String,
    /// What the client's program says it is.
    pub user_agent: String,
}

impl Auth {
    /// Signs the keys of a user.
    ///
    /// # Errors
    /// `BadParameter` for unusable keys and for keys that are protected less than the roles want; `AccessDenied` when
    /// no login of the roles is allowed for so long; `NotFound` for unknown roles and clusters.
    pub async fn generate_user_certs(&self, request: UserCertRequest) -> Result<proto::Certs> {
        let _counted = self.0.metrics.generating();
        let (ssh_key, tls_key) = request.keys.parse()?;
        let rights = Rights::of(self, &request)?;
        self.check_subject_locks(&request)?;
        self.check_route(&request.route_to_cluster)?;
        let now = self.now();
        let ttl = rights.ttl(self.asked_ttl(&request), request.override_ttl);
        let ttl = TimeDelta::from_std(ttl).map_err(|_| Error::bad_parameter("the lifetime is too long"))?;
        let ttl = request.ends.map_or(ttl, |ends| ttl.min(ends - now));
        let not_after = now + ttl;
        let pinned_ip = rights.pinned_ip(&request.login_ip)?;
        let identity = Identity { pinned_ip, ..self.user_identity(&request, &rights, ttl)? };
        let signers = self.signers(CaType::User).await?;
        let missing = || Error::not_found("the user authority has no usable keys");
        let mut certs = proto::Certs::default();
        if let Some(key) = &ssh_key {
            let params = UserCertificateParams {
                identity: &identity,
                public_key: key,
                now,
                not_after: Some(not_after.max(now + MIN_SSH_TTL)),
                permits: rights.permits(),
                format: certificate_format(&request, &rights)?,
                extensions: &rights.extensions(),
            };
            let certificate = signers.ssh.as_ref().ok_or_else(missing)?.issue_user(&params).map_err(crypto)?;
            certs.ssh = ssh_cert::to_line(&certificate).map_err(crypto)?.into_bytes();
        }
        if let Some(key) = tls_key {
            let template = LeafTemplate::new(identity.to_subject().map_err(crypto)?, key, now, not_after);
            let certificate = signers.tls.as_ref().ok_or_else(missing)?.issue(&template).map_err(crypto)?;
            certs.tls = x509::to_pem(&certificate).into_bytes();
        }
        self.add_authorities(&mut certs, request.include_host_ca)?;
        self.emit_user_certificate(&request, &identity, not_after).await?;
        self.0.metrics.user_certificate(&request.attested_policy);
        Ok(certs)
    }

    /// Signs the key of a proxy that logs in to a server without an agent in a user's name, with the authority that
    /// such servers trust. Of the request, the user, the roles by name, the traits, the life and the SSH key count.
    ///
    /// # Errors
    /// `BadParameter` for unusable keys, `NotFound` for unknown roles, `AccessDenied` while the user or a role is locked.
    pub async fn generate_open_ssh_certificate(&self, request: UserCertRequest) -> Result<String> {
        let (key, _) = request.keys.parse()?;
        let key = key.ok_or_else(|| Error::bad_parameter("missing parameter PublicKey"))?;
        // What the user's own key is protected by was checked when the user's certificate was issued.
        let rights = Rights::of(self, &UserCertRequest { override_ttl: true, ..request.clone() })?;
        self.check_subject_locks(&request)?;
        let now = self.now();
        let ttl = TimeDelta::from_std(request.ttl.clamp(MIN_AGENTLESS, MAX_TTL));
        let ttl = ttl.map_err(|_| Error::bad_parameter("the lifetime is too long"))?;
        // The proxy connects, and from its own address, whatever the user's certificate is pinned to.
        let identity = self.user_identity(&request, &rights, ttl)?;
        let signers = self.signers(CaType::OpenSsh).await?;
        let missing = || Error::not_found("the authority for servers without an agent has no usable keys");
        let params = UserCertificateParams {
            identity: &identity,
            public_key: &key,
            now,
            not_after: Some(now + ttl),
            permits: rights.permits(),
            format: rights.format(),
            extensions: &rights.extensions(),
        };
        let certificate = signers.ssh.as_ref().ok_or_else(missing)?.issue_user(&params).map_err(crypto)?;
        self.emit_user_certificate(&request, &identity, now + ttl).await?;
        ssh_cert::to_line(&certificate).map_err(crypto)
    }

    fn asked_ttl(&self, request: &UserCertRequest) -> Duration {
        if !request.ttl.is_zero() {
            return if request.override_ttl { request.ttl } else { request.ttl.min(MAX_TTL) };
        }
        let preference = self.auth_preference().ok();
        let nanos = preference.and_then(|p| p.spec.as_ref().map(|spec| spec.default_session_ttl)).unwrap_or(0);
        u64::try_from(nanos).ok().filter(|n| *n > 0).map_or(DEFAULT_TTL, Duration::from_nanos)
    }

    /// Refuses while the user, a role, the device or an access request of the certificate is locked.
    fn check_subject_locks(&self, request: &UserCertRequest) -> Result<()> {
        let device = &request.mfa_verified;
        self.check_locks(&lock_targets(&LockSubject {
            user: request.user.clone(),
            roles: request.roles.clone(),
            mfa_device: (!device.is_empty()).then(|| device.clone()),
            access_requests: request.active_requests.clone(),
            ..LockSubject::default()
        }))
    }

    /// Refuses to route to a cluster that is not connected.
    fn check_route(&self, cluster: &str) -> Result<()> {
        if cluster.is_empty() || cluster == self.cluster_name() {
            return Ok(());
        }
        self.store().cached::<kind::RemoteCluster>(cluster).map(drop)
    }

    /// The identity in a certificate, good from any address.
    fn user_identity(&self, request: &UserCertRequest, rights: &Rights, ttl: TimeDelta) -> Result<Identity> {
        let route = if request.route_to_cluster.is_empty() { self.cluster_name() } else { &request.route_to_cluster };
        let policy = if request.attested_policy.is_empty() { NO_POLICY } else { &request.attested_policy };
        let app = request.route_to_app.clone().unwrap_or_default();
        let database = request.route_to_database.clone().unwrap_or_default();
        let ttl = ttl.to_std().unwrap_or_default();
        let resources = rights.resources(ttl, request.override_ttl);
        Ok(Identity {
            username: request.user.clone(),
            groups: request.roles.clone(),
            usage: request.usage.restriction(),
            principals: certificate_logins(rights.logins(ttl, request.override_ttl)?),
            kubernetes_users: resources.kubernetes_users,
            kubernetes_groups: resources.kubernetes_groups,
            kubernetes_cluster: request.kubernetes_cluster.clone(),
            route_to_cluster: route.to_owned(),
            teleport_cluster: self.cluster_name().to_owned(),
            traits: Some(request.traits.clone()),
            route_to_app: RouteToApp {
                session_id: app.session_id,
                public_addr: app.public_addr,
                cluster_name: app.cluster_name,
                name: app.name,
                aws_role_arn: app.aws_role_arn,
                azure_identity: app.azure_identity,
                gcp_service_account: app.gcp_service_account,
            },
            aws_role_arns: resources.aws_role_arns,
            azure_identities: resources.azure_identities,
            gcp_service_accounts: resources.gcp_service_accounts,
            route_to_database: RouteToDatabase {
                service_name: database.service_name,
                protocol: database.protocol,
                username: database.username,
                database: database.database,
                roles: database.roles,
            },
            database_names: resources.database_names,
            database_users: resources.database_users,
            mfa_verified: request.mfa_verified.clone(),
            previous_identity_expires: request.previous_expiry,
            login_ip: request.login_ip.clone(),
            impersonator: request.impersonator.clone(),
            active_requests: request.active_requests.clone(),
            allowed_resource_ids: request.only_resources.iter().map(resources::resource_id_text).collect(),
            disallow_reissue: request.disallow_reissue,
            renewable: request.renewable,
            generation: request.generation,
            private_key_policy: policy.to_owned(),
            ..Identity::default()
        })
    }

    /// The trusted user authority of this cluster, and the host authority when it is wanted.
    fn add_authorities(&self, certs: &mut proto::Certs, include_host: bool) -> Result<()> {
        let user = self.store().cached::<kind::CertAuthority>(&format!("{}/{}", CaType::User, self.cluster_name()))?;
        certs.tlsca_certs = trusted_tls(&user);
        certs.sshca_certs = trusted_ssh(&user);
        if include_host {
            let host = self.host_authority()?;
            certs.tlsca_certs.extend(trusted_tls(&host));
            certs.sshca_certs.extend(trusted_ssh(&host));
        }
        Ok(())
    }

    async fn emit_user_certificate(
        &self,
        request: &UserCertRequest,
        identity: &Identity,
        not_after: DateTime<Utc>,
    ) -> Result<()> {
        self.emit(codes::CERTIFICATE_CREATE.event(events::CertificateCreate {
            certificate_type: "user".to_owned(),
            identity: Some(described(identity, not_after)),
            client: Some(events::ClientMetadata { user_agent: request.user_agent.clone() }),
            ..Default::default()
        }))
        .await
    }
}

fn certificate_format(request: &UserCertRequest, rights: &Rights) -> Result<CertificateFormat> {
    match request.compatibility.as_str() {
        "" => Ok(rights.format()),
        asked => CertificateFormat::parse(asked).map_err(crypto),
    }
}

/// An identity as the audit log tells it.
fn described(identity: &Identity, expires: DateTime<Utc>) -> events::Identity {
    let values = identity.traits.clone().unwrap_or_default();
    let values = values.into_iter().map(|(name, values)| (name, StringValues { values })).collect();
    events::Identity {
        user: identity.username.clone(),
        impersonator: identity.impersonator.clone(),
        roles: identity.groups.clone(),
        usage: identity.usage.clone(),
        logins: identity.principals.clone(),
        kubernetes_groups: identity.kubernetes_groups.clone(),
        kubernetes_users: identity.kubernetes_users.clone(),
        expires: Some(time::timestamp(expires)),
        route_to_cluster: identity.route_to_cluster.clone(),
        kubernetes_cluster: identity.kubernetes_cluster.clone(),
        traits: Some(LabelValues { values }),
        teleport_cluster: identity.teleport_cluster.clone(),
        database_names: identity.database_names.clone(),
        database_users: identity.database_users.clone(),
        mfa_device_uuid: identity.mfa_verified.clone(),
        client_ip: identity.login_ip.clone(),
        access_requests: identity.active_requests.clone(),
        disallow_reissue: identity.disallow_reissue,
        ..Default::default()
    }
}
