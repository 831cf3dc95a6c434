//! What watches a session: the recorder and the audit log.

use bytes::Bytes;

use crate::os::pty::TerminalSize;
use crate::session::PartyMode;

/// A party came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartyChange {
    /// Somebody joined.
    Joined {
        /// Name of the cluster's user.
        user: String,
        /// What the party may do.
        mode: PartyMode,
    },
}

/// Sees everything that happens in a session, in order.
pub trait Observer: Send {
    /// Terminal output.
    fn output(&mut self, data: Bytes) -> impl Future<Output = ()> + Send;
    /// The terminal has a new size.
    fn resized(&mut self, size: TerminalSize) -> impl Future<Output = ()> + Send;
    /// A party came.
    fn party(&mut self, change: PartyChange) -> impl Future<Output = ()> + Send;
    /// A party left.
    fn left(&mut self, user: &str);
}
