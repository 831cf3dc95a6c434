//! One upload of one recording.

use std::{fs::File, io::ErrorKind as Io, path::Path, sync::Arc, time::Duration};

use audit::EventExt;
use futures::{FutureExt, StreamExt};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use wire::{
    error::ErrorKind,
    events::{OneOf, StreamStatus},
    proto::{self, AuditStreamRequest, audit_stream_request::Request},
};

use super::{StatusStream, UploadTarget, UploaderConfig};
use crate::{
    Error, EventStream, FormatError, Result, SessionId, Uploads,
    part_file::Bounded,
    tail::Tail,
    uploads::{Live, Progress},
};

/// How many events are under way to the other end at most.
const IN_FLIGHT: usize = 16;
/// Longer than any session.
const NO_HURRY: Duration = Duration::from_secs(365 * 24 * 3600);

/// How an upload went.
pub(super) enum Outcome {
    /// The other end has the recording, and the local copy is gone.
    Uploaded,
    /// There was nothing to upload.
    Gone,
    /// The recording is damaged; what could be read of it was uploaded.
    Corrupt(String),
}

/// A recording to upload.
pub(super) struct Source {
    events: Option<EventStream>,
    /// For a session that goes on.
    progress: Option<watch::Receiver<Progress>>,
    /// What of it is not in the file.
    tail: Option<Arc<Tail>>,
    /// The index of the last event read.
    last: i64,
    /// Read ahead.
    first: Option<OneOf>,
    damage: Option<FormatError>,
}

impl Source {
    /// A finished recording.
    pub fn finished(path: &Path) -> Result<Self> {
        let events = match File::open(path) {
            Ok(file) => Some(EventStream::from_file(file)?),
            Err(e) if e.kind() == Io::NotFound => None,
            Err(e) => return Err(Error::storage("open", path)(e)),
        };
        Ok(Self { events, progress: None, tail: None, last: -1, first: None, damage: None })
    }

    /// A recording that grows.
    pub fn following(live: &Live) -> Result<Self> {
        let events = match File::open(&live.file) {
            Ok(file) => {
                let progress = live.progress.clone();
                Some(EventStream::new(Bounded::new(file, move || progress.borrow().flushed)))
            }
            Err(e) if matches!(e.kind(), Io::NotFound | Io::NotADirectory) => None,
            Err(e) => return Err(Error::storage("open", &live.file)(e)),
        };
        let (progress, tail) = (Some(live.progress.clone()), Some(live.tail.clone()));
        Ok(Self { events, progress, tail, last: -1, first: None, damage: None })
    }

    /// Whether a part of the recording is in memory only.
    fn is_spilled(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.borrow().spilled)
    }

    /// The next event, waiting for it while the session goes on; `None` at the end, or where the damage begins.
    async fn next(&mut self) -> Result<Option<OneOf>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            // Asked before reading: what is flushed later is seen in the next round.
            let (over, spilled) = match &mut self.progress {
                Some(progress) => {
                    let now = progress.borrow_and_update();
                    (now.finished || now.failure.is_some(), now.spilled)
                }
                None => (true, false),
            };
            let read = match &mut self.events {
                Some(events) => events.next().await,
                None => Ok(None),
            };
            match read {
                Ok(Some(event)) => {
                    self.last = self.last.max(event.index());
                    return Ok(Some(event));
                }
                Ok(None) if spilled && let Some(tail) = &self.tail => {
                    let event = tail.next(self.last).await;
                    self.last = event.as_ref().map_or(self.last, EventExt::index);
                    return Ok(event);
                }
                Ok(None) if over => return Ok(None),
                Ok(None) => {}
                Err(Error::Format(e @ FormatError::Read(_))) => return Err(e.into()),
                Err(Error::Format(damage)) => {
                    self.damage = Some(damage);
                    return Ok(None);
                }
                Err(e) => return Err(e),
            }
            if let Some(progress) = &mut self.progress
                && progress.changed().await.is_err()
            {
                // The writer has gone without a word: recovery takes over.
                return Err(Error::Remote(wire::error::Error::other("the recorder has stopped")));
            }
        }
    }
}

/// Uploads a recording, from where the last attempt got to, and removes it.
pub(super) async fn upload(
    uploads: &Uploads,
    target: &dyn UploadTarget,
    config: &UploaderConfig,
    session: SessionId,
    mut source: Source,
) -> Result<Outcome> {
    source.first = source.next().await?;
    if source.first.is_none() {
        return set_aside_or_remove(uploads, session, &source);
    }
    let mut checkpoint = uploads.checkpoint(session);
    let transfer = loop {
        match Transfer::open(target, config, session, checkpoint.as_ref()).await {
            Err(Error::Remote(e)) if e.kind == ErrorKind::NotFound && checkpoint.is_some() => {
                // The other end has forgotten, or given up: from the start.
                uploads.clear_checkpoint(session)?;
                checkpoint = None;
            }
            other => break other?,
        }
    };
    transfer.run(uploads, session, &mut source).await?;
    set_aside_or_remove(uploads, session, &source)
}

fn set_aside_or_remove(uploads: &Uploads, session: SessionId, source: &Source) -> Result<Outcome> {
    if let Some(damage) = &source.damage {
        uploads.mark_corrupt(session, &damage.to_string())?;
        uploads.clear_checkpoint(session)?;
        return Ok(Outcome::Corrupt(damage.to_string()));
    }
    let tail = source.tail.as_ref().filter(|_| source.is_spilled());
    if source.events.is_none() && tail.is_none() {
        return Ok(Outcome::Gone);
    }
    uploads.remove(session)?;
    if let Some(tail) = tail {
        tail.arrived();
    }
    Ok(Outcome::Uploaded)
}

/// An open stream to the other end.
struct Transfer<'a> {
    config: &'a UploaderConfig,
    requests: mpsc::Sender<AuditStreamRequest>,
    statuses: StatusStream,
    status: StreamStatus,
}

fn request(request: Request) -> AuditStreamRequest {
    AuditStreamRequest { request: Some(request) }
}

fn problem(text: &str) -> Error {
    Error::Remote(wire::error::Error::connection_problem(text))
}

impl<'a> Transfer<'a> {
    /// Starts or resumes an upload and waits for the first answer.
    async fn open(
        target: &dyn UploadTarget,
        config: &'a UploaderConfig,
        session: SessionId,
        checkpoint: Option<&StreamStatus>,
    ) -> Result<Self> {
        let session_id = session.to_string();
        let first = match checkpoint {
            None => Request::CreateStream(proto::CreateStream { session_id }),
            Some(c) => Request::ResumeStream(proto::ResumeStream { session_id, upload_id: c.upload_id.clone() }),
        };
        let (requests, queue) = mpsc::channel(IN_FLIGHT);
        requests.try_send(request(first)).map_err(|_| problem("the upload's queue is closed"))?;
        let answer = async {
            let mut statuses = target.stream(queue).await?;
            let status = statuses.next().await;
            status
                .unwrap_or_else(|| Err(wire::error::Error::connection_problem("upload ended without an answer")))
                .map(|s| (s, statuses))
        };
        let answer = timeout(config.answer_timeout, answer).await.map_err(|_| problem("no answer to an upload"))?;
        let (mut status, statuses) = answer.map_err(Error::Remote)?;
        // Some servers name the last event they have only while the upload goes on, not when it is resumed.
        if let Some(known) = checkpoint
            && status.last_event_index < 0
        {
            status.last_event_index = known.last_event_index;
        }
        Ok(Self { config, requests, statuses, status })
    }

    /// Sends what the other end does not have, completes, and waits until it has ended the stream.
    async fn run(self, uploads: &Uploads, session: SessionId, source: &mut Source) -> Result<()> {
        let Self { config, requests, mut statuses, status } = self;
        uploads.set_checkpoint(session, &status)?;
        let tail = source.tail.clone();
        if let Some(tail) = &tail {
            tail.acknowledge(status.last_event_index);
        }
        let sending = send_all(config, requests, source, status.last_event_index).fuse();
        tokio::pin!(sending);
        let mut sent = false;
        loop {
            // A session that is followed may have nothing to say for hours.
            let patience = if sent { config.complete_timeout } else { NO_HURRY };
            let answer = tokio::select! {
                done = &mut sending, if !sent => {
                    done?;
                    sent = true;
                    continue;
                }
                answer = timeout(patience, statuses.next()) => {
                    answer.map_err(|_| problem("upload not completed in time"))?
                }
            };
            match answer {
                Some(Ok(status)) if status.last_event_index >= 0 => {
                    uploads.set_checkpoint(session, &status)?;
                    if let Some(tail) = &tail {
                        tail.acknowledge(status.last_event_index);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(Error::Remote(e)),
                None if sent => return Ok(()),
                None => return Err(problem("upload ended early")),
            }
        }
    }
}

/// Sends the events after `known`, and that there are no more.
async fn send_all(
    config: &UploaderConfig,
    requests: mpsc::Sender<AuditStreamRequest>,
    source: &mut Source,
    known: i64,
) -> Result<()> {
    let send = async |r: Request| match timeout(config.answer_timeout, requests.send(request(r))).await {
        Ok(Ok(())) => Ok(true),
        // The other end has hung up; its last words are among the answers.
        Ok(Err(_)) => Ok(false),
        Err(_) => Err(problem("upload takes no more events")),
    };
    let mut taken = true;
    while taken && let Some(event) = source.next().await? {
        taken = event.index() <= known || send(Request::Event(event)).await?;
    }
    if taken && send(Request::CompleteStream(proto::CompleteStream {})).await? {
        return Ok(());
    }
    sleep(config.answer_timeout).await;
    Err(problem("the other end has hung up on an upload"))
}
