//! Which servers there are.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::task::spawn_blocking;
use tonic::client::Grpc;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use wire::proto::paginated_resource::Resource;
use wire::proto::{GetSshTargetsRequest, ListResourcesRequest, ListUnifiedResourcesRequest, PaginatedResource};
use wire::types::{ServerV2, SortBy};

use crate::cluster::{ClusterClient, LARGEST_MESSAGE};
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

/// A page of a list, as both lists answer. What is a message on the wire are bytes as well: the items are read while the
/// next page is on its way.
#[derive(Clone, PartialEq, prost::Message)]
struct Page {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    items: Vec<Bytes>,
    #[prost(string, tag = "2")]
    next_key: String,
}

impl Page {
    /// The SSH servers of the page.
    fn servers(self) -> Result<Vec<ServerV2>> {
        let read = |item| PaginatedResource::decode(item).map(|found| found.resource);
        let servers = self.items.into_iter().map(read).filter_map(|found| match found {
            Ok(Some(Resource::Node(node))) => Some(Ok(*node)),
            Ok(_) => None,
            Err(error) => Some(Err(Error::other(format!("the list of servers is not understood: {error}")))),
        });
        servers.collect()
    }
}

/// Lists the servers of the selected cluster that the user may see.
pub async fn list(client: &ClusterClient, filter: &NodeFilter) -> Result<Vec<ServerV2>> {
    let mut request = ListUnifiedResourcesRequest {
        kinds: vec!["node".to_owned()],
        labels: filter.labels.clone(),
        predicate_expression: filter.query.clone(),
        search_keywords: filter.search.clone(),
        sort_by: Some(SortBy { field: "name".to_owned(), is_desc: false }),
        ..Default::default()
    };
    pages(async |limit, start| {
        (request.limit, request.start_key) = (limit, start);
        page(client, "/proto.AuthService/ListUnifiedResources", request.clone()).await
    })
    .await
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
    let nodes = pages(async |limit, start| {
        (request.limit, request.start_key) = (limit, start);
        page(client, "/proto.AuthService/ListResources", request.clone()).await
    })
    .await?;
    let mut hosts: Vec<Host> = nodes.iter().map(host_of).collect();
    hosts.sort_by(|a, b| (&a.name, &a.address).cmp(&(&b.name, &b.address)));
    Ok(hosts)
}

/// Asks for a page.
async fn page<R: Message + 'static>(client: &ClusterClient, call: &'static str, request: R) -> Result<Page, Status> {
    let mut service = Grpc::new(client.auth_channel()).max_decoding_message_size(LARGEST_MESSAGE);
    service.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<R, Page>::default();
    let answer = service.unary(Request::new(request), PathAndQuery::from_static(call), codec).await;
    answer.map(Response::into_inner)
}

/// Collects pages until there are no more. `next` gets how many servers are wanted and where to go on; pages that are
/// larger than a message may be are asked for again in halves.
async fn pages(mut next: impl AsyncFnMut(i32, String) -> Result<Page, Status>) -> Result<Vec<ServerV2>> {
    let (mut limit, mut start) = (PAGE, String::new());
    let mut reading = Vec::new();
    loop {
        match next(limit, start.clone()).await {
            Ok(page) => {
                let after = page.next_key.clone();
                // A server that does not get on would be asked forever.
                let is_last = after.is_empty() || after == start;
                if is_last && reading.is_empty() {
                    return page.servers();
                }
                reading.push(spawn_blocking(|| page.servers()));
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
