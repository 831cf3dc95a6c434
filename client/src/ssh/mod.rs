//! Sessions on servers.
//!
//! [`SshConnection`] is a connection to one host, made through the proxy's transport service and authenticated with
//! the user's certificate; the host is believed because of its own. [`session`] runs commands and shells on it with
//! the user's terminal, [`fan_out`] runs a command on many hosts.

mod connection;
mod escape;
pub mod fan_out;
mod files;
pub mod forward;
mod guest;
pub mod join;
pub(crate) mod lent;
mod mfa;
mod options;
mod pipe;
mod road;
pub mod session;
#[cfg(test)]
mod sshd_tests;
pub mod stdio;
mod target;
#[cfg(test)]
mod tests;
mod transfers;

use tonic::Status;

pub use connection::SshConnection;
pub use files::Moderated;
pub use guest::{HostCheck, HostProblem};
pub use options::{ForwardAgent, OptionError, SshOptions};
pub use pipe::pipe;
pub use target::{Destination, Host, Target, parse_labels};

use crate::error::explain;

/// Part of a proxy's error that says that a name belongs to several hosts.
const AMBIGUOUS: &str = "err-node-is-ambiguous";

/// Why there is no session, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// What was typed is no destination.
    #[error("destination {text:?}: {problem}")]
    Destination {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The proxy did not carry the connection to the host.
    #[error("cannot reach {host}: {}", explain(.status))]
    Unreachable {
        /// The host.
        host: String,
        /// What the proxy said.
        status: Box<Status>,
    },
    /// The host is not the one that was asked for, or not of the cluster.
    #[error("host {host} cannot be trusted: {problem}")]
    Unverified {
        /// The host.
        host: String,
        /// What is wrong with it.
        problem: HostProblem,
    },
    /// The protocol failed before a session.
    #[error("SSH handshake with {host}: {source}")]
    Handshake {
        /// The host.
        host: String,
        /// What went wrong.
        source: russh::Error,
    },
    /// Something took too long.
    #[error("waited 30 s for {waited_for} of {host}")]
    Timeout {
        /// The host.
        host: String,
        /// What was waited for.
        waited_for: &'static str,
    },
    /// The host refused the login.
    #[error("access denied to {login} connecting to {host}{}", reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    Denied {
        /// The account on the host.
        login: String,
        /// The host.
        host: String,
        /// What the host said about it.
        reason: Option<String>,
    },
    /// The host let the user in and refused what was asked.
    #[error("{host} refused: {reason}")]
    Refused {
        /// The host.
        host: String,
        /// What the host said about it.
        reason: String,
    },
    /// The connection ended under the session.
    #[error("the connection to {host} was lost: {reason}")]
    Lost {
        /// The host.
        host: String,
        /// What is known about it.
        reason: String,
    },
    /// No host fits.
    #[error("no matching host: {0}")]
    NoMatch(String),
}

impl SshError {
    /// Whether the name belongs to several hosts.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Unreachable { status, .. } if status.message().contains(AMBIGUOUS))
    }
}
