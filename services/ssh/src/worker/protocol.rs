//! What the daemon asks a worker to open, and the answers.
//!
//! Requests and replies are JSON, one in each packet of a `SOCK_SEQPACKET` pair; what was opened travels with the
//! reply as file descriptors. The daemon then uses the sockets itself, so no byte passes the worker.

use serde::{Deserialize, Serialize};

/// The longest message. Names and paths that do not fit are refused before they are sent.
pub(crate) const MAX_MESSAGE: usize = 100 * 1024;

/// A numbered request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub id: u64,
    pub operation: Operation,
}

/// What to open. Each answers with the descriptors named.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Operation {
    /// Connect to a TCP port: one socket.
    Connect { host: String, port: u16 },
    /// Listen on a TCP port: one listener.
    Listen { host: String, port: u16 },
    /// Connect to a Unix socket: one socket.
    ConnectUnix { path: String },
    /// Listen on a Unix socket: one listener. The file is removed when the worker ends.
    ListenUnix { path: String },
    /// Listen for clients of an SSH agent, on a socket in a new folder: one listener.
    ListenAgent,
    /// Listen as the first free display of a range: one listener, and one with the same name in the abstract
    /// namespace where that is free.
    ListenDisplay { first: u32, last: u32 },
    /// Remove the file of a listener.
    Remove { path: String },
    /// Read the user's environment file.
    Environment,
}

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub id: u64,
    pub answer: Result<Answer, String>,
}

/// What came of it, beside the descriptors.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The port that is listened on.
    #[serde(default)]
    pub port: u16,
    /// The path that is listened on.
    #[serde(default)]
    pub path: String,
    /// The number of the display.
    #[serde(default)]
    pub display: u32,
    /// Contents of a file.
    #[serde(default)]
    pub text: String,
}
