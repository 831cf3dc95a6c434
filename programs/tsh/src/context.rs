//! What all commands share: whose credentials they use.

use std::io::{self, IsTerminal};
use std::time::Duration;

use chrono::Utc;
use client::account::{Account, Selection};
use client::cluster::ClusterClient;
use client::home::Home;
use client::login::{LoginRequest, login};
use client::{Error, Result};

use crate::args::Global;
use crate::ask::Terminal;

/// Variables that name the cluster, the one that wins first.
const CLUSTER_VARIABLES: [&str; 2] = ["TELEPORT_CLUSTER", "TELEPORT_SITE"];

/// The options of all commands.
#[derive(Debug)]
pub struct Context {
    /// As typed, or from the environment.
    pub global: Global,
    /// The client's folder.
    pub home: Home,
}

impl Context {
    /// With the client's folder of this user.
    pub fn new(global: Global) -> Self {
        // A variable that is set to nothing says nothing.
        let named = |text: Option<String>| text.filter(|text| !text.is_empty());
        let Global { proxy, user, login, auth, identity, .. } = global;
        let identity = identity.filter(|path| !path.as_os_str().is_empty());
        let (proxy, user, login, auth) = (named(proxy), named(user), named(login), named(auth));
        Self { global: Global { proxy, user, login, auth, identity, ..global }, home: Home::from_environment() }
    }

    /// What the command line says about proxy, user and cluster.
    pub fn selection(&self, cluster: Option<&str>) -> Selection {
        let named =
            || CLUSTER_VARIABLES.iter().find_map(|name| std::env::var(name).ok().filter(|site| !site.is_empty()));
        Selection {
            home: self.home.clone(),
            proxy: self.global.proxy.clone(),
            user: self.global.user.clone(),
            cluster: cluster.filter(|c| !c.is_empty()).map(str::to_owned).or_else(named),
            identity: self.global.identity.clone(),
            insecure: self.global.insecure,
        }
    }

    /// Valid credentials. Whoever has none is asked to log in, if there is a terminal to ask on.
    pub async fn account(&self, cluster: Option<&str>) -> Result<Account> {
        let selection = self.selection(cluster);
        match selection.valid_account(Utc::now()) {
            Err(Error::NotLoggedIn(reason)) if self.global.identity.is_none() && io::stdin().is_terminal() => {
                let Some(request) = self.login_request(&selection)? else { return Err(Error::NotLoggedIn(reason)) };
                login(&request, &mut Terminal::default()).await?.save()?;
                selection.valid_account(Utc::now())
            }
            other => other,
        }
    }

    /// Connections with valid credentials.
    pub async fn client(&self, cluster: Option<&str>) -> Result<ClusterClient> {
        ClusterClient::new(self.account(cluster).await?).await
    }

    /// A login at the proxy that the command line or the current profile names; `None` when neither does.
    pub fn login_request(&self, selection: &Selection) -> Result<Option<LoginRequest>> {
        let profile = selection.profile()?;
        let proxy = match (&profile, &selection.proxy) {
            (Some(profile), _) => profile.web_proxy_addr.clone(),
            (None, Some(proxy)) => proxy.clone(),
            (None, None) => return Ok(None),
        };
        let remembered = profile.map(|profile| profile.username).filter(|user| !user.is_empty());
        let user = self.global.user.clone().or(remembered).map_or_else(local_user, Ok)?;
        Ok(Some(LoginRequest {
            proxy,
            user,
            connector: self.global.auth.clone(),
            ttl: self
                .global
                .ttl
                .filter(|minutes| *minutes > 0)
                .map(|minutes| Duration::from_secs(u64::from(minutes) * 60)),
            cluster: None,
            insecure: self.global.insecure,
            home: Some(self.home.clone()),
        }))
    }

    /// The account on hosts, when a destination does not name one.
    pub fn host_login(&self) -> Result<String> {
        self.global.login.clone().map_or_else(local_user, Ok)
    }
}

/// Name of the user of this process.
fn local_user() -> Result<String> {
    if let Some(user) = std::env::var("USER").ok().filter(|user| !user.is_empty()) {
        return Ok(user);
    }
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    user.map(|user| user.name).ok_or_else(|| Error::other("the local user has no name: say --user and --login"))
}
