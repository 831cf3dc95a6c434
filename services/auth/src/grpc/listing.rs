//! Lists of resources, as far as the caller's roles reach.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use rbac::ResourceFilter;
use resources::Resource;
use wire::error::{Error, Result};
use wire::proto::{
    ListResourcesRequest, ListResourcesResponse, ListUnifiedResourcesRequest, ListUnifiedResourcesResponse,
    PaginatedResource, paginated_resource,
};
use wire::types::{ServerV2, SortBy};

use super::{Api, page};
use crate::authz::AuthContext;
use crate::store::kind;

/// Kinds that a list may ask for although no such resource can exist yet.
const EMPTY_KINDS: [&str; 14] = [
    "app",
    "app_server",
    "db",
    "db_server",
    "db_service",
    "kube_cluster",
    "kube_server",
    "saml_idp_service_provider",
    "user_group",
    "windows_desktop",
    "windows_desktop_service",
    "app_and_idp_service_provider",
    "git_server",
    "identity_center_account",
];

/// Longest query, in bytes.
const MAX_QUERY: usize = 4096;
/// Most words of one search.
const MAX_WORDS: usize = 64;

/// What is asked of a list of servers.
struct Question<'a> {
    filter: ResourceFilter,
    sort: Option<&'a SortBy>,
    start_key: &'a str,
    limit: usize,
    include_logins: bool,
    count: bool,
}

/// A part of the answer.
#[derive(Default)]
struct Found {
    items: Vec<PaginatedResource>,
    next_key: String,
    total: usize,
}

pub async fn list_resources(
    api: &Api,
    context: &AuthContext,
    message: ListResourcesRequest,
) -> Result<ListResourcesResponse> {
    let question = Question {
        filter: filter(message.labels, &message.search_keywords, &message.predicate_expression)?,
        sort: message.sort_by.as_ref(),
        start_key: &message.start_key,
        limit: page::limit(message.limit)?,
        include_logins: message.include_logins,
        count: message.need_total_count,
    };
    let found = match message.resource_type.as_str() {
        "node" => {
            context.require("node", &["list", "read"])?;
            servers(api, context, &question).await?
        }
        kind if EMPTY_KINDS.contains(&kind) => Found::default(),
        "" => return Err(Error::bad_parameter("missing parameter ResourceType")),
        other => {
            return Err(Error::not_implemented(format!("resource type {other:?} is not supported for pagination")));
        }
    };
    let total_count = if message.need_total_count { i32::try_from(found.total).unwrap_or(i32::MAX) } else { 0 };
    Ok(ListResourcesResponse { resources: found.items, next_key: found.next_key, total_count })
}

pub async fn list_unified_resources(
    api: &Api,
    context: &AuthContext,
    message: ListUnifiedResourcesRequest,
) -> Result<ListUnifiedResourcesResponse> {
    let filter = filter(message.labels, &message.search_keywords, &message.predicate_expression)?;
    let limit = page::limit(message.limit)?;
    let known = |kind: &String| kind == "node" || EMPTY_KINDS.contains(&kind.as_str());
    if let Some(unknown) = message.kinds.iter().find(|kind| !known(kind)) {
        return Err(Error::bad_parameter(format!("resources of kind {unknown:?} are not listed")));
    }
    let wanted = message.kinds.is_empty() || message.kinds.iter().any(|kind| kind == "node");
    // Nobody has pinned anything: preferences of users are not kept yet.
    if !wanted || message.pinned_only || context.require("node", &["list", "read"]).is_err() {
        return Ok(ListUnifiedResourcesResponse::default());
    }
    // All items are of one kind: in the order of kinds they are in the order of names.
    let sort = message.sort_by.map(|sort| match sort.field.as_str() {
        "kind" | "" => SortBy { field: "name".to_owned(), ..sort },
        _ => sort,
    });
    let question = Question {
        filter,
        sort: sort.as_ref(),
        start_key: &message.start_key,
        limit,
        include_logins: message.include_logins,
        count: false,
    };
    let found = servers(api, context, &question).await?;
    Ok(ListUnifiedResourcesResponse { resources: found.items, next_key: found.next_key })
}

/// What a request narrows its list to.
fn filter(labels: BTreeMap<String, String>, words: &[String], query: &str) -> Result<ResourceFilter> {
    if query.len() > MAX_QUERY || words.len() > MAX_WORDS {
        return Err(Error::bad_parameter("the predicate expression or the search is too long"));
    }
    Ok(ResourceFilter::new(labels, words, query)?)
}

async fn servers(api: &Api, context: &AuthContext, question: &Question<'_>) -> Result<Found> {
    let mut failure = None;
    let mut wanted = |node: &ServerV2| {
        let accepted = question.filter.matches(node).unwrap_or_else(|error| {
            failure.get_or_insert(error);
            false
        });
        accepted && context.can_see_node(node)
    };
    let store = api.auth().store();
    // Names are the order of the store: such a page needs no look at the others.
    let order = question.sort.map(Order::new).transpose()?.filter(|order| !order.is_natural());
    let (nodes, mut next_key, total) = if order.is_none() && !question.count {
        let found = store.page::<kind::Node>(question.start_key, question.limit, wanted).await?;
        (found.items, found.next_key, 0)
    } else {
        let mut nodes = store.list::<kind::Node>().await?;
        nodes.retain(|node| wanted(node));
        if let Some(order) = &order {
            nodes.sort_by(|a, b| order.compare(a, b));
        }
        let total = nodes.len();
        let (nodes, next_key) = cut(nodes, order.as_ref(), question);
        (nodes, next_key, total)
    };
    if let Some(error) = failure {
        return Err(error.into());
    }
    let mut items: Vec<PaginatedResource> =
        nodes.iter().map(|node| paginated(context, node, question.include_logins)).collect();
    page::fit(&mut items, &mut next_key, |item| match &item.resource {
        Some(paginated_resource::Resource::Node(node)) => key(order.as_ref(), node),
        None => String::new(),
    });
    Ok(Found { items, next_key, total })
}

/// The page that begins at the start key of a sorted list.
fn cut(nodes: Vec<Arc<ServerV2>>, order: Option<&Order>, question: &Question<'_>) -> (Vec<Arc<ServerV2>>, String) {
    let start = match (question.start_key, order) {
        ("", _) => 0,
        (start, None) => nodes.partition_point(|node| node.name() < start),
        (start, Some(order)) => nodes.partition_point(|node| order.is_before(node, start)),
    };
    let end = start.saturating_add(question.limit).min(nodes.len());
    let next_key = nodes.get(end).map(|node| key(order, node)).unwrap_or_default();
    (nodes[start..end].to_vec(), next_key)
}

fn key(order: Option<&Order>, node: &ServerV2) -> String {
    order.map_or_else(|| node.name().to_owned(), |order| order.key(node))
}

fn paginated(context: &AuthContext, node: &Arc<ServerV2>, include_logins: bool) -> PaginatedResource {
    PaginatedResource {
        logins: if include_logins { context.logins_on(node) } else { Vec::new() },
        resource: Some(paginated_resource::Resource::Node(ServerV2::clone(node))),
        ..Default::default()
    }
}

/// The order of a sorted list: by a field, then by name, all of it turned around when descending.
struct Order {
    field: Field,
    descending: bool,
}

#[derive(Clone, Copy)]
enum Field {
    Name,
    Hostname,
    Address,
}

/// Separates the parts of a key; sorts before every character of a name.
const SEPARATOR: char = '\0';

impl Order {
    fn new(sort: &SortBy) -> Result<Self> {
        let field = match sort.field.as_str() {
            "name" | "" => Field::Name,
            "hostname" => Field::Hostname,
            "addr" => Field::Address,
            other => {
                let text = format!("sorting by field {other:?} for resource \"node\" is not supported");
                return Err(Error::not_implemented(text));
            }
        };
        Ok(Self { field, descending: sort.is_desc })
    }

    /// Whether this is the order in which servers are stored.
    fn is_natural(&self) -> bool {
        matches!(self.field, Field::Name) && !self.descending
    }

    fn value<'a>(&self, node: &'a ServerV2) -> &'a str {
        let spec = node.spec.as_ref();
        match self.field {
            Field::Name => node.name(),
            Field::Hostname => spec.map_or("", |spec| &spec.hostname),
            Field::Address => spec.map_or("", |spec| &spec.addr),
        }
    }

    fn compare(&self, a: &ServerV2, b: &ServerV2) -> Ordering {
        let order = self.value(a).cmp(self.value(b)).then_with(|| a.name().cmp(b.name()));
        if self.descending { order.reverse() } else { order }
    }

    fn key(&self, node: &ServerV2) -> String {
        format!("{}{SEPARATOR}{}", self.value(node), node.name())
    }

    fn is_before(&self, node: &ServerV2, start: &str) -> bool {
        let (value, name) = start.split_once(SEPARATOR).unwrap_or((start, ""));
        let order = self.value(node).cmp(value).then_with(|| node.name().cmp(name));
        order == if self.descending { Ordering::Greater } else { Ordering::Less }
    }
}
