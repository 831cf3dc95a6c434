//! What all commands share: whose credentials they use.

use std::io::{self, IsTerminal};
use std::time::Duration;

use chrono::Utc;
use client::account::{Account, Selection};
use client::agent::{self, AddKeys};
use client::cluster::{ClusterClient, through};
use client::home::Home;
use client::login::{LoginRequest, login};
use client::ssh::Target;
use client::templates::Templates;
use client::{Error, Result, text};

use crate::args::Global;
use crate::ask::Terminal;

/// Variables that name the cluster, the one that wins first.
const CLUSTER_VARIABLES: [&str; 2] = ["TELEPORT_CLUSTER", "TELEPORT_SITE"];

/// Stands in `-J` for the proxy of the proxy template that fits.
const TEMPLATE_PROXY: &str = "{{proxy}}";

/// Another proxy to go through.
struct Jump {
    /// The account on hosts.
    login: Option<String>,
    proxy: String,
}

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
                let login = login(&request, &mut Terminal::default()).await?;
                login.save()?;
                agent::add(&login.account, self.add_keys()?).await?;
                selection.valid_account(Utc::now())
            }
            other => other,
        }
    }

    /// Connections with valid credentials.
    pub async fn client(&self, cluster: Option<&str>) -> Result<ClusterClient> {
        let jump = self.jump()?;
        self.client_through(cluster, jump.as_ref().map(|jump| jump.proxy.as_str())).await
    }

    /// Connections for a destination: proxy templates and the jump host say where they lead.
    pub async fn destination(&self, target: Target, cluster: Option<&str>) -> Result<(ClusterClient, Target)> {
        let route = Templates::load(&self.home)?.route(target)?;
        let jump = match self.jump()? {
            Some(Jump { proxy, .. }) if proxy == TEMPLATE_PROXY => {
                let missing =
                    || Error::other(format!("-J {TEMPLATE_PROXY}: no proxy template with a proxy fits the host"));
                Some(route.proxy.ok_or_else(missing)?)
            }
            Some(jump) => Some(jump.proxy),
            None => route.proxy,
        };
        let cluster = cluster.filter(|cluster| !cluster.is_empty()).or(route.cluster.as_deref());
        Ok((self.client_through(cluster, jump.as_deref()).await?, route.target))
    }

    async fn client_through(&self, cluster: Option<&str>, jump: Option<&str>) -> Result<ClusterClient> {
        let mut account = self.account(cluster).await?;
        if let Some(proxy) = jump {
            account = through(account, proxy).await?;
            // A cluster that was named may be behind that of the jump host.
            if let Some(cluster) = cluster.filter(|cluster| !cluster.is_empty()) {
                cluster.clone_into(&mut account.cluster);
            }
        }
        Ok(ClusterClient::new(account).await?.acquainted().await?.with_resumption(!self.global.no_resume))
    }

    /// The jump host of the command line.
    fn jump(&self) -> Result<Option<Jump>> {
        let Some(text) = self.global.jumphost.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        if text.contains(',') {
            return Err(Error::other("only one jump host is supported"));
        }
        let (login, proxy) = text.rsplit_once('@').map_or((None, text), |(login, proxy)| (Some(login), proxy));
        Ok(Some(Jump { login: login.map(str::to_owned), proxy: proxy.to_owned() }))
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
            certificate_format: self.certificate_format()?,
        }))
    }

    /// The form of the SSH certificates of a login.
    fn certificate_format(&self) -> Result<String> {
        match self.global.cert_format.as_deref().unwrap_or_default() {
            form @ ("" | "standard" | "oldssh") => Ok(form.to_owned()),
            other => {
                Err(Error::other(format!("--cert-format: expected standard or oldssh, found {:?}", text::line(other))))
            }
        }
    }

    /// Whether a login's key goes into the user's agent.
    pub fn add_keys(&self) -> Result<AddKeys> {
        self.global.add_keys_to_agent.as_deref().filter(|when| !when.is_empty()).map_or(Ok(AddKeys::Auto), str::parse)
    }

    /// The account on hosts, when a destination does not name one.
    pub fn host_login(&self) -> Result<String> {
        let of_jump = self.jump()?.and_then(|jump| jump.login);
        self.global.login.clone().or(of_jump).map_or_else(local_user, Ok)
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
