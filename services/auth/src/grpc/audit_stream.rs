//! `CreateAuditStream`: recordings of sessions on their way from an agent into the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::audit::EventExt as _;
use futures::Stream;
use parking_lot::Mutex;
use recording::SessionId;
use resources::SystemRole;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
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
/// Streams of one host among them, so that none takes the place of all. A proxy records for many nodes.
const MAX_OF_NODE: usize = 512;
const MAX_OF_PROXY: usize = 2048;
/// How long an agent may take to read why its stream ends.
const LAST_WORD: Duration = Duration::from_secs(30);
/// Statuses that may wait for an agent.
const QUEUE: usize = 16;

/// Counts the streams in progress.
pub struct Streams {
    all: Arc<Semaphore>,
    of_hosts: Arc<Mutex<HashMap<String, usize>>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_STREAMS)), of_hosts: Arc::default() }
    }
}

/// The place of a stream; free again when dropped.
struct Place {
    host: String,
    of_hosts: Arc<Mutex<HashMap<String, usize>>>,
    _place: OwnedSemaphorePermit,
}

impl Streams {
    /// A place for a stream of this host, which may have so many.
    fn take(&self, host: &str, most: usize) -> Option<Place> {
        let place = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut of_hosts = self.of_hosts.lock();
        let count = of_hosts.entry(host.to_owned()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { host: host.to_owned(), of_hosts: Arc::clone(&self.of_hosts), _place: place })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of_hosts = self.of_hosts.lock();
        if let Some(count) = of_hosts.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                of_hosts.remove(&self.host);
            }
        }
    }
}

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
        session: &str,
    ) -> Result<impl Stream<Item = Result<OneOf>> + Send + 'static + use<>> {
        use futures::{StreamExt as _, TryStreamExt as _};
        let session: SessionId = session.parse().map_err(Error::from)?;
        // Another Auth Service may have made a key a moment ago.
        self.auth().follow_sealing().await?;
        let recordings = self.auth().recordings();
        let missing = match recordings.open(session).await {
            Ok(events) => return Ok(events.into_stream().left_stream().map_err(Error::from)),
            Err(missing @ recording::Error::NotFound(_)) => missing,
            Err(error) => return Err(error.into()),
        };
        if let Some(live) = recordings.follow(session).await? {
            return Ok(live.into_stream().right_stream().map_err(Error::from));
        }
        match self.auth().store().cached::<kind::SessionTracker>(&session.to_string()) {
            Ok(_) => Err(Error::not_found(format!(
                "{missing}: the session is running and its recording is not here yet; watch it with tsh join --mode=observer"
            ))),
            Err(_) => Err(missing.into()),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_host_takes_the_places_of_all_and_each_gets_its_own_back() {
        let streams = Streams::default();
        let held: Vec<_> = (0..3).map(|_| streams.take("greedy", 3).unwrap()).collect();
        assert!(streams.take("greedy", 3).is_none());
        assert!(streams.take("modest", 3).is_some());
        drop(held);
        drop(streams.take("greedy", 3).unwrap());
        assert!(streams.of_hosts.lock().is_empty());
    }
}
