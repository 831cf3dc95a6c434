//! What stops the daemon.

/// An error with the words an administrator reads.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl Failure {
    /// From anything that has words.
    pub fn new(words: impl std::fmt::Display) -> Self {
        Self(words.to_string())
    }
}

/// Shorthand for what may stop the daemon.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

macro_rules! from {
    ($($source:ty),* $(,)?) => { $(impl From<$source> for Failure { fn from(e: $source) -> Self { Self(e.to_string()) } })* };
}
from!(
    backend::BackendError,
    config::ConfigError,
    dialer::EnvironmentError,
    pki::Error,
    process::IdentityError,
    process::JoinError,
    process::RenewError,
    process::StorageError,
    std::io::Error,
    wire::error::Error,
);
