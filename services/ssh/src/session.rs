//! Interactive sessions: one process on a terminal, watched by one or more parties and by the recorder.

mod actor;
mod party;
mod registry;

pub use actor::{Launch, Outcome, SessionActor};
pub use party::{Notice, Party, PartyHandle, PartyMode};
pub use registry::{SessionHandle, SessionRegistry};

use bytes::Bytes;

use crate::os::pty::TerminalSize;

/// What a party asks of a session.
#[derive(Debug)]
pub enum Command {
    /// Another party wants in.
    Join(Party),
    /// A party is gone.
    Leave {
        /// Which one.
        party: u64,
    },
    /// A party typed something; only peers are heard.
    Input {
        /// Which one.
        party: u64,
        /// What was typed.
        data: Bytes,
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
