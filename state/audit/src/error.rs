//! What can go wrong with an event.

use std::{io, path::Path, sync::Arc};

use wire::error::{ErrorKind, Kinded};

/// Why an event was not stored, or not found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The event lacks what every event must have, or a query contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// The event is too big to store, even with its long texts cut.
    #[error("event {name:?} has {size} bytes and cannot be cut to the limit of {limit} bytes")]
    TooLarge {
        /// The event's name.
        name: String,
        /// Its size in bytes.
        size: usize,
        /// The most bytes an event may have.
        limit: usize,
    },
    /// The event speaks of a server that its sender is not.
    #[error("failed to validate event metadata")]
    ForeignOrigin,
    /// The sink cannot do this.
    #[error("the {sink} audit log cannot {what}")]
    Unsupported {
        /// Which sink.
        sink: &'static str,
        /// What was asked of it.
        what: &'static str,
    },
    /// The file system refused.
    #[error("{action} {path}: {source}")]
    Storage {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// The answer of the operating system.
        source: Arc<io::Error>,
    },
    /// The database refused, or could not be reached.
    #[error("audit database: {0}")]
    Database(String),
    /// A bounded queue has no room left.
    #[error("audit spool {path} is full: {limit} bytes are waiting for delivery")]
    Full {
        /// The spool's file.
        path: String,
        /// Its bound in bytes.
        limit: u64,
    },
    /// The sink has been shut down.
    #[error("the audit log is closed")]
    Closed,
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A refusal by the file system while doing `action` on `path`.
    pub(crate) fn storage(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Storage { action, path: path.display().to_string(), source: Arc::new(source) }
    }
}

impl Kinded for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Database(_) => ErrorKind::ConnectionProblem,
            Self::Invalid(_) | Self::TooLarge { .. } => ErrorKind::BadParameter,
            Self::ForeignOrigin => ErrorKind::AccessDenied,
            Self::Unsupported { .. } => ErrorKind::NotImplemented,
            Self::Full { .. } => ErrorKind::LimitExceeded,
            Self::Storage { .. } => ErrorKind::Other,
            Self::Closed => ErrorKind::ConnectionProblem,
        }
    }
}

impl From<Error> for wire::error::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
