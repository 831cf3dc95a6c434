//! The live sessions of a node.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use wire::types::SessionTrackerPolicySet;

use super::{Command, Typed};
use crate::os::pty::TerminalSize;

/// How other parts of the node reach a session.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    /// Its id, a UUID.
    pub id: Arc<str>,
    /// Number of the connection that started it.
    pub connection: u64,
    /// The Unix account it runs as.
    pub login: Arc<str>,
    /// Name of the user who started it.
    pub owner: Arc<str>,
    /// What the owner's roles demand of those who join.
    pub policies: Arc<[SessionTrackerPolicySet]>,
    /// Asks something of it.
    pub commands: mpsc::Sender<Command>,
    /// Types into it. Bounded: a session that does not keep up slows those who type.
    pub typed: mpsc::Sender<Typed>,
    /// The terminal's present size.
    pub size: watch::Receiver<TerminalSize>,
}

/// All live sessions by id. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct SessionRegistry {
    sessions: Arc<Mutex<HashMap<Arc<str>, SessionHandle>>>,
    parties: Arc<AtomicU64>,
}

impl SessionRegistry {
    /// Makes a session findable for as long as the returned guard lives.
    pub fn register(&self, handle: SessionHandle) -> Registration {
        let id = handle.id.clone();
        self.sessions.lock().insert(id.clone(), handle);
        Registration { registry: self.clone(), id }
    }

    /// A live session.
    pub fn find(&self, id: &str) -> Option<SessionHandle> {
        self.sessions.lock().get(id).cloned()
    }

    /// All live sessions.
    pub fn all(&self) -> Vec<SessionHandle> {
        self.sessions.lock().values().cloned().collect()
    }

    /// A number no other party of this process has.
    pub fn next_party(&self) -> u64 {
        self.parties.fetch_add(1, Ordering::Relaxed)
    }
}

/// Keeps a session in the registry.
#[derive(Debug)]
pub struct Registration {
    registry: SessionRegistry,
    id: Arc<str>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.sessions.lock().remove(&self.id);
    }
}
