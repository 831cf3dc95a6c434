//! Forwarding: connections, agents and displays that reach through a session's connection.
//!
//! [`Listeners`] are bound before anything is dialled, so that a port in use costs no session; [`Forwards`] carries
//! what they take once there is a connection. What the server may open towards this client is in [`Admitted`]:
//! nothing that was not asked for.

pub(crate) mod agent;
mod socks;
mod spec;
mod x11;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::guest::Guest;
use super::{SshConnection, SshError};
use crate::error::{Error, Result};
use crate::text;

pub use agent::{Agent, LocalAgent};
use socks::{Answer, Asked};
pub use spec::{DynamicForward, Endpoint, Forward, ForwardError};
pub(super) use x11::PROTOCOL as X11_PROTOCOL;
pub use x11::{Display, Trust, X11, X11Error};

/// Time for a local connection, and for a program to say what it wants of a dynamic forward.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes carried at once in either direction.
const CHUNK: usize = tunnel::ssh::CHANNEL_PACKET as usize;
/// Connections that all forwards of a session carry at once; more wait for their turn.
const MOST_CONNECTIONS: usize = 1024;
/// Pause after an error of a listener, which may have run out of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Tells the user something while the session runs.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// What is to be forwarded.
#[derive(Clone, Debug, Default)]
pub struct ForwardPlan {
    /// `-L`.
    pub local: Vec<Forward>,
    /// `-R`.
    pub remote: Vec<Forward>,
    /// `-D`.
    pub dynamic: Vec<DynamicForward>,
}

/// Ports and sockets that are bound on this machine.
pub struct Listeners(Vec<(Listener, Way)>);

/// Forwards that run; they end when this is dropped.
pub struct Forwards {
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// What the server may open towards this client.
pub(super) struct Admitted {
    /// Remote forwards: where the host listens, where connections go.
    pub remote: Vec<Forward>,
    /// The agent that is forwarded.
    pub agent: Option<Agent>,
    /// The display that is forwarded.
    pub x11: Option<Arc<X11>>,
    /// Tells the user what went wrong.
    pub say: Option<Say>,
    /// Places for connections that the server opens.
    places: Arc<Semaphore>,
}

impl Default for Admitted {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        Self { remote: Vec::new(), agent: None, x11: None, say: None, places }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A socket of ours in the file system, removed in the end.
struct SocketFile(std::path::PathBuf);

/// Where the connections of a listener go.
#[derive(Clone)]
enum Way {
    To(Endpoint),
    AsAsked,
}

/// Anything with two directions.
trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

impl ForwardPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty() && self.dynamic.is_empty()
    }

    /// Binds what listens on this machine.
    pub async fn bind(&self) -> Result<Listeners> {
        let mut bound = Vec::new();
        let local = self.local.iter().map(|forward| (&forward.listen, Way::To(forward.target.clone())));
        let dynamic = self.dynamic.iter().map(|forward| (&forward.listen, Way::AsAsked));
        for (listen, way) in local.chain(dynamic) {
            let listener = Listener::bind(listen).await;
            bound.push((listener.map_err(Error::io(format!("listening on {listen}")))?, way));
        }
        Ok(Listeners(bound))
    }
}

impl Listeners {
    /// Where they are, in the order of the plan: ports that were left open are known now.
    pub fn addresses(&self) -> Vec<String> {
        self.0.iter().map(|(listener, _)| listener.address()).collect()
    }
}

impl Forwards {
    /// Begins to carry connections. `say` hears of connections that could not be carried on.
    ///
    /// # Errors
    /// The remote forwards that the server refused come back with their reasons; all others run.
    pub async fn start(
        connection: &SshConnection,
        plan: &ForwardPlan,
        listeners: Listeners,
        say: Say,
    ) -> (Self, Vec<SshError>) {
        let limit = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        connection.admitted.lock().say = Some(say.clone());
        let tasks = listeners.0.into_iter().map(|(listener, way)| {
            let carrier = Carrier { handle: connection.handle.clone(), way, say: say.clone() };
            AbortOnDropHandle::new(tokio::spawn(carrier.serve(listener, limit.clone())))
        });
        let running = Self { _tasks: tasks.collect() };
        let mut refused = Vec::new();
        for forward in &plan.remote {
            match request_remote(connection, forward).await {
                Ok(None) => {}
                Ok(Some(port)) => {
                    say(&format!("the host chose port {port} for the forward to {}", forward.target));
                }
                Err(error) => refused.push(error),
            }
        }
        (running, refused)
    }
}

/// Asks the host to listen. The answer is the port, where the host has chosen it.
async fn request_remote(connection: &SshConnection, forward: &Forward) -> Result<Option<u16>, SshError> {
    // Connections may arrive before the answer does.
    connection.admitted.lock().remote.push(forward.clone());
    let refused = |error: russh::Error| SshError::Refused {
        host: connection.host.name.clone(),
        reason: match error {
            russh::Error::RequestDenied => format!(
                "remote port forwarding (-R) of {}: the host or your roles do not allow it, or the port is taken there",
                forward.listen
            ),
            error => format!("remote port forwarding (-R) of {}: {error}", forward.listen),
        },
    };
    let late = || SshError::Timeout { host: connection.host.name.clone(), waited_for: "a remote forward" };
    let asked = async {
        match &forward.listen {
            Endpoint::Tcp { host, port } => connection
                .handle
                .tcpip_forward(host.as_str(), u32::from(*port))
                .await
                .map(|chosen| (*port == 0).then_some(chosen)),
            Endpoint::Unix(path) => connection.handle.streamlocal_forward(path.to_string_lossy()).await.map(|()| None),
        }
    };
    let answer = timeout(tunnel::ssh::HANDSHAKE_TIMEOUT, asked).await;
    let mut admitted = connection.admitted.lock();
    match answer {
        Ok(Ok(None)) => Ok(None),
        Ok(Ok(Some(chosen))) => {
            let port = u16::try_from(chosen).map_err(|_| refused(russh::Error::Inconsistent))?;
            let asked = admitted.remote.iter_mut().find(|known| *known == forward);
            if let Some(Forward { listen: Endpoint::Tcp { port: known, .. }, .. }) = asked {
                *known = port;
            }
            Ok(Some(port))
        }
        // What the user is told has failed is not to work later.
        failed => {
            admitted.remote.retain(|known| known != forward);
            Err(failed.map_or_else(|_| late(), |answer| answer.err().map_or_else(late, refused)))
        }
    }
}

impl Listener {
    async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp { host, port } if host.is_empty() => {
                // Both families where the machine has both.
                let both = TcpListener::bind(("::", *port)).await;
                Ok(Self::Tcp(match both {
                    Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                        TcpListener::bind(("0.0.0.0", *port)).await?
                    }
                    bound => bound?,
                }))
            }
            Endpoint::Tcp { host, port } => Ok(Self::Tcp(TcpListener::bind((host.as_str(), *port)).await?)),
            Endpoint::Unix(path) => Ok(Self::Unix(UnixListener::bind(path)?, SocketFile(path.clone()))),
        }
    }

    fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| address.to_string()).unwrap_or_default(),
            Self::Unix(_, file) => file.0.display().to_string(),
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Both>, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                tune(&stream);
                Ok((Box::new(stream), Some(peer)))
            }
            Self::Unix(listener, _) => Ok((Box::new(listener.accept().await?.0), None)),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_socket = std::fs::symlink_metadata(&self.0).is_ok_and(|found| found.file_type().is_socket());
        if is_socket && let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "remove socket");
        }
    }
}

/// Carries the connections of one listener.
#[derive(Clone)]
struct Carrier {
    handle: Arc<Handle<Guest>>,
    way: Way,
    say: Say,
}

impl Carrier {
    async fn serve(self, listener: Listener, limit: Arc<Semaphore>) {
        let mut running = tokio::task::JoinSet::new();
        loop {
            while running.try_join_next().is_some() {}
            let Ok(permit) = limit.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let carrier = self.clone();
                    running.spawn(async move {
                        carrier.carry(stream, peer).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "accept for a forward");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn carry(&self, mut stream: Box<dyn Both>, peer: Option<SocketAddr>) {
        let (target, asked) = match &self.way {
            Way::To(target) => (target.clone(), None),
            Way::AsAsked => {
                let asked = match timeout(LOCAL_TIMEOUT, Asked::read(&mut stream)).await {
                    Ok(Ok(asked)) => asked,
                    Ok(Err(error)) => return tracing::debug!(%error, "SOCKS request"),
                    Err(_) => return tracing::debug!("SOCKS request: gave up waiting for it"),
                };
                (Endpoint::Tcp { host: asked.host.clone(), port: asked.port }, Some(asked))
            }
        };
        let opened = self.open(&target, peer).await;
        let answer = match &opened {
            Ok(_) => Answer::Connected,
            Err(russh::Error::ChannelOpenFailure(no))
                if no.reason == ChannelOpenFailure::AdministrativelyProhibited =>
            {
                Answer::NotAllowed
            }
            Err(_) => Answer::Failed,
        };
        if let Some(asked) = asked
            && let Err(error) = asked.answer(&mut stream, answer).await
        {
            return tracing::debug!(%error, "SOCKS answer");
        }
        match opened {
            Ok(channel) => exchange(stream, channel).await,
            Err(error) => (self.say)(&format!("forward to {target}: {}", reason(&error))),
        }
    }

    async fn open(&self, target: &Endpoint, peer: Option<SocketAddr>) -> Result<Channel<Msg>, russh::Error> {
        let open = async {
            match target {
                Endpoint::Tcp { host, port } => {
                    let (ip, from) =
                        peer.map_or_else(|| ("127.0.0.1".to_owned(), 0), |p| (p.ip().to_string(), p.port()));
                    self.handle.channel_open_direct_tcpip(host.as_str(), u32::from(*port), ip, u32::from(from)).await
                }
                Endpoint::Unix(path) => self.handle.channel_open_direct_streamlocal(path.to_string_lossy()).await,
            }
        };
        timeout(tunnel::ssh::HANDSHAKE_TIMEOUT, open).await.unwrap_or(Err(russh::Error::ConnectionTimeout))
    }
}

impl Admitted {
    /// A channel that the server wants to open.
    pub fn visit(&self, channel: Channel<Msg>, reply: ChannelOpenHandle) -> Visit {
        Visit { channel, reply, say: self.say.clone(), place: self.places.clone().try_acquire_owned().ok() }
    }

    /// The agent, if one was forwarded.
    pub fn agent_purpose(&self) -> Option<Purpose> {
        Some(match self.agent.as_ref()? {
            Agent::System(socket) => Purpose::Connection(Endpoint::Unix(socket.clone())),
            Agent::Local(agent) => Purpose::Agent(agent.clone()),
        })
    }

    /// Where a connection goes that was taken at a port of the host. Hosts report the address they have bound, which
    /// is not always the one that was asked for, so the port decides where the address does not.
    pub fn tcp_target(&self, address: &str, port: u32) -> Option<Endpoint> {
        let listens = |forward: &Forward, wanted: u32| match &forward.listen {
            Endpoint::Tcp { host, port } if u32::from(*port) == wanted => Some(host == address),
            _ => None,
        };
        let exact = self.remote.iter().find(|forward| listens(forward, port) == Some(true));
        let by_port = || self.remote.iter().find(|forward| listens(forward, port).is_some());
        // A host that chooses the port may open connections before its answer has been looked at.
        let undecided = || self.remote.iter().find(|forward| listens(forward, 0).is_some());
        exact.or_else(by_port).or_else(undecided).map(|forward| forward.target.clone())
    }

    /// Where a connection goes that was taken at a socket of the host.
    pub fn socket_target(&self, path: &str) -> Option<Endpoint> {
        let forward = self.remote.iter().find(|f| matches!(&f.listen, Endpoint::Unix(p) if p.as_os_str() == path));
        forward.map(|forward| forward.target.clone())
    }
}

/// A channel that the server wants to open towards this client.
pub(super) struct Visit {
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
    say: Option<Say>,
    place: Option<OwnedSemaphorePermit>,
}

/// What a channel is for, if it is for anything that was asked for.
pub(super) enum Purpose {
    /// A connection with something on this side.
    Connection(Endpoint),
    /// A conversation with an agent of our own.
    Agent(Arc<LocalAgent>),
    /// A window.
    Display(Arc<X11>),
}

impl Visit {
    /// Lets the channel in, or says why not. `what` is what should have been asked for.
    pub async fn decide(self, purpose: Option<Purpose>, what: &str) {
        use ChannelOpenFailure::{AdministrativelyProhibited, ResourceShortage};
        let refusal = match (purpose, &self.place) {
            (Some(purpose), Some(_)) => {
                tokio::spawn(self.host(purpose));
                return;
            }
            (None, _) => (AdministrativelyProhibited, format!("no {what} was asked for")),
            (Some(_), None) => (ResourceShortage, "too many forwarded connections".to_owned()),
        };
        self.reply.reject_with(refusal.0, refusal.1).await;
    }

    async fn host(self, purpose: Purpose) {
        let Self { channel, reply, say, place } = self;
        match purpose {
            Purpose::Connection(target) => join(channel, target, reply, say).await,
            Purpose::Agent(agent) => agent.serve(channel, reply).await,
            Purpose::Display(display) => display.serve(channel, reply, say).await,
        }
        drop(place);
    }
}

/// Connects a channel with its target on this side; it is accepted when there is a connection.
async fn join(channel: Channel<Msg>, target: Endpoint, reply: ChannelOpenHandle, say: Option<Say>) {
    match connect(&target).await {
        Ok(stream) => {
            reply.accept().await;
            exchange(stream, channel).await;
        }
        Err(error) => {
            if let Some(say) = say {
                say(&format!("forwarded connection to {target}: {error}"));
            }
            reply.reject_with(ChannelOpenFailure::ConnectFailed, format!("connect to {target}: {error}")).await;
        }
    }
}

async fn connect(target: &Endpoint) -> io::Result<Box<dyn Both>> {
    let connect = async {
        Ok::<Box<dyn Both>, io::Error>(match target {
            Endpoint::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                tune(&stream);
                Box::new(stream)
            }
            Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    };
    timeout(LOCAL_TIMEOUT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Carries bytes both ways until both sides have ended.
async fn exchange(mut stream: impl Both, channel: Channel<Msg>) {
    let mut far = channel.into_stream();
    if let Err(error) = copy_bidirectional_with_sizes(&mut stream, &mut far, CHUNK, CHUNK).await {
        tracing::debug!(%error, "forwarded connection");
    }
}

/// Small pieces are sent at once: what is forwarded is often a conversation.
fn tune(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set socket options");
    }
}

/// Why a channel was not opened, for people.
fn reason(error: &russh::Error) -> String {
    match error {
        russh::Error::ChannelOpenFailure(rejection) if !rejection.description.is_empty() => {
            text::lines(&rejection.description).into_owned()
        }
        russh::Error::ChannelOpenFailure(rejection) => match rejection.reason {
            ChannelOpenFailure::AdministrativelyProhibited => "the host does not allow it".to_owned(),
            ChannelOpenFailure::ConnectFailed => "the host cannot connect to it".to_owned(),
            _ => "the host refused it".to_owned(),
        },
        error => error.to_string(),
    }
}

#[cfg(test)]
pub(super) use agent::tests as tests_support;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_what_was_asked_for_has_a_target() {
        let forward = |text: &str| text.parse::<Forward>().unwrap();
        let admitted = Admitted {
            remote: vec![forward("localhost:80:a:1"), forward("10.0.0.1:80:b:2"), forward("/run/x:c:3")],
            ..Default::default()
        };
        let target = |address, port| admitted.tcp_target(address, port).map(|target| target.to_string());
        assert_eq!(target("127.0.0.1", 80).as_deref(), Some("a:1"));
        assert_eq!(target("10.0.0.1", 80).as_deref(), Some("b:2"));
        assert_eq!(target("10.0.0.1", 81), None);
        assert_eq!(admitted.socket_target("/run/x").map(|t| t.to_string()).as_deref(), Some("c:3"));
        assert_eq!(admitted.socket_target("/run/y"), None);
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_and_a_socket_is_removed_in_the_end() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let plan = ForwardPlan { local: vec![format!("{port}:web:80").parse().unwrap()], ..Default::default() };
        let error = plan.bind().await.err().unwrap().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("in use"), "{error}");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let plan =
            ForwardPlan { local: vec![format!("{}:web:80", path.display()).parse().unwrap()], ..Default::default() };
        let listeners = plan.bind().await.unwrap();
        assert!(path.exists());
        drop(listeners);
        assert!(!path.exists());
    }
}
