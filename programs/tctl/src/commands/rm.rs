//! `rm`.

use clap::Args;
use resources::Reference;

use crate::api::Api;
use crate::error::{Error, Result};
use crate::output::say;
use crate::resource;

/// Remove resources.
#[derive(Args, Debug)]
pub struct Rm {
    /// What to remove, as kind/name. Settings of the cluster have no name and go back to their defaults.
    #[arg(required = true, value_name = "RESOURCE")]
    resources: Vec<Reference>,
}

impl Rm {
    /// Removes them, one after the other.
    pub async fn run(self, api: &Api) -> Result<()> {
        if let Some(all) = self.resources.iter().find(|r| r.name.is_none() && !resource::ONCE.contains(&&*r.kind)) {
            let kind = &all.kind;
            return Err(Error::bad(format!("the full name is missing: expected {kind}/name, see 'tctl get {kind}'")));
        }
        for reference in &self.resources {
            say(&resource::remove(api, reference).await?);
        }
        Ok(())
    }
}
