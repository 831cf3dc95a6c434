//! What is forwarded over a connection: ports and sockets both ways, the client's agent, its display.
//!
//! Everything is opened by a worker with the login's rights ([`helper`]); the bytes are then copied here.

mod copy;
mod display;
mod helper;
mod incoming;
mod outgoing;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::connection::{Connection, JOIN_LOGIN};
use crate::worker::protocol::{Answer, Operation};
use helper::Helper;

pub(crate) use display::{Display, DisplayRequest};

/// Listeners one connection may have.
const MAX_LISTENERS: usize = 64;
/// Connections to listeners of one client that are open at the same time.
const MAX_ARRIVED: usize = 512;
/// How long a client may take to answer to a connection that is opened to it.
const ANSWER: Duration = Duration::from_secs(30);

/// What one connection forwards.
pub(crate) struct Forwards {
    /// The worker, once something needs it.
    helper: tokio::sync::Mutex<Option<Arc<Helper>>>,
    /// What listens for the client, by the name under which it can be cancelled.
    listeners: Mutex<HashMap<String, CancellationToken>>,
    /// Socket of the forwarded agent, for all sessions of the connection.
    agent: tokio::sync::Mutex<Option<String>>,
    /// Places for connections that come from others than the client.
    places: Arc<Semaphore>,
    closed: CancellationToken,
}

/// What a client wants to reach, or where it wants to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A TCP port.
    Port(String, u16),
    /// A Unix socket.
    Socket(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Port(host, port) => write!(f, "{host}:{port}"),
            Self::Socket(path) => f.write_str(path),
        }
    }
}

impl Forwards {
    pub fn new() -> Self {
        Self {
            helper: tokio::sync::Mutex::default(),
            listeners: Mutex::default(),
            agent: tokio::sync::Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_ARRIVED)),
            closed: CancellationToken::new(),
        }
    }

    /// Returns when the connection is gone.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// A place for a connection that somebody made to a listener of the client's; none when there are too many.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned();
        place.inspect_err(|_| debug!("too many forwarded connections of one client")).ok()
    }

    /// The connection is gone: listeners end, and the worker removes its files.
    pub fn close(&self) {
        self.closed.cancel();
        for (_, listener) in self.listeners.lock().drain() {
            listener.cancel();
        }
        if let Ok(mut helper) = self.helper.try_lock()
            && let Some(helper) = helper.take()
        {
            helper.close();
        }
    }
}

impl Connection {
    /// Whether this client may forward ports and sockets at all, and if not, why.
    pub fn may_forward(&self) -> Result<(), String> {
        if let Some(refused) = self.access.refusal() {
            return Err(refused.message.clone());
        }
        if let Some(words) = self.last_words() {
            return Err(words.to_string());
        }
        if self.access.login == JOIN_LOGIN {
            return Err("attempted port forwarding in join-only mode".into());
        }
        if !self.node.features.borrow().port_forwarding {
            return Err("node does not allow port forwarding".into());
        }
        if !self.access.permit.options.port_forwarding {
            return Err("port forwarding not allowed: no role of the user has options.port_forwarding".into());
        }
        Ok(())
    }

    /// Has something opened with the login's rights.
    pub(crate) async fn open_as_user(&self, operation: Operation) -> Result<(Answer, Vec<OwnedFd>), String> {
        let helper = self.helper().await?;
        let opened = helper.ask(operation).await;
        // A connection that ended meanwhile has nobody left to end the worker.
        if self.forwards.closed.is_cancelled() {
            helper.close();
        }
        opened
    }

    async fn helper(&self) -> Result<Arc<Helper>, String> {
        let mut helper = self.forwards.helper.lock().await;
        if let Some(running) = helper.as_ref().filter(|h| h.is_alive()) {
            return Ok(running.clone());
        }
        if self.forwards.closed.is_cancelled() {
            return Err("the connection is closed".into());
        }
        let account = self.account().await.map_err(|refusal| refusal.message)?;
        let started = Helper::start(&account, &self.node.config.worker, self.gate().as_ref(), &self.node.tasks);
        let (started, begun) = started.map_err(|e| format!("starting the node's worker: {e}"))?;
        self.let_in_when(begun).await.map_err(|refusal| refusal.message)?;
        *helper = Some(started.clone());
        Ok(started)
    }

    /// The variables of the user's environment file, where the node reads it.
    pub async fn user_environment(&self) -> Vec<(String, String)> {
        if !self.node.features.borrow().user_environment {
            return Vec::new();
        }
        match self.open_as_user(Operation::Environment).await {
            Ok((answer, _)) => crate::os::environment::parse_file(&answer.text),
            Err(_) => Vec::new(), // most users have no such file
        }
    }

    /// The socket of the client's agent, if the roles let it be forwarded; made at the first call.
    pub async fn agent_socket(self: &Arc<Self>) -> Result<String, String> {
        if !self.access.permit.forward_agent {
            return Err("agent forwarding not allowed: no role of the user has options.forward_agent".into());
        }
        let mut agent = self.forwards.agent.lock().await;
        if let Some(path) = &*agent {
            return Ok(path.clone());
        }
        let (answer, descriptors) = self.open_as_user(Operation::ListenAgent).await?;
        let listener = unix_listener(descriptors)?;
        let connection = self.clone();
        self.node.tasks.spawn(incoming::until_closed(self.forwards.closed.clone(), async move {
            while let Some(stream) = incoming::accept_unix(&listener).await {
                let Some(place) = connection.forwards.place() else { continue };
                let connection = connection.clone();
                let node = connection.node.clone();
                node.tasks.spawn(async move {
                    let _place = place;
                    if let Ok(channel) = incoming::taken(connection.handle.channel_open_agent()).await {
                        copy::run(channel, stream, &connection).await;
                    }
                });
            }
        }));
        *agent = Some(answer.path.clone());
        Ok(answer.path)
    }
}

/// The first of the descriptors as a listener of the runtime.
fn unix_listener(descriptors: Vec<OwnedFd>) -> Result<UnixListener, String> {
    let listener = descriptors.into_iter().next().ok_or("the worker opened nothing")?;
    let listener = std::os::unix::net::UnixListener::from(listener);
    let ready = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
    ready.map_err(|e| e.to_string())
}
