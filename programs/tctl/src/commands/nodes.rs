//! `nodes`.

use clap::{Args, Subcommand};
use resources::{AnyResource, SystemRole, kind};

use super::listed::Ls;
use super::tokens::{DEFAULT_TTL, Place, create, random_token};
use crate::api::Api;
use crate::error::{Error, Result};
use crate::output::{self, Format, say, time};
use crate::resource;

/// List servers, or let one join.
#[derive(Debug, Subcommand)]
pub enum Nodes {
    /// List servers.
    #[command(alias = "list")]
    Ls(Ls),
    /// Make a token with which a server joins.
    Add(Add),
}

/// Make a token with which a server joins.
#[derive(Args, Debug)]
pub struct Add {
    /// What may join with it.
    #[arg(long, default_value = "node", value_name = "TYPES")]
    roles: String,
    /// How long the token can be used.
    #[arg(long, value_name = "DURATION", default_value = DEFAULT_TTL)]
    ttl: String,
    /// The token itself [default: a random one].
    #[arg(long)]
    token: Option<String>,
    /// How to show it; JSON is a list with the token.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Nodes {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Ls(command) => list(api, command).await,
            Self::Add(command) => command.run(api).await,
        }
    }
}

async fn list(api: &Api, command: Ls) -> Result<()> {
    let servers = resource::nodes(api, &command.wanted.question(kind::NODE)?).await?;
    let found: Vec<AnyResource> = servers.iter().cloned().map(Into::into).collect();
    say(&output::resources(&found, command.format, || resource::nodes_table(&servers, command.verbose))?);
    Ok(())
}

impl Add {
    async fn run(self, api: &Api) -> Result<()> {
        let roles = SystemRole::parse_list(&self.roles).map_err(|e| Error::bad(format!("--roles: {e}")))?;
        let ttl = time::lifetime(&self.ttl)?;
        let value = self.token.clone().filter(|t| !t.trim().is_empty()).unwrap_or_else(random_token);
        create(api, value.clone(), &roles, Default::default(), ttl).await?;
        match self.format {
            Format::Json => say(&output::json(&[&value], 4)?),
            Format::Yaml => say(&output::yaml(&[&value])?),
            Format::Text => {
                let names: Vec<String> = roles.iter().map(|role| role.name().to_lowercase()).collect();
                let place = Place::of(api).await?;
                say(&format!(
                    "The invite token: {value}\nIt expires in {}.\n\nRun this on the new server to join the cluster:\n\n{}",
                    time::short(ttl),
                    place.start(&names.join(","), &value, &[])
                ));
            }
        }
        Ok(())
    }
}
