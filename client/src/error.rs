//! What a command can fail with, as its user reads it.

use std::error::Error as _;

use dialer::DialError;
use dialer::webapi::RequestError;
use tonic::{Code, Status};
use wire::error::ErrorKind;

use crate::home::HomeError;
use crate::keys::KeyError;
use crate::profile::ProfileError;
use crate::text;

/// Why a command of the client failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client's folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Profiles.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Keys and certificates.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A call of the proxy's web API.
    #[error("{}", text::lines(&.0.to_string()))]
    Web(#[from] RequestError),
    /// A call of the cluster's API.
    #[error("{}", explain(.0))]
    Call(Box<Status>),
    /// Sessions.
    #[error(transparent)]
    Ssh(#[from] crate::ssh::SshError),
    /// Reading or writing.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The user has no valid credentials.
    #[error("{0}")]
    NotLoggedIn(String),
    /// Whatever needs no more than its text: one lower-case clause.
    #[error("{0}")]
    Other(String),
}

/// The result of what a command does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that is its text.
    pub fn other(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }

    /// Reading or writing failed.
    pub fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// The failed dial that this is about, if it is about one.
    pub fn dial(&self) -> Option<&DialError> {
        match self {
            Self::Dial(error) | Self::Web(RequestError::Dial(error)) => Some(error),
            Self::Call(status) => dial_error(status),
            Self::Ssh(crate::ssh::SshError::Unreachable { status, .. }) => dial_error(status),
            _ => None,
        }
    }

    /// Whether this is a call that nobody answered, rather than one that was answered with an error.
    pub fn is_broken_call(&self) -> bool {
        let broken = |status: &Status| status.source().is_some() && dial_error(status).is_none();
        match self {
            Self::Call(status) => broken(status),
            Self::Ssh(crate::ssh::SshError::Unreachable { status, .. }) => broken(status),
            _ => false,
        }
    }

    /// What kind of thing went wrong, as far as a server said it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Call(status) => ErrorKind::from_code(status.code()),
            Self::Web(error) => match error.api() {
                Some(api) => {
                    http::StatusCode::from_u16(api.status).map_or(ErrorKind::Other, ErrorKind::from_http_status)
                }
                None => ErrorKind::ConnectionProblem,
            },
            Self::Dial(_) => ErrorKind::ConnectionProblem,
            _ => ErrorKind::Other,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Call(Box::new(status))
    }
}

/// The text of a failed call: the server's, or why it was not reached.
pub fn explain(status: &Status) -> String {
    if let Some(error) = dial_error(status) {
        return error.to_string();
    }
    let message = match status.message() {
        "" => ErrorKind::from_code(status.code()).to_string(),
        message => message.to_owned(),
    };
    if status.code() == Code::Unimplemented {
        return format!("the server does not know this call: {}", text::lines(&message));
    }
    text::lines(&message).into_owned()
}

/// The failed dial behind a failed call, if that is what it is.
pub fn dial_error(status: &Status) -> Option<&DialError> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return Some(dial);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_servers_cannot_drive_the_terminal() {
        let error = Error::from(Status::permission_denied("access denied\x1b]0;owned\x07"));
        assert_eq!(error.to_string(), "access denied\\u{1b}]0;owned\\u{7}");
        assert_eq!(error.kind(), ErrorKind::AccessDenied);
        assert_eq!(Error::from(Status::not_found("")).to_string(), "not found");
    }
}
