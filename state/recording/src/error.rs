//! What can go wrong with a recording.

use std::{io, path::Path};

use wire::error::{ErrorKind, Kinded};

use crate::SessionId;

/// Why bytes are not a recording.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A part of a version this reader does not know.
    #[error("unsupported protocol version {0}")]
    Version(u64),
    /// The recording ends in the middle of a part.
    #[error("recording is truncated: unexpected end of file in part {part}")]
    Truncated {
        /// The number of the part, counted from 1.
        part: u64,
    },
    /// The content of a part is not what the format asks for.
    #[error("recording is corrupt in part {part}: {what}")]
    Corrupt {
        /// The number of the part, counted from 1.
        part: u64,
        /// What is wrong.
        what: String,
    },
    /// A part is sealed, and the key is not here.
    #[error("recording is sealed: part {part} can be read by the Auth Service of its cluster only")]
    Sealed {
        /// The number of the part, counted from 1.
        part: u64,
    },
    /// A sealed recording that is said to be complete has no end.
    #[error("recording has lost its end: parts after part {part} are missing")]
    NoEnd {
        /// The number of the last part that is there, counted from 1.
        part: u64,
    },
    /// The source could not be read.
    #[error("read recording: {0}")]
    Read(#[source] io::Error),
}

/// Why a recording could not be written, moved or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are not a recording.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The recording asked for does not exist.
    #[error("a recording for session {0} was not found")]
    NotFound(SessionId),
    /// The upload asked for does not exist.
    #[error("upload {upload} of session {session} was not found")]
    UploadNotFound {
        /// The session.
        session: SessionId,
        /// The upload's id as the caller gave it.
        upload: String,
    },
    /// Another recording of the session is stored already.
    #[error("a different recording of session {0} exists already")]
    Conflict(SessionId),
    /// Not the id of a session or upload.
    #[error("{0:?} is not a valid {1}: expected a UUID")]
    InvalidId(String, &'static str),
    /// An event that cannot be part of a recording.
    #[error(transparent)]
    Event(#[from] audit::Error),
    /// The file system refused.
    #[error("{action} {path}: {source}")]
    Storage {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// The disk took no data for so long that recording was given up.
    #[error("recording of session {0} has stalled: the disk does not keep up")]
    Stalled(SessionId),
    /// Recording has failed before; the text says why.
    #[error("recording of session {session} has failed: {reason}")]
    Failed {
        /// The session.
        session: SessionId,
        /// Why.
        reason: String,
    },
    /// The object store refused, or could not be reached.
    #[error("object store: {0}")]
    Objects(String),
    /// A part could not be sealed.
    #[error("seal recording: {0}")]
    Sealing(String),
    /// What the other end of an upload said.
    #[error("{0}")]
    Remote(wire::error::Error),
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A refusal by the file system while doing `action` on `path`.
    pub(crate) fn storage(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Storage { action, path, source }
    }
}

impl Kinded for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Format(FormatError::Read(_)) => ErrorKind::Other,
            Self::Format(_) | Self::InvalidId(..) => ErrorKind::BadParameter,
            Self::NotFound(_) | Self::UploadNotFound { .. } => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::AlreadyExists,
            Self::Event(e) => e.kind(),
            Self::Storage { .. } | Self::Stalled(_) | Self::Failed { .. } | Self::Sealing(_) | Self::Objects(_) => {
                ErrorKind::Other
            }
            Self::Remote(e) => e.kind,
        }
    }
}

impl From<Error> for wire::error::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
