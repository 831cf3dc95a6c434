//! `update`.

use clap::Args;
use resources::{Reference, kind};

use super::labels;
use crate::api::Api;
use crate::error::{Error, Result};
use crate::output::{say, time};
use crate::resource::{self, Secrets};

/// Change labels or the expiry of a resource.
#[derive(Args, Debug)]
pub struct Update {
    /// What to change, as kind/name; remote clusters only.
    #[arg(value_name = "RESOURCE")]
    resource: Reference,
    /// Its labels from now on, as key=value,key2=value2.
    #[arg(long, value_name = "LABELS", required_unless_present = "set_ttl")]
    set_labels: Option<String>,
    /// How long it lives from now on.
    #[arg(long, value_name = "DURATION")]
    set_ttl: Option<String>,
}

impl Update {
    /// Changes the resource.
    pub async fn run(self, api: &Api) -> Result<()> {
        let labels = self.set_labels.as_deref().map(labels::parse).transpose()?;
        let lifetime = self.set_ttl.as_deref().map(time::lifetime).transpose()?;
        if self.resource.kind != kind::REMOTE_CLUSTER || self.resource.name.is_none() {
            return Err(Error::bad(format!(
                "cannot update {}: only remote_cluster/<name> can be updated; use 'tctl edit' for others",
                self.resource
            )));
        }
        let mut found = resource::get(api, &self.resource, Secrets::Hidden).await?;
        let Some(mut cluster) = found.pop() else {
            return Err(Error::not_found(format!("{} not found", self.resource)));
        };
        let metadata = cluster.metadata_mut();
        if let Some(labels) = labels {
            metadata.labels = labels;
        }
        if let Some(lifetime) = lifetime {
            metadata.expires = Some(wire::time::timestamp(time::after(chrono::Utc::now(), lifetime)?));
        }
        let title = cluster.title();
        resource::update(api, cluster).await?;
        say(&format!("{title} has been updated\n"));
        Ok(())
    }
}
