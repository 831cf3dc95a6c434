//! Recordings in files.
//!
//! `<folder>/<session id>.tar` is a recording; `<folder>/multi/<upload id>/<session id>/<n>.part` are the pieces of one
//! under way, a new piece for every connection that has brought some.

pub(crate) mod complete;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::task::spawn_blocking;
use wire::{
    events::{OneOf, StreamStatus},
    time::timestamp,
};

use crate::{
    Error, EventStream, FormatError, Keyring, PartWriter, Recording, Result, SessionId, Store, StreamReader, Summary,
    Unfinished, Upload, UploadId, live,
    part_file::{PartFile, from_start, make_folders, names_in, numbered_parts, remove_file, sync_folder},
    summary::outline,
};

/// Keeps recordings in a folder.
#[derive(Clone)]
pub struct DiskStore {
    folder: Arc<Path>,
    keys: Keyring,
}

/// An upload becomes durable when this much has come together.
const FLUSH_BYTES: usize = 256 * 1024;

impl DiskStore {
    /// Keeps recordings in `folder`, which is made when missing.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn open(folder: &Path) -> Result<Self> {
        make_folders(&folder.join("multi"))?;
        Ok(Self { folder: folder.into(), keys: Keyring::default() })
    }

    /// Keeps recordings where a data directory has them: `<data_dir>/log/records`.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn in_data_dir(data_dir: &Path) -> Result<Self> {
        Self::open(&data_dir.join("log/records"))
    }

    /// Seals and opens recordings with these keys.
    #[must_use]
    pub fn with_keys(self, keys: Keyring) -> Self {
        Self { keys, ..self }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The sessions whose recordings are complete, with the time of each.
    pub(crate) fn complete(&self) -> Result<Vec<(SessionId, std::time::SystemTime)>> {
        let mut found = Vec::new();
        for name in names_in(&self.folder)? {
            let Some(session) = name.strip_suffix(".tar").and_then(|id| id.parse().ok()) else { continue };
            let path = self.recording(session);
            let time = path.metadata().and_then(|m| m.modified()).map_err(Error::storage("read", &path))?;
            found.push((session, time));
        }
        Ok(found)
    }

    pub(crate) fn recording(&self, session: SessionId) -> PathBuf {
        self.folder.join(format!("{session}.tar"))
    }

    fn upload(&self, session: SessionId, upload: UploadId) -> PathBuf {
        self.folder.join("multi").join(upload.to_string()).join(session.to_string())
    }

    fn start(&self, session: SessionId, upload: UploadId, number: u64, summary: Summary) -> Result<Box<dyn Upload>> {
        let file = PartFile::create(self.upload(session, upload).join(format!("{number}.part")))?;
        // What is acknowledged later must not hang on names that a crash of the machine may take.
        let folder = file.folder();
        folder.ancestors().take(3).try_for_each(sync_folder)?;
        let status = StreamStatus {
            upload_id: upload.to_string(),
            last_event_index: summary.last_index,
            last_upload_time: Some(timestamp(Utc::now())),
        };
        let parts = PartWriter::sealed(self.keys.of(session));
        Ok(Box::new(DiskUpload { store: self.clone(), session, file: Some(file), parts, summary, status }))
    }

    /// The outline of what earlier connections have brought, and the number of the next piece.
    fn earlier(&self, session: SessionId, upload: UploadId) -> Result<(u64, Summary)> {
        let folder = self.upload(session, upload);
        if !folder.is_dir() {
            return Err(Error::UploadNotFound { session, upload: upload.to_string() });
        }
        let (mut next, mut summary) = (1, Summary::new());
        for (number, path) in numbered_parts(&folder)? {
            let file = File::open(&path).map_err(Error::storage("open", &path))?;
            let file = from_start(file).map_err(FormatError::Read)?;
            let (piece, _, problem) = outline(StreamReader::sealed(file, self.keys.of(session)));
            if let Some(FormatError::Read(e)) = problem {
                return Err(Error::storage("read", &path)(e));
            }
            summary.append(piece);
            next = number + 1;
        }
        Ok((next, summary))
    }

    fn list_unfinished(&self) -> Result<Vec<Unfinished>> {
        let multi = self.folder.join("multi");
        let mut found = Vec::new();
        for upload in names_in(&multi)? {
            let Ok(upload) = upload.parse::<UploadId>() else { continue };
            for session in names_in(&multi.join(upload.to_string()))? {
                let Ok(session) = session.parse::<SessionId>() else { continue };
                let (mut modified, mut busy) = (None, false);
                for (_, path) in numbered_parts(&self.upload(session, upload))? {
                    let time = path.metadata().and_then(|m| m.modified()).ok().map(DateTime::<Utc>::from);
                    modified = modified.max(time);
                    busy |= PartFile::take_over(path)?.is_none();
                }
                found.push(Unfinished { session, upload, modified, busy });
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Store for DiskStore {
    async fn create(&self, session: SessionId) -> Result<Box<dyn Upload>> {
        let store = self.clone();
        blocking(session, move || store.start(session, UploadId::random(), 1, Summary::new())).await
    }

    async fn resume(&self, session: SessionId, upload: UploadId) -> Result<Box<dyn Upload>> {
        let store = self.clone();
        let resume = move || {
            let (next, summary) = store.earlier(session, upload)?;
            store.start(session, upload, next, summary)
        };
        blocking(session, resume).await
    }

    async fn open(&self, session: SessionId) -> Result<EventStream> {
        let (path, seal) = (self.recording(session), self.keys.of(session));
        let open = move || match File::open(&path) {
            Ok(file) => EventStream::sealed(file, seal),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NotFound(session)),
            Err(e) => Err(Error::storage("open", &path)(e)),
        };
        blocking(session, open).await
    }

    async fn follow(&self, session: SessionId) -> Result<Option<EventStream>> {
        let store = self.clone();
        let open = move || {
            let mut uploads = store.list_unfinished()?;
            uploads.retain(|upload| upload.session == session);
            // An older one is what a sender has left that could not go on with it.
            match uploads.into_iter().max_by_key(|upload| upload.modified) {
                Some(newest) => live::follow(store.upload(session, newest.upload), store.keys.of(session)),
                None => Ok(None),
            }
        };
        blocking(session, open).await
    }

    async fn remove_before(&self, moment: DateTime<Utc>) -> Result<usize> {
        let store = self.clone();
        let remove = move || {
            let old = store.complete()?.into_iter().filter(|(_, changed)| DateTime::<Utc>::from(*changed) < moment);
            old.map(|(session, _)| remove_file(&store.recording(session))).try_fold(0, |count, removed| {
                removed?;
                Ok(count + 1)
            })
        };
        let removed = spawn_blocking(remove).await;
        removed.map_err(|e| Error::storage("remove", Path::new("recordings"))(io::Error::other(e)))?
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>> {
        let store = self.clone();
        let list = spawn_blocking(move || store.list_unfinished()).await;
        list.map_err(|e| Error::storage("list", Path::new("recordings"))(io::Error::other(e)))?
    }
}

/// An upload into the folder. Its file is locked while it lives.
struct DiskUpload {
    store: DiskStore,
    session: SessionId,
    /// `None` after a failure: what could not be written must come again, through a resumed upload.
    file: Option<PartFile>,
    parts: PartWriter,
    summary: Summary,
    status: StreamStatus,
}

impl DiskUpload {
    fn failed(&self) -> Error {
        Error::Failed { session: self.session, reason: "an earlier write has failed".into() }
    }
}

#[async_trait]
impl Upload for DiskUpload {
    fn status(&self) -> StreamStatus {
        self.status.clone()
    }

    async fn write(&mut self, event: &OneOf) -> Result<()> {
        self.parts.push(event)?;
        self.summary.add(event);
        if self.parts.len() >= FLUSH_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        let Some(last) = self.parts.last_index() else { return Ok(()) };
        let fresh = PartWriter::sealed(self.store.keys.of(self.session));
        let mut file = self.file.take().ok_or_else(|| self.failed())?;
        let mut parts = std::mem::replace(&mut self.parts, fresh);
        let write = move || {
            file.append(&parts.take(0)?)?;
            file.sync()?;
            Ok(file)
        };
        self.file = Some(blocking(self.session, write).await?);
        self.status.last_event_index = self.status.last_event_index.max(last);
        self.status.last_upload_time = Some(timestamp(Utc::now()));
        Ok(())
    }

    async fn complete(mut self: Box<Self>) -> Result<Recording> {
        self.flush().await?;
        let file = self.file.take().ok_or_else(|| self.failed())?;
        let (session, path, summary) = (self.session, self.store.recording(self.session), self.summary.clone());
        let url = format!("file://{}", path.display());
        let (empty, seal) = (summary.events == 0, self.store.keys.of(session));
        blocking(session, move || complete::complete(&seal, file, &path, empty)).await?;
        Ok(Recording { session, url, summary })
    }
}

/// Runs file work where it does not hold up other tasks.
async fn blocking<T: Send + 'static>(
    session: SessionId,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let failed = |e: tokio::task::JoinError| Error::Failed { session, reason: e.to_string() };
    spawn_blocking(work).await.map_err(failed)?
}

#[cfg(test)]
mod tests;
