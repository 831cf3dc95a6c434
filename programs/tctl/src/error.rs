//! What a command can fail with, as its user reads it.

use std::error::Error as _;
use std::io;

use dialer::DialError;
use dialer::webapi::RequestError;
use resources::ResourceError;
use tonic::{Code, Status};
use wire::error::{ErrorKind, Kinded};

use crate::output::text;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of the Auth Service.
    #[error("{}", explain(.0))]
    Call(Box<Status>),
    /// A call of the older HTTP API.
    #[error("{}", text::lines(&.0.to_string()))]
    Web(#[from] RequestError),
    /// A connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// What somebody wrote as a resource.
    #[error("{}", text::lines(&.0.to_string()))]
    Resource(#[from] ResourceError),
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The identities of this host.
    #[error(transparent)]
    Storage(#[from] process::StorageError),
    /// The folder of `tsh`.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A key or a certificate.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// Reading or writing.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Whatever needs no more than a kind and a text.
    #[error("{}", text::lines(&.0.message))]
    Plain(#[from] wire::error::Error),
    /// The same, after some of the work was done.
    #[error("{cause} ({done})")]
    Partly {
        /// Why the rest was not done.
        cause: Box<Error>,
        /// What was done before.
        done: String,
    },
}

/// The result of what a command does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The arguments do not fit together, or a value is none.
    pub fn bad(text: impl Into<String>) -> Self {
        Self::Plain(wire::error::Error::bad_parameter(text))
    }

    /// There is no such thing.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::Plain(wire::error::Error::not_found(text))
    }

    /// This build cannot do it.
    pub fn not_built(text: impl Into<String>) -> Self {
        Self::Plain(wire::error::Error::not_implemented(text))
    }

    /// Anything else that is its text.
    pub fn other(text: impl Into<String>) -> Self {
        Self::Plain(wire::error::Error::other(text))
    }

    /// Reading or writing failed.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// What kind of thing went wrong, as far as it is known.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Call(status) => ErrorKind::from_code(status.code()),
            Self::Web(error) => error.api().map_or(ErrorKind::ConnectionProblem, |api| kind_of(api.kind)),
            Self::Dial(_) => ErrorKind::ConnectionProblem,
            Self::Resource(error) => error.kind(),
            Self::Client(error) => error.kind(),
            Self::Plain(error) => error.kind,
            Self::Partly { cause, .. } => cause.kind(),
            Self::Config(_) | Self::Storage(_) | Self::Pki(_) | Self::Io { .. } => ErrorKind::Other,
        }
    }

    /// Whether the thing asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Call(Box::new(status))
    }
}

fn kind_of(kind: dialer::webapi::ErrorKind) -> ErrorKind {
    use dialer::webapi::ErrorKind as Web;
    match kind {
        Web::NotFound => ErrorKind::NotFound,
        Web::BadParameter => ErrorKind::BadParameter,
        Web::NotImplemented => ErrorKind::NotImplemented,
        Web::CompareFailed => ErrorKind::CompareFailed,
        Web::AccessDenied => ErrorKind::AccessDenied,
        Web::AlreadyExists => ErrorKind::AlreadyExists,
        Web::LimitExceeded => ErrorKind::LimitExceeded,
        Web::ConnectionProblem => ErrorKind::ConnectionProblem,
        Web::Other => ErrorKind::Other,
    }
}

/// The text of a failed call: the server's, or why it was not reached.
fn explain(status: &Status) -> String {
    let mut causes = std::iter::successors(status.source(), |error| (*error).source());
    if let Some(dial) = causes.find_map(|error| error.downcast_ref::<DialError>()) {
        return format!("the Auth Service was not reached: {dial}");
    }
    let message = match status.message() {
        "" => ErrorKind::from_code(status.code()).to_string(),
        message => text::lines(message).into_owned(),
    };
    match status.code() {
        Code::Unimplemented => format!("not implemented by the Auth Service: {message}"),
        Code::AlreadyExists if !message.contains("already exists") => format!("{message} (already exists)"),
        Code::NotFound if !message.contains("not found") => format!("{message} (not found)"),
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_servers_cannot_drive_the_terminal() {
        let error = Error::from(Status::permission_denied("access denied\x1b]0;owned\x07"));
        assert_eq!(error.to_string(), "access denied\\u{1b}]0;owned\\u{7}");
        assert_eq!(error.kind(), ErrorKind::AccessDenied);
    }

    #[test]
    fn the_kind_is_in_the_text_when_the_server_left_it_out() {
        assert_eq!(Error::from(Status::not_found("role \"x\"")).to_string(), "role \"x\" (not found)");
        assert_eq!(Error::from(Status::not_found("")).to_string(), "not found");
        assert_eq!(Error::from(Status::already_exists("token already exists")).to_string(), "token already exists");
    }
}
