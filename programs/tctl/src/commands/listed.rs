//! `apps ls`, `db ls`, `kube ls`, `windows_desktops ls`: what agents serve.

use clap::{Args, Subcommand};
use resources::{AnyResource, Resource, kind};
use wire::proto::ListResourcesRequest;

use super::{labels, other};
use crate::api::Api;
use crate::error::Result;
use crate::output::{self, Format, Table, say};
use crate::resource::{self, labels_text};

/// What agents serve.
#[derive(Debug, Subcommand)]
pub enum Listed {
    /// List them.
    #[command(alias = "list")]
    Ls(Ls),
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// List what agents serve.
#[derive(Args, Debug)]
pub struct Ls {
    #[command(flatten)]
    pub wanted: Wanted,
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Show everything, however wide it gets.
    #[arg(short, long)]
    pub verbose: bool,
}

/// What narrows a list.
#[derive(Args, Debug)]
pub struct Wanted {
    /// Labels they must have, as key=value,key2=value2.
    labels: Option<String>,
    /// Words they must have in a name or a label, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    search: Vec<String>,
    /// Expression they must satisfy, such as 'labels["env"] == "prod"'.
    #[arg(long, value_name = "EXPRESSION")]
    query: Option<String>,
}

impl Wanted {
    /// The question for a kind.
    pub fn question(&self, kind: &str) -> Result<ListResourcesRequest> {
        Ok(ListResourcesRequest {
            resource_type: kind.to_owned(),
            labels: self.labels.as_deref().map(labels::parse).transpose()?.unwrap_or_default(),
            search_keywords: self.search.iter().map(|w| w.trim().to_owned()).filter(|w| !w.is_empty()).collect(),
            predicate_expression: self.query.clone().unwrap_or_default(),
            ..Default::default()
        })
    }
}

impl Listed {
    /// Lists the records of a kind.
    pub async fn run(self, api: &Api, kind: &str) -> Result<()> {
        let command = match self {
            Self::Ls(command) => command,
            // Makes a domain trust desktops' certificates.
            Self::Other(words) if kind == kind::WINDOWS_DESKTOP => {
                return Err(other::refuse_sub("windows_desktops", &["bootstrap"], &words));
            }
            Self::Other(words) => {
                let command = kind.strip_suffix("_server").unwrap_or(kind);
                return Err(other::refuse_sub(if command == "app" { "apps" } else { command }, &[], &words));
            }
        };
        let found = resource::listed(api, &command.wanted.question(kind)?).await?;
        say(&output::resources(&found, command.format, || table(kind, &found, command.verbose))?);
        Ok(())
    }
}

fn table(kind: &str, found: &[AnyResource], verbose: bool) -> String {
    let mut table = match kind {
        kind::APP_SERVER => Table::new(["Host", "Name", "Public Address", "URI", "Labels", "Version"]),
        kind::DB_SERVER => Table::new(["Host", "Name", "Protocol", "URI", "Labels", "Version"]),
        kind::KUBE_SERVER => Table::new(["Host", "Cluster", "Labels", "Version"]),
        _ => Table::new(["Host", "Name", "Address", "AD Domain", "Labels"]),
    };
    let labels = |labels: &_| labels_text(labels, verbose);
    for resource in found {
        match resource {
            AnyResource::AppServer(server) => {
                let spec = server.spec.clone().unwrap_or_default();
                let app = spec.app.unwrap_or_default();
                let inner = app.spec.clone().unwrap_or_default();
                let labels = labels(&app.metadata().labels);
                table.row([spec.hostname, app.name().to_owned(), inner.public_addr, inner.uri, labels, spec.version]);
            }
            AnyResource::DatabaseServer(server) => {
                let spec = server.spec.clone().unwrap_or_default();
                let db = spec.database.unwrap_or_default();
                let inner = db.spec.clone().unwrap_or_default();
                let labels = labels(&db.metadata().labels);
                table.row([spec.hostname, db.name().to_owned(), inner.protocol, inner.uri, labels, spec.version]);
            }
            AnyResource::KubernetesServer(server) => {
                let spec = server.spec.clone().unwrap_or_default();
                let cluster = spec.cluster.unwrap_or_default();
                let labels = labels(&cluster.metadata().labels);
                table.row([spec.hostname, cluster.name().to_owned(), labels, spec.version]);
            }
            AnyResource::WindowsDesktop(desktop) => {
                let spec = desktop.spec.clone().unwrap_or_default();
                let labels = labels(&desktop.metadata().labels);
                table.row([spec.host_id, desktop.name().to_owned(), spec.addr, spec.domain, labels]);
            }
            _ => {}
        }
    }
    table.shown(verbose)
}
