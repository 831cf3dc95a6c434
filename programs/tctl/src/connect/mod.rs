//! Whose credentials a run uses, and how it reaches the Auth Service.
//!
//! In this order: an identity file; the administrator's identity that the Auth Service of this host keeps in its data
//! folder; the current login of `tsh`.

mod local;
mod remote;

use std::path::{Path, PathBuf};

use config::{Config, Environment, Overrides, Source};

use crate::api::Api;
use crate::error::{Error, Result};

/// Name and version in requests.
const USER_AGENT: &str = concat!("tctl/", env!("CARGO_PKG_VERSION"));

/// Where the configuration is when nothing says otherwise.
const DEFAULT_CONFIG: &str = "/etc/teleport.yaml";

/// Port of the Auth Service when an address has none.
const AUTH_PORT: u16 = 3025;

/// What the command line and the environment say about the connection.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Configuration file of the Auth Service on this host.
    pub config: Option<PathBuf>,
    /// Addresses of the Auth Service or of a proxy.
    pub servers: Vec<String>,
    /// Identity file.
    pub identity: Option<PathBuf>,
    /// Whether certificates of web ports may be anybody's.
    pub insecure: bool,
}

/// Prepares the connection; nothing is dialled before the first call.
pub async fn connect(wanted: &Wanted) -> Result<Api> {
    if let Some(identity) = &wanted.identity {
        let servers = match wanted.servers.as_slice() {
            [] => vec![configured_server(wanted)?],
            servers => servers.to_vec(),
        };
        return remote::with_identity_file(identity, &servers, wanted.insecure);
    }
    let why = match auth_host(wanted)? {
        AuthHost::This(config) => match local::connect(&config, &wanted.servers).await {
            // Nobody asked for this host's credentials: a login will do.
            Err(error) if wanted.config.is_none() => error.to_string(),
            result => return result,
        },
        AuthHost::NotThis(why) => why,
    };
    match remote::with_login(wanted).await? {
        Some(api) => Ok(api),
        None => Err(Error::other(format!(
            "no credentials: {why}, and nobody is logged in with tsh; run tctl on the host of the Auth Service with \
             --config=<its teleport.yaml>, log in with 'tsh login', or use --identity=<file> with --auth-server=<address>"
        ))),
    }
}

/// Whether an Auth Service runs on this host.
enum AuthHost {
    This(Box<Config>),
    NotThis(String),
}

fn auth_host(wanted: &Wanted) -> Result<AuthHost> {
    let path = wanted.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
    if !path.exists() {
        return match wanted.config {
            Some(_) => Err(missing(&path)),
            None => Ok(AuthHost::NotThis(format!("{DEFAULT_CONFIG} does not exist"))),
        };
    }
    match load(&path) {
        Ok(config) if config.auth.enabled => Ok(AuthHost::This(Box::new(config))),
        Ok(_) if wanted.config.is_some() => {
            Ok(AuthHost::NotThis(format!("the Auth Service is not enabled in {}", path.display())))
        }
        Ok(_) => Ok(AuthHost::NotThis(format!("no Auth Service runs on this host ({DEFAULT_CONFIG})"))),
        // Somebody who is not root may have a login of their own.
        Err(error) if wanted.config.is_none() && unreadable(&path) => Ok(AuthHost::NotThis(error.to_string())),
        Err(error) => Err(error),
    }
}

fn load(path: &Path) -> Result<Config> {
    let source = Source::File(path.to_owned());
    Ok(Config::load(&source, &Overrides::default(), &Environment::of_tool())?)
}

fn missing(path: &Path) -> Error {
    Error::bad(format!("path '{}' does not exist", path.display()))
}

fn unreadable(path: &Path) -> bool {
    std::fs::File::open(path).is_err()
}

/// The server that the configuration of this host names, for an identity file without `--auth-server`.
fn configured_server(wanted: &Wanted) -> Result<String> {
    let here = || format!("127.0.0.1:{AUTH_PORT}");
    let config = match &wanted.config {
        Some(path) if !path.exists() => return Err(missing(path)),
        Some(path) => load(path)?,
        None if Path::new(DEFAULT_CONFIG).exists() => match load(Path::new(DEFAULT_CONFIG)) {
            Ok(config) => config,
            Err(_) => return Ok(here()),
        },
        None => return Ok(here()),
    };
    Ok(match &config.global.server {
        _ if config.auth.enabled => local::address(&config).to_string(),
        Some(config::Server::Auth(address) | config::Server::Proxy(address)) => address.to_string(),
        Some(config::Server::Any(addresses)) => addresses.first().map_or_else(here, ToString::to_string),
        None => here(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    async fn failure(wanted: Wanted) -> String {
        connect(&wanted).await.err().unwrap().to_string()
    }

    #[tokio::test]
    async fn a_missing_configuration_file_is_named() {
        let wanted = Wanted { config: Some("/no/such/teleport.yaml".into()), ..Default::default() };
        assert_eq!(failure(wanted).await, "path '/no/such/teleport.yaml' does not exist");
    }

    #[tokio::test]
    async fn a_host_whose_auth_service_never_ran_has_no_credentials() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teleport.yaml");
        let data = folder.path().join("data");
        let text = format!(
            "version: v3\nteleport: {{data_dir: {}}}\nauth_service: {{enabled: true, cluster_name: a.test}}\n\
             proxy_service: {{enabled: false}}\nssh_service: {{enabled: false}}\n",
            data.display()
        );
        std::fs::write(&path, text).unwrap();
        let said = failure(Wanted { config: Some(path), ..Default::default() }).await;
        assert!(said.contains("start the Auth Service") && said.contains(&data.display().to_string()), "{said}");
        assert!(!data.exists(), "looking for credentials must not make folders");
    }

    #[tokio::test]
    async fn an_identity_file_that_is_not_there_is_named() {
        let wanted = Wanted { identity: Some("/no/such/id".into()), servers: vec!["a:1".into()], ..Default::default() };
        assert!(failure(wanted).await.contains("/no/such/id"));
    }
}
