//! The administrator of the Auth Service's own host.

use std::path::Path;

use config::Config;
use dialer::{AuthEndpoint, AuthTrust, Dialer, HostPort};
use process::{HostIdentity, IdentityStore};
use wire::client::api_channel;

use super::{AUTH_PORT, USER_AGENT};
use crate::api::Api;
use crate::error::{Error, Result};

/// The role whose identity the Auth Service keeps for administrators of its host.
const ADMIN: &str = "Admin";

/// Connects with the identity in the data folder. `servers`: addresses to use in place of the configured one.
pub async fn connect(config: &Config, servers: &[String]) -> Result<Api> {
    let identity = administrator(&config.global.data_dir).await?;
    let addresses = match servers {
        [] => vec![address(config)],
        servers => servers
            .iter()
            .map(|s| HostPort::parse(s, AUTH_PORT))
            .collect::<Result<_, _>>()
            .map_err(|e| Error::bad(format!("--auth-server: {e}")))?,
    };
    // The service of this host is never behind a proxy of the environment.
    let dialer = match servers {
        [] => Dialer::direct(),
        _ => Dialer::from_env().map_err(dialer::DialError::from)?,
    };
    let auth =
        AuthEndpoint::new(dialer, addresses, AuthTrust::Cluster, identity.credentials()).with_user_agent(USER_AGENT);
    Ok(Api::new(identity.cluster, api_channel(auth.channel()), auth.http()))
}

/// Where the Auth Service of this host listens, as this host reaches it.
pub fn address(config: &Config) -> HostPort {
    let listen = &config.auth.listen_addr;
    if !listen.is_unspecified() {
        return HostPort::new(listen.host.clone(), listen.port);
    }
    let loopback = if listen.host.contains(':') { "::1" } else { "127.0.0.1" };
    HostPort::new(loopback, listen.port)
}

async fn administrator(data_dir: &Path) -> Result<HostIdentity> {
    let absent = || {
        Error::not_found(format!(
            "no credentials of the administrator in {}: start the Auth Service there first, and run tctl as the account \
             that it runs as",
            data_dir.display()
        ))
    };
    // Opening the storage would make it.
    let storage = data_dir.join("proc");
    match std::fs::metadata(&storage) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(absent()),
        Err(e) => return Err(Error::io(format!("reading {}", storage.display()))(e)),
    }
    IdentityStore::open(data_dir).await?.load(ADMIN).await?.ok_or_else(absent)
}
