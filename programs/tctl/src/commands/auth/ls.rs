//! `auth ls` and `proxy ls`.

use clap::Args;
use resources::AnyResource;
use wire::types::ServerV2;

use crate::api::Api;
use crate::error::Result;
use crate::output::{self, Format, say};
use crate::resource::nodes_table;

/// List services that announce themselves.
#[derive(Args, Debug)]
pub struct Ls {
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Ls {
    /// Lists Auth Services.
    pub async fn auth(self, api: &Api) -> Result<()> {
        self.list(api, "/v2/authservers").await
    }

    /// Lists proxies.
    pub async fn proxies(self, api: &Api) -> Result<()> {
        self.list(api, "/v2/proxies").await
    }

    async fn list(self, api: &Api, path: &str) -> Result<()> {
        let servers: Vec<ServerV2> = api.http().get(path).await?;
        let found: Vec<AnyResource> = servers.iter().cloned().map(Into::into).collect();
        say(&output::resources(&found, self.format, || nodes_table(&servers, false))?);
        Ok(())
    }
}
