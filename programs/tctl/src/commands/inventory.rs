//! `inventory`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use resources::{AnyResource, Resource, SystemRole};
use wire::proto::{InventoryPingRequest, InventoryStatusRequest, InventoryStatusSummary, UpstreamInventoryHello};
use wire::types::{InstanceFilter, InstanceV1};

use crate::api::{Api, Call, collect};
use crate::error::{Error, Result};
use crate::output::{self, Format, Table, say, text};

/// Instances of this software in the cluster.
#[derive(Debug, Subcommand)]
pub enum Inventory {
    /// How many there are, of what versions.
    Status(Status),
    /// List them.
    #[command(alias = "list")]
    Ls(Ls),
    /// Ask one whether it is there.
    Ping(Ping),
}

/// How many there are, of what versions.
#[derive(Args, Debug)]
pub struct Status {
    /// List those that are connected to this Auth Service.
    #[arg(long)]
    connected: bool,
}

/// List instances.
#[derive(Args, Debug)]
pub struct Ls {
    /// Only versions older than this one.
    #[arg(long, value_name = "VERSION")]
    older_than: Option<String>,
    /// Only versions newer than this one.
    #[arg(long, value_name = "VERSION")]
    newer_than: Option<String>,
    /// Only this version.
    #[arg(long, value_name = "VERSION")]
    exact_version: Option<String>,
    /// Only instances that run all of these services.
    #[arg(long, value_name = "SERVICES")]
    services: Option<String>,
    /// Only instances with this updater; `none` for those without.
    #[arg(long, value_name = "NAME")]
    upgrader: Option<String>,
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Ask one whether it is there.
#[derive(Args, Debug)]
pub struct Ping {
    /// Id of the instance.
    #[arg(value_name = "SERVER-ID")]
    server_id: String,
    /// Note the ping in the instance's log.
    #[arg(long)]
    control_log: bool,
}

impl Inventory {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Status(command) => command.run(api).await,
            Self::Ls(command) => command.run(api).await,
            Self::Ping(command) => command.run(api).await,
        }
    }
}

impl Status {
    async fn run(self, api: &Api) -> Result<()> {
        let request = InventoryStatusRequest { connected: self.connected };
        let summary = api.auth().get_inventory_status(request).within("reading the inventory").await?;
        say(&match self.connected {
            true => connected(summary.connected),
            false => counts(&summary),
        });
        Ok(())
    }
}

fn connected(mut hellos: Vec<UpstreamInventoryHello>) -> String {
    hellos.sort_by(|a, b| a.server_id.cmp(&b.server_id));
    let mut table = Table::new(["Server ID", "Services", "Version", "Upgrader"]);
    for hello in hellos {
        let upgrader = or_none(&hello.external_upgrader);
        table.row([hello.server_id, hello.services.join(","), hello.version, upgrader]);
    }
    table.full()
}

fn counts(summary: &InventoryStatusSummary) -> String {
    let mut out = String::new();
    let mut group = |title: &str, counts: &BTreeMap<String, u32>| {
        out.push_str(&format!("{title}:\n"));
        for (name, count) in counts {
            out.push_str(&format!("  {}: {count}\n", text::line(&or_none(name))));
        }
    };
    group("Versions", &summary.version_counts);
    group("Upgraders", &summary.upgrader_counts);
    group("Services", &summary.service_counts);
    out.push_str(&format!("Total Instances: {}\n", summary.instance_count));
    out
}

fn or_none(name: &str) -> String {
    if name.is_empty() { "none".to_owned() } else { name.to_owned() }
}

impl Ls {
    async fn run(self, api: &Api) -> Result<()> {
        let what = "listing instances";
        let stream = api.auth().get_instances(self.filter()?).within(what).await?;
        let mut instances = collect(stream, what).await?;
        instances.sort_by(|a, b| a.name().cmp(b.name()));
        let found: Vec<AnyResource> = instances.iter().cloned().map(Into::into).collect();
        say(&output::resources(&found, self.format, || table(&instances))?);
        Ok(())
    }

    fn filter(&self) -> Result<InstanceFilter> {
        let version = |text: &Option<String>| text.clone().unwrap_or_default().trim_start_matches('v').to_owned();
        let services = SystemRole::parse_list(self.services.as_deref().unwrap_or_default());
        let services = services.map_err(|e| Error::bad(format!("--services: {e}")))?;
        let upgrader = self.upgrader.clone().unwrap_or_default();
        Ok(InstanceFilter {
            version: version(&self.exact_version),
            older_than_version: version(&self.older_than),
            newer_than_version: version(&self.newer_than),
            services: services.iter().map(|role| role.name().to_owned()).collect(),
            no_ext_upgrader: upgrader == "none",
            external_upgrader: if upgrader == "none" { String::new() } else { upgrader },
            ..Default::default()
        })
    }
}

fn table(instances: &[InstanceV1]) -> String {
    let mut table = Table::new(["Server ID", "Hostname", "Services", "Agent Version", "Upgrader", "Upgrader Version"]);
    for instance in instances {
        let spec = instance.spec.clone().unwrap_or_default();
        let upgrader = or_none(&spec.external_upgrader);
        let services = spec.services.join(",");
        let name = instance.name().to_owned();
        table.row([name, spec.hostname, services, spec.version, upgrader, or_none(&spec.external_upgrader_version)]);
    }
    table.full()
}

impl Ping {
    async fn run(self, api: &Api) -> Result<()> {
        let request = InventoryPingRequest { server_id: self.server_id.clone(), control_log: self.control_log };
        let answer = api.auth().ping_inventory(request).within("waiting for the instance").await?;
        let duration = Duration::from_nanos(answer.duration.unsigned_abs());
        let id = text::line(&self.server_id);
        say(&format!("{id} answered in {:.3} ms\n", duration.as_secs_f64() * 1000.0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn counts_are_a_tree() {
        let summary = InventoryStatusSummary {
            instance_count: 2,
            version_counts: [("17.0.0".to_owned(), 2)].into(),
            upgrader_counts: [(String::new(), 2)].into(),
            service_counts: [("Auth".to_owned(), 1), ("Node".to_owned(), 1)].into(),
            ..Default::default()
        };
        let expected =
            "Versions:\n  17.0.0: 2\nUpgraders:\n  none: 2\nServices:\n  Auth: 1\n  Node: 1\nTotal Instances: 2\n";
        assert_eq!(counts(&summary), expected);
    }

    #[test]
    fn services_are_named_as_people_write_them() {
        let ls = Ls {
            older_than: Some("v17.0.0".into()),
            newer_than: None,
            exact_version: None,
            services: Some("node,db".into()),
            upgrader: Some("none".into()),
            format: Format::Text,
        };
        let filter = ls.filter().unwrap();
        assert_eq!((filter.older_than_version.as_str(), filter.services.join(",").as_str()), ("17.0.0", "Node,Db"));
        assert!(filter.no_ext_upgrader && filter.external_upgrader.is_empty());
    }
}
