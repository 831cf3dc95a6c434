//! `CreateAuditStream`: recordings of sessions on their way from an agent into the store.

use std::sync::Arc;

use ::audit::EventExt as _;
use futures::Stream;
use recording::SessionId;
use resources::SystemRole;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wire::error::{Error, Result};
use wire::events::{OneOf, StreamStatus};
use wire::proto::AuditStreamRequest;

use super::{Api, audit};
use crate::authz::AuthContext;
use crate::store::kind;

/// Streams served at a time; each holds a buffer for the events that are not durable yet.
const MAX_STREAMS: usize = 4096;
/// Statuses that may wait for an agent.
const QUEUE: usize = 16;

/// Counts the streams in progress.
pub struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STREAMS)))
    }
}

/// Takes a recording. The stream ends well only after the recording is durable, because the agent then removes its
/// own copy.
pub async fn create_audit_stream(
    api: &Api,
    context: &Arc<AuthContext>,
    mut requests: Streaming<AuditStreamRequest>,
) -> Result<impl Stream<Item = Result<StreamStatus, Status>> + Send + 'static + use<>> {
    let permit = Arc::clone(&api.streams().0)
        .try_acquire_owned()
        .map_err(|_| Error::connection_problem("too many concurrent CreateAuditStream operations, try again later"))?;
    let (statuses, answers) = mpsc::channel(QUEUE);
    let (api, context) = (api.clone(), Arc::clone(context));
    let tasks = api.auth().tasks().clone();
    tasks.spawn(async move {
        let _permit = permit;
        let check = |session: SessionId, event: &OneOf| check(&api, &context, session, event);
        let outcome = recording::receive(api.auth().recordings(), &mut requests, &statuses, check).await;
        let outcome = match outcome {
            Ok(Some(recording)) => announce(&api, &recording).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::info!(caller = %context.username(), %error, "recording not taken");
            let _ = statuses.send(Err(error.into())).await;
        }
    });
    Ok(ReceiverStream::new(answers))
}

impl Api {
    /// The events of a recording.
    pub(super) async fn recorded_events(
        &self,
        session: &str,
    ) -> Result<impl Stream<Item = Result<OneOf>> + Send + 'static + use<>> {
        use futures::TryStreamExt as _;
        let session: SessionId = session.parse().map_err(Error::from)?;
        let events = self.auth().recordings().open(session).await?;
        Ok(events.into_stream().map_err(Error::from))
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

    fn streams(&self) -> &Streams {
        &self.0.streams
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
