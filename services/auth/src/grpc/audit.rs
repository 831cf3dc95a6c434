//! The audit log and recorded sessions: `teleport.auditlog.v1.AuditLogService` and its older calls.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use audit::{EventExt as _, Order, Query, SESSION_END_EVENTS, codes, origin};
use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use prost_types::Timestamp;
use resources::SystemRole;
use serde_json::{Value, json};
use tonic::{Request, Status};
use wire::auditlog::audit_log_service_server::AuditLogService;
use wire::auditlog::{
    EventUnstructured, EventsUnstructured, GetUnstructuredEventsRequest, StreamUnstructuredSessionEventsRequest,
};
use wire::error::{Error, Kinded, Result};
use wire::events::OneOf;
use wire::proto::{Events, GetEventsRequest, GetSessionEventsRequest, StreamSessionEventsRequest};

use super::sessions::check_id;
use super::{Answer, Api, Items, answer, open, stream};
use crate::authz::AuthContext;

/// What services that hold sessions say about them. Everything else is for the Auth Service itself to say.
const OF_SESSION_SERVICES: [&str; 21] = [
    "session.start",
    "session.join",
    "session.leave",
    "session.end",
    "session.rejected",
    "session.connect",
    "session.data",
    "session.command",
    "session.disk",
    "session.network",
    "session.upload",
    "session.process_exit",
    "resize",
    "exec",
    "scp",
    "sftp",
    "subsystem",
    "port",
    "x11-forward",
    "client.disconnect",
    "auth",
];

/// Stores an event of a service about itself and its sessions.
pub async fn emit_audit_event(api: &Api, context: &AuthContext, event: OneOf) -> Result<()> {
    check_origin(api, context, &event)?;
    check_owner(api, context, &event).await?;
    let sender = context.host_id().unwrap_or_default();
    api.taken().recall(api).await;
    if api.taken().contains(sender, event.uid()) {
        return Ok(());
    }
    let uid = event.uid().to_owned();
    let mut event = event;
    if let Some(metadata) = event.metadata_mut() {
        // When something happened is the sender's to say, but not that it has not happened yet.
        let now = api.auth().now();
        if wire::time::moment(metadata.time.as_ref()).is_some_and(|time| time > now + chrono::TimeDelta::minutes(10)) {
            metadata.time = Some(wire::time::timestamp(now));
        }
    }
    api.auth().emit(event).await?;
    api.taken().insert(sender, &uid);
    Ok(())
}

/// The latest events taken from each sender: what a sender delivers twice, because it did not hear the answer, is in
/// the log once.
#[derive(Default)]
pub struct Taken {
    marks: parking_lot::Mutex<(HashSet<u64>, VecDeque<u64>)>,
    /// Set when the events of an earlier process are among them.
    recalled: tokio::sync::OnceCell<()>,
}

/// How many events are remembered.
const REMEMBERED: usize = 65_536;
/// How many of those that an earlier process of this service has taken, and how old they may be.
const RECALLED: usize = 20_000;
const RECALLED_SPAN: chrono::TimeDelta = chrono::TimeDelta::hours(24);

impl Taken {
    /// Learns from the log what an earlier process has taken: a sender may not have heard of that.
    async fn recall(&self, api: &Api) {
        let recall = || async {
            let now = api.auth().now();
            let types = OF_SESSION_SERVICES;
            let mut query = Query::between(now - RECALLED_SPAN, now + chrono::TimeDelta::minutes(10)).of_types(types);
            let mut count = 0;
            while count < RECALLED {
                let page = match api.auth().audit_log().search(query.clone()).await {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::warn!(%error, "events taken earlier are not known: some may be stored twice");
                        break;
                    }
                };
                for entry in &page.events {
                    let text = |key: &str| entry.fields.get(key).and_then(Value::as_str).unwrap_or_default();
                    let forwarded = Some(text("forwarded_by")).filter(|by| !by.is_empty());
                    self.insert(forwarded.unwrap_or_else(|| text("server_id")), text("uid"));
                }
                count += page.events.len();
                if page.next.is_empty() {
                    break;
                }
                query.start_key = page.next;
            }
        };
        self.recalled.get_or_init(recall).await;
    }

    fn contains(&self, sender: &str, uid: &str) -> bool {
        !uid.is_empty() && self.marks.lock().0.contains(&Self::mark(sender, uid))
    }

    fn insert(&self, sender: &str, uid: &str) {
        let mark = Self::mark(sender, uid);
        let (known, order) = &mut *self.marks.lock();
        if !uid.is_empty() && known.insert(mark) {
            order.push_back(mark);
            if order.len() > REMEMBERED
                && let Some(oldest) = order.pop_front()
            {
                known.remove(&oldest);
            }
        }
    }

    /// A sender cannot make events of others vanish: its own name is part of the mark.
    fn mark(sender: &str, uid: &str) -> u64 {
        let mut bytes = [0; 8];
        let digest = digest::digest(&digest::SHA256, format!("{sender}/{uid}").as_bytes());
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        u64::from_be_bytes(bytes)
    }
}

/// Checks that an event speaks of its sender, of this cluster and of a well-named session, and that services say it.
pub fn check_origin(api: &Api, context: &AuthContext, event: &OneOf) -> Result<()> {
    let refused = |text: &str| Error::access_denied(format!("failed to validate event metadata: {text}"));
    if !OF_SESSION_SERVICES.contains(&event.name()) && event.name() != "print" && !context.is_admin() {
        return Err(refused("services do not emit such events"));
    }
    let cluster = event.metadata().map_or("", |metadata| metadata.cluster_name.as_str());
    if !cluster.is_empty() && cluster != api.auth().cluster_name() {
        return Err(refused("the event is of another cluster"));
    }
    let host_id = context.host_id().ok_or_else(|| refused("only services emit events"))?;
    origin::check(event, host_id, context.has_role(SystemRole::Proxy)).map_err(|error| kinded(&error))?;
    match event.session().map(|session| session.session_id.as_str()) {
        None | Some("") => Ok(()),
        Some(id) => check_id(id),
    }
}

/// Checks that a session which another service has registered is not spoken of.
async fn check_owner(api: &Api, context: &AuthContext, event: &OneOf) -> Result<()> {
    let Some(session) = event.session().map(|session| session.session_id.as_str()).filter(|id| !id.is_empty()) else {
        return Ok(());
    };
    if context.has_role(SystemRole::Proxy) || context.is_admin() {
        return Ok(());
    }
    let Ok(tracker) = api.auth().get_session_tracker(session).await else { return Ok(()) };
    let host_id = tracker.spec.map(|spec| spec.host_id).unwrap_or_default();
    if host_id.is_empty() || context.is_host(&host_id) {
        Ok(())
    } else {
        Err(Error::access_denied("failed to validate event metadata: the session is of another server"))
    }
}

pub async fn get_events(api: &Api, _: &AuthContext, message: GetEventsRequest) -> Result<Events> {
    let order =
        if message.order == wire::proto::Order::Ascending as i32 { Order::Ascending } else { Order::Descending };
    let span = (message.start_date.as_ref(), message.end_date.as_ref());
    let query = query(api, span, message.limit, message.start_key, order)?.of_types(message.event_types);
    search(api, query).await
}

/// The ends of recorded sessions that the caller's roles let him see.
pub async fn get_session_events(
    api: &Api,
    context: &Arc<AuthContext>,
    message: GetSessionEventsRequest,
) -> Result<Events> {
    let order =
        if message.order == wire::proto::Order::Ascending as i32 { Order::Ascending } else { Order::Descending };
    let span = (message.start_date.as_ref(), message.end_date.as_ref());
    let mut query = query(api, span, message.limit, message.start_key, order)?.of_types(SESSION_END_EVENTS);
    let all = context.require("session", &["list"]).is_ok();
    let context = Arc::clone(context);
    query.filter = Some(Arc::new(move |fields| {
        if is_recorded_elsewhere(fields) {
            return false;
        }
        let session = || Value::Object(fields.clone());
        all || context.require_on("session", &["list"], ("session", &session())).is_ok()
    }));
    search(api, query).await
}

/// Whether a node speaks of a session that its proxy records: the proxy speaks of it as well.
fn is_recorded_elsewhere(fields: &serde_json::Map<String, Value>) -> bool {
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
    text("session_recording").starts_with("proxy") && text("forwarded_by").is_empty()
}

/// The events of a recording, from an index on.
pub async fn stream_session_events(
    api: &Api,
    context: &AuthContext,
    message: StreamSessionEventsRequest,
) -> Result<impl Stream<Item = Result<OneOf, Status>> + Send + 'static + use<>> {
    let events = recording(api, context, &message.session_id).await?;
    let start = i64::from(message.start_index);
    Ok(events.try_filter(move |event| std::future::ready(event.index() >= start)).map_err(Status::from))
}

#[tonic::async_trait]
impl AuditLogService for Api {
    async fn stream_unstructured_session_events(
        &self,
        request: Request<StreamUnstructuredSessionEventsRequest>,
    ) -> Answer<Items<EventUnstructured>> {
        let (context, message) = open(request)?;
        let start = i64::from(message.start_index);
        let events = recording(self, &context, &message.session_id).await;
        stream(events.map(|events| {
            events.try_filter(move |event| std::future::ready(event.index() >= start)).map(|event| {
                let event = event.map_err(Status::from)?;
                audit::json::unstructured(&event).map_err(|error| kinded(&error).into())
            })
        }))
    }

    async fn get_unstructured_events(
        &self,
        request: Request<GetUnstructuredEventsRequest>,
    ) -> Answer<EventsUnstructured> {
        let (_, message) = open(request)?;
        answer(unstructured(self, message).await)
    }
}

async fn unstructured(api: &Api, message: GetUnstructuredEventsRequest) -> Result<EventsUnstructured> {
    let order = match wire::auditlog::Order::try_from(message.order) {
        Ok(wire::auditlog::Order::Ascending) => Order::Ascending,
        _ => Order::Descending,
    };
    let span = (message.start_date.as_ref(), message.end_date.as_ref());
    let query = query(api, span, message.limit, message.start_key, order)?.of_types(message.event_types);
    let page = api.auth().audit_log().search(query).await.map_err(|error| kinded(&error))?;
    Ok(EventsUnstructured { items: page.events.iter().map(audit::Entry::unstructured).collect(), last_key: page.next })
}

fn query(
    api: &Api,
    (from, to): (Option<&Timestamp>, Option<&Timestamp>),
    limit: i32,
    start_key: String,
    order: Order,
) -> Result<Query> {
    let from = wire::time::moment(from).unwrap_or(DateTime::UNIX_EPOCH);
    let to = wire::time::moment(to).unwrap_or_else(|| api.auth().now());
    let limit = usize::try_from(limit.max(0)).unwrap_or_default();
    Ok(Query { limit, start_key, order, ..Query::between(from, to) })
}

async fn search(api: &Api, query: Query) -> Result<Events> {
    let page = api.auth().audit_log().search(query).await.map_err(|error| kinded(&error))?;
    Ok(Events { items: page.events.iter().map(audit::Entry::event).collect(), last_key: page.next })
}

/// The events of a recording that the caller may see; seeing it is an event itself.
async fn recording(
    api: &Api,
    context: &AuthContext,
    session: &str,
) -> Result<impl Stream<Item = Result<OneOf>> + Send + 'static + use<>> {
    check_id(session)?;
    require_recording(api, context, session).await?;
    let events = api.recorded_events(context, session).await?;
    if !context.is_service() {
        let access = wire::events::SessionRecordingAccess {
            session_id: session.to_owned(),
            user_metadata: Some(context.caller().user_metadata()),
            ..Default::default()
        };
        api.auth().emit(codes::SESSION_RECORDING_ACCESS.event(access)).await?;
    }
    Ok(events)
}

/// A service sees the recordings of its own sessions, a proxy and the administrator all, people those that their
/// roles let them see, by what the end of the session says about it.
async fn require_recording(api: &Api, context: &AuthContext, session: &str) -> Result<()> {
    if context.is_admin() || context.has_role(SystemRole::Proxy) {
        return Ok(());
    }
    if context.is_service() {
        return match api.recording_owner(session).await? {
            Some(owner) if context.is_host(&owner) => Ok(()),
            _ => Err(Error::access_denied("access denied: the recording is of another server")),
        };
    }
    if context.require("session", &["read"]).is_ok() {
        return Ok(());
    }
    let known = session_fields(api, session).await?;
    context.require_on("session", &["read"], ("session", &known))
}

/// What is known about a session: its end, else its start with the one participant it names.
async fn session_fields(api: &Api, session: &str) -> Result<Value> {
    let now = api.auth().now();
    let mut query = Query::between(DateTime::<Utc>::UNIX_EPOCH, now)
        .of_types(SESSION_END_EVENTS.into_iter().chain(["session.start"]));
    query.session = Some(session.to_owned());
    query.limit = 8;
    let page = api.auth().audit_log().search(query).await.map_err(|error| kinded(&error))?;
    let of = |ends: bool| {
        page.events.iter().find(|entry| {
            let name = entry.fields.get("event").and_then(Value::as_str).unwrap_or_default();
            SESSION_END_EVENTS.contains(&name) == ends
        })
    };
    if let Some(end) = of(true) {
        return Ok(Value::Object(end.fields.clone()));
    }
    let Some(start) = of(false) else {
        return Ok(json!({ "sid": session }));
    };
    let mut fields = start.fields.clone();
    let participants = fields.get("user").cloned().into_iter().collect();
    fields.insert("participants".to_owned(), Value::Array(participants));
    Ok(Value::Object(fields))
}

/// An error of the audit log as callers read it.
pub fn kinded(error: &impl Kinded) -> Error {
    Error::new(error.kind(), error.to_string())
}
