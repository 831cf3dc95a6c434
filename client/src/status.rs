//! What a user is logged in as.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::account::{Account, Selection};
use crate::error::Result;
use crate::profile::Profile;

/// Principals and extensions with these prefixes are the product's own.
const OWN_PRINCIPAL: &str = "-teleport-";
const OWN_EXTENSION: &str = "teleport-";

/// One login, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct LoginStatus {
    /// Address of the proxy.
    pub profile_url: String,
    /// Who.
    pub username: String,
    /// Access requests in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub active_requests: Vec<String>,
    /// The cluster that commands are about.
    pub cluster: String,
    /// Roles.
    pub roles: Vec<String>,
    /// Traits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub traits: BTreeMap<String, Vec<String>>,
    /// Accounts on hosts.
    pub logins: Vec<String>,
    /// Whether there is access to Kubernetes.
    pub kubernetes_enabled: bool,
    /// The selected Kubernetes cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kubernetes_cluster: String,
    /// Users in Kubernetes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_users: Vec<String>,
    /// Groups in Kubernetes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_groups: Vec<String>,
    /// Databases with credentials.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// When the credentials end.
    pub valid_until: DateTime<Utc>,
    /// Extensions of the SSH certificate.
    pub extensions: Vec<String>,
    /// Critical options of the SSH certificate.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub critical_options: BTreeMap<String, String>,
    /// Resources that access is limited to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_resources: Vec<String>,
}

/// All logins.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The current one.
    pub active: Option<LoginStatus>,
    /// The others.
    pub profiles: Vec<LoginStatus>,
}

impl LoginStatus {
    /// What an account's certificates say.
    pub fn of(account: &Account) -> Result<Self> {
        let identity = account.identity()?;
        let ssh = &account.keys.ssh_certificate;
        let principals = ssh.valid_principals().iter().filter(|p| !p.starts_with(OWN_PRINCIPAL)).cloned();
        let extensions = ssh.extensions().keys().filter(|name| !name.starts_with(OWN_EXTENSION));
        let extensions = sorted(extensions.cloned().collect());
        let critical = ssh.critical_options().iter().map(|(name, value)| (name.clone(), value.clone()));
        Ok(Self {
            profile_url: format!("https://{}", account.profile.web_proxy_addr),
            username: account.username.clone(),
            active_requests: identity.active_requests.clone(),
            cluster: account.cluster.clone(),
            roles: sorted(identity.groups.clone()),
            traits: identity.traits.clone().unwrap_or_default(),
            logins: principals.collect(),
            kubernetes_enabled: !account.profile.kube_proxy_addr.is_empty(),
            kubernetes_cluster: identity.kubernetes_cluster.clone(),
            kubernetes_users: identity.kubernetes_users.clone(),
            kubernetes_groups: identity.kubernetes_groups.clone(),
            databases: Vec::new(),
            valid_until: account.keys.valid_until(),
            extensions,
            critical_options: critical.collect(),
            allowed_resources: identity.allowed_resource_ids.clone(),
        })
    }

    /// How long the credentials are still valid: `12h0m0s`, or `EXPIRED`.
    pub fn remaining(&self, now: DateTime<Utc>) -> String {
        let left = (self.valid_until - now).num_seconds();
        if left <= 0 {
            return "EXPIRED".to_owned();
        }
        // Minutes are what people want to know, except at the very end.
        let left = if left >= 60 { left - left % 60 } else { left };
        let (hours, minutes, seconds) = (left / 3600, left % 3600 / 60, left % 60);
        match (hours, minutes) {
            (0, 0) => format!("valid for {seconds}s"),
            (0, minutes) => format!("valid for {minutes}m0s"),
            (hours, minutes) => format!("valid for {hours}h{minutes}m0s"),
        }
    }
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

impl Status {
    /// Reads all logins. Credentials that cannot be read count as none.
    pub fn read(selection: &Selection) -> Result<Self> {
        if selection.identity.is_some() {
            let active = LoginStatus::of(&selection.account()?)?;
            return Ok(Self { active: Some(active), profiles: Vec::new() });
        }
        let current = selection.profile()?;
        let active = current.as_ref().map(|_| selection.account()).and_then(Result::ok);
        let active = active.map(|account| LoginStatus::of(&account)).transpose()?;
        let name = current.as_ref().map_or("", |profile| profile.name()).to_owned();
        let mut profiles = Vec::new();
        for profile in Profile::all(&selection.home)?.into_iter().filter(|profile| profile.name() != name) {
            let other =
                Selection { proxy: Some(profile.name().to_owned()), user: None, cluster: None, ..selection.clone() };
            if let Ok(account) = other.account() {
                profiles.push(LoginStatus::of(&account)?);
            }
        }
        Ok(Self { active, profiles })
    }
}
