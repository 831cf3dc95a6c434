//! Commands that list.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, SecondsFormat, TimeDelta, Utc};
use client::clusters::ListedCluster;
use client::nodes::{self, NodeFilter};
use client::ssh::parse_labels;
use client::{Error, Result, clusters as reachable, sessions as running};
use serde::Serialize;
use serde_json::{Map, Value};
use wire::types::{ServerV2, SessionTrackerV1};

use crate::args::{ClustersArgs, Format, LsArgs, RecordingsLsArgs, SessionsLsArgs};
use crate::context::Context;
use crate::output::{print, print_as};
use crate::table::Table;

/// Labels for the product itself, shown only on request.
const OWN_LABELS: [&str; 2] = ["teleport.internal/", "teleport.hidden/"];

/// A host of one of several clusters.
#[derive(Serialize)]
struct Listed {
    proxy: String,
    cluster: String,
    node: ServerV2,
}

/// Lists hosts.
pub async fn ls(context: &Context, args: &LsArgs) -> Result<i32> {
    let filter = filter(args)?;
    if args.all {
        return ls_everywhere(context, args, &filter).await;
    }
    let client = context.client(args.cluster.as_deref()).await?;
    match args.format {
        Format::Names => {
            let mut names = nodes::list_as(&client, &filter, |host| nodes::hostname(&host).to_owned()).await?;
            names.sort();
            print(&names.iter().map(|name| format!("{}\n", client::text::line(name))).collect::<String>())?;
        }
        Format::Text => {
            let verbose = args.verbose;
            let mut rows = nodes::list_as(&client, &filter, move |host| node_row(&[], &host, verbose)).await?;
            rows.sort_by(|a, b| a.first().cmp(&b.first()));
            let mut table = node_table(&[], verbose);
            rows.into_iter().for_each(|row| table.row(row));
            print(&table.render())?;
        }
        _ => {
            let mut hosts = nodes::list(&client, &filter).await?;
            hosts.sort_by(|a, b| nodes::hostname(a).cmp(nodes::hostname(b)));
            print_as(args.format, &hosts, String::new)?;
        }
    }
    Ok(0)
}

/// Lists hosts of the root cluster and of all that trust it.
async fn ls_everywhere(context: &Context, args: &LsArgs, filter: &NodeFilter) -> Result<i32> {
    let client = context.client(None).await?;
    let mut listed = Vec::new();
    for cluster in reachable::list(&client).await? {
        let client = context.client(Some(&cluster.cluster_name)).await;
        let found = match &client {
            Ok(client) => nodes::list(client, filter).await.map(|hosts| (client, hosts)),
            Err(error) => Err(Error::other(error.to_string())),
        };
        match found {
            Ok((client, hosts)) => listed.extend(hosts.into_iter().map(|node| Listed {
                proxy: client.account().proxy_host().to_owned(),
                cluster: cluster.cluster_name.clone(),
                node,
            })),
            // The others are still worth showing.
            Err(error) => eprintln!(
                "WARNING: hosts of {}: {}",
                client::text::line(&cluster.cluster_name),
                client::text::lines(&error.to_string())
            ),
        }
    }
    print_as(args.format, &listed, || {
        let mut table = node_table(&["Proxy", "Cluster"], args.verbose);
        for host in &listed {
            table.row(node_row(&[&host.proxy, &host.cluster], &host.node, args.verbose));
        }
        table.render()
    })?;
    Ok(0)
}

fn filter(args: &LsArgs) -> Result<NodeFilter> {
    let labels = match args.labels.as_deref().filter(|labels| !labels.is_empty()) {
        Some(text) => parse_labels(text)
            .ok_or_else(|| Error::other(format!("labels {text:?}: expected name=value,name=value")))?,
        None => BTreeMap::new(),
    };
    let words = args.search.iter().flat_map(|words| words.split(',')).map(str::trim).filter(|word| !word.is_empty());
    Ok(NodeFilter { labels, search: words.map(str::to_owned).collect(), query: args.query.clone().unwrap_or_default() })
}

pub(super) fn node_table(lead: &[&str], verbose: bool) -> Table {
    let own: &[&str] =
        if verbose { &["Node Name", "Node ID", "Address", "Labels"] } else { &["Node Name", "Address", "Labels"] };
    Table::new(&[lead, own].concat()).fit_terminal(!verbose)
}

pub(super) fn node_row(lead: &[&str], host: &ServerV2, verbose: bool) -> Vec<String> {
    let mut row: Vec<String> = lead.iter().map(|&cell| cell.to_owned()).collect();
    row.push(nodes::hostname(host).to_owned());
    if verbose {
        row.push(nodes::id(host).to_owned());
    }
    row.push(nodes::address(host).to_owned());
    row.push(labels(&nodes::all_labels(host), verbose));
    row
}

pub(super) fn labels(labels: &BTreeMap<String, String>, all: bool) -> String {
    let shown = labels.iter().filter(|(name, _)| all || !OWN_LABELS.iter().any(|own| name.starts_with(own)));
    shown.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// Lists clusters.
pub async fn clusters(context: &Context, args: &ClustersArgs) -> Result<i32> {
    let client = context.client(None).await?;
    let clusters = reachable::list(&client).await?;
    print_as(args.format, &clusters, || {
        let header = ["Cluster Name", "Status", "Cluster Type", "Labels", "Selected"];
        let mut table = Table::new(&header);
        for ListedCluster { cluster_name, status, cluster_type, labels: own, selected } in &clusters {
            let selected = if *selected { "*" } else { "" };
            table.row(
                [cluster_name, status, *cluster_type, labels(own, args.verbose).as_str(), selected].map(String::from),
            );
        }
        if args.quiet { table.render_rows() } else { table.render() }
    })?;
    Ok(0)
}

/// Lists sessions that run.
pub async fn sessions(context: &Context, args: &SessionsLsArgs) -> Result<i32> {
    let client = context.client(args.cluster.as_deref()).await?;
    let sessions = running::active(&client, &args.kind).await?;
    print_as(args.format, &sessions, || {
        let mut table = Table::new(&["ID", "Kind", "Created", "Hostname", "Address", "Login", "Command"]);
        for SessionTrackerV1 { spec, .. } in &sessions {
            let spec = spec.clone().unwrap_or_default();
            let created = wire::time::moment(spec.created.as_ref()).map(moment).unwrap_or_default();
            let command = spec.initial_command.join(" ");
            table.row([spec.session_id, spec.kind, created, spec.hostname, spec.address, spec.login, command]);
        }
        table.render()
    })?;
    Ok(0)
}

/// Lists recordings.
pub async fn recordings(context: &Context, args: &RecordingsLsArgs) -> Result<i32> {
    let (from, to) = span(args, Utc::now())?;
    let client = context.client(args.cluster.as_deref()).await?;
    let events = running::recorded(&client, from, to, args.limit).await?;
    let objects = events.iter().map(audit::json::to_object).collect::<Result<Vec<_>, _>>();
    let objects = objects.map_err(|error| Error::other(format!("an event is not understood: {error}")))?;
    print_as(args.format, &objects, || {
        let mut table = Table::new(&["ID", "Type", "Participants", "Hostname", "Timestamp"]);
        objects.iter().for_each(|event| table.row(recording_row(event)));
        table.render()
    })?;
    Ok(0)
}

/// From when to when; a last day counts until its end.
pub(super) fn span(args: &RecordingsLsArgs, now: DateTime<Utc>) -> Result<(DateTime<Utc>, DateTime<Utc>)> {
    let day = |text: &str| {
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d");
        day.map_err(|_| Error::other(format!("day {text:?}: expected the form 2006-01-02")))
    };
    if let Some(last) = &args.last {
        let length = wire::duration::from_text(last).map_err(|e| Error::other(format!("--last: {e}")))?;
        let length = TimeDelta::from_std(length).map_err(|_| Error::other("--last is too long"))?;
        return Ok((now - length, now));
    }
    let to = match &args.to_utc {
        Some(text) => {
            let next = day(text)?.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX);
            next.and_time(NaiveTime::MIN).and_utc()
        }
        None => now,
    };
    let from = match &args.from_utc {
        Some(text) => day(text)?.and_time(NaiveTime::MIN).and_utc(),
        None => to.min(now) - TimeDelta::days(1),
    };
    if from > to {
        return Err(Error::other("--from-utc is later than --to-utc"));
    }
    Ok((from, to))
}

pub(super) fn recording_row(event: &Map<String, Value>) -> [String; 5] {
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let first =
        |names: &[&str]| names.iter().map(|name| text(name)).find(|value| !value.is_empty()).unwrap_or_default();
    let kind = match text("event").as_str() {
        "windows.desktop.session.end" => "desktop",
        "db.session.end" => "db",
        "app.session.end" => "app",
        _ if event.contains_key("kubernetes_cluster") => "k8s",
        _ => "ssh",
    };
    let participants = event.get("participants").and_then(Value::as_array).filter(|list| !list.is_empty());
    let participants = participants
        .map_or_else(|| text("user"), |list| list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
    let host =
        first(&["server_hostname", "desktop_name", "db_service", "app_name", "kubernetes_cluster", "server_addr"]);
    [text("sid"), kind.to_owned(), participants, host, first(&["session_stop", "time"])]
}

fn moment(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn args(from: Option<&str>, to: Option<&str>, last: Option<&str>) -> RecordingsLsArgs {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let (from_utc, to_utc, last) = (own(from), own(to), own(last));
        RecordingsLsArgs { from_utc, to_utc, last, limit: 50, format: Format::Text, cluster: None }
    }

    #[test]
    fn a_last_day_counts_until_its_end() {
        let now: DateTime<Utc> = "2026-11-21T15:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        assert_eq!(span(&args(None, None, None), now).unwrap(), (at("2026-11-20T15:00:00Z"), now));
        let days = span(&args(Some("2026-11-12"), Some("2026-11-20"), None), now).unwrap();
        assert_eq!(days, (at("2026-11-12T00:00:00Z"), at("2026-11-21T00:00:00Z")));
        assert_eq!(span(&args(None, None, Some("1h")), now).unwrap().0, at("2026-11-21T14:00:00Z"));
        for (from, to, last) in
            [(Some("x"), None, None), (Some("2026-11-22"), None, None), (None, None, Some("yesterday"))]
        {
            assert!(span(&args(from, to, last), now).is_err());
        }
    }

    #[test]
    fn a_recording_is_listed_with_its_host() {
        let event = serde_json::json!({"event": "session.end", "sid": "s", "participants": ["a", "b"],
            "server_hostname": "node1", "session_stop": "t"});
        assert_eq!(recording_row(event.as_object().unwrap()), ["s", "ssh", "a, b", "node1", "t"]);
    }
}
