//! What can go wrong with storage.

use wire::error::{ErrorKind, Kinded};

/// An error of a storage operation.
///
/// The texts never contain the key: they may reach a user, who knows resources and not keys. Callers that
/// know the name of the resource put it in front.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BackendError {
    /// No live item has this key.
    #[error("item not found")]
    NotFound {
        /// The key that was asked for.
        key: String,
    },
    /// A live item has this key.
    #[error("item already exists")]
    AlreadyExists {
        /// The key that was to be created.
        key: String,
    },
    /// The stored value is not the expected one.
    #[error("current value does not match expected value")]
    CompareFailed {
        /// The key whose value was compared.
        key: String,
    },
    /// The stored revision is not the expected one, or the item is gone.
    #[error(
        "resource revision does not match, it may have been concurrently created|modified|deleted; \
         please work from the latest state, or use --force to overwrite"
    )]
    IncorrectRevision {
        /// The key whose revision was compared.
        key: String,
    },
    /// A condition of an atomic write does not hold; nothing was written.
    #[error("one or more conditions of the atomic write do not hold")]
    ConditionFailed,
    /// The request makes no sense: an invalid key, an empty atomic write….
    #[error("{0}")]
    BadParameter(String),
    /// A watcher did not read its events in time and was closed: list again, then watch again.
    #[error("watcher {name:?} is too slow: {pending} events were waiting")]
    WatcherTooSlow {
        /// Name given when the watcher was created.
        name: String,
        /// How many events it had not read.
        pending: usize,
    },
    /// The backend was closed.
    #[error("storage is closed")]
    Closed,
    /// The database is locked by another process or cannot be reached.
    #[error("storage is not reachable: {0}")]
    ConnectionProblem(String),
    /// The database failed: no space, damaged file….
    #[error("storage failed: {0}")]
    Storage(String),
}

impl BackendError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::CompareFailed { .. } | Self::IncorrectRevision { .. } | Self::ConditionFailed => {
                ErrorKind::CompareFailed
            }
            Self::BadParameter(_) => ErrorKind::BadParameter,
            Self::WatcherTooSlow { .. } => ErrorKind::LimitExceeded,
            Self::Closed | Self::ConnectionProblem(_) => ErrorKind::ConnectionProblem,
            Self::Storage(_) => ErrorKind::Other,
        }
    }

    /// Whether the item asked for is absent.
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }

    /// Whether the item to be created is present.
    pub fn is_already_exists(&self) -> bool {
        self.kind() == ErrorKind::AlreadyExists
    }

    /// Whether the state changed under the caller, who may read it again and retry.
    pub fn is_compare_failed(&self) -> bool {
        self.kind() == ErrorKind::CompareFailed
    }

    pub(crate) fn not_found(key: &crate::Key) -> Self {
        Self::NotFound { key: key.to_string() }
    }

    pub(crate) fn incorrect_revision(key: &crate::Key) -> Self {
        Self::IncorrectRevision { key: key.to_string() }
    }
}

impl Kinded for BackendError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

impl From<rusqlite::Error> for BackendError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                Self::ConnectionProblem("the database is in use by another process".to_owned())
            }
            _ => Self::Storage(error.to_string()),
        }
    }
}
