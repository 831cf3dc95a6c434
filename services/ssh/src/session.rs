//! Interactive sessions: one process on a terminal, watched by one or more parties and by the recorder.

mod actor;
mod moderation;
mod party;
mod registry;
mod transfer;

pub use actor::{Launch, Outcome, Process, SessionActor, Setup, Starter};
pub use moderation::Moderation;
pub use party::{Notice, Party, PartyHandle, Who};
pub use registry::{SessionHandle, SessionRegistry};
pub use transfer::{By, Copier, TransferRequest};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::os::pty::TerminalSize;

/// What a party asks of a session.
#[derive(Debug)]
pub enum Command {
    /// Somebody wants to copy a file.
    WantTransfer {
        /// Who.
        by: By,
        /// Which file.
        request: TransferRequest,
        /// Where the answer goes; without, a refusal is shown to the party.
        answer: Option<oneshot::Sender<Result<(), String>>>,
    },
    /// A party approves or denies a copy.
    DecideTransfer {
        /// Which party.
        party: u64,
        /// Id of the request.
        id: String,
        /// Whether it approves.
        approved: bool,
    },
    /// Somebody begins a copy, or waits for the approval.
    UseTransfer(Copier),
    /// Another party wants in.
    Join(Box<Party>),
    /// A party is gone.
    Leave {
        /// Which one.
        party: u64,
    },
    /// A party's window has a new size.
    Resize {
        /// Which one.
        party: u64,
        /// Its size.
        size: TerminalSize,
    },
    /// The session is to end for everybody, with a text for their terminals.
    Terminate {
        /// The party that asks, who must be a moderator; `None` for the node itself.
        by: Option<u64>,
        /// Why, as users read it.
        reason: String,
    },
}

/// What a party typed; only peers are heard. Apart from [`Command`], so that a process that reads nothing keeps nobody
/// from leaving or ending its session.
#[derive(Debug)]
pub struct Typed {
    /// Which party.
    pub party: u64,
    /// What it typed.
    pub data: Bytes,
}
