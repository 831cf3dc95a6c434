//! Who somebody is, as written into the subject of an X.509 certificate.
//!
//! All facts about a user or host stand in the distinguished name: standard attributes for the most important
//! ones (`CN` the name, `O` the roles, `L` the logins, `STREET` the cluster to route to, `postalCode` the traits)
//! and private attributes under the arc `1.3.9999` for the rest. Unknown attributes are ignored, so that
//! certificates of newer issuers still work.

mod subject;
mod traits;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub(crate) use subject::rfc3339;
pub use traits::{Traits, go_json, traits_from_text, traits_to_json};

use crate::Error;
use crate::x509::{Certificate, DistinguishedName};

/// The login that lets a user join sessions; it is in every user's certificate.
pub const SESSION_JOIN_PRINCIPAL: &str = "-teleport-internal-join";

/// The start of the login in certificates that allow no login at all; a random UUID follows.
pub const NO_LOGIN_PREFIX: &str = "-teleport-nologin-";

/// A certificate for Kubernetes only; see [`Identity::usage`].
pub const USAGE_KUBE: &str = "usage:kube";
/// A certificate for applications only.
pub const USAGE_APPS: &str = "usage:apps";
/// A certificate for databases only.
pub const USAGE_DATABASE: &str = "usage:db";
/// A certificate for desktops only.
pub const USAGE_WINDOWS_DESKTOP: &str = "usage:windows_desktop";

/// Everything a certificate says about its holder. Empty text and empty lists mean that it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// The user's name, or `<host id>.<cluster>` of a host.
    pub username: String,
    /// The roles of a user, or the one system role of a host.
    pub groups: Vec<String>,
    /// What the certificate is restricted to; empty means anything. Servers compare the whole list.
    pub usage: Vec<String>,
    /// Allowed SSH logins, with [`SESSION_JOIN_PRINCIPAL`].
    pub principals: Vec<String>,
    /// Kubernetes users to impersonate.
    pub kubernetes_users: Vec<String>,
    /// Kubernetes groups to impersonate.
    pub kubernetes_groups: Vec<String>,
    /// The chosen Kubernetes cluster.
    pub kubernetes_cluster: String,
    /// The cluster to which connections are routed.
    pub route_to_cluster: String,
    /// The cluster whose authority issued the certificate.
    pub teleport_cluster: String,
    /// The user's traits; `None` for hosts.
    pub traits: Option<Traits>,
    /// The chosen application.
    pub route_to_app: RouteToApp,
    /// Allowed AWS role ARNs.
    pub aws_role_arns: Vec<String>,
    /// Allowed Azure identities.
    pub azure_identities: Vec<String>,
    /// Allowed GCP service accounts.
    pub gcp_service_accounts: Vec<String>,
    /// The chosen database.
    pub route_to_database: RouteToDatabase,
    /// Allowed database names.
    pub database_names: Vec<String>,
    /// Allowed database users.
    pub database_users: Vec<String>,
    /// The id of the device with which a second factor was proven.
    pub mfa_verified: String,
    /// When the certificate expires that this one replaced after a second factor was proven.
    pub previous_identity_expires: Option<DateTime<Utc>>,
    /// The client's address at login, without port.
    pub login_ip: String,
    /// The only address from which the certificate may be used.
    pub pinned_ip: String,
    /// Who asked for this certificate in the name of the user.
    pub impersonator: String,
    /// The ids of the access requests whose roles are included.
    pub active_requests: Vec<String>,
    /// Whether the certificate may not be exchanged for another one.
    pub disallow_reissue: bool,
    /// Whether a bot may renew the certificate.
    pub renewable: bool,
    /// Counts a bot's renewals, to notice copies; 0 means not counted.
    pub generation: u64,
    /// The bot's name.
    pub bot_name: String,
    /// The id of one instance of the bot.
    pub bot_instance_id: String,
    /// The only resources that may be reached, as `/<cluster>/<kind>/<name>[/<sub-resource>]`.
    pub allowed_resource_ids: Vec<String>,
    /// The test of a connection that this certificate was made for.
    pub connection_diagnostic_id: String,
    /// How the private key is protected, such as `none` or `hardware_key_touch`.
    pub private_key_policy: String,
    /// The trusted device of the holder.
    pub device: DeviceExtensions,
    /// The system roles of a host that runs several services in one process.
    pub system_roles: Vec<String>,
    /// `local` or `sso`.
    pub user_type: String,
    /// How a bot or host joined, as JSON.
    pub join_attributes: String,
    /// End of validity; comes from the certificate, not from its subject.
    pub expires: Option<DateTime<Utc>>,
}

/// The application that a certificate opens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteToApp {
    /// The id of the application session.
    pub session_id: String,
    /// The public address of the application.
    pub public_addr: String,
    /// The cluster of the application.
    pub cluster_name: String,
    /// The application's name.
    pub name: String,
    /// The chosen AWS role.
    pub aws_role_arn: String,
    /// The chosen Azure identity.
    pub azure_identity: String,
    /// The chosen GCP service account.
    pub gcp_service_account: String,
}

/// The database that a certificate opens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteToDatabase {
    /// The name of the database resource.
    pub service_name: String,
    /// Its protocol.
    pub protocol: String,
    /// The user inside the database.
    pub username: String,
    /// The database inside the server.
    pub database: String,
    /// The roles asked for inside the database.
    pub roles: Vec<String>,
}

/// The trusted device of a holder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceExtensions {
    /// The id of the device in the inventory.
    pub device_id: String,
    /// Its serial number or asset tag.
    pub asset_tag: String,
    /// The key that was used to prove it.
    pub credential_id: String,
}

impl Identity {
    /// The subject of a certificate for this identity.
    ///
    /// # Errors
    /// [`Error::MissingUsername`] or [`Error::MissingGroups`], without which no reader accepts a certificate.
    pub fn to_subject(&self) -> Result<DistinguishedName, Error> {
        subject::write(self)
    }

    /// Reads the identity of a certificate that has been verified.
    ///
    /// The issuing cluster comes from the subject, else from the issuer's organization.
    ///
    /// # Errors
    /// [`Error::MissingUsername`], [`Error::MissingGroups`] or [`Error::IdentityAttribute`].
    pub fn from_certificate(certificate: &Certificate) -> Result<Self, Error> {
        let mut identity = Self::from_subject(certificate.subject())?;
        if identity.teleport_cluster.is_empty() {
            identity.teleport_cluster = certificate.issuer_organization().unwrap_or_default().to_owned();
        }
        identity.expires = Some(certificate.not_after());
        Ok(identity)
    }

    /// Reads the identity of a subject; the expiry stays empty.
    ///
    /// # Errors
    /// As [`from_certificate`](Self::from_certificate).
    pub fn from_subject(subject: &DistinguishedName) -> Result<Self, Error> {
        subject::read(subject)
    }

    /// Whether the holder has proven a second factor, with a device or by the way the private key is protected.
    #[must_use]
    pub fn is_mfa_verified(&self) -> bool {
        const PROVING: [&str; 3] = ["hardware_key_touch", "hardware_key_pin", "hardware_key_touch_and_pin"];
        !self.mfa_verified.is_empty() || PROVING.contains(&self.private_key_policy.as_str())
    }

    /// Whether the certificate is past its end.
    #[must_use]
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires.is_some_and(|expires| expires < now)
    }
}

impl RouteToApp {
    /// Whether the route can be used: session, address and cluster are all needed.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        ![&self.session_id, &self.public_addr, &self.cluster_name].iter().any(|part| part.is_empty())
    }
}

impl RouteToDatabase {
    /// Whether the certificate opens a database.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.service_name.is_empty()
    }
}

/// The logins of a user's certificate: the allowed ones, or one that no server has when there is none, and the
/// login that lets users join sessions.
#[must_use]
pub fn certificate_logins<I>(allowed: I) -> Vec<String>
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let mut logins: Vec<String> = Vec::new();
    for login in allowed {
        let login = login.into();
        if login != SESSION_JOIN_PRINCIPAL && !logins.contains(&login) {
            logins.push(login);
        }
    }
    if logins.is_empty() {
        logins.push(format!("{NO_LOGIN_PREFIX}{}", uuid::Uuid::new_v4()));
    }
    logins.push(SESSION_JOIN_PRINCIPAL.to_owned());
    logins
}

#[cfg(test)]
mod tests;
