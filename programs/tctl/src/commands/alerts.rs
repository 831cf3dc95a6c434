//! `alerts`.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use resources::{AnyResource, Resource};
use uuid::Uuid;
use wire::proto::{ClearAlertAcksRequest, GetAlertAcksRequest, UpsertClusterAlertRequest};
use wire::types::{
    AlertAcknowledgement, ClusterAlert, ClusterAlertSpec, GetClusterAlertsRequest, Metadata, ResourceHeader,
};

use super::labels;
use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{self, Format, Table, say, text, time};
use crate::resource::labels_text;

/// Labels of an alert that everybody sees, also at login.
const FOR_EVERYBODY: [&str; 2] = ["teleport.internal/alert-on-login", "teleport.internal/alert-permit-all"];

/// Messages to the users of the cluster.
#[derive(Debug, Subcommand)]
pub enum Alerts {
    /// List alerts.
    #[command(alias = "ls")]
    List(List),
    /// Make an alert.
    Create(Create),
    /// Hide an alert, or show it again; `ack ls` lists what is hidden.
    Ack(Ack),
}

/// List alerts.
#[derive(Args, Debug)]
pub struct List {
    /// Also acknowledged and superseded alerts, and when each was made.
    #[arg(short, long)]
    verbose: bool,
    /// Labels that alerts must have, as key=value,key2=value2.
    #[arg(long)]
    labels: Option<String>,
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Make an alert.
#[derive(Args, Debug)]
pub struct Create {
    /// What it says.
    message: String,
    /// How long it is shown [default: until it is removed].
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// How loud it is.
    #[arg(long, value_enum, default_value_t = Severity::Low)]
    severity: Severity,
    /// Labels that say who sees it, as key=value,key2=value2 [default: everybody].
    #[arg(long)]
    labels: Option<String>,
}

/// Hide an alert, or show it again.
#[derive(Args, Debug)]
pub struct Ack {
    /// The alert's id, or `ls`.
    id: String,
    /// How long it is hidden.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    ttl: String,
    /// Show it again.
    #[arg(long)]
    clear: bool,
    /// Why it is hidden.
    #[arg(long)]
    reason: Option<String>,
    /// How to show the list.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Severity {
    Low,
    #[value(alias = "med")]
    Medium,
    High,
}

impl Severity {
    fn number(self) -> i32 {
        match self {
            Self::Low => 0,
            Self::Medium => 5,
            Self::High => 10,
        }
    }

    fn name(number: i32) -> &'static str {
        match number {
            ..5 => "LOW",
            5..10 => "MEDIUM",
            _ => "HIGH",
        }
    }
}

impl Alerts {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::List(command) => command.run(api).await,
            Self::Create(command) => command.run(api).await,
            Self::Ack(command) if command.id == "ls" || command.id == "list" => acknowledged(api, command.format).await,
            Self::Ack(command) => command.run(api).await,
        }
    }
}

impl List {
    async fn run(self, api: &Api) -> Result<()> {
        let request = GetClusterAlertsRequest {
            labels: self.labels.as_deref().map(labels::parse).transpose()?.unwrap_or_default(),
            with_superseded: self.verbose,
            with_acknowledged: self.verbose,
            with_untargeted: true,
            ..Default::default()
        };
        let alerts = api.auth().get_cluster_alerts(request).within("listing alerts").await?.alerts;
        say(&match self.format {
            Format::Text if alerts.is_empty() => "no alerts\n".to_owned(),
            Format::Text if self.verbose => long_table(&alerts, Utc::now()),
            Format::Text => table(&alerts, Utc::now()),
            Format::Json => output::json(&alerts, 2)?,
            Format::Yaml => {
                let found: Vec<AnyResource> = alerts.into_iter().map(Into::into).collect();
                resources::to_yaml(&found)?
            }
        });
        Ok(())
    }
}

fn table(alerts: &[ClusterAlert], now: DateTime<Utc>) -> String {
    let mut table = Table::new(["ID", "Severity", "Expires In", "Message"]);
    for alert in alerts {
        let spec = alert.spec.clone().unwrap_or_default();
        let severity = Severity::name(spec.severity).to_owned();
        table.row([alert.name().to_owned(), severity, expires_in(alert.expires(), now), spec.message]);
    }
    table.full()
}

fn long_table(alerts: &[ClusterAlert], now: DateTime<Utc>) -> String {
    let mut table = Table::new(["ID", "Severity", "Expires In", "Message", "Created", "Labels"]);
    for alert in alerts {
        let spec = alert.spec.clone().unwrap_or_default();
        let severity = Severity::name(spec.severity).to_owned();
        let created = wire::time::moment(spec.created.as_ref()).map(time::moment).unwrap_or_default();
        let labels = labels_text(&alert.metadata().labels, true);
        let name = alert.name().to_owned();
        table.row([name, severity, expires_in(alert.expires(), now), spec.message, created, labels]);
    }
    table.full()
}

fn expires_in(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    match at {
        None => "never".to_owned(),
        Some(at) => (at - now).to_std().map_or_else(|_| "expired".to_owned(), time::short),
    }
}

impl Create {
    async fn run(self, api: &Api) -> Result<()> {
        let alert = self.alert(Utc::now())?;
        let name = alert.name().to_owned();
        let request = UpsertClusterAlertRequest { alert: Some(alert) };
        api.auth().upsert_cluster_alert(request).within("making the alert").await?;
        say(&format!("alert {name:?} has been created\n"));
        Ok(())
    }

    fn alert(&self, now: DateTime<Utc>) -> Result<ClusterAlert> {
        let labels = match &self.labels {
            Some(text) => labels::parse(text)?,
            None => FOR_EVERYBODY.iter().map(|key| ((*key).to_owned(), "yes".to_owned())).collect(),
        };
        let expires = match &self.ttl {
            Some(ttl) => Some(wire::time::timestamp(time::after(now, time::lifetime(ttl)?)?)),
            None => None,
        };
        let mut alert = ClusterAlert {
            header: Some(ResourceHeader {
                metadata: Some(Metadata { name: Uuid::new_v4().to_string(), labels, expires, ..Default::default() }),
                ..Default::default()
            }),
            spec: Some(ClusterAlertSpec {
                severity: self.severity.number(),
                message: self.message.clone(),
                created: Some(wire::time::timestamp(now)),
            }),
        };
        alert.check_and_set_defaults()?;
        Ok(alert)
    }
}

impl Ack {
    async fn run(self, api: &Api) -> Result<()> {
        if self.clear {
            let request = ClearAlertAcksRequest { alert_id: self.id.clone() };
            api.auth().clear_alert_acks(request).within("clearing the acknowledgement").await?;
            say(&format!("alert {:?} is shown again\n", self.id));
            return Ok(());
        }
        let ttl = time::lifetime(&self.ttl)?;
        let reason = self.reason.clone().filter(|reason| !reason.trim().is_empty());
        let reason = reason.ok_or_else(|| Error::bad("an acknowledgement needs a reason: add --reason=<text>"))?;
        let ack = AlertAcknowledgement {
            alert_id: self.id.clone(),
            reason,
            expires: Some(wire::time::timestamp(time::after(Utc::now(), ttl)?)),
        };
        api.auth().create_alert_ack(ack).within("acknowledging the alert").await?;
        say(&format!("alert {:?} has been acknowledged, it will not be shown for {}\n", self.id, time::short(ttl)));
        Ok(())
    }
}

async fn acknowledged(api: &Api, format: Format) -> Result<()> {
    let acks = api.auth().get_alert_acks(GetAlertAcksRequest::default()).within("listing acknowledgements").await?.acks;
    let table = || {
        let mut table = Table::new(["ID", "Reason", "Expires"]);
        for ack in &acks {
            let expires = time::expiry(ack.expires.as_ref(), Utc::now());
            table.row([ack.alert_id.clone(), text::lines(&ack.reason).replace('\n', " "), expires]);
        }
        table.full()
    };
    say(&match format {
        Format::Text => table(),
        Format::Json => output::json(&acks, 2)?,
        Format::Yaml => output::yaml(&acks)?,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn create(message: &str) -> Create {
        Create { message: message.into(), ttl: Some("1h".into()), severity: Severity::High, labels: None }
    }

    #[test]
    fn an_alert_without_labels_is_for_everybody() {
        let now = time::rfc3339("2024-01-02T15:00:00Z").unwrap();
        let alert = create("Upgrade on Sunday").alert(now).unwrap();
        assert_eq!(alert.metadata().labels.len(), 2);
        let text = table(std::slice::from_ref(&alert), now);
        assert!(text.contains("HIGH     1h         Upgrade on Sunday"), "{text}");
        assert!(long_table(&[alert], now).contains("alert-permit-all=yes"));
    }

    #[test]
    fn an_alert_says_something() {
        assert!(create("").alert(Utc::now()).is_err());
    }

    #[test]
    fn severities_have_names() {
        assert_eq!([0, 5, 10].map(Severity::name), ["LOW", "MEDIUM", "HIGH"]);
    }
}
