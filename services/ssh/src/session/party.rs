//! Somebody at a session's terminal.

use bytes::Bytes;
use rbac::{JoinMode, Participant};
use tokio::sync::{mpsc, oneshot};
use wire::events::{ConnectionMetadata, UserMetadata};

use super::actor::Outcome;
use crate::os::pty::TerminalSize;

/// Chunks of output that may wait for a slow party before the session waits for it or drops it.
const OUTPUT_QUEUE: usize = 32;

/// What a party is told.
#[derive(Debug)]
pub enum Notice {
    /// Terminal output.
    Output(Bytes),
    /// An event for the party's program, as JSON.
    Event(String),
    /// Text outside the terminal's output, for the error stream.
    Message(String),
    /// Somebody else's window changed the terminal's size.
    Resized(TerminalSize),
}

/// Who a party is.
#[derive(Clone, Debug)]
pub struct Who {
    /// What the user is called in this cluster: users of trusted clusters are not to be taken for users of this one.
    pub local_name: String,
    /// For the audit log, with the session's login.
    pub user: UserMetadata,
    /// Where they are.
    pub connection: ConnectionMetadata,
    /// For the rules of sessions that need others to be present; with the party's mode.
    pub participant: Participant,
}

/// The session's end of a party.
#[derive(Debug)]
pub struct Party {
    /// Number within the process.
    pub id: u64,
    /// Who it is.
    pub who: Who,
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
    pub fn new(id: u64, who: Who) -> (Self, PartyHandle) {
        let (notices, notices_rx) = mpsc::channel(OUTPUT_QUEUE);
        let (end, end_rx) = oneshot::channel();
        (Self { id, who, notices, end }, PartyHandle { id, notices: notices_rx, end: end_rx })
    }

    /// What the party may do.
    pub fn mode(&self) -> JoinMode {
        self.who.participant.mode
    }

    /// Name of the cluster's user.
    pub fn user(&self) -> &str {
        &self.who.participant.user
    }
}
