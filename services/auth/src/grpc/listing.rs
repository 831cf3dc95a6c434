//! Lists of resources, as far as the caller's roles reach.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use audit::codes;
use bytes::{Bytes, BytesMut};
use mux::memory;
use prost::Message;
use prost::encoding::{self, decode_key};
use rbac::{Labelled, ResourceFilter};
use resources::Resource as _;
use wire::ResourcePage;
use wire::error::{Error, Result};
use wire::events::AccessRequestResourceSearch;
use wire::proto::paginated_resource::Resource;
use wire::proto::{ListResourcesRequest, ListUnifiedResourcesRequest, PaginatedResource};
use wire::types::app_server_or_saml_id_p_service_provider_v1::Resource as Either;
use wire::types::{AppServerOrSamlIdPServiceProviderV1, AppServerV3, KubernetesClusterV3, SortBy};

use super::{Api, clusters, kinds, named, page};
use crate::authz::AuthContext;
use crate::store::kind::{self, Kind};
use crate::store::resource_name;

/// Kinds that a list may ask for although no such resource can exist here.
const EMPTY_KINDS: [&str; 2] = ["git_server", "identity_center_account"];

/// Kinds of the unified list, as they are asked for, with the kind whose rules decide about them.
const UNIFIED: [(&str, &str); 6] = [
    ("node", "node"),
    ("app", "app_server"),
    ("db", "db_server"),
    ("kube_cluster", "kube_server"),
    ("windows_desktop", "windows_desktop"),
    ("saml_idp_service_provider", "saml_idp_service_provider"),
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
    items: Items,
    next_key: String,
    total: usize,
}

/// Records that were chosen for a page.
struct Chosen<V> {
    records: Vec<Arc<V>>,
    next_key: String,
    total: usize,
}

pub async fn list_resources(api: &Api, context: &AuthContext, message: ListResourcesRequest) -> Result<ResourcePage> {
    let question = Question {
        filter: filter(message.labels, &message.search_keywords, &message.predicate_expression)?,
        sort: message.sort_by.as_ref(),
        start_key: &message.start_key,
        limit: page::limit(message.limit)?,
        include_logins: message.include_logins,
        count: message.need_total_count,
    };
    let kind = named(&message.resource_type, "ResourceType")?;
    let searching = search(api, context, message.use_search_as_roles, message.use_preview_as_roles, kind).await?;
    let context = searching.as_ref().unwrap_or(context);
    let found = if EMPTY_KINDS.contains(&kind) {
        Found::default()
    } else {
        let rules = if kind == "kube_cluster" { "kube_server" } else { kind };
        let rules = if kind == "app_and_idp_service_provider" { "app_server" } else { rules };
        context.require(rules, &["list", "read"])?;
        of_kind(api, context, &question, kind).await?
    };
    let total_count = if message.need_total_count { i32::try_from(found.total).unwrap_or(i32::MAX) } else { 0 };
    Ok(ResourcePage { resources: found.items.written, next_key: found.next_key, total_count })
}

pub async fn list_unified_resources(
    api: &Api,
    context: &AuthContext,
    message: ListUnifiedResourcesRequest,
) -> Result<ResourcePage> {
    let filter = filter(message.labels, &message.search_keywords, &message.predicate_expression)?;
    let limit = page::limit(message.limit)?;
    let mut kinds = Vec::new();
    for wanted in &message.kinds {
        match UNIFIED.iter().find(|(asked, rules)| asked == wanted || rules == wanted) {
            Some(known) => kinds.push(*known),
            None if EMPTY_KINDS.contains(&wanted.as_str()) || wanted == "user_group" => {}
            None => return Err(Error::bad_parameter(format!("resources of kind {wanted:?} are not listed"))),
        }
    }
    if message.kinds.is_empty() {
        kinds.extend(UNIFIED);
    }
    let asked = message.kinds.join(",");
    let searching = search(api, context, message.use_search_as_roles, message.use_preview_as_roles, &asked).await?;
    let context = searching.as_ref().unwrap_or(context);
    kinds.retain(|(_, rules)| context.require(rules, &["list", "read"]).is_ok());
    // Nobody has pinned anything: preferences of users are not kept yet.
    if kinds.is_empty() || message.pinned_only {
        return Ok(ResourcePage::default());
    }
    let question = Question {
        filter,
        sort: message.sort_by.as_ref(),
        start_key: &message.start_key,
        limit,
        include_logins: message.include_logins,
        count: false,
    };
    let found = match kinds.as_slice() {
        [("node", _)] => {
            // All items are of one kind: in the order of kinds they are in the order of names.
            let sort = message.sort_by.clone().map(|sort| match sort.field.as_str() {
                "kind" | "" => SortBy { field: "name".to_owned(), ..sort },
                _ => sort,
            });
            records::<kind::Node>(api, context, &Question { sort: sort.as_ref(), ..question }, Resource::Node).await?
        }
        kinds => unified(api, context, &question, kinds).await?,
    };
    Ok(ResourcePage { resources: found.items.written, next_key: found.next_key, total_count: 0 })
}

/// The caller with the roles that he may search as; that somebody does so is told to the audit log.
async fn search(
    api: &Api,
    context: &AuthContext,
    as_roles: bool,
    preview: bool,
    asked: &str,
) -> Result<Option<AuthContext>> {
    if !as_roles && !preview {
        return Ok(None);
    }
    let searching = context.searching(api.auth(), preview && !as_roles)?;
    let further = searching.role_names().iter().filter(|name| !context.role_names().contains(name));
    api.auth()
        .emit(codes::ACCESS_REQUEST_SEARCH.event(AccessRequestResourceSearch {
            user: Some(context.caller().user_metadata()),
            search_as_roles: further.cloned().collect(),
            resource_type: asked.to_owned(),
            namespace: resources::NAMESPACE.to_owned(),
            ..Default::default()
        }))
        .await?;
    Ok(Some(searching))
}

/// The records of one kind, each as an item of a list.
async fn of_kind(api: &Api, context: &AuthContext, question: &Question<'_>, asked: &str) -> Result<Found> {
    use kind as k;
    match asked {
        "node" => records::<k::Node>(api, context, question, Resource::Node).await,
        "app_server" => records::<k::AppServer>(api, context, question, Resource::AppServer).await,
        "db_server" => records::<k::DatabaseServer>(api, context, question, Resource::DatabaseServer).await,
        "db_service" => records::<k::DatabaseService>(api, context, question, Resource::DatabaseService).await,
        "kube_server" => records::<k::KubernetesServer>(api, context, question, Resource::KubernetesServer).await,
        "windows_desktop" => records::<k::WindowsDesktop>(api, context, question, Resource::WindowsDesktop).await,
        "windows_desktop_service" => {
            records::<k::WindowsDesktopService>(api, context, question, Resource::WindowsDesktopService).await
        }
        "user_group" => records::<k::UserGroup>(api, context, question, Resource::UserGroup).await,
        "saml_idp_service_provider" => {
            records::<k::SamlServiceProvider>(api, context, question, Resource::SamlIdPServiceProvider).await
        }
        "kube_cluster" => distinct_clusters(api, context, question).await,
        "app_and_idp_service_provider" => applications(api, context, question).await,
        other => Err(Error::not_implemented(format!("resource type {other:?} is not supported for pagination"))),
    }
}

/// Everything that matches of several kinds, each thing once: several agents may serve the same.
async fn unified(
    api: &Api,
    context: &AuthContext,
    question: &Question<'_>,
    kinds: &[(&'static str, &'static str)],
) -> Result<Found> {
    let by_name = match question.sort {
        None => true,
        Some(sort) if matches!(sort.field.as_str(), "name" | "kind" | "") => sort.field == "name",
        Some(sort) => {
            return Err(Error::not_implemented(format!(
                "sorting resources of all kinds by {:?} is not supported",
                sort.field
            )));
        }
    };
    let mut sources: Vec<(&str, Box<dyn Source>)> = Vec::with_capacity(kinds.len());
    for (asked, stored) in kinds {
        use kind as k;
        let source: Box<dyn Source> = match *stored {
            "node" => Records::<k::Node>::all(api, Resource::Node).await?,
            "app_server" => Records::<k::AppServer>::all(api, Resource::AppServer).await?,
            "db_server" => Records::<k::DatabaseServer>::all(api, Resource::DatabaseServer).await?,
            "kube_server" => Records::<k::KubernetesServer>::all(api, Resource::KubernetesServer).await?,
            "windows_desktop" => Records::<k::WindowsDesktop>::all(api, Resource::WindowsDesktop).await?,
            _ => Records::<k::SamlServiceProvider>::all(api, Resource::SamlIdPServiceProvider).await?,
        };
        sources.push((*asked, source));
    }
    // Servers may share a host name; what agents serve is the same under the same name.
    let key = |kind: &str, name: &str, record: &str| {
        let own = if kind == "node" { record } else { "" };
        match by_name {
            true => format!("{name}{SEPARATOR}{kind}{SEPARATOR}{own}"),
            false => format!("{kind}{SEPARATOR}{name}{SEPARATOR}{own}"),
        }
    };
    merged(context, question, &sources, key)
}

/// Applications and the service providers of the identity provider, as one list.
async fn applications(api: &Api, context: &AuthContext, question: &Question<'_>) -> Result<Found> {
    let either = |kind: &str, resource: Either| {
        let both = AppServerOrSamlIdPServiceProviderV1 { kind: kind.to_owned(), resource: Some(resource) };
        Resource::AppServerOrSamlIdPServiceProvider(Box::new(both))
    };
    let sortable = |field: &str| matches!(field, "name" | "") || AppServerV3::sort_fields().contains(&field);
    if let Some(sort) = question.sort.filter(|sort| !sortable(&sort.field)) {
        let text =
            format!("sorting by field {:?} for resource \"app_and_idp_service_provider\" is not supported", sort.field);
        return Err(Error::not_implemented(text));
    }
    let app = move |server: Box<_>| either("app_server", Either::AppServer(*server));
    let mut sources: Vec<(&str, Box<dyn Source>)> = vec![("app", Records::<kind::AppServer>::all(api, app).await?)];
    if context.require("saml_idp_service_provider", &["list", "read"]).is_ok() {
        let provider =
            move |provider: Box<_>| either("saml_idp_service_provider", Either::SamlIdPServiceProvider(*provider));
        sources.push(("saml", Records::<kind::SamlServiceProvider>::all(api, provider).await?));
    }
    let key = |kind: &str, name: &str, record: &str| format!("{name}{SEPARATOR}{kind}{SEPARATOR}{record}");
    merged(context, question, &sources, key)
}

/// Records of one kind, of which single ones become items.
trait Source: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;
    /// The name that people know, and that of the record.
    fn names(&self, index: usize) -> (&str, String);
    /// The text of a field that lists can be sorted by, besides the name.
    fn sort_value(&self, index: usize, field: &str) -> &str;
    /// Whether it is wanted and the caller's roles reach it.
    fn is_wanted(&self, index: usize, context: &AuthContext, question: &Question<'_>) -> Result<bool>;
    /// The item.
    fn item(&self, index: usize, context: &AuthContext, question: &Question<'_>) -> PaginatedResource;
}

struct Records<K: Kind> {
    values: Vec<Arc<K::Value>>,
    wrap: Box<dyn Fn(Box<K::Value>) -> Resource + Send + Sync>,
}

impl<K: Kind> Records<K>
where
    K::Value: Labelled,
{
    async fn all(
        api: &Api,
        wrap: impl Fn(Box<K::Value>) -> Resource + Send + Sync + 'static,
    ) -> Result<Box<dyn Source>> {
        Ok(Box::new(Self { values: api.auth().store().list::<K>().await?, wrap: Box::new(wrap) }))
    }
}

impl<K: Kind> Source for Records<K>
where
    K::Value: Labelled,
{
    fn len(&self) -> usize {
        self.values.len()
    }

    fn names(&self, index: usize) -> (&str, String) {
        let value = &*self.values[index];
        (rbac::Filtered::name(value), resource_name::<K>(value))
    }

    fn sort_value(&self, index: usize, field: &str) -> &str {
        self.values[index].sort_value(field)
    }

    fn is_wanted(&self, index: usize, context: &AuthContext, question: &Question<'_>) -> Result<bool> {
        let value = &*self.values[index];
        Ok(question.filter.matches(value)? && context.reaches(value))
    }

    fn item(&self, index: usize, context: &AuthContext, question: &Question<'_>) -> PaginatedResource {
        let value = Box::new((*self.values[index]).clone());
        paginated(context, (self.wrap)(value), question.include_logins)
    }
}

/// One page of several kinds. Records are put in order by the field that the list is sorted by, if it is none that
/// stands in their keys, then by these; only those of the page are looked at and copied.
fn merged(
    context: &AuthContext,
    question: &Question<'_>,
    sources: &[(&str, Box<dyn Source>)],
    key: impl Fn(&str, &str, &str) -> String,
) -> Result<Found> {
    let (start, descending) = (question.start_key, question.sort.is_some_and(|sort| sort.is_desc));
    let reached =
        |key: &str| start.is_empty() || question.count || if descending { key <= start } else { key >= start };
    let field = question.sort.map_or("", |sort| &sort.field);
    let mut ordered: Vec<(String, usize, usize)> = Vec::new();
    for (at, (kind, source)) in sources.iter().enumerate() {
        let keys = (0..source.len()).map(|index| {
            let (name, record) = source.names(index);
            let key = key(kind, name, &record);
            match field {
                "name" | "kind" | "" => (key, at, index),
                field => (format!("{}{SEPARATOR}{key}", source.sort_value(index, field)), at, index),
            }
        });
        ordered.extend(keys.filter(|(key, ..)| reached(key)));
    }
    ordered.sort_unstable_by(|a, b| if descending { b.cmp(a) } else { a.cmp(b) });
    let mut page = Found::default();
    let mut last: Option<String> = None;
    for (key, at, index) in ordered {
        let again = last.as_ref() == Some(&key);
        let full = !page.next_key.is_empty();
        if again || full && !question.count {
            continue;
        }
        let source = &sources[at].1;
        if !source.is_wanted(index, context, question)? {
            continue;
        }
        page.total += 1;
        let before =
            question.count && !start.is_empty() && if descending { key.as_str() > start } else { key.as_str() < start };
        if !full && !before {
            let item = source.item(index, context, question);
            let fits = page.items.written.len() < question.limit && page.items.add_item(&item);
            if !fits {
                page.next_key.clone_from(&key);
                if !question.count {
                    break;
                }
            }
        }
        last = Some(key);
    }
    Ok(page)
}

/// The Kubernetes clusters that agents serve, each once.
async fn distinct_clusters(api: &Api, context: &AuthContext, question: &Question<'_>) -> Result<Found> {
    let all = Question { sort: None, start_key: "", limit: usize::MAX, filter: question.filter.clone(), ..*question };
    let servers = chosen::<kind::KubernetesServer>(api, context, &all, None).await?;
    let mut found = BTreeMap::new();
    for mut server in servers.records.into_iter().map(Arc::unwrap_or_clone) {
        clusters::conceal_served(context, &mut server);
        if let Some(cluster) = server.spec.and_then(|spec| spec.cluster) {
            found.insert(cluster.name().to_owned(), cluster);
        }
    }
    let total = found.len();
    let mut clusters: Vec<_> = found.into_values().collect();
    let descending = question.sort.is_some_and(|sort| sort.is_desc);
    if descending {
        clusters.reverse();
    }
    let start = match question.start_key {
        "" => 0,
        // The one named may be gone by now: then the next begins the page.
        key => {
            let reached =
                |cluster: &KubernetesClusterV3| if descending { cluster.name() <= key } else { cluster.name() >= key };
            clusters.iter().position(reached).unwrap_or(clusters.len())
        }
    };
    let end = start.saturating_add(question.limit).min(clusters.len());
    let mut items = Items::default();
    let field = field_of(&Resource::KubeCluster(Box::default()));
    let count = clusters[start..end].iter().take_while(|cluster| items.add_record(field, *cluster)).count();
    let next_key = clusters.get(start + count).map(|cluster| cluster.name().to_owned()).unwrap_or_default();
    Ok(Found { items, next_key, total })
}

/// One page of the records that the caller's roles reach.
pub async fn reached<K: Kind>(
    api: &Api,
    context: &AuthContext,
    limit: i32,
    start: &str,
) -> Result<(Vec<K::Value>, String)>
where
    K::Value: Labelled + prost::Message,
{
    kinds::page_of::<K>(api, limit, start, |value| context.reaches(value)).await
}

/// What a request narrows its list to.
fn filter(labels: BTreeMap<String, String>, words: &[String], query: &str) -> Result<ResourceFilter> {
    if query.len() > MAX_QUERY || words.len() > MAX_WORDS {
        return Err(Error::bad_parameter("the predicate expression or the search is too long"));
    }
    Ok(ResourceFilter::new(labels, words, query)?)
}

/// A page of the records of one kind.
async fn records<K: Kind>(
    api: &Api,
    context: &AuthContext,
    question: &Question<'_>,
    item: impl Fn(Box<K::Value>) -> Resource,
) -> Result<Found>
where
    K::Value: Labelled + Message,
{
    let order = question.sort.map(|sort| Order::new::<K>(sort)).transpose()?;
    let order = order.filter(|order| !order.is_natural::<K>());
    let Chosen { records, mut next_key, total } = chosen::<K>(api, context, question, order.as_ref()).await?;
    let empty = item(Box::default());
    let field = field_of(&empty);
    let is_shown_as_stored = match empty {
        Resource::KubernetesServer(_) => false,
        Resource::Node(_) => !question.include_logins,
        _ => true,
    };
    let mut items = Items::default();
    for record in &records {
        let fits = if is_shown_as_stored {
            items.add_record(field, &**record)
        } else {
            let item = paginated(context, item(Box::new((**record).clone())), question.include_logins);
            items.add_item(&item)
        };
        if !fits {
            next_key = key::<K>(order.as_ref(), record);
            break;
        }
    }
    Ok(Found { items, next_key, total })
}

/// The items of a page as they are on the wire.
#[derive(Default)]
struct Items {
    written: Vec<Bytes>,
    /// Where the next is written.
    buffer: BytesMut,
    bytes: usize,
}

/// Bytes of items written into one piece of memory.
const PIECE: usize = 64 << 10;

impl Items {
    /// Adds what `write` writes. `false`, and nothing is added, when the page would be too large for a client; a first item
    /// always fits.
    fn add(&mut self, write: impl FnOnce(&mut BytesMut)) -> bool {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(PIECE);
        }
        write(&mut self.buffer);
        let item = self.buffer.split();
        if self.bytes + item.len() > page::MAX_BYTES && !self.written.is_empty() {
            return false;
        }
        self.bytes += item.len();
        if self.bytes > PIECE {
            memory::keep();
        }
        self.written.push(item.freeze());
        true
    }

    /// Adds an item that was made for the caller.
    fn add_item(&mut self, item: &PaginatedResource) -> bool {
        self.add(|buffer| buffer.extend_from_slice(&item.encode_to_vec()))
    }

    /// Adds a record that is shown as it is stored, as the field of an item that holds its kind.
    fn add_record(&mut self, field: u32, record: &impl Message) -> bool {
        self.add(|buffer| encoding::message::encode(field, record, buffer))
    }
}

/// The number of the field of an item that holds a kind of resource.
fn field_of(resource: &Resource) -> u32 {
    let mut written = BytesMut::new();
    resource.encode(&mut written);
    decode_key(&mut written).map_or(0, |(field, _)| field)
}

/// The records of one kind that match and that the caller's roles reach.
async fn chosen<K: Kind>(
    api: &Api,
    context: &AuthContext,
    question: &Question<'_>,
    order: Option<&Order>,
) -> Result<Chosen<K::Value>>
where
    K::Value: Labelled,
{
    let mut failure = None;
    let mut wanted = |value: &K::Value| {
        let accepted = question.filter.matches(value).unwrap_or_else(|error| {
            failure.get_or_insert(error);
            false
        });
        accepted && context.reaches(value)
    };
    let store = api.auth().store();
    // Without a sort, records come as they are stored: such a page needs no look at the others.
    let chosen = if order.is_none() && !question.count {
        let found = store.page::<K>(question.start_key, question.limit, wanted).await?;
        Chosen { records: found.items, next_key: found.next_key, total: 0 }
    } else {
        let mut found = store.list::<K>().await?;
        found.retain(|value| wanted(value));
        if let Some(order) = order {
            found.sort_by(|a, b| order.compare::<K>(a, b));
        }
        let total = found.len();
        let (records, next_key) = cut::<K>(found, order, question);
        Chosen { records, next_key, total }
    };
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(chosen),
    }
}

/// The page that begins at the start key of a sorted list.
fn cut<K: Kind>(
    found: Vec<Arc<K::Value>>,
    order: Option<&Order>,
    question: &Question<'_>,
) -> (Vec<Arc<K::Value>>, String)
where
    K::Value: Labelled,
{
    let start = match (question.start_key, order) {
        ("", _) => 0,
        (start, None) => found.partition_point(|value| resource_name::<K>(value).as_str() < start),
        (start, Some(order)) => found.partition_point(|value| order.is_before::<K>(value, start)),
    };
    let end = start.saturating_add(question.limit).min(found.len());
    let next_key = found.get(end).map(|value| key::<K>(order, value)).unwrap_or_default();
    (found[start..end].to_vec(), next_key)
}

fn key<K: Kind>(order: Option<&Order>, value: &K::Value) -> String
where
    K::Value: Labelled,
{
    order.map_or_else(|| resource_name::<K>(value), |order| order.key::<K>(value))
}

fn paginated(context: &AuthContext, mut resource: Resource, include_logins: bool) -> PaginatedResource {
    let logins = match &mut resource {
        Resource::Node(node) if include_logins => context.logins_on(node),
        Resource::KubernetesServer(server) => {
            clusters::conceal_served(context, server);
            Vec::new()
        }
        _ => Vec::new(),
    };
    PaginatedResource { logins, resource: Some(resource), ..Default::default() }
}

/// The order of a sorted list: by a field, then by name, all of it turned around when descending.
struct Order {
    field: String,
    descending: bool,
}

/// Separates the parts of a key; sorts before every character of a name.
const SEPARATOR: char = '\0';

impl Order {
    fn new<K: Kind>(sort: &SortBy) -> Result<Self>
    where
        K::Value: Labelled,
    {
        let field = if sort.field.is_empty() { "name" } else { sort.field.as_str() };
        if field != "name" && !K::Value::sort_fields().contains(&field) {
            let text = format!("sorting by field {field:?} for resource {:?} is not supported", K::NAME);
            return Err(Error::not_implemented(text));
        }
        Ok(Self { field: field.to_owned(), descending: sort.is_desc })
    }

    /// Whether this is the order in which SSH servers are stored; records of other kinds lie under their agents.
    fn is_natural<K: Kind>(&self) -> bool {
        self.field == "name" && !self.descending && K::NAME == "node"
    }

    fn value<'a, K: Kind>(&self, value: &'a K::Value) -> &'a str
    where
        K::Value: Labelled,
    {
        if self.field == "name" { resources::Resource::name(value) } else { value.sort_value(&self.field) }
    }

    fn compare<K: Kind>(&self, a: &K::Value, b: &K::Value) -> Ordering
    where
        K::Value: Labelled,
    {
        let order = self.value::<K>(a).cmp(self.value::<K>(b));
        let order = order.then_with(|| resource_name::<K>(a).cmp(&resource_name::<K>(b)));
        if self.descending { order.reverse() } else { order }
    }

    fn key<K: Kind>(&self, value: &K::Value) -> String
    where
        K::Value: Labelled,
    {
        format!("{}{SEPARATOR}{}", self.value::<K>(value), resource_name::<K>(value))
    }

    fn is_before<K: Kind>(&self, value: &K::Value, start: &str) -> bool
    where
        K::Value: Labelled,
    {
        let (wanted, name) = start.split_once(SEPARATOR).unwrap_or((start, ""));
        let order = self.value::<K>(value).cmp(wanted).then_with(|| resource_name::<K>(value).as_str().cmp(name));
        order == if self.descending { Ordering::Greater } else { Ordering::Less }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use wire::types::{Metadata, ServerV2};

    use super::*;

    fn node(name: String) -> ServerV2 {
        ServerV2 { metadata: Some(Metadata { name, ..Default::default() }), ..Default::default() }
    }

    #[test]
    fn a_page_is_what_its_items_would_be_encoded_as() {
        let field = field_of(&Resource::Node(Box::default()));
        let mut items = Items::default();
        assert!(items.add_record(field, &node("a".to_owned())));
        let second = PaginatedResource {
            logins: vec!["root".to_owned()],
            resource: Some(Resource::Node(Box::default())),
            ..Default::default()
        };
        assert!(items.add_item(&second));
        let page = ResourcePage { resources: items.written, ..Default::default() };
        let read: Vec<PaginatedResource> = page.items().map(Result::unwrap).collect();
        let first =
            PaginatedResource { resource: Some(Resource::Node(Box::new(node("a".to_owned())))), ..Default::default() };
        assert_eq!(read, [first, second]);
    }

    #[test]
    fn a_page_ends_before_it_is_too_large_for_a_client() {
        let field = field_of(&Resource::Node(Box::default()));
        let mut items = Items::default();
        assert!(items.add_record(field, &node("x".repeat(5 << 20))), "one always fits");
        assert!(!items.add_record(field, &node("y".to_owned())));
        assert_eq!(items.written.len(), 1);
        let mut items = Items::default();
        let fitting = (0..).take_while(|_| items.add_record(field, &node("x".repeat(1 << 20)))).count();
        assert_eq!(fitting, 2);
    }
}
