//! `auth`: authorities and credentials.

mod crl;
mod export;
mod files;
mod key_store;
mod kubeconfig;
mod ls;
mod rotate;
mod sign;
mod sign_database;
mod sign_host;
mod sign_route;
mod sign_windows;
mod tar;

use clap::Subcommand;

use crate::api::Api;
use crate::error::Result;

/// Authorities and credentials.
#[derive(Debug, Subcommand)]
pub enum Auth {
    /// Write what others need to trust this cluster.
    Export(export::Export),
    /// Make credentials for a user or a host.
    Sign(Box<sign::Sign>),
    /// Replace the keys of an authority, step by step.
    Rotate(rotate::Rotate),
    /// Write an empty list of revoked certificates.
    Crl(crl::Crl),
    /// List Auth Services.
    #[command(alias = "list")]
    Ls(ls::Ls),
}

/// Proxies.
#[derive(Debug, Subcommand)]
pub enum Proxy {
    /// List proxies.
    #[command(alias = "list")]
    Ls(ls::Ls),
}

impl Proxy {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Ls(command) => command.proxies(api).await,
        }
    }
}

impl Auth {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Export(command) => command.run(api).await,
            Self::Sign(command) => command.run(api).await,
            Self::Rotate(command) => command.run(api).await,
            Self::Crl(command) => command.run(api).await,
            Self::Ls(command) => command.auth(api).await,
        }
    }
}
