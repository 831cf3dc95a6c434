//! The folder of an agent where recordings wait for their upload.
//!
//! `<data_dir>/log/upload/streaming/default/` holds, for a session being recorded,
//! `multi/<upload id>/<session id>/1.part`, a file that grows part by part; for a finished one `<session id>.tar`, with
//! `<session id>.checkpoint` beside it once its upload has begun and `<session id>.error` when it cannot be uploaded.
//! The latter two are moved to `<data_dir>/log/upload/corrupted/default/`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use wire::events::StreamStatus;

use crate::{
    Error, Result, SessionId,
    part_file::{make_folders, names_in, remove_file, sync_folder},
    tail::Tail,
};

/// The folder, shared by whoever records and whoever uploads.
#[derive(Clone)]
pub struct Uploads {
    inner: Arc<Inner>,
}

struct Inner {
    pending: PathBuf,
    corrupted: PathBuf,
    /// Tells the uploader that there is something to do.
    wake: Notify,
    live: Mutex<BTreeMap<SessionId, Live>>,
    /// How far the uploads have come, whether or not the disk has taken that.
    checkpoints: Mutex<BTreeMap<SessionId, StreamStatus>>,
}

/// A session being recorded whose upload follows it.
#[derive(Clone)]
pub(crate) struct Live {
    /// The file that grows.
    pub file: PathBuf,
    /// How far it has grown.
    pub progress: watch::Receiver<Progress>,
    /// What did not fit on the disk.
    pub tail: Arc<Tail>,
}

/// How far a recording has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of whole parts in the file.
    pub flushed: u64,
    /// Whether what follows is in memory.
    pub spilled: bool,
    /// Whether the recording is complete.
    pub finished: bool,
    /// Why nothing more is recorded.
    pub failure: Option<String>,
}

impl Uploads {
    /// Opens the folder below a data directory, or makes it.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn open(data_dir: &Path) -> Result<Self> {
        let upload = data_dir.join("log/upload");
        let (pending, corrupted) = (upload.join("streaming/default"), upload.join("corrupted/default"));
        make_folders(&pending)?;
        make_folders(&corrupted)?;
        let inner =
            Inner { pending, corrupted, wake: Notify::new(), live: Mutex::default(), checkpoints: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How many finished recordings wait for their upload.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn waiting(&self) -> Result<usize> {
        Ok(self.finished()?.len())
    }

    /// Where recordings in progress are.
    pub(crate) fn multi(&self) -> PathBuf {
        self.inner.pending.join("multi")
    }

    /// Where a finished recording is.
    pub(crate) fn recording(&self, session: SessionId) -> PathBuf {
        self.beside(session, "tar")
    }

    fn beside(&self, session: SessionId, extension: &str) -> PathBuf {
        self.inner.pending.join(format!("{session}.{extension}"))
    }

    /// The sessions with finished recordings.
    pub(crate) fn finished(&self) -> Result<BTreeSet<SessionId>> {
        self.sessions_with(".tar")
    }

    fn sessions_with(&self, ending: &str) -> Result<BTreeSet<SessionId>> {
        let names = names_in(&self.inner.pending)?;
        Ok(names.iter().filter_map(|n| n.strip_suffix(ending)?.parse().ok()).collect())
    }

    /// What is known about the upload of a session.
    pub(crate) fn checkpoint(&self, session: SessionId) -> Option<StreamStatus> {
        if let Some(known) = self.inner.checkpoints.lock().get(&session) {
            return Some(known.clone());
        }
        let text = fs::read(self.beside(session, "checkpoint")).ok()?;
        serde_json::from_slice::<StreamStatus>(&text).ok().filter(|s| !s.upload_id.is_empty())
    }

    /// Remembers how far an upload has come. The upload of a running session goes on if the disk is full; should the
    /// process end then, the next one uploads from the start.
    pub(crate) fn set_checkpoint(&self, session: SessionId, status: &StreamStatus) -> Result<()> {
        self.inner.checkpoints.lock().insert(session, status.clone());
        match self.store_checkpoint(session, status) {
            Err(error) if self.inner.live.lock().contains_key(&session) => {
                tracing::debug!(%session, %error, "checkpoint of a running session's upload not stored");
                Ok(())
            }
            other => other,
        }
    }

    fn store_checkpoint(&self, session: SessionId, status: &StreamStatus) -> Result<()> {
        let path = self.beside(session, "checkpoint");
        let fresh = self.beside(session, "checkpoint.new");
        let text = serde_json::to_vec(status).map_err(|e| Error::storage("write to", &path)(e.into()))?;
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).map_err(Error::storage("write to", &path))
    }

    /// Forgets about an upload.
    pub(crate) fn clear_checkpoint(&self, session: SessionId) -> Result<()> {
        self.inner.checkpoints.lock().remove(&session);
        remove_file(&self.beside(session, "checkpoint"))
    }

    /// Removes a recording that has arrived.
    pub(crate) fn remove(&self, session: SessionId) -> Result<()> {
        remove_file(&self.recording(session))?;
        self.clear_checkpoint(session)
    }

    /// Says that a recording cannot be uploaded.
    pub(crate) fn mark_corrupt(&self, session: SessionId, reason: &str) -> Result<()> {
        let path = self.beside(session, "error");
        fs::write(&path, reason).map_err(Error::storage("write to", &path))
    }

    /// Moves recordings that cannot be uploaded out of the way.
    pub(crate) fn set_corrupt_aside(&self) -> Result<()> {
        for session in self.sessions_with(".error")? {
            for extension in ["tar", "error"] {
                let (from, to) =
                    (self.beside(session, extension), self.inner.corrupted.join(format!("{session}.{extension}")));
                match fs::rename(&from, &to) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::storage("move", &from)(e)),
                    _ => {}
                }
            }
            self.clear_checkpoint(session)?;
            sync_folder(&self.inner.corrupted)?;
        }
        Ok(())
    }

    /// Removes what is left of uploads whose recordings are gone.
    pub(crate) fn clear_orphans(&self) -> Result<()> {
        let (finished, live) = (self.finished()?, self.live());
        for session in self.sessions_with(".checkpoint")? {
            if !finished.contains(&session) && !live.contains_key(&session) && !self.in_progress(session)? {
                self.clear_checkpoint(session)?;
            }
        }
        Ok(())
    }

    fn in_progress(&self, session: SessionId) -> Result<bool> {
        let multi = self.multi();
        Ok(names_in(&multi)?.iter().any(|upload| multi.join(upload).join(session.to_string()).is_dir()))
    }

    /// The sessions whose uploads follow them.
    pub(crate) fn live(&self) -> BTreeMap<SessionId, Live> {
        self.inner.live.lock().clone()
    }

    /// Lets the upload of a session follow it.
    pub(crate) fn add_live(&self, session: SessionId, live: Live) {
        self.inner.live.lock().insert(session, live);
        self.wake();
    }

    /// Ends what [`Self::add_live`] began.
    pub(crate) fn remove_live(&self, session: SessionId) {
        self.inner.live.lock().remove(&session);
    }

    /// Tells the uploader that there is something to do.
    pub(crate) fn wake(&self) {
        self.inner.wake.notify_one();
    }

    /// Waits for [`Self::wake`].
    pub(crate) async fn woken(&self) {
        self.inner.wake.notified().await;
    }
}
