//! `get`.

use chrono::Utc;
use clap::Args;
use resources::Reference;

use crate::api::Api;
use crate::error::Result;
use crate::output::{self, Format, say};
use crate::resource::{self, Secrets};

/// Show resources.
#[derive(Args, Debug)]
pub struct Get {
    /// Kind, or kind/name, or several separated by commas; `all` for the main kinds.
    #[arg(required = true, value_delimiter = ',', value_name = "RESOURCE")]
    resources: Vec<String>,
    /// How to show them.
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
    /// Private keys and passwords as well.
    #[arg(long)]
    with_secrets: bool,
    /// Show everything, however wide it gets.
    #[arg(short, long)]
    verbose: bool,
}

impl Get {
    /// Shows the resources.
    pub async fn run(self, api: &Api) -> Result<()> {
        let secrets = if self.with_secrets { Secrets::Shown } else { Secrets::Hidden };
        let mut found = Vec::new();
        if self.resources == ["all"] {
            found = resource::get_all(api, secrets).await?;
        } else {
            // All of them are read before the first is asked for.
            let parsed = self.resources.iter().map(|text| text.parse::<Reference>());
            for reference in parsed.collect::<Result<Vec<_>, _>>()? {
                found.extend(resource::get(api, &reference, secrets).await?);
            }
        }
        say(&output::resources(&found, self.format, || resource::table(&found, self.verbose, Utc::now()))?);
        Ok(())
    }
}
