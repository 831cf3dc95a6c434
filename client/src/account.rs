//! Who the user is for a command: credentials from the client's folder or from an identity file.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use pki::identity::Identity;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::keys::KeyRing;
use crate::profile::{Profile, host};

/// What the command line says about proxy, user and cluster; whatever is missing comes from the current profile.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The client's folder.
    pub home: Home,
    /// Address of the proxy.
    pub proxy: Option<String>,
    /// Name of the user.
    pub user: Option<String>,
    /// The cluster to speak to.
    pub cluster: Option<String>,
    /// An identity file to use in place of the folder.
    pub identity: Option<PathBuf>,
    /// Whether certificates of web ports and keys of hosts may be anybody's.
    pub insecure: bool,
}

/// A user's credentials with a proxy to use them at.
#[derive(Clone, Debug)]
pub struct Account {
    /// The proxy and the cluster; made up for an identity file.
    pub profile: Profile,
    /// Keys, certificates and trusted authorities.
    pub keys: KeyRing,
    /// Name of the user.
    pub username: String,
    /// The cluster that commands are about.
    pub cluster: String,
    /// Where the credentials are kept; `None` for an identity file, which is never written.
    pub home: Option<Home>,
    /// See [`Selection::insecure`].
    pub insecure: bool,
    /// The cluster of the proxy, where that is not the root cluster: a jump host.
    pub proxy_cluster: Option<String>,
}

impl Selection {
    /// The profile the selection is about, whether its user is logged in or not. `None` without any profile.
    pub fn profile(&self) -> Result<Option<Profile>> {
        let name = match &self.proxy {
            Some(proxy) => Some(host(proxy).to_owned()),
            None => Profile::current_name(&self.home)?,
        };
        let Some(mut profile) = name.map(|name| Profile::load(&self.home, &name)).transpose()?.flatten() else {
            return Ok(None);
        };
        // A port on the command line wins over the one of the login.
        if let Some(proxy) = self.proxy.as_ref().filter(|p| p.len() > host(p).len() && p.ends_with(char::is_numeric)) {
            proxy.clone_into(&mut profile.web_proxy_addr);
        }
        if let Some(user) = &self.user {
            user.clone_into(&mut profile.username);
        }
        Ok(Some(profile))
    }

    /// The credentials to use, also when they have expired.
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`] when there are none.
    pub fn account(&self) -> Result<Account> {
        match &self.identity {
            Some(path) => self.identity_file(path),
            None => self.stored(),
        }
    }

    /// The credentials to use, if they are valid now.
    pub fn valid_account(&self, now: DateTime<Utc>) -> Result<Account> {
        let account = self.account()?;
        let until = account.keys.valid_until();
        if until <= now {
            let what = self.identity.as_ref().map_or_else(
                || format!("credentials of {} for {}", account.username, account.profile.web_proxy_addr),
                |path| format!("identity file {}", path.display()),
            );
            let ended = until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            return Err(Error::NotLoggedIn(format!("{what} expired at {ended}: log in again")));
        }
        Ok(account)
    }

    fn stored(&self) -> Result<Account> {
        let unknown = || {
            Error::NotLoggedIn(match &self.proxy {
                Some(proxy) => format!("not logged in at {proxy}: use 'tsh login --proxy={proxy}' first"),
                None => "not logged in: use 'tsh login --proxy=<address>' first".to_owned(),
            })
        };
        let profile = self.profile()?.ok_or_else(unknown)?;
        let cluster = self.cluster.clone().unwrap_or_else(|| profile.site_name.clone());
        let proxy_host = profile.name().to_owned();
        let keys = KeyRing::load(&self.home, &proxy_host, &profile.username, &cluster)?.ok_or_else(unknown)?;
        let cluster = if cluster.is_empty() { keys.root_cluster().to_owned() } else { cluster };
        let username = profile.username.clone();
        Ok(Account {
            profile,
            keys,
            username,
            cluster,
            home: Some(self.home.clone()),
            insecure: self.insecure,
            proxy_cluster: None,
        })
    }

    fn identity_file(&self, path: &std::path::Path) -> Result<Account> {
        let keys = KeyRing::from_identity_file(path)?;
        let proxy = self
            .proxy
            .clone()
            .ok_or_else(|| Error::other("an identity file does not say where its proxy is: add --proxy=<address>"))?;
        let identity = keys.identity()?;
        let routed = Some(identity.route_to_cluster.clone()).filter(|c| !c.is_empty());
        let cluster = self.cluster.clone().or(routed).unwrap_or_else(|| keys.root_cluster().to_owned());
        let profile = Profile {
            web_proxy_addr: proxy,
            username: identity.username.clone(),
            site_name: cluster.clone(),
            // Until the proxy has been asked.
            tls_routing_enabled: true,
            ..Default::default()
        };
        Ok(Account {
            profile,
            keys,
            username: identity.username,
            cluster,
            home: None,
            insecure: self.insecure,
            proxy_cluster: None,
        })
    }
}

impl Account {
    /// Host of the proxy: the name of the profile.
    pub fn proxy_host(&self) -> &str {
        self.profile.name()
    }

    /// What the TLS certificate says about the user.
    pub fn identity(&self) -> Result<Identity> {
        Ok(self.keys.identity()?)
    }

    /// Name of the root cluster.
    pub fn root_cluster(&self) -> &str {
        self.keys.root_cluster()
    }

    /// Writes keys and authorities back, if they came from the client's folder.
    pub fn save_keys(&self) -> Result<()> {
        if let Some(home) = &self.home {
            self.keys.save(home, self.proxy_host(), &self.username)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn selection(home: &Home) -> Selection {
        Selection { home: home.clone(), proxy: None, user: None, cluster: None, identity: None, insecure: false }
    }

    #[test]
    fn without_a_login_the_error_says_how_to_log_in() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let error = selection(&home).account().unwrap_err();
        assert!(matches!(&error, Error::NotLoggedIn(text) if text.contains("tsh login")), "{error}");
        let named = Selection { proxy: Some("proxy.test:3180".into()), ..selection(&home) };
        assert!(named.account().unwrap_err().to_string().contains("proxy.test:3180"));
    }

    #[test]
    fn a_port_on_the_command_line_wins_over_the_profile() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let profile = Profile { web_proxy_addr: "p.test:3080".into(), username: "a".into(), ..Default::default() };
        profile.save(&home, true).unwrap();
        let with = |proxy: &str| Selection { proxy: Some(proxy.into()), ..selection(&home) }.profile().unwrap();
        assert_eq!(with("p.test:443").unwrap().web_proxy_addr, "p.test:443");
        assert_eq!(with("p.test").unwrap().web_proxy_addr, "p.test:3080");
        assert_eq!(with("other.test"), None);
        assert_eq!(selection(&home).profile().unwrap().unwrap().web_proxy_addr, "p.test:3080");
    }
}
