//! `WatchEvents`: a stream of changes.
//!
//! The first event, INIT, is sent when the subscription is live, so that a client that lists after it misses nothing.
//! Events come in the order of the changes. Nothing is buffered here: the stream takes the next event from the bounded
//! queue of the store when the client can take one more, and a client that falls too far behind gets an error instead
//! of a gap; it subscribes and lists anew.

use std::sync::Arc;

use futures::Stream;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wire::error::{Error, Result};
use wire::proto::event::Resource;
use wire::proto::{self, Event, Operation};
use wire::types::{Metadata, WatchKind, WatchStatusSpecV1, WatchStatusV1};

use super::{Api, clusters};
use crate::authz::AuthContext;
use crate::metrics::Metrics;
use crate::store::{self, WatchedKind};

/// Most kinds one watch may name.
const MAX_KINDS: usize = 64;

/// A live watch.
struct Live {
    context: Arc<AuthContext>,
    changes: store::Watch,
    /// The INIT event, until it was sent.
    init: Option<Event>,
    closing: CancellationToken,
    metrics: Metrics,
}

/// Subscribes the caller to the kinds it may read.
///
/// # Errors
/// `AccessDenied` for a watch without kinds, and for a kind the caller may not read unless partial success is allowed;
/// `BadParameter` when nothing is left.
pub async fn watch_events(
    api: &Api,
    context: &Arc<AuthContext>,
    request: proto::Watch,
) -> Result<impl Stream<Item = Result<Event, Status>> + Send + 'static + use<>> {
    if request.kinds.is_empty() {
        return Err(Error::access_denied("access denied: a watch needs kinds"));
    }
    if request.kinds.len() > MAX_KINDS {
        return Err(Error::bad_parameter(format!("a watch names at most {MAX_KINDS} kinds")));
    }
    let mut confirmed = Vec::with_capacity(request.kinds.len());
    for wanted in request.kinds {
        match check(context, &wanted) {
            Ok(()) => confirmed.push(wanted),
            Err(error) if request.allow_partial_success => {
                tracing::debug!(caller = %context.username(), kind = %wanted.kind, %error, "kind left out of a watch");
            }
            Err(error) => return Err(error),
        }
    }
    if confirmed.is_empty() {
        return Err(Error::bad_parameter("none of the requested kinds can be watched"));
    }
    let changes = api.auth().store().watch(confirmed.iter().map(watched).collect())?;
    let (context, metrics) = (Arc::clone(context), api.auth().0.metrics.clone());
    let live = Live { context, changes, init: Some(init(confirmed)), closing: api.closing(), metrics };
    Ok(futures::stream::unfold(Some(live), |live| async {
        let mut live = live?;
        match live.next().await {
            Ok(event) => Some((Ok(event), Some(live))),
            Err(error) => Some((Err(error.into()), None)),
        }
    }))
}

impl Live {
    async fn next(&mut self) -> Result<Event> {
        if let Some(init) = self.init.take() {
            return Ok(init);
        }
        loop {
            let (kind, event) = tokio::select! {
                change = self.changes.next_with_kind() => change?,
                () = self.closing.cancelled() => {
                    return Err(Error::connection_problem("the Auth Service is shutting down"));
                }
            };
            if self.may_see(&event) {
                let event = self.concealed(event);
                self.metrics.told(kind, event.encoded_len());
                return Ok(event);
            }
        }
    }

    /// Whether the caller's roles reach the resource: people see the servers and clusters that they can use.
    fn may_see(&self, event: &Event) -> bool {
        let context = &self.context;
        match &event.resource {
            Some(Resource::Server(server)) if server.kind == "node" => context.can_see_node(server),
            Some(Resource::RemoteCluster(cluster)) => context.can_see_cluster(cluster),
            Some(Resource::App(thing)) => context.reaches(&**thing),
            Some(Resource::AppServer(thing)) => context.reaches(&**thing),
            Some(Resource::Database(thing)) => context.reaches(&**thing),
            Some(Resource::DatabaseServer(thing)) => context.reaches(&**thing),
            Some(Resource::DatabaseService(thing)) => context.reaches(&**thing),
            Some(Resource::KubernetesCluster(thing)) => context.reaches(&**thing),
            Some(Resource::KubernetesServer(thing)) => context.reaches(&**thing),
            Some(Resource::WindowsDesktop(thing)) => context.reaches(&**thing),
            Some(Resource::WindowsDesktopService(thing)) => context.reaches(&**thing),
            Some(Resource::UserGroup(thing)) => context.reaches(&**thing),
            Some(Resource::SamlIdPServiceProvider(thing)) => context.reaches(&**thing),
            _ => true,
        }
    }

    /// The event without what only agents and administrators may know.
    fn concealed(&self, mut event: Event) -> Event {
        match &mut event.resource {
            Some(Resource::KubernetesCluster(cluster)) => clusters::conceal(&self.context, cluster),
            Some(Resource::KubernetesServer(server)) => clusters::conceal_served(&self.context, server),
            _ => {}
        }
        event
    }
}

/// Checks that the caller may read a kind, as far as the kind tells.
fn check(context: &AuthContext, wanted: &WatchKind) -> Result<()> {
    let kind = wanted.kind.as_str();
    if !store::is_watchable(kind) {
        return Err(Error::bad_parameter(format!("resources of kind {kind:?} cannot be watched")));
    }
    if !wanted.name.is_empty() && kind != "namespace" {
        return Err(Error::bad_parameter(format!("resources of kind {kind:?} cannot be watched by name")));
    }
    let own = wanted.filter.get("user").is_some_and(|user| context.is_user(user));
    match kind {
        "access_request" if own => Ok(()),
        "web_session" if own && !wanted.load_secrets => Ok(()),
        "cert_authority" if wanted.load_secrets && !context.is_admin() => {
            Err(Error::access_denied("access denied: private keys of authorities do not leave the Auth Service"))
        }
        "cert_authority" | "web_session" if !wanted.load_secrets => context.require(kind, &["readnosecrets"]),
        kind => context.require(kind, &["read"]),
    }
}

fn watched(wanted: &WatchKind) -> WatchedKind {
    let mut filter = wanted.filter.clone();
    filter.retain(|_, value| !value.is_empty());
    WatchedKind {
        kind: wanted.kind.clone(),
        sub_kind: wanted.sub_kind.clone(),
        name: wanted.name.clone(),
        load_secrets: wanted.load_secrets,
        filter,
    }
}

fn init(kinds: Vec<WatchKind>) -> Event {
    let status = WatchStatusV1 {
        kind: "watch_status".to_owned(),
        version: "v1".to_owned(),
        metadata: Some(Metadata {
            name: "watch-status".to_owned(),
            namespace: resources::NAMESPACE.to_owned(),
            ..Default::default()
        }),
        spec: Some(WatchStatusSpecV1 { kinds }),
        ..Default::default()
    };
    Event { r#type: Operation::Init as i32, resource: Some(Resource::WatchStatus(Box::new(status))) }
}
