//! Which servers there are.

use std::collections::BTreeMap;

use mux::memory;
use tokio::task::spawn_blocking;
use tonic::{Code, Status};
use wire::ResourcePage;
use wire::proto::paginated_resource::Resource;
use wire::proto::{GetSshTargetsRequest, ListResourcesRequest, ListUnifiedResourcesRequest};
use wire::types::{ServerV2, SortBy};

use crate::cluster::ClusterClient;
use crate::error::{Error, Result};
use crate::ssh::Host;
use crate::text;

/// Resources asked for at once.
const PAGE: i32 = 1000;

/// Which servers are wanted; every part narrows the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFilter {
    /// Labels that all have to be there.
    pub labels: BTreeMap<String, String>,
    /// Words that all have to be found in name, address or labels.
    pub search: Vec<String>,
    /// An expression that has to be true.
    pub query: String,
}

/// The SSH servers of a page, as `shown` shows them.
fn read<T>(page: &ResourcePage, shown: impl Fn(ServerV2) -> T) -> Result<Vec<T>> {
    let servers = page.items().filter_map(|item| match item.map(|item| item.resource) {
        Ok(Some(Resource::Node(node))) => Some(Ok(shown(*node))),
        Ok(_) => None,
        Err(status) => Some(Err(status.into())),
    });
    servers.collect()
}

/// Lists the servers of the selected cluster that the user may see.
pub async fn list(client: &ClusterClient, filter: &NodeFilter) -> Result<Vec<ServerV2>> {
    list_as(client, filter, |server| server).await
}

/// Lists them as `shown` shows each. Of a long list that is much less than the servers themselves.
pub async fn list_as<T: Send + 'static>(
    client: &ClusterClient,
    filter: &NodeFilter,
    shown: impl Fn(ServerV2) -> T + Copy + Send + 'static,
) -> Result<Vec<T>> {
    let mut request = ListUnifiedResourcesRequest {
        kinds: vec!["node".to_owned()],
        labels: filter.labels.clone(),
        predicate_expression: filter.query.clone(),
        search_keywords: filter.search.clone(),
        sort_by: Some(SortBy { field: "name".to_owned(), is_desc: false }),
        ..Default::default()
    };
    let next = async |limit, start| {
        (request.limit, request.start_key) = (limit, start);
        Ok(client.auth().list_unified_resources(request.clone()).await?.into_inner())
    };
    pages(next, shown).await
}

/// The hosts that a filter stands for, to be dialled by their ids.
pub async fn matching_hosts(client: &ClusterClient, filter: &NodeFilter) -> Result<Vec<Host>> {
    let mut request = ListResourcesRequest {
        resource_type: "node".to_owned(),
        namespace: "default".to_owned(),
        labels: filter.labels.clone(),
        predicate_expression: filter.query.clone(),
        search_keywords: filter.search.clone(),
        ..Default::default()
    };
    let next = async |limit, start| {
        (request.limit, request.start_key) = (limit, start);
        Ok(client.auth().list_resources(request.clone()).await?.into_inner())
    };
    let mut hosts = pages(next, |node| host_of(&node)).await?;
    hosts.sort_by(|a, b| (&a.name, &a.address).cmp(&(&b.name, &b.address)));
    Ok(hosts)
}

/// Collects pages until there are no more; one is read while the next is on its way. `next` gets how many servers are
/// wanted and where to go on; pages that are larger than a message may be are asked for again in halves.
async fn pages<T: Send + 'static>(
    mut next: impl AsyncFnMut(i32, String) -> Result<ResourcePage, Status>,
    shown: impl Fn(ServerV2) -> T + Copy + Send + 'static,
) -> Result<Vec<T>> {
    let (mut limit, mut start) = (PAGE, String::new());
    let mut reading = Vec::new();
    loop {
        match next(limit, start.clone()).await {
            Ok(page) => {
                let after = page.next_key.clone();
                // A server that does not get on would be asked forever.
                let is_last = after.is_empty() || after == start;
                if is_last && reading.is_empty() {
                    return read(&page, shown);
                }
                memory::keep();
                reading.push(spawn_blocking(move || read(&page, shown)));
                if is_last {
                    break;
                }
                start = after;
            }
            Err(status) if status.code() == Code::ResourceExhausted && limit > 1 => limit /= 2,
            Err(status) => return Err(status.into()),
        }
    }
    let mut all = Vec::new();
    for servers in reading {
        all.append(&mut servers.await.map_err(|error| Error::other(format!("reading a list: {error}")))??);
    }
    Ok(all)
}

/// The servers that a name, an id or an address may mean.
pub async fn named(client: &ClusterClient, host: &Host) -> Result<Vec<ServerV2>> {
    let port = if host.port == 0 { String::new() } else { host.port.to_string() };
    let request = GetSshTargetsRequest { host: host.address.clone(), port };
    Ok(client.auth().get_ssh_targets(request).await?.into_inner().servers)
}

/// An error that names the hosts a name may mean.
pub async fn explain_ambiguous(client: &ClusterClient, host: &Host) -> Error {
    let name = text::line(&host.name).into_owned();
    let advice = "name one by its id, as in 'tsh ssh user@<id>'";
    let Ok(candidates) = named(client, host).await else {
        return Error::other(format!("{name} could be any of several hosts: {advice}"));
    };
    let lines: String = candidates.iter().map(|node| format!("\n  {}", candidate(node))).collect();
    Error::other(format!("ambiguous host: {name} could be any of several hosts, {advice}{lines}"))
}

fn candidate(node: &ServerV2) -> String {
    let labels: Vec<String> = all_labels(node).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let line = format!("{}  {}  {}  {}", id(node), hostname(node), address(node), labels.join(","));
    text::line(line.trim_end()).into_owned()
}

/// The host of a server, to be dialled by its id: names may be taken twice.
pub fn host_of(node: &ServerV2) -> Host {
    let name = match hostname(node) {
        "" => id(node),
        name => name,
    };
    Host { address: id(node).to_owned(), port: 0, name: name.to_owned() }
}

/// The id of a server.
pub fn id(node: &ServerV2) -> &str {
    node.metadata.as_ref().map_or("", |metadata| &metadata.name)
}

/// The name of a server.
pub fn hostname(node: &ServerV2) -> &str {
    node.spec.as_ref().map_or("", |spec| &spec.hostname)
}

/// Where a server is; a tunnel has no address.
pub fn address(node: &ServerV2) -> &str {
    match &node.spec {
        Some(spec) if spec.use_tunnel => "\u{27f5} Tunnel",
        Some(spec) => &spec.addr,
        None => "",
    }
}

/// Static and command labels of a server.
pub fn all_labels(node: &ServerV2) -> BTreeMap<String, String> {
    let fixed = node.metadata.iter().flat_map(|m| m.labels.iter()).map(|(k, v)| (k.clone(), v.clone()));
    let commands = node.spec.iter().flat_map(|s| s.cmd_labels.iter()).map(|(k, v)| (k.clone(), v.result.clone()));
    fixed.chain(commands).collect()
}
