//! What kind of thing went wrong: the part of an error that clients react to.
//!
//! Every crate has its own error type; each of them names its [`ErrorKind`], and only this module knows how a kind
//! looks as a gRPC status code or as an HTTP status.

use std::fmt;

use tonic::{Code, Status};

/// The kinds clients tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The thing asked for does not exist.
    NotFound,
    /// The thing to create exists.
    AlreadyExists,
    /// The caller may not do this.
    AccessDenied,
    /// The request is malformed or contradicts itself.
    BadParameter,
    /// The thing changed since it was read.
    CompareFailed,
    /// A rate, size or count limit was reached.
    LimitExceeded,
    /// A peer could not be reached or went away.
    ConnectionProblem,
    /// This build or edition of the service cannot do it.
    NotImplemented,
    /// Anything else; the message says what.
    Other,
}

impl ErrorKind {
    /// The gRPC code a client expects for this kind.
    pub fn code(self) -> Code {
        match self {
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::AccessDenied => Code::PermissionDenied,
            Self::BadParameter => Code::InvalidArgument,
            Self::CompareFailed => Code::FailedPrecondition,
            Self::LimitExceeded => Code::ResourceExhausted,
            Self::ConnectionProblem => Code::Unavailable,
            Self::NotImplemented => Code::Unimplemented,
            Self::Other => Code::Unknown,
        }
    }

    /// The HTTP status a client expects for this kind. Access denied is 403 in every case, never 401.
    pub fn http_status(self) -> http::StatusCode {
        use http::StatusCode as S;
        match self {
            Self::NotFound => S::NOT_FOUND,
            Self::AlreadyExists => S::CONFLICT,
            Self::AccessDenied => S::FORBIDDEN,
            Self::BadParameter => S::BAD_REQUEST,
            Self::CompareFailed => S::PRECONDITION_FAILED,
            Self::LimitExceeded => S::TOO_MANY_REQUESTS,
            Self::ConnectionProblem => S::GATEWAY_TIMEOUT,
            Self::NotImplemented => S::NOT_IMPLEMENTED,
            Self::Other => S::INTERNAL_SERVER_ERROR,
        }
    }

    /// The kind a status code received from a server stands for.
    pub fn from_code(code: Code) -> Self {
        match code {
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::PermissionDenied | Code::Unauthenticated => Self::AccessDenied,
            Code::InvalidArgument | Code::OutOfRange => Self::BadParameter,
            Code::FailedPrecondition | Code::Aborted => Self::CompareFailed,
            Code::ResourceExhausted => Self::LimitExceeded,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Self::ConnectionProblem,
            Code::Unimplemented => Self::NotImplemented,
            _ => Self::Other,
        }
    }

    /// The kind an HTTP status received from a server stands for.
    pub fn from_http_status(status: http::StatusCode) -> Self {
        match status.as_u16() {
            404 => Self::NotFound,
            409 => Self::AlreadyExists,
            401 | 403 => Self::AccessDenied,
            400 | 413 | 415 | 422 => Self::BadParameter,
            412 => Self::CompareFailed,
            429 => Self::LimitExceeded,
            502..=504 => Self::ConnectionProblem,
            501 => Self::NotImplemented,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::AccessDenied => "access denied",
            Self::BadParameter => "bad parameter",
            Self::CompareFailed => "compare failed",
            Self::LimitExceeded => "limit exceeded",
            Self::ConnectionProblem => "connection problem",
            Self::NotImplemented => "not implemented",
            Self::Other => "error",
        })
    }
}

/// An error that knows its kind, whatever its type.
pub trait Kinded: fmt::Display {
    /// The kind that clients react to.
    fn kind(&self) -> ErrorKind;

    /// This error as it travels in a gRPC response.
    fn to_status(&self) -> Status {
        Status::new(self.kind().code(), self.to_string())
    }
}

/// A kind with a message: the error of code that has nothing more to say than that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What clients react to.
    pub kind: ErrorKind,
    /// What users read: one lower-case clause.
    pub message: String,
}

/// Shorthand for a result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a message for users.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::AlreadyExists`].
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::AlreadyExists, message)
    }

    /// [`ErrorKind::AccessDenied`].
    pub fn access_denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::AccessDenied, message)
    }

    /// [`ErrorKind::BadParameter`].
    pub fn bad_parameter(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadParameter, message)
    }

    /// [`ErrorKind::CompareFailed`].
    pub fn compare_failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::CompareFailed, message)
    }

    /// [`ErrorKind::LimitExceeded`].
    pub fn limit_exceeded(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::LimitExceeded, message)
    }

    /// [`ErrorKind::ConnectionProblem`].
    pub fn connection_problem(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ConnectionProblem, message)
    }

    /// [`ErrorKind::NotImplemented`].
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }

    /// [`ErrorKind::Other`].
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Other, message)
    }
}

impl Kinded for Error {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.to_status()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::new(ErrorKind::from_code(status.code()), status.message())
    }
}
