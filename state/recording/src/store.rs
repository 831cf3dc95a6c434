//! Where the Auth Service keeps recordings.

use async_trait::async_trait;
use audit::{codes, event::UPLOAD_INDEX};
use chrono::{DateTime, Utc};
use wire::events::{Metadata, OneOf, SessionMetadata, SessionUpload, StreamStatus};

use crate::{EventStream, Result, SessionId, Summary, UploadId};

/// A place for recordings. A recording comes in as an upload, which survives a lost connection and a restart, and
/// becomes visible when it is complete.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Starts the upload of a session's recording.
    async fn create(&self, session: SessionId) -> Result<Box<dyn Upload>>;

    /// Goes on with an upload.
    ///
    /// # Errors
    ///
    /// [`crate::Error::UploadNotFound`] when there is none of this id, or it has been completed.
    async fn resume(&self, session: SessionId, upload: UploadId) -> Result<Box<dyn Upload>>;

    /// The events of a complete recording.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NotFound`].
    async fn open(&self, session: SessionId) -> Result<EventStream>;

    /// The events of a recording that has not been completed: those so far, then those that follow, until its upload
    /// ends. `None` when there is none of this session.
    async fn follow(&self, session: SessionId) -> Result<Option<EventStream>>;

    /// The uploads that have not been completed.
    async fn unfinished(&self) -> Result<Vec<Unfinished>>;

    /// Removes complete recordings that were last changed before a moment; returns how many. Object stores remove by
    /// rules of their own.
    async fn remove_before(&self, moment: DateTime<Utc>) -> Result<usize> {
        let _ = moment;
        Ok(0)
    }

    /// Finishes what a crash or an outage has left of uploads that were complete; returns those recordings. One that
    /// cannot be finished keeps no other from it, and is tried again the next time.
    async fn settle(&self) -> Result<Vec<Recording>> {
        Ok(Vec::new())
    }
}

/// An upload under way. Dropping it keeps what was flushed, to be resumed.
#[async_trait]
pub trait Upload: Send {
    /// How far the upload has come: what is in here is durable.
    fn status(&self) -> StreamStatus;

    /// Adds an event. It may stay in memory until enough has come together, or [`Self::flush`] is called.
    async fn write(&mut self, event: &OneOf) -> Result<()>;

    /// Makes everything added durable.
    async fn flush(&mut self) -> Result<()>;

    /// Ends the upload: the recording can be opened afterwards.
    ///
    /// A recording of the same session that is there already stays, unless the new one is the same and longer.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Conflict`] when a different recording is there already.
    async fn complete(self: Box<Self>) -> Result<Recording>;
}

/// A complete recording.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The session.
    pub session: SessionId,
    /// Where it is, for people: `file:///var/lib/teleport/log/records/….tar`.
    pub url: String,
    /// Its outline; without events there is no recording.
    pub summary: Summary,
}

impl Recording {
    /// The `session.upload` event that announces the recording; `None` when it is empty.
    pub fn upload_event(&self) -> Option<OneOf> {
        (self.summary.events > 0).then(|| upload_event(self.session, &self.url))
    }
}

/// An upload that has not been completed.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// The session.
    pub session: SessionId,
    /// The upload.
    pub upload: UploadId,
    /// When something was last added.
    pub modified: Option<DateTime<Utc>>,
    /// Whether somebody is adding to it now.
    pub busy: bool,
}

/// The `session.upload` event for a recording that is at `url` now.
pub fn upload_event(session: SessionId, url: &str) -> OneOf {
    codes::SESSION_UPLOAD.event(SessionUpload {
        metadata: Some(Metadata { index: UPLOAD_INDEX, ..Metadata::default() }),
        session_metadata: Some(SessionMetadata { session_id: session.to_string(), ..SessionMetadata::default() }),
        session_url: url.to_owned(),
    })
}
