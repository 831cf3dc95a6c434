//! The two ends of a copy, with one face: this machine and a file server.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::sftp::{Attributes, Handle, Pending, Sftp, SftpError, open};

/// Bytes read or written at once on this machine.
const LOCAL_CHUNK: u32 = 255 << 10;
/// Permissions that are copied. Special bits are not: they mean something only together with an owner.
const PERMISSIONS: u32 = 0o777;

/// An end of a copy.
#[derive(Clone)]
pub enum Place {
    /// This machine.
    Here,
    /// A host.
    There(Arc<Sftp>),
}

/// Why something did not work at a place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A host said so.
    #[error(transparent)]
    Remote(#[from] SftpError),
    /// This machine said so.
    #[error("{}", local_text(.0))]
    Local(#[from] io::Error),
    /// Whatever needs no more than its text.
    #[error("{0}")]
    Other(String),
}

/// An open file.
pub(super) enum OpenFile {
    Here(Arc<File>),
    There(Arc<Sftp>, Handle),
}

/// A read under way.
pub(super) enum Reading {
    Here(Bytes),
    There(Pending),
}

impl PlaceError {
    /// Whether the file is not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Remote(error) => *error == SftpError::NotFound,
            Self::Local(error) => error.kind() == io::ErrorKind::NotFound,
            Self::Other(_) => false,
        }
    }

    /// Whether nothing more can be done at this place.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Remote(SftpError::Lost | SftpError::Timeout | SftpError::Protocol(_)))
    }
}

/// In lower case and without the number, as errors of hosts are.
fn local_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

impl Place {
    /// What is known about a file; links are followed.
    pub async fn stat(&self, path: &Path) -> Result<Attributes, PlaceError> {
        match self {
            Self::Here => blocking(path, |path| fs::metadata(path).map(|found| attributes(&found))).await,
            Self::There(sftp) => Ok(sftp.stat(path).await?),
        }
    }

    /// Whether two paths lead to one file, as far as can be seen through one connection.
    pub(super) async fn is_same_file(&self, own: &Path, other: &Self, theirs: &Path) -> bool {
        match (self, other) {
            (Self::There(one), Self::There(two)) if Arc::ptr_eq(one, two) => {
                let (own, theirs) = tokio::join!(one.real_path(own), two.real_path(theirs));
                // A path that leads nowhere yet is that of no file.
                own.is_ok() && own.ok() == theirs.ok()
            }
            _ => false,
        }
    }

    /// What is in a folder. Links are not followed.
    pub(super) async fn entries(&self, path: &Path) -> Result<Vec<(OsString, Attributes)>, PlaceError> {
        match self {
            Self::Here => {
                blocking(path, |path| {
                    let entries = fs::read_dir(path)?;
                    entries.map(|entry| entry.and_then(|e| Ok((e.file_name(), attributes(&e.metadata()?))))).collect()
                })
                .await
            }
            Self::There(sftp) => Ok(sftp.read_folder(path).await?),
        }
    }

    /// Makes a folder that can be written into; one that is there is as good.
    pub(super) async fn make_folder(&self, path: &Path, mode: Option<u32>) -> Result<(), PlaceError> {
        let mode = mode.map_or(PERMISSIONS, |mode| mode & PERMISSIONS) | 0o700;
        let made = match self {
            Self::Here => blocking(path, move |path| fs::DirBuilder::new().mode(mode).create(path)).await,
            Self::There(sftp) => {
                let attributes = Attributes { mode: Some(mode), ..Default::default() };
                sftp.make_folder(path, &attributes).await.map_err(Into::into)
            }
        };
        match made {
            Ok(()) => Ok(()),
            Err(error) => match self.stat(path).await {
                Ok(found) if found.is_folder() => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Gives a folder the permissions and times of another.
    pub(super) async fn finish_folder(&self, path: &Path, like: Attributes) -> Result<(), PlaceError> {
        let like = preserved(like);
        match self {
            Self::Here => blocking(path, move |path| set(&File::open(path)?, like)).await,
            Self::There(sftp) => Ok(sftp.set_attributes(path, &like).await?),
        }
    }

    /// The most bytes that one write takes.
    pub(super) fn write_chunk(&self) -> u32 {
        match self {
            Self::Here => LOCAL_CHUNK,
            Self::There(sftp) => sftp.write_chunk(),
        }
    }

    /// The most bytes that one read brings.
    pub(super) fn read_chunk(&self) -> u32 {
        match self {
            Self::Here => LOCAL_CHUNK,
            Self::There(sftp) => sftp.read_chunk(),
        }
    }

    /// Opens a file for reading.
    pub(super) async fn open_to_read(&self, path: &Path) -> Result<OpenFile, PlaceError> {
        match self {
            Self::Here => blocking(path, |path| File::open(path).map(|file| OpenFile::Here(Arc::new(file)))).await,
            Self::There(sftp) => {
                let handle = sftp.open(path, open::READ, &Attributes::default()).await?;
                Ok(OpenFile::There(sftp.clone(), handle))
            }
        }
    }

    /// Opens a file for writing; one that is there is emptied unless it is to be gone on with.
    pub(super) async fn open_to_write(
        &self,
        path: &Path,
        mode: Option<u32>,
        go_on: bool,
    ) -> Result<OpenFile, PlaceError> {
        let mode = mode.map_or(0o666, |mode| mode & PERMISSIONS);
        match self {
            Self::Here => {
                blocking(path, move |path| {
                    let options = OpenOptions::new().write(true).create(true).truncate(!go_on).mode(mode).open(path);
                    options.map(|file| OpenFile::Here(Arc::new(file)))
                })
                .await
            }
            Self::There(sftp) => {
                let how = open::WRITE | open::CREATE | if go_on { 0 } else { open::TRUNCATE };
                let attributes = Attributes { mode: Some(mode), ..Default::default() };
                Ok(OpenFile::There(sftp.clone(), sftp.open(path, how, &attributes).await?))
            }
        }
    }
}

impl OpenFile {
    /// Asks for bytes.
    pub async fn begin_read(&self, offset: u64, length: u32) -> Result<Reading, PlaceError> {
        match self {
            Self::Here(file) => {
                let file = file.clone();
                let read = spawn_blocking(move || {
                    let mut buffer = vec![0; length as usize];
                    let mut filled = 0;
                    while filled < buffer.len() {
                        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                            Ok(0) => break,
                            Ok(n) => filled += n,
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                            Err(error) => return Err(error),
                        }
                    }
                    buffer.truncate(filled);
                    Ok(Bytes::from(buffer))
                });
                Ok(Reading::Here(joined(read.await)?))
            }
            Self::There(sftp, handle) => Ok(Reading::There(sftp.begin_read(handle, offset, length).await?)),
        }
    }

    /// Reads bytes; fewer than asked for only at the end.
    pub async fn finish_read(&self, reading: Reading, offset: u64, length: u32) -> Result<Bytes, PlaceError> {
        let pending = match reading {
            Reading::Here(bytes) => return Ok(bytes),
            Reading::There(pending) => pending,
        };
        let mut bytes = pending.data().await?.unwrap_or_default();
        // Servers may bring less than was asked for.
        while !bytes.is_empty() && bytes.len() < length as usize {
            let missing = length - u32::try_from(bytes.len()).unwrap_or(length);
            let Self::There(sftp, handle) = self else { break };
            let more = sftp.begin_read(handle, offset + bytes.len() as u64, missing).await?.data().await?;
            let Some(more) = more.filter(|more| !more.is_empty()) else { break };
            bytes = [bytes, more].concat().into();
        }
        if bytes.len() > length as usize {
            return Err(SftpError::Protocol("it sent more than was asked for").into());
        }
        Ok(bytes)
    }

    /// Hands over bytes; what is still under way is added to `writes`.
    pub async fn write(&self, offset: u64, bytes: Bytes, writes: &mut VecDeque<Pending>) -> Result<(), PlaceError> {
        match self {
            Self::Here(file) => {
                let file = file.clone();
                joined(spawn_blocking(move || file.write_all_at(&bytes, offset)).await)
            }
            Self::There(sftp, handle) => {
                writes.push_back(sftp.begin_write(handle, offset, &bytes).await?);
                Ok(())
            }
        }
    }

    /// Gives the file the permissions and times of another.
    pub async fn set_like(&self, like: Attributes) -> Result<(), PlaceError> {
        let like = preserved(like);
        match self {
            Self::Here(file) => {
                let file = file.clone();
                joined(spawn_blocking(move || set(&file, like)).await)
            }
            Self::There(sftp, handle) => Ok(sftp.set_attributes_of(handle, &like).await?),
        }
    }

    /// Closes the file.
    pub async fn close(self) -> Result<(), PlaceError> {
        match self {
            Self::Here(_) => Ok(()),
            Self::There(sftp, handle) => Ok(sftp.close(&handle).await?),
        }
    }
}

fn attributes(found: &fs::Metadata) -> Attributes {
    let seconds = |time: i64| u32::try_from(time).unwrap_or(if time < 0 { 0 } else { u32::MAX });
    Attributes {
        size: Some(found.len()),
        mode: Some(found.mode()),
        times: Some((seconds(found.atime()), seconds(found.mtime()))),
    }
}

/// What is kept of a file's attributes besides its content.
fn preserved(like: Attributes) -> Attributes {
    Attributes { size: None, mode: like.mode.map(|mode| mode & PERMISSIONS), times: like.times }
}

fn set(file: &File, like: Attributes) -> io::Result<()> {
    if let Some(mode) = like.mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    if let Some((accessed, changed)) = like.times {
        let time = |seconds: u32| UNIX_EPOCH + Duration::from_secs(seconds.into());
        file.set_times(FileTimes::new().set_accessed(time(accessed)).set_modified(time(changed)))?;
    }
    Ok(())
}

/// Does something with a path that may block.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
) -> Result<T, PlaceError> {
    let path = path.to_owned();
    joined(spawn_blocking(move || work(path)).await)
}

fn joined<T>(result: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, PlaceError> {
    result.map_err(|error| PlaceError::Other(error.to_string()))?.map_err(Into::into)
}
