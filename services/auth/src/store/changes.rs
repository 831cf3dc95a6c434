//! Changes of resources, and the queues of those who follow them.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use backend::Key;
use tokio::sync::mpsc;
use wire::{
    error::{Error, Result},
    proto::{Event, Operation, event},
    types::{Metadata, ResourceHeader},
};

use super::kind::KindInfo;

/// How many changes may wait for one follower before it is sent away to list again.
const QUEUE: usize = 8192;

/// One change of one resource, shared by everyone who follows.
pub(super) struct Change {
    info: &'static KindInfo,
    key: Key,
    /// `None` when it was removed.
    value: Option<Arc<dyn Any + Send + Sync>>,
}

/// A kind that somebody follows, with what narrows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchedKind {
    /// The name of the kind.
    pub kind: String,
    /// The variant of the kind; empty for all.
    pub sub_kind: String,
    /// Only the resource of this name; empty for all.
    pub name: String,
    /// Whether private keys and tokens travel with it.
    pub load_secrets: bool,
    /// Further conditions: authority types to cluster names (or `*`), properties of access requests and sessions.
    pub filter: BTreeMap<String, String>,
}

/// Receives changes. Dropping it ends the following.
pub struct Watch {
    kinds: Arc<HashMap<String, WatchedKind>>,
    queue: mpsc::Receiver<Arc<Change>>,
    overflowed: Arc<AtomicBool>,
}

#[derive(Default)]
pub(super) struct Subscribers(Vec<Subscriber>);

struct Subscriber {
    kinds: Arc<HashMap<String, WatchedKind>>,
    queue: mpsc::Sender<Arc<Change>>,
    overflowed: Arc<AtomicBool>,
}

impl Change {
    pub(super) fn put(info: &'static KindInfo, key: Key, value: Arc<dyn Any + Send + Sync>) -> Self {
        Self { info, key, value: Some(value) }
    }

    pub(super) fn delete(info: &'static KindInfo, key: Key) -> Self {
        Self { info, key, value: None }
    }

    /// The change as clients are told, when `watched` includes it.
    fn event(&self, watched: &WatchedKind) -> Option<Event> {
        let name = self.info.place.name_in(&self.key);
        if !watched.name.is_empty() && self.info.singleton.is_none() && watched.name != name {
            return None;
        }
        let (kind, resource) = match &self.value {
            Some(value) => (Operation::Put, (self.info.event)(&**value, watched.load_secrets)?),
            None => (Operation::Delete, event::Resource::ResourceHeader(Box::new(self.header(&name)))),
        };
        passes(watched, &resource).then_some(Event { r#type: kind.into(), resource: Some(resource) })
    }

    /// How a removed resource is named: the first part of a two-part name is its variant.
    fn header(&self, name: &str) -> ResourceHeader {
        let (sub_kind, name) = match (self.info.singleton, self.info.name, name.split_once('/')) {
            (Some(fixed), ..) => ("", fixed),
            (None, "web_session", _) => ("web_session", name),
            (None, _, Some((sub_kind, name))) => (sub_kind, name),
            (None, _, None) => ("", name),
        };
        let metadata = Metadata { name: name.into(), namespace: resources::NAMESPACE.into(), ..Metadata::default() };
        ResourceHeader {
            kind: self.info.name.into(),
            sub_kind: sub_kind.into(),
            version: self.info.version.into(),
            metadata: Some(metadata),
        }
    }
}

/// Whether a resource meets the filter of whoever follows it.
fn passes(watched: &WatchedKind, resource: &event::Resource) -> bool {
    let filter = &watched.filter;
    if filter.is_empty() {
        return true;
    }
    let is = |key: &str, value: &str| filter.get(key).is_none_or(|wanted| wanted == value);
    let authority = |ca_type: &str, cluster: &str| filter.get(ca_type).is_some_and(|c| c == "*" || c == cluster);
    match resource {
        event::Resource::CertAuthority(ca) => {
            ca.spec.as_ref().is_some_and(|spec| authority(&spec.r#type, &spec.cluster_name))
        }
        event::Resource::ResourceHeader(h) if h.kind == "cert_authority" => {
            authority(&h.sub_kind, h.metadata.as_ref().map_or("", |m| &m.name))
        }
        event::Resource::AccessRequest(request) => {
            let id = request.metadata.as_ref().map_or("", |m| &m.name);
            let Some(spec) = &request.spec else { return false };
            let state = wire::types::RequestState::try_from(spec.state).map_or("", |s| s.as_str_name());
            is("id", id) && is("user", &spec.user) && is("state", state)
        }
        event::Resource::ResourceHeader(h) if h.kind == "access_request" => {
            is("id", h.metadata.as_ref().map_or("", |m| &m.name))
        }
        event::Resource::WebSession(session) => is("user", session.spec.as_ref().map_or("", |s| &s.user)),
        _ => true,
    }
}

impl Subscribers {
    pub(super) fn add(&mut self, kinds: Vec<WatchedKind>) -> Watch {
        let (sender, queue) = mpsc::channel(QUEUE);
        let kinds: Arc<HashMap<_, _>> = Arc::new(kinds.into_iter().map(|k| (k.kind.clone(), k)).collect());
        let overflowed = Arc::new(AtomicBool::new(false));
        self.0.push(Subscriber { kinds: kinds.clone(), queue: sender, overflowed: overflowed.clone() });
        Watch { kinds, queue, overflowed }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.iter().filter(|subscriber| !subscriber.queue.is_closed()).count()
    }

    /// Whether anybody follows a kind.
    pub(super) fn want(&self, kind: &str) -> bool {
        self.0.iter().any(|s| s.kinds.contains_key(kind))
    }

    pub(super) fn send(&mut self, change: Change) {
        if !change.info.watchable || !self.want(change.info.name) {
            return;
        }
        let change = Arc::new(change);
        self.0.retain(|subscriber| {
            if !subscriber.kinds.contains_key(change.info.name) {
                return !subscriber.queue.is_closed();
            }
            match subscriber.queue.try_send(change.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    subscriber.overflowed.store(true, Ordering::Release);
                    false
                }
            }
        });
    }

    /// Ends all following.
    pub(super) fn close(&mut self) {
        self.0.clear();
    }
}

impl Watch {
    /// The next change. Safe to cancel.
    ///
    /// # Errors
    /// `LimitExceeded` when this follower was too slow and `ConnectionProblem` when the resources were loaded anew:
    /// the caller follows again and lists again.
    pub async fn next(&mut self) -> Result<Event> {
        self.next_with_kind().await.map(|(_, event)| event)
    }

    /// The same, with the name of its kind.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub(crate) async fn next_with_kind(&mut self) -> Result<(&'static str, Event)> {
        while let Some(change) = self.queue.recv().await {
            if self.overflowed.load(Ordering::Acquire) {
                break;
            }
            let kind = change.info.name;
            if let Some(event) = self.kinds.get(kind).and_then(|watched| change.event(watched)) {
                return Ok((kind, event));
            }
        }
        if self.overflowed.load(Ordering::Acquire) {
            return Err(Error::limit_exceeded("watcher is too slow: changes had to be given up"));
        }
        Err(Error::connection_problem("watch was closed"))
    }
}
