//! Profiles: which proxy, which user, which cluster.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::home::{Home, HomeError, Privacy, read, write};

/// What a login leaves behind for later commands, in the file `<proxy host>.yaml`.
///
/// Unknown keys are ignored: other programs of the same cluster write more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// Web address of the proxy, host and port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub web_proxy_addr: String,
    /// SSH address of the proxy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ssh_proxy_addr: String,
    /// Kubernetes address of the proxy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kube_proxy_addr: String,
    /// PostgreSQL address of the proxy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub postgres_proxy_addr: String,
    /// MySQL address of the proxy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mysql_proxy_addr: String,
    /// MongoDB address of the proxy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mongo_proxy_addr: String,
    /// Name of the user.
    #[serde(rename = "user", skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Cluster that commands speak to; the root cluster's name until another is selected.
    #[serde(rename = "cluster", skip_serializing_if = "String::is_empty")]
    pub site_name: String,
    /// Always empty; kept because readers expect the key.
    pub dir: String,
    /// Whether everything goes through the web port.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_routing_enabled: bool,
    /// Whether the proxy is behind a balancer that strips ALPN.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_routing_conn_upgrade_required: bool,
    /// How the user logged in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_connector: String,
    /// Whether authorities of all clusters are trusted for hosts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub load_all_cas: bool,
    /// How second factors are asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mfa_mode: String,
    /// What the cluster demands of private keys.
    pub private_key_policy: String,
    /// Slot of a hardware key.
    pub piv_slot: String,
    /// Whether the profile lacks what only a connection can tell.
    #[serde(rename = "missingclusterdetails")]
    pub missing_cluster_details: bool,
    /// Whether single log-out is offered.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub saml_slo_enabled: bool,
}

/// What can go wrong with profiles.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// No profile is current.
    #[error("not logged in: use 'tsh login --proxy=<address>' first")]
    NotLoggedIn,
    /// A profile file cannot be read as one.
    #[error("profile {}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        message: String,
    },
}

impl Profile {
    /// Host part of the proxy's address: the profile's name.
    pub fn name(&self) -> &str {
        host(&self.web_proxy_addr)
    }

    /// Reads the profile of a proxy; `None` when there is none.
    pub fn load(home: &Home, proxy_host: &str) -> Result<Option<Self>, ProfileError> {
        let path = home.profile(proxy_host)?;
        let Some(text) = read(&path)? else { return Ok(None) };
        let profile: Self =
            serde_saphyr::from_str(&text).map_err(|e| ProfileError::Malformed { path, message: e.to_string() })?;
        Ok(Some(profile))
    }

    /// The current profile.
    pub fn current(home: &Home) -> Result<Self, ProfileError> {
        let name = Self::current_name(home)?.ok_or(ProfileError::NotLoggedIn)?;
        Self::load(home, &name)?.ok_or(ProfileError::NotLoggedIn)
    }

    /// Name of the current profile.
    pub fn current_name(home: &Home) -> Result<Option<String>, ProfileError> {
        let name = read(&home.current_profile())?.map(|t| t.trim().to_owned());
        Ok(name.filter(|n| !n.is_empty()))
    }

    /// All profiles, by name.
    pub fn all(home: &Home) -> Result<Vec<Self>, ProfileError> {
        let Ok(entries) = fs::read_dir(home.path()) else { return Ok(Vec::new()) };
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|e| e.file_type().is_ok_and(|t| t.is_file()))
            .filter_map(|e| e.file_name().to_string_lossy().strip_suffix(".yaml").map(str::to_owned))
            .collect();
        names.sort();
        let mut profiles = Vec::new();
        for name in names {
            profiles.extend(Self::load(home, &name)?);
        }
        Ok(profiles)
    }

    /// Writes the profile, and makes it current if asked to.
    pub fn save(&self, home: &Home, make_current: bool) -> Result<(), ProfileError> {
        let path = home.profile(self.name())?;
        let text = serde_saphyr::to_string(self)
            .map_err(|e| ProfileError::Malformed { path: path.clone(), message: e.to_string() })?;
        write(&path, text.as_bytes(), Privacy::Shared)?;
        if make_current {
            write(&home.current_profile(), format!("{}\n", self.name()).as_bytes(), Privacy::Shared)?;
        }
        Ok(())
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub fn host(address: &str) -> &str {
    if let Some(rest) = address.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    match address.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_saved_profile_is_the_current_one() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        assert!(matches!(Profile::current(&home), Err(ProfileError::NotLoggedIn)));
        let profile = Profile {
            web_proxy_addr: "proxy.example.com:443".into(),
            username: "alice".into(),
            site_name: "main".into(),
            tls_routing_enabled: true,
            ..Default::default()
        };
        profile.save(&home, true).unwrap();
        assert_eq!(Profile::current(&home).unwrap(), profile);
        assert_eq!(Profile::all(&home).unwrap(), vec![profile]);
    }

    #[test]
    fn keys_of_other_programs_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let text = "web_proxy_addr: p:3080\nuser: bob\nssh_dial_timeout: 30000000000\ndynamic_forward_ports: [1]\n";
        write(&home.profile("p").unwrap(), text.as_bytes(), Privacy::Shared).unwrap();
        assert_eq!(Profile::load(&home, "p").unwrap().unwrap().username, "bob");
    }

    #[test]
    fn the_host_of_an_address_is_found() {
        assert_eq!((host("a.b:1"), host("a.b"), host("[::1]:3080"), host("::1")), ("a.b", "a.b", "::1", "::1"));
    }
}
