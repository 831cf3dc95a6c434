//! `CreateAuditStream`: recordings of sessions on their way from an agent into the store.

use std::sync::Arc;
use std::time::Duration;

use ::audit::EventExt as _;
use futures::Stream;
use recording::SessionId;
use resources::SystemRole;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wire::error::{Error, Result};
use wire::events::{OneOf, StreamStatus};
use wire::proto::AuditStreamRequest;

use super::{Api, audit};
use crate::authz::AuthContext;
use crate::store::kind;

/// Streams served at a time; each holds a buffer for the events that are not durable yet.
pub const MAX_STREAMS: usize = 4096;
/// Streams of one host among them, so that none takes the place of all. A proxy records for many nodes.
const MAX_OF_NODE: usize = 512;
const MAX_OF_PROXY: usize = 2048;
/// Recordings of running sessions that are watched at a time; each holds a file and looks for more all the time.
pub const MAX_FOLLOWED: usize = 1024;
/// Those that one user watches among them.
const MAX_OF_USER: usize = 64;
/// How long an agent may take to read why its stream ends.
const LAST_WORD: Duration = Duration::from_secs(30);
/// Statuses that may wait for an agent.
const QUEUE: usize = 16;

/// Takes a recording. The stream ends well only after the recording is durable, because the agent then removes its
/// own copy.
pub async fn create_audit_stream(
    api: &Api,
    context: &Arc<AuthContext>,
    mut requests: Streaming<AuditStreamRequest>,
) -> Result<impl Stream<Item = Result<StreamStatus, Status>> + Send + 'static + use<>> {
    let most = if context.has_role(SystemRole::Proxy) { MAX_OF_PROXY } else { MAX_OF_NODE };
    let place = api.0.streams.take(context.host_id().unwrap_or_default(), most);
    let place = place.ok_or_else(|| {
        Error::connection_problem("too many concurrent CreateAuditStream operations, try again later")
    })?;
    let (statuses, answers) = mpsc::channel(QUEUE);
    let (api, context) = (api.clone(), Arc::clone(context));
    let tasks = api.auth().tasks().clone();
    tasks.spawn(async move {
        let _place = place;
        let check = |session: SessionId, event: &OneOf| check(&api, &context, session, event);
        let outcome = recording::receive(api.auth().recordings(), &mut requests, &statuses, check).await;
        let outcome = match outcome {
            Ok(Some(recording)) => announce(&api, &recording).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::info!(caller = %context.username(), %error, "recording not taken");
            // Whoever reads no answers reads no error either.
            let _ = statuses.send_timeout(Err(error.into()), LAST_WORD).await;
        }
    });
    Ok(ReceiverStream::new(answers))
}

impl Api {
    /// The events of a recording. One that is on its way from a running session goes on until that ends.
    pub(super) async fn recorded_events(
        &self,
        context: &AuthContext,
        session: &str,
    ) -> Result<impl Stream<Item = Result<OneOf>> + Send + 'static + use<>> {
        use futures::StreamExt as _;
        let session: SessionId = session.parse().map_err(Error::from)?;
        // Another Auth Service may have made a key a moment ago. Should that not be known, most recordings can be read.
        if let Err(error) = self.auth().follow_sealing().await {
            tracing::warn!(%error, "the keys of recordings could not be read, going on with those that are known");
        }
        let recordings = self.auth().recordings();
        let (events, place) = match recordings.open(session).await {
            Ok(events) => (events, None),
            Err(missing @ recording::Error::NotFound(_)) => {
                let most = if context.is_service() { MAX_FOLLOWED } else { MAX_OF_USER };
                let place = self.0.followed.take(context.username(), most).ok_or_else(|| {
                    Error::limit_exceeded(format!(
                        "too many recordings of running sessions are being watched (at most {MAX_OF_USER} by one user): \
                         try again later, or watch the session with tsh join --mode=observer"
                    ))
                })?;
                match recordings.follow(session).await? {
                    Some(events) => (events, Some(place)),
                    None => return Err(self.not_here(session, missing)),
                }
            }
            Err(error) => return Err(error.into()),
        };
        Ok(events.into_stream().map(move |event| {
            let _until_the_end = &place;
            event.map_err(Error::from)
        }))
    }

    /// Why there is no recording.
    fn not_here(&self, session: SessionId, missing: recording::Error) -> Error {
        match self.auth().store().cached::<kind::SessionTracker>(&session.to_string()) {
            Ok(_) => Error::not_found(format!(
                "{missing}: the session is running and its recording is not here yet; watch it with tsh join --mode=observer"
            )),
            Err(_) => missing.into(),
        }
    }

    /// The host that recorded a session, by the first event that says; `None` when there is no recording.
    pub(super) async fn recording_owner(&self, session: &str) -> Result<Option<String>> {
        let session: SessionId = session.parse().map_err(Error::from)?;
        let Ok(mut events) = self.auth().recordings().open(session).await else { return Ok(None) };
        while let Some(event) = events.next().await? {
            if let Some(server) = event.server() {
                let recorder = if server.forwarded_by.is_empty() { &server.server_id } else { &server.forwarded_by };
                return Ok(Some(recorder.clone()));
            }
        }
        Ok(None)
    }
}

/// A recording holds what its recorder may say, about a session that no other server has registered.
fn check(api: &Api, context: &AuthContext, session: SessionId, event: &OneOf) -> Result<()> {
    audit::check_origin(api, context, event)?;
    if context.has_role(SystemRole::Proxy) || context.is_admin() {
        return Ok(());
    }
    match api.auth().store().cached::<kind::SessionTracker>(&session.to_string()) {
        Ok(tracker) if tracker.spec.as_ref().is_some_and(|spec| !context.is_host(&spec.host_id)) => {
            Err(Error::access_denied("the session is of another server"))
        }
        _ => Ok(()),
    }
}

/// Tells the audit log where a new recording is.
async fn announce(api: &Api, recording: &recording::Recording) -> Result<()> {
    match recording.upload_event() {
        Some(event) => api.auth().emit(event).await,
        None => Ok(()),
    }
}
