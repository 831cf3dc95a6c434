//! Which servers there are.

use std::collections::BTreeMap;

use tonic::Code;
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

/// Lists the servers of the selected cluster that the user may see.
pub async fn list(client: &ClusterClient, filter: &NodeFilter) -> Result<Vec<ServerV2>> {
    let mut service = client.auth();
    let mut request = ListUnifiedResourcesRequest {
        kinds: vec!["node".to_owned()],
        limit: PAGE,
        labels: filter.labels.clone(),
        predicate_expression: filter.query.clone(),
        search_keywords: filter.search.clone(),
        sort_by: Some(SortBy { field: "name".to_owned(), is_desc: false }),
        ..Default::default()
    };
    let mut nodes = Vec::new();
    loop {
        let page = match service.list_unified_resources(request.clone()).await {
            Ok(answer) => answer.into_inner(),
            // The page is larger than a message may be.
            Err(status) if status.code() == Code::ResourceExhausted && request.limit > 1 => {
                request.limit /= 2;
                continue;
            }
            Err(status) => return Err(status.into()),
        };
        let empty = page.resources.is_empty();
        nodes.extend(page.resources.into_iter().filter_map(|found| server(found.resource)));
        if empty || page.next_key.is_empty() {
            return Ok(nodes);
        }
        request.start_key = page.next_key;
    }
}

/// The SSH server that an item of a list is; `None` for items of other kinds.
fn server(item: Option<Resource>) -> Option<ServerV2> {
    match item? {
        Resource::Node(node) => Some(node),
        _ => None,
    }
}

/// The hosts that a filter stands for, to be dialled by their ids.
pub async fn matching_hosts(client: &ClusterClient, filter: &NodeFilter) -> Result<Vec<Host>> {
    let mut service = client.auth();
    let mut request = ListResourcesRequest {
        resource_type: "node".to_owned(),
        namespace: "default".to_owned(),
        limit: PAGE,
        labels: filter.labels.clone(),
        predicate_expression: filter.query.clone(),
        search_keywords: filter.search.clone(),
        ..Default::default()
    };
    let mut hosts = Vec::new();
    loop {
        let page = match service.list_resources(request.clone()).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::ResourceExhausted && request.limit > 1 => {
                request.limit /= 2;
                continue;
            }
            Err(status) => return Err(status.into()),
        };
        let empty = page.resources.is_empty();
        let found = page.resources.into_iter().filter_map(|found| server(found.resource));
        hosts.extend(found.map(|node| host_of(&node)));
        if empty || page.next_key.is_empty() {
            hosts.sort_by(|a: &Host, b| (&a.name, &a.address).cmp(&(&b.name, &b.address)));
            return Ok(hosts);
        }
        request.start_key = page.next_key;
    }
}

/// An error that names the hosts a name may mean.
pub async fn explain_ambiguous(client: &ClusterClient, host: &Host) -> Error {
    let port = if host.port == 0 { String::new() } else { host.port.to_string() };
    let request = GetSshTargetsRequest { host: host.address.clone(), port };
    let name = text::line(&host.name).into_owned();
    let advice = "name one by its id, as in 'tsh ssh user@<id>'";
    let Ok(answer) = client.auth().get_ssh_targets(request).await else {
        return Error::other(format!("{name} could be any of several hosts: {advice}"));
    };
    let candidates = answer.into_inner().servers;
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
