//! What is forwarded over a connection: ports and sockets both ways, the client's agent, its display.
//!
//! Everything is opened by a worker with the login's rights ([`helper`]); the bytes are then copied here.

mod asks;
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::connection::{Connection, JOIN_LOGIN};
use crate::os::account::Account;
use crate::worker::protocol::{Answer, Operation};
use helper::Helper;

pub(crate) use asks::Ask;
pub(crate) use display::{Display, DisplayRequest};

/// Listeners one connection may have.
const MAX_LISTENERS: usize = 64;
/// Connections to listeners of one client that are open at the same time.
const MAX_ARRIVED: usize = 512;
/// How long a client may take to answer to a connection that is opened to it.
const ANSWER: Duration = Duration::from_secs(30);
/// Why nothing is opened for a client that is gone, or is about to be.
const CLOSED: &str = "the connection is closed";

/// What one connection forwards.
pub(crate) struct Forwards {
    /// The worker, once something needs it.
    helper: Mutex<Option<LetIn>>,
    /// What listens for the client, by the name under which it can be cancelled.
    listeners: Mutex<HashMap<String, CancellationToken>>,
    /// Socket of the forwarded agent, for all sessions of the connection.
    agent: tokio::sync::Mutex<Option<String>>,
    /// Places for connections that come from others than the client.
    places: Arc<Semaphore>,
    closed: CancellationToken,
}

/// A worker, and whether it may begin: known once PAM has decided.
#[derive(Clone)]
struct LetIn {
    helper: Arc<Helper>,
    decided: watch::Receiver<Option<Result<(), String>>>,
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
            helper: Mutex::default(),
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
        if let Some(LetIn { helper, .. }) = self.helper.lock().take() {
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
    pub(crate) async fn open_as_user(self: &Arc<Self>, operation: Operation) -> Result<(Answer, Vec<OwnedFd>), String> {
        self.helper().await?.ask(operation).await
    }

    /// The worker, once PAM has let it in. Who waits for that keeps nobody else from giving up.
    async fn helper(self: &Arc<Self>) -> Result<Arc<Helper>, String> {
        let started = self.forwards.helper.lock().clone().filter(|LetIn { helper, .. }| helper.is_alive());
        let LetIn { helper, mut decided } = match started {
            Some(started) => started,
            None => self.start_helper(&self.account().await.map_err(|refusal| refusal.message)?)?,
        };
        let decided = decided.wait_for(Option::is_some).await.ok().and_then(|decided| decided.clone());
        decided.unwrap_or_else(|| Err(CLOSED.to_owned())).map(|()| helper)
    }

    /// Starts the worker, unless somebody was faster or the connection is gone.
    fn start_helper(self: &Arc<Self>, account: &Account) -> Result<LetIn, String> {
        // Whoever closes the connection takes the worker from here, and finds it, or it is not started.
        let mut place = self.forwards.helper.lock();
        if let Some(started) = place.as_ref().filter(|LetIn { helper, .. }| helper.is_alive()) {
            return Ok(started.clone());
        }
        if self.forwards.closed.is_cancelled() {
            return Err(CLOSED.to_owned());
        }
        let started = Helper::start(account, &self.node.config.worker, self.gate().as_ref(), &self.node.tasks);
        let (helper, begun) = started.map_err(|e| format!("starting the node's worker: {e}"))?;
        let (decide, decided) = watch::channel(None);
        let (connection, waiting) = (self.clone(), helper.clone());
        // In a task of its own: those who need the worker may give up while PAM decides, and it would be left alone.
        self.node.tasks.spawn(async move {
            let begun = tokio::select! {
                begun = connection.let_in_when(begun) => begun.map(drop),
                () = connection.over() => Err(CLOSED.to_owned()),
            };
            if begun.is_err() {
                waiting.close();
            }
            decide.send_replace(Some(begun));
        });
        Ok(place.insert(LetIn { helper, decided }).clone())
    }

    /// The variables of the user's environment file, where the node reads it.
    pub async fn user_environment(self: &Arc<Self>) -> Vec<(String, String)> {
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
