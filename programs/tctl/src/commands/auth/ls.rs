//! `auth ls`.

use clap::Args;
use resources::AnyResource;
use wire::types::ServerV2;

use crate::api::Api;
use crate::error::Result;
use crate::output::{self, Format, say};
use crate::resource::nodes_table;

/// List Auth Services.
#[derive(Args, Debug)]
pub struct Ls {
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Ls {
    /// Lists them.
    pub async fn run(self, api: &Api) -> Result<()> {
        let servers: Vec<ServerV2> = api.http().get("/v2/authservers").await?;
        let found: Vec<AnyResource> = servers.iter().cloned().map(Into::into).collect();
        say(&output::resources(&found, self.format, || nodes_table(&servers, false))?);
        Ok(())
    }
}
