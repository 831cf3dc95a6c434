//! Somebody at a session's terminal.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::actor::Outcome;
use crate::os::pty::TerminalSize;

/// Chunks of output that may wait for a slow party before the session waits for it or drops it.
const OUTPUT_QUEUE: usize = 32;

/// What a party may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartyMode {
    /// Sees the output.
    Observer,
    /// Sees the output and may end the session.
    Moderator,
    /// Types, too.
    Peer,
}

impl PartyMode {
    /// The mode named by a client; observers are the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "observer" => Some(Self::Observer),
            "moderator" => Some(Self::Moderator),
            "peer" => Some(Self::Peer),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Observer => "observer",
            Self::Moderator => "moderator",
            Self::Peer => "peer",
        }
    }
}

/// What a party is told.
#[derive(Debug)]
pub enum Notice {
    /// Terminal output.
    Output(Bytes),
    /// Text outside the terminal's output, for the error stream.
    Message(String),
    /// Somebody else's window changed the terminal's size.
    Resized(TerminalSize),
}

/// The session's end of a party.
#[derive(Debug)]
pub struct Party {
    /// Number within the process.
    pub id: u64,
    /// Name of the cluster's user.
    pub user: String,
    /// What the party may do.
    pub mode: PartyMode,
    pub(crate) notices: mpsc::Sender<Notice>,
    pub(crate) end: oneshot::Sender<Outcome>,
}

/// The connection's end of a party.
#[derive(Debug)]
pub struct PartyHandle {
    /// Number within the process.
    pub id: u64,
    /// What the session says to the party, in order.
    pub notices: mpsc::Receiver<Notice>,
    /// How the session ended for the party.
    pub end: oneshot::Receiver<Outcome>,
}

impl Party {
    /// A party and the connection's end of it.
    pub fn new(id: u64, user: String, mode: PartyMode) -> (Self, PartyHandle) {
        let (notices, notices_rx) = mpsc::channel(OUTPUT_QUEUE);
        let (end, end_rx) = oneshot::channel();
        (Self { id, user, mode, notices, end }, PartyHandle { id, notices: notices_rx, end: end_rx })
    }
}
