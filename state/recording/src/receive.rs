//! The Auth Service's end of an upload.

use std::{str::FromStr, time::Duration};

use audit::EventExt;
use futures::{Stream, StreamExt};
use tokio::{
    sync::mpsc::{self, error::SendTimeoutError},
    time::{Instant, sleep_until},
};
use wire::{
    error::{Error, ErrorKind},
    events::{OneOf, StreamStatus},
    proto::{AuditStreamRequest, audit_stream_request::Request},
};

use crate::{Recording, SessionId, Store, Upload, UploadId};

/// How long an event stays in memory at most before it is durable and acknowledged.
const FLUSH_DELAY: Duration = Duration::from_secs(1);
/// How long a caller may leave the answers unread. What it sends is acknowledged to nobody then.
const UNREAD: Duration = Duration::from_secs(60);

/// Receives one call of `CreateAuditStream`: answers with statuses as events become durable, and ends with the
/// recording once the caller has completed it. `None` means that the caller went away, or closed the stream without
/// completing it; the upload can be resumed.
///
/// `check` decides whether the caller may say what an event says; its first refusal ends the stream. Events that name
/// another session than the stream's are refused here.
///
/// # Errors
///
/// [`ErrorKind::BadParameter`] for requests out of order and events of other sessions, [`ErrorKind::NotFound`] for an
/// unknown upload, whatever `check` says, and the store's failures. The upload can be resumed afterwards.
pub async fn receive<S, E>(
    store: &dyn Store,
    mut requests: S,
    statuses: &mpsc::Sender<Result<StreamStatus, E>>,
    check: impl Fn(SessionId, &OneOf) -> Result<(), Error>,
) -> Result<Option<Recording>, Error>
where
    S: Stream<Item = Result<AuditStreamRequest, E>> + Unpin,
{
    let first = match requests.next().await {
        Some(Ok(request)) => request.request,
        Some(Err(_)) | None => return Ok(None),
    };
    let (session, mut upload) = open(store, first).await?;
    let mut reported = i64::MIN;
    let mut deadline: Option<Instant> = None;
    loop {
        let status = upload.status();
        if status.last_event_index > reported {
            reported = status.last_event_index;
            // A caller that has hung up is noticed by the next request.
            if let Err(SendTimeoutError::Timeout(_)) = statuses.send_timeout(Ok(status), UNREAD).await {
                return Err(Error::connection_problem("the caller does not read the answers of its upload"));
            }
        }
        let flush_at = deadline.unwrap_or_else(Instant::now);
        let request = tokio::select! {
            request = requests.next() => request,
            () = sleep_until(flush_at), if deadline.is_some() => {
                deadline = None;
                upload.flush().await?;
                continue;
            }
        };
        match request.map(|r| r.map(|r| r.request)) {
            Some(Ok(Some(Request::Event(event)))) => {
                belongs(session, &event)?;
                check(session, &event)?;
                upload.write(&event).await?;
                deadline.get_or_insert_with(|| Instant::now() + FLUSH_DELAY);
            }
            Some(Ok(Some(Request::CompleteStream(_)))) => return Ok(Some(upload.complete().await?)),
            Some(Ok(Some(Request::FlushAndCloseStream(_)))) | Some(Err(_)) | None => {
                upload.flush().await?;
                let status = upload.status();
                if status.last_event_index > reported {
                    statuses.send_timeout(Ok(status), UNREAD).await.ok();
                }
                return Ok(None);
            }
            Some(Ok(Some(Request::CreateStream(_) | Request::ResumeStream(_)))) => {
                return Err(Error::bad_parameter("the stream has been created already"));
            }
            Some(Ok(None)) => return Err(Error::bad_parameter("empty request in an audit stream")),
        }
    }
}

/// Starts or resumes the upload that the first request names.
async fn open(store: &dyn Store, first: Option<Request>) -> Result<(SessionId, Box<dyn Upload>), Error> {
    match first {
        Some(Request::CreateStream(r)) => {
            let session = SessionId::from_str(&r.session_id)?;
            Ok((session, store.create(session).await?))
        }
        Some(Request::ResumeStream(r)) => {
            let session = SessionId::from_str(&r.session_id)?;
            // An id of another form is one this store has never given out.
            let unknown = |_| Error::new(ErrorKind::NotFound, format!("upload of session {session} was not found"));
            let upload = UploadId::from_str(&r.upload_id).map_err(unknown)?;
            Ok((session, store.resume(session, upload).await?))
        }
        _ => Err(Error::bad_parameter("an audit stream begins with creating or resuming an upload")),
    }
}

/// Refuses events of other sessions.
fn belongs(session: SessionId, event: &OneOf) -> Result<(), Error> {
    match event.session() {
        Some(named) if !named.session_id.is_empty() && named.session_id != session.to_string() => {
            Err(Error::bad_parameter(format!("event of another session in the recording of session {session}")))
        }
        _ => Ok(()),
    }
}
