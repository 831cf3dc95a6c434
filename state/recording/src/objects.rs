//! Recordings in an object store: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.
//!
//! An upload under way is in a folder of the Auth Service, where what is acknowledged is durable at once; object stores
//! would have to be given parts of megabytes for that. When it is complete it goes to the store as one object and leaves
//! the folder. What a crash or an outage leaves there is delivered later ([`Store::settle`]).

mod location;

use std::{
    fs::File,
    io::Seek,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures::StreamExt;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::{JoinError, JoinSet, spawn_blocking},
};
use tracing::{debug, warn};
use wire::events::{OneOf, StreamStatus};

pub use location::{LocationError, ObjectLocation};

use crate::{
    DiskStore, Error, EventStream, Keyring, Recording, Result, SessionId, Store, Unfinished, Upload, UploadId,
    disk::complete::{Comparison, compare},
    part_file::{from_start, remove_file},
    reader::StreamReader,
    summary::outline,
};

/// Bytes handed over at a time; stores take no smaller parts than 5 MiB.
const CHUNK: usize = 8 * 1024 * 1024;
/// Parts under way at a time.
const PARALLEL: usize = 4;
/// How old a complete recording in the folder is before it counts as left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(5 * 60);

/// Keeps recordings in an object store. Clones share everything.
#[derive(Clone)]
pub struct ObjectRecordings {
    inner: Arc<Inner>,
}

struct Inner {
    staging: DiskStore,
    keys: Keyring,
    remote: Arc<dyn ObjectStore>,
    location: ObjectLocation,
}

impl ObjectRecordings {
    /// Keeps recordings at `location`, and those under way in `staging`, whose keys it shares.
    ///
    /// # Errors
    ///
    /// [`Error::Objects`] when the location's settings do not fit together.
    pub fn open(location: ObjectLocation, staging: DiskStore, keys: Keyring) -> Result<Self> {
        let remote = location.store().map_err(|e| Error::Objects(e.to_string()))?;
        Ok(Self::with(remote, location, staging, keys))
    }

    fn with(remote: Arc<dyn ObjectStore>, location: ObjectLocation, staging: DiskStore, keys: Keyring) -> Self {
        let staging = staging.with_keys(keys.clone());
        Self { inner: Arc::new(Inner { staging, keys, remote, location }) }
    }

    /// Moves a complete recording from the folder to the store.
    async fn publish(&self, session: SessionId) -> Result<()> {
        let (path, name) = (self.inner.staging.recording(session), self.inner.location.object(session));
        let open = || File::open(&path).map_err(Error::storage("open", &path));
        if let Some(existing) = self.download(session).await? {
            let (seal, new) = (self.inner.keys.of(session), open()?);
            let compared = spawn_blocking(move || compare(new, existing, &seal)).await;
            match compared.map_err(|e| failed(session, &e))?? {
                Comparison::First | Comparison::Longer => {}
                Comparison::Known => return remove_file(&path),
                Comparison::Different => {
                    remove_file(&path)?;
                    return Err(Error::Conflict(session));
                }
            }
        }
        let mut upload = self.inner.remote.put_multipart(&name).await.map_err(|e| objects("upload", session, &e))?;
        let mut parts = JoinSet::new();
        if let Err(error) = self.send(session, open()?, &mut *upload, &mut parts).await {
            // Parts that nobody completes would stay in the store, and cost.
            parts.shutdown().await;
            if let Err(error) = upload.abort().await {
                debug!(%session, %error, "the parts of a failed upload may stay in the object store");
            }
            return Err(error);
        }
        remove_file(&path)
    }

    /// Sends a file in parts and completes the object.
    async fn send(
        &self,
        session: SessionId,
        file: File,
        upload: &mut dyn MultipartUpload,
        parts: &mut JoinSet<object_store::Result<()>>,
    ) -> Result<()> {
        let arrived = |part: std::result::Result<object_store::Result<()>, JoinError>| {
            part.map_err(|e| failed(session, &e))?.map_err(|e| objects("upload", session, &e))
        };
        let mut file = tokio::fs::File::from_std(file);
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let reading = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await;
            let read = reading.map_err(Error::storage("read", &self.inner.staging.recording(session)))?;
            if parts.len() >= PARALLEL
                && let Some(part) = parts.join_next().await
            {
                arrived(part)?;
            }
            if read > 0 {
                parts.spawn(upload.put_part(chunk.into()));
            }
            if read < CHUNK {
                break;
            }
        }
        while let Some(part) = parts.join_next().await {
            arrived(part)?;
        }
        upload.complete().await.map(drop).map_err(|e| objects("upload", session, &e))
    }

    /// Delivers a complete recording that was left in the folder.
    async fn deliver(&self, session: SessionId) -> Result<Recording> {
        let (path, seal) = (self.inner.staging.recording(session), self.inner.keys.of(session));
        let read = move || {
            let file = File::open(&path).and_then(from_start).map_err(Error::storage("open", &path))?;
            Ok::<_, Error>(outline(StreamReader::sealed(file, seal)).0)
        };
        let summary = spawn_blocking(read).await.map_err(|e| failed(session, &e))??;
        self.publish(session).await?;
        Ok(Recording { session, url: self.inner.location.url(session), summary })
    }

    /// A recording of the store, in a file without a name; `None` when there is none.
    async fn download(&self, session: SessionId) -> Result<Option<File>> {
        let found = match self.inner.remote.get(&self.inner.location.object(session)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(objects("read", session, &e)),
        };
        let folder = self.inner.staging.folder().to_owned();
        let make = {
            let folder = folder.clone();
            move || tempfile::tempfile_in(folder)
        };
        let made = spawn_blocking(make).await.map_err(|e| failed(session, &e))?;
        let mut file = tokio::fs::File::from_std(made.map_err(Error::storage("make a file in", &folder))?);
        let mut bytes = found.into_stream();
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(|e| objects("read", session, &e))?;
            file.write_all(&chunk).await.map_err(Error::storage("write to", &folder))?;
        }
        file.flush().await.map_err(Error::storage("write to", &folder))?;
        let mut file = file.into_std().await;
        file.rewind().map_err(Error::storage("read", &folder))?;
        Ok(Some(file))
    }
}

#[async_trait]
impl Store for ObjectRecordings {
    async fn create(&self, session: SessionId) -> Result<Box<dyn Upload>> {
        let staged = self.inner.staging.create(session).await?;
        Ok(Box::new(ObjectUpload { staged, store: self.clone() }))
    }

    async fn resume(&self, session: SessionId, upload: UploadId) -> Result<Box<dyn Upload>> {
        let staged = self.inner.staging.resume(session, upload).await?;
        Ok(Box::new(ObjectUpload { staged, store: self.clone() }))
    }

    async fn open(&self, session: SessionId) -> Result<EventStream> {
        match self.inner.staging.open(session).await {
            Err(Error::NotFound(_)) => {}
            other => return other,
        }
        let file = self.download(session).await?.ok_or(Error::NotFound(session))?;
        EventStream::sealed(file, self.inner.keys.of(session))
    }

    async fn follow(&self, session: SessionId) -> Result<Option<EventStream>> {
        self.inner.staging.follow(session).await
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>> {
        self.inner.staging.unfinished().await
    }

    async fn settle(&self) -> Result<Vec<Recording>> {
        let mut settled = Vec::new();
        for (session, modified) in self.inner.staging.complete()? {
            if SystemTime::now().duration_since(modified).is_ok_and(|age| age < LEFT_BEHIND) {
                continue;
            }
            match self.deliver(session).await {
                Ok(recording) => settled.push(recording),
                // Others are not to wait for it.
                Err(error) => warn!(%session, %error, "a recording is not delivered to the object store yet"),
            }
        }
        Ok(settled)
    }
}

/// An upload into the folder that becomes an object.
struct ObjectUpload {
    staged: Box<dyn Upload>,
    store: ObjectRecordings,
}

#[async_trait]
impl Upload for ObjectUpload {
    fn status(&self) -> StreamStatus {
        self.staged.status()
    }

    async fn write(&mut self, event: &OneOf) -> Result<()> {
        self.staged.write(event).await
    }

    async fn flush(&mut self) -> Result<()> {
        self.staged.flush().await
    }

    async fn complete(self: Box<Self>) -> Result<Recording> {
        let recording = self.staged.complete().await?;
        if recording.summary.events == 0 {
            return Ok(recording);
        }
        self.store.publish(recording.session).await?;
        let url = self.store.inner.location.url(recording.session);
        Ok(Recording { url, ..recording })
    }
}

fn objects(action: &str, session: SessionId, error: &object_store::Error) -> Error {
    Error::Objects(format!("{action} recording of session {session}: {error}"))
}

fn failed(session: SessionId, error: &JoinError) -> Error {
    Error::Failed { session, reason: error.to_string() }
}

#[cfg(test)]
mod tests;
