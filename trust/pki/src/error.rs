//! What can go wrong with keys, certificates and the files that hold them.

use std::fmt::Display;
use std::path::PathBuf;

use thiserror::Error;

/// An error of this crate.
///
/// Checks that decide about a peer have their own, more precise types:
/// [`ssh_cert::CheckError`](crate::ssh_cert::CheckError) and [`pin::PinError`](crate::pin::PinError).
#[derive(Debug, Error)]
pub enum Error {
    /// Bytes or text that do not have the expected form.
    #[error("{what}: {reason}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A key of a kind or size that no part of the system uses.
    #[error("unsupported key: {0}")]
    UnsupportedKey(String),
    /// The cryptographic library refused to generate a key or to sign.
    #[error("{0} failed")]
    Crypto(&'static str),
    /// The module that keeps a private key did not sign with it.
    #[error("{0}")]
    Module(String),
    /// A private key that does not belong to the certificate it is used with.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// A certificate authority type that does not exist here. Clients recognise the end of this text.
    #[error("{0:?} authority type is not supported")]
    UnknownAuthorityType(String),
    /// A signature algorithm suite that does not exist here.
    #[error("unknown signature algorithm suite {0:?}, expected legacy, balanced-v1, fips-v1 or hsm-v1")]
    UnknownSuite(String),
    /// A certificate without a common name.
    #[error("missing identity username")]
    MissingUsername,
    /// A certificate without any organization, which means without any role.
    #[error("missing identity groups")]
    MissingGroups,
    /// A private attribute of a certificate's subject that cannot be understood; such a certificate is useless.
    #[error("certificate subject: {attribute}: {reason}")]
    IdentityAttribute {
        /// The attribute, by what it means.
        attribute: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// The wrong kind of SSH certificate, such as a host certificate where a user's is needed.
    #[error("expected an SSH {expected} certificate")]
    WrongCertificateType {
        /// `user` or `host`.
        expected: &'static str,
    },
    /// A server name that says nothing about a cluster.
    #[error("{0:?} does not name a cluster")]
    NoClusterInServerName(String),
    /// A file that could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// TLS settings that rustls refused.
    #[error("tls configuration: {0}")]
    Tls(#[from] rustls::Error),
}

/// The broad class of an error, which decides what a client is told (gRPC code, HTTP status).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The input was wrong.
    BadParameter,
    /// Something that was asked for is not there.
    NotFound,
    /// Nothing the caller can change.
    Internal,
}

impl Error {
    /// The broad class of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Crypto(_) | Self::Module(_) | Self::Tls(_) => ErrorKind::Internal,
            Self::NoClusterInServerName(_) => ErrorKind::NotFound,
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::Io { .. } => ErrorKind::Internal,
            _ => ErrorKind::BadParameter,
        }
    }

    /// Names what was malformed; the reason is usually a parser's own error.
    pub(crate) fn malformed(what: &'static str, reason: impl Display) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }
}
