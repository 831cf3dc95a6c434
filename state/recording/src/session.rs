//! Records a running session on disk.
//!
//! Whoever runs the session hands over output and events and goes on; a task of its own turns them into parts. The
//! queue between them is small and bounded: when the disk is slower than the terminal, the terminal waits a moment,
//! and when the disk has stopped, recording fails and says so.

mod queue;
mod write;

use std::{sync::Arc, time::Duration};

use audit::{Clock, EventExt, event::prepare};
use tokio::{sync::watch, time::timeout};
use wire::events::OneOf;

use crate::{
    Error, Result, SessionId, Uploads,
    part_file::PartFile,
    tail::Tail,
    uploads::{Live, Progress},
};
use queue::{Queue, Room};

/// How long output stays in memory at most before it is in a file: what a killed process loses.
pub const FLUSH_DELAY: Duration = Duration::from_millis(750);
/// How long a session waits for a disk that takes no data before its recording has failed.
const STALL: Duration = Duration::from_secs(5);

/// Whose session it is.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The session.
    pub session: SessionId,
    /// The id of the host that runs it.
    pub server_id: String,
    /// The cluster it belongs to.
    pub cluster: String,
    /// Where event times come from.
    pub clock: Clock,
}

/// Completes the events of one session and numbers them.
#[derive(Debug)]
pub struct Stamper {
    info: SessionInfo,
    next: i64,
}

impl Stamper {
    /// Numbers events from 0.
    pub fn new(info: SessionInfo) -> Self {
        Self { info, next: 0 }
    }

    /// Completes an event and gives it the next number.
    ///
    /// # Errors
    ///
    /// [`Error::Event`] for an event without content, name or code.
    pub fn stamp(&mut self, mut event: OneOf) -> Result<OneOf> {
        if let Some(session) = event.session_mut()
            && session.session_id.is_empty()
        {
            session.session_id = self.info.session.to_string();
        }
        if let Some(server) = event.server_mut() {
            if server.server_id.is_empty() {
                server.server_id.clone_from(&self.info.server_id);
            }
            if server.server_namespace.is_empty() {
                server.server_namespace = "default".into();
            }
        }
        prepare(&mut event, &self.info.cluster, self.info.clock.now())?;
        if let Some(metadata) = event.metadata_mut() {
            metadata.index = self.next;
        }
        self.next += 1;
        Ok(event)
    }
}

/// Records one session. Dropping it completes the recording as [`Self::finish`] does, without waiting.
pub struct SessionWriter {
    session: SessionId,
    queue: Arc<Queue>,
    progress: watch::Receiver<Progress>,
}

impl SessionWriter {
    /// Starts a recording in `uploads`. With `follow`, its upload goes on while the session runs, and does without the
    /// disk when that takes no more.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`], among others when the disk is full and `follow` is not set.
    pub async fn create(uploads: &Uploads, info: SessionInfo, follow: bool) -> Result<Self> {
        let session = info.session;
        let path = uploads.multi().join(crate::UploadId::random().to_string()).join(session.to_string()).join("1.part");
        let make = {
            let path = path.clone();
            move || PartFile::create(path)
        };
        let made =
            tokio::task::spawn_blocking(make).await.map_err(|e| Error::Failed { session, reason: e.to_string() })?;
        let file = match made {
            Ok(file) => Some(file),
            Err(error) if follow => {
                tracing::warn!(%session, %error, "the disk takes no recording: it is streamed from memory");
                None
            }
            Err(error) => return Err(error),
        };
        let (report, progress) = watch::channel(Progress { spilled: file.is_none(), ..Progress::default() });
        let queue = Arc::new(Queue::new(info, true));
        let tail = follow.then(|| Arc::new(Tail::new()));
        if let Some(tail) = tail.clone() {
            uploads.add_live(session, Live { file: path, progress: progress.clone(), tail });
        }
        let places = write::Places { file, tail };
        tokio::spawn(write::run(session, queue.clone(), uploads.clone(), places, report));
        Ok(Self { session, queue, progress })
    }

    /// Numbers the events of a session that is not recorded, and forgets its output.
    pub fn discard(info: SessionInfo) -> Self {
        let (_, progress) = watch::channel(Progress { finished: true, ..Progress::default() });
        Self { session: info.session, queue: Arc::new(Queue::new(info, false)), progress }
    }

    /// Records what the terminal shows. Waits while the queue is full, for a few seconds at most.
    ///
    /// # Errors
    ///
    /// [`Error::Stalled`] and [`Error::Failed`]; nothing more is recorded then, and the session's policy decides
    /// whether it goes on.
    pub async fn output(&self, data: &[u8]) -> Result<()> {
        for chunk in data.chunks(queue::PRINT_BYTES) {
            loop {
                let room = self.queue.room();
                tokio::pin!(room);
                room.as_mut().enable();
                match self.queue.push_output(chunk) {
                    Ok(Room::Taken) => break,
                    Ok(Room::Full) => {}
                    Err(reason) => return Err(Error::Failed { session: self.session, reason }),
                }
                if timeout(STALL, room).await.is_err() {
                    self.queue.fail("the disk does not keep up");
                    return Err(Error::Stalled(self.session));
                }
            }
        }
        Ok(())
    }

    /// Records an event and returns it complete and numbered, to be emitted to the audit log as well. It does not
    /// wait, and it works after recording has failed: the log needs the event all the same.
    ///
    /// # Errors
    ///
    /// [`Error::Event`] for an event without content, name or code.
    pub fn record(&self, event: OneOf) -> Result<OneOf> {
        self.queue.push_event(event)
    }

    /// Completes and numbers an event that belongs to the session but not into its recording.
    ///
    /// # Errors
    ///
    /// As [`Self::record`].
    pub fn stamp(&self, event: OneOf) -> Result<OneOf> {
        self.queue.stamp(event)
    }

    /// Waits until recording fails, and says why. Never ends as long as it works.
    pub async fn failed(&self) -> Error {
        let mut progress = self.progress.clone();
        match progress.wait_for(|p| p.failure.is_some()).await {
            Ok(progress) => {
                Error::Failed { session: self.session, reason: progress.failure.clone().unwrap_or_default() }
            }
            // The recording has ended without failing.
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends the recording and hands it to the uploader. It is complete on disk when this returns, or at the other end if
    /// the disk did not take it.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] when recording has failed before, or now; what was recorded is kept and uploaded.
    pub async fn finish(&self) -> Result<()> {
        self.queue.close();
        let failed = |reason: String| Err(Error::Failed { session: self.session, reason });
        let mut progress = self.progress.clone();
        match progress.wait_for(|p| p.finished || p.failure.is_some()).await {
            Ok(progress) => progress.failure.clone().map_or(Ok(()), failed),
            Err(_) => failed("its task has ended".into()),
        }
    }
}

impl Drop for SessionWriter {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests;
