//! One SSH connection to the node: who is there, and what they open.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mux::rate::RateLimit;
use parking_lot::Mutex;
use process::leases::Lease;
use resume::server::{Incoming, Interest};
use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, GlobalRequestReply};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use tunnel::InOrder;

use crate::access::{Access, Refused};
use crate::channel::{self, Refusal, find_account};
use crate::cut::Cut;
use crate::forward::{Ask, Forwards, Place};
use crate::monitor::Activity;
use crate::node::Node;
use crate::os::account::Account;
use crate::os::accounting;
use crate::os::environment::Facts;
use crate::os::host_users::InUse;
use crate::os::pty::TerminalSize;

/// Stands for the address of a client, or of this host, that nobody told.
pub(crate) const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The login with which sessions are joined, and nothing else.
pub(crate) const JOIN_LOGIN: &str = "-teleport-internal-join";
/// How long a client may take from its first byte to being authenticated.
const LOGIN_GRACE: Duration = Duration::from_secs(30);
/// How long a notice to a client may wait for its connection.
const NOTICE: Duration = Duration::from_secs(10);

/// Global request that asks for a session's terminal size.
const TERMINAL_SIZE_REQUEST: &str = "x-teleport-terminal-size";
/// Global request that asks who makes session ids.
const SESSION_ID_QUERY: &str = "session-id-query@goteleport.com";
/// Channels of one connection that wait to be told that they are too many.
const MAX_TURNED_AWAY: usize = 16;
/// How clients of OpenSSH begin to introduce themselves.
const OPENSSH: &[u8] = b"SSH-2.0-OpenSSH";
/// Global request that carries an audit event to a client.
const EVENT_REQUEST: &str = "x-teleport-event";

/// An authenticated connection; its channels share it.
pub(crate) struct Connection {
    /// Number within the process.
    pub id: u64,
    /// The node it is connected to.
    pub node: Node,
    /// Who is connected and what they may do.
    pub access: Access,
    /// Where the client is.
    pub client: SocketAddr,
    /// Where the connection arrived.
    pub server: SocketAddr,
    /// The way to write to it.
    pub handle: Handle,
    /// The node's way to the audit log.
    pub audit: crate::audit::NodeAudit,
    /// When something last happened on it.
    pub activity: Activity,
    /// What is forwarded over it.
    pub forwards: Forwards,
    /// The account that was made for the login, until the connection is closed; set when it was first needed.
    host_user: OnceCell<Mutex<Option<InUse>>>,
    /// The place among the user's connections, until the connection is closed.
    lease: Mutex<Option<Arc<Lease>>>,
    /// The last words to the user, once the connection is to end.
    last_words: watch::Sender<Option<Arc<str>>>,
    /// Ends the connection even if the client neither reads nor goes.
    pub cut: CancellationToken,
    /// To be told what a client that is gone would miss.
    pub interest: Interest,
    /// Places for channels above the roles' limit that are about to be told so.
    turned_away: Arc<Semaphore>,
    /// Whether the client is OpenSSH's.
    pub is_openssh: bool,
}

impl Connection {
    /// Tells all channels that the connection ends, and why.
    pub fn say_last(&self, words: &str) {
        self.last_words.send_replace(Some(words.into()));
    }

    /// The last words to the user, if the connection is about to be ended: nothing is opened any more.
    pub fn last_words(&self) -> Option<Arc<str>> {
        self.last_words.borrow().clone()
    }

    /// Returns the last words to the user when the connection is about to be ended from outside.
    pub async fn ending(&self) -> Arc<str> {
        let mut words = self.last_words.subscribe();
        match words.wait_for(Option::is_some).await.ok().and_then(|w| (*w).clone()) {
            Some(words) => words,
            None => std::future::pending().await, // unreachable while `self` lives
        }
    }

    /// Returns when the connection ends, whoever ends it.
    pub async fn over(&self) {
        tokio::select! {
            words = self.ending() => drop(words),
            () = self.forwards.closed() => {}
        }
    }

    /// Returns when the place among the user's connections is lost.
    pub async fn place_lost(&self) -> String {
        let lease = self.lease.lock().clone();
        match lease {
            Some(lease) => lease.lost().await,
            None => std::future::pending().await,
        }
    }

    /// The connection is gone: what it held is free again.
    pub fn closed(&self) {
        self.lease.lock().take();
        if let Some(host_user) = self.host_user.get() {
            host_user.lock().take();
        }
        self.forwards.close();
    }

    /// Whether the client is gone.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Whether something may be run without anybody watching.
    pub fn unattended_allowed(&self) -> Result<(), Refusal> {
        if self.access.login == JOIN_LOGIN {
            return Err(Refusal::new("attempted exec request in join-only mode"));
        }
        if self.access.moderation(false).is_some() {
            return Err(Refusal::new("lacking privileges to start unattended session"));
        }
        Ok(())
    }

    /// The login's account, made first where roles and node say so.
    pub async fn account(&self) -> Result<Account, Refusal> {
        let login = &self.access.login;
        if let (Some(users), Ok(wanted)) = (&self.node.host_users, &self.access.permit.host_user) {
            let prepare = || async {
                match users.prepare(login, wanted).await {
                    Ok(in_use) => Ok(Mutex::new(Some(in_use))),
                    Err(problem) => {
                        warn!(login, problem, "account not made");
                        Err(problem)
                    }
                }
            };
            if let Err(problem) = self.host_user.get_or_try_init(prepare).await {
                // An account that was there before does as well.
                let why =
                    |refusal: Refusal| Refusal::failed(format!("{}: making the account: {problem}", refusal.message));
                return find_account(login).await.map_err(why);
            }
        }
        let found = find_account(login).await;
        if found.as_ref().is_err_and(Refusal::is_of_unknown_account) {
            accounting::failed(login, self.client);
        }
        found
    }

    /// Refuses a channel or session, and says so in the audit log.
    pub async fn reject(&self, reply: ChannelOpenHandle, refused: Refused) {
        self.audit.rejected(&self.access, self.client, self.server, &refused).await;
        reply.reject_with(ChannelOpenFailure::AdministrativelyProhibited, refused.message).await;
    }

    /// Refuses a session channel above the roles' limit, in the channel: a client that shares its connection among
    /// several programs shows the words of a channel to the right one, and takes a refused channel for a reason to
    /// connect anew, around the limit.
    async fn turn_away(&self, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        let refused = self.access.too_many_channels();
        let Ok(turn) = self.turned_away.clone().try_acquire_owned() else {
            return self.reject(reply, refused).await;
        };
        self.audit.rejected(&self.access, self.client, self.server, &refused).await;
        reply.accept().await;
        self.node.tasks.spawn(async move {
            channel::turn_away(channel, refused.message).await;
            drop(turn);
        });
    }

    /// What a process is told about this connection.
    pub fn facts<'a>(&'a self, session_id: Option<&'a str>, terminal: Option<(&'a str, &'a Path)>) -> Facts<'a> {
        Facts {
            client: self.client,
            server: self.server,
            host_uuid: &self.node.config.host_uuid,
            cluster: &self.node.config.cluster,
            user: &self.access.user,
            session_id,
            terminal,
        }
    }

    /// Tells the client that another party changed the terminal's size.
    pub async fn announce_size(&self, session_id: &str, size: TerminalSize) {
        let event = serde_json::json!({"event": "resize", "sid": session_id, "size": size.to_string()});
        self.announce(&event.to_string()).await;
    }

    /// Hands the client's program an event, as JSON.
    pub async fn announce(&self, event: &str) {
        let sent = self.handle.send_global_request(EVENT_REQUEST, event.as_bytes(), false);
        if timeout(NOTICE, sent).await.is_err() {
            debug!("client does not take notices");
        }
    }
}

/// Serves one network connection to its end; it may carry a connection that began on another one.
///
/// `client` is the client's own address, which a tunnel reports if it is known; `server` is where it arrived.
pub(crate) async fn serve<S>(node: Node, stream: S, client: Option<SocketAddr>, server: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !is_in_time(&node.rates, client, Instant::now()) {
        debug!(?client, "connection closed: too many of this address over time");
        return;
    }
    let client = client.unwrap_or(UNKNOWN);
    let (resumable, config, stop) = (node.resumable.clone(), node.config.clone(), node.shutdown.clone());
    let shown = (tunnel::ssh::SERVER_VERSION, config.host_uuid.as_str());
    let ssh = |incoming| serve_ssh(node, incoming, client, server);
    resumable.serve(stream, client, shown, &stop, ssh).await;
}

/// Counts a connection of a client; false when there are too many over time. Nobody can say how many those of unknown
/// address are.
fn is_in_time(rates: &RateLimit, client: Option<SocketAddr>, now: Instant) -> bool {
    client.is_none_or(|client| rates.allow(client.ip(), now))
}

/// Speaks SSH.
async fn serve_ssh<S>(node: Node, incoming: Incoming<S>, client: SocketAddr, server: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Incoming { stream, identification, interest } = incoming;
    let (authenticated, mut is_authenticated) = watch::channel(false);
    let state = State::Stranger;
    let cut = CancellationToken::new();
    let stream = Cut::new(stream, &cut);
    let asks = InOrder::default();
    let handler = Door { node: node.clone(), client, server, state, refusal: None, authenticated, interest, cut, asks };
    let config = Arc::new(node.ssh_config(identification));
    let running = match timeout(LOGIN_GRACE, russh::server::run_stream(config, stream, handler)).await {
        Ok(Ok(running)) => running,
        Ok(Err(error)) => {
            debug!(%client, %error, "connection ended before the handshake");
            return;
        }
        Err(_) => {
            debug!(%client, "waited 30 s for the client's identification");
            return;
        }
    };
    let handle = running.handle();
    let grace = async {
        let done = is_authenticated.wait_for(|done| *done);
        if timeout(LOGIN_GRACE, done).await.is_err() {
            let reason = "waited 30 s for authentication".to_owned();
            let _ = handle.disconnect(russh::Disconnect::ByApplication, reason, String::new()).await;
        }
    };
    let (result, ()) = tokio::join!(running, grace);
    if let Err(error) = result {
        debug!(%client, %error, "connection ended");
    }
}

/// What is known about the client.
enum State {
    /// Nothing yet.
    Stranger,
    /// The certificate was accepted.
    Known(Box<Access>),
    /// The connection is up.
    Connected(Arc<Connection>),
}

/// The protocol's callbacks.
struct Door {
    node: Node,
    client: SocketAddr,
    server: SocketAddr,
    state: State,
    /// Why the last login was refused; for a client that has shown a key of its own.
    refusal: Option<String>,
    authenticated: watch::Sender<bool>,
    interest: Interest,
    cut: CancellationToken,
    /// What the client asks about places to listen at.
    asks: InOrder,
}

impl Door {
    /// The connection, made when it is first needed after authentication.
    fn connection(&mut self, session: &Session) -> Option<Arc<Connection>> {
        if let State::Connected(connection) = &self.state {
            return Some(connection.clone());
        }
        let State::Known(mut access) = std::mem::replace(&mut self.state, State::Stranger) else { return None };
        let lease = access.take_lease().map(Arc::new);
        let connection = Arc::new(Connection {
            id: self.node.connections.fetch_add(1, Ordering::Relaxed),
            node: self.node.clone(),
            access: *access,
            client: self.client,
            server: self.server,
            handle: session.handle(),
            audit: self.node.audit.clone(),
            activity: Activity::new(),
            forwards: Forwards::new(),
            host_user: OnceCell::new(),
            lease: Mutex::new(lease),
            last_words: watch::Sender::new(None),
            cut: self.cut.clone(),
            interest: self.interest.clone(),
            turned_away: Arc::new(Semaphore::new(MAX_TURNED_AWAY)),
            is_openssh: session.remote_sshid().starts_with(OPENSSH),
        });
        self.state = State::Connected(connection.clone());
        Some(connection)
    }

    /// Has something done about a place to listen at; PAM may take its time to let the worker in that does it. What this gives is
    /// the answer only where nobody is connected.
    fn ask(&mut self, session: &mut Session, ask: Ask) -> bool {
        if let Some(connection) = self.connection(session) {
            self.asks.put(&self.node.tasks, connection.do_what_is_asked(ask), session.answer_later());
        }
        false
    }
}

impl Handler for Door {
    type Error = russh::Error;

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        match self.node.admit(user, certificate, self.client).await {
            Ok(access) => {
                self.state = State::Known(Box::new(access));
                Ok(Auth::Accept)
            }
            Err(denial) => {
                info!(client = %self.client, login = user, reason = %denial, "login refused");
                self.node.audit.auth_failed(self.client, self.server, user, &denial).await;
                self.refusal = Some(denial.to_string());
                Ok(Auth::reject())
            }
        }
    }

    async fn rejection_banner(&mut self) -> Result<Option<String>, Self::Error> {
        Ok(self.refusal.take())
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        self.authenticated.send_replace(true);
        if let Some(connection) = self.connection(session) {
            connection.node.watch(&connection);
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(connection) = self.connection(session) else { return Ok(()) };
        let ending = || connection.last_words().map(|words| Refused::because(words.to_string()));
        if let Some(refused) = connection.access.refusal().cloned().or_else(ending) {
            connection.reject(reply, refused).await;
            return Ok(());
        }
        let Some(place) = connection.access.session_channel() else {
            connection.turn_away(channel, reply).await;
            return Ok(());
        };
        reply.accept().await;
        let open = connection.interest.hold_session();
        self.node.tasks.spawn(async move {
            channel::serve(channel, connection).await;
            drop((place, open));
        });
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _origin: &str,
        _origin_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(connection) = self.connection(session) else { return Ok(()) };
        match u16::try_from(port) {
            Ok(port) => connection.connect_to(channel, reply, Place::Port(host.to_owned(), port)),
            Err(_) => reply.reject_with(ChannelOpenFailure::ConnectFailed, format!("no such port: {port}")).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(connection) = self.connection(session) else { return Ok(()) };
        connection.connect_to(channel, reply, Place::Socket(path.to_owned()));
        Ok(())
    }

    async fn tcpip_forward(&mut self, host: &str, port: &mut u32, session: &mut Session) -> Result<bool, Self::Error> {
        let Ok(port) = u16::try_from(*port) else { return Ok(false) };
        Ok(self.ask(session, Ask::Listen(Place::Port(host.to_owned(), port))))
    }

    async fn cancel_tcpip_forward(
        &mut self,
        host: &str,
        port: u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let Ok(port) = u16::try_from(port) else { return Ok(false) };
        Ok(self.ask(session, Ask::Stop(Place::Port(host.to_owned(), port))))
    }

    async fn streamlocal_forward(&mut self, path: &str, session: &mut Session) -> Result<bool, Self::Error> {
        Ok(self.ask(session, Ask::Listen(Place::Socket(path.to_owned()))))
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, session: &mut Session) -> Result<bool, Self::Error> {
        Ok(self.ask(session, Ask::Stop(Place::Socket(path.to_owned()))))
    }

    async fn channel_request(
        &mut self,
        _channel: ChannelId,
        _name: &str,
        _want_reply: bool,
        _data: &[u8],
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(()) // the channel's task answers
    }

    async fn agent_request(&mut self, _channel: ChannelId, _session: &mut Session) -> Result<bool, Self::Error> {
        Ok(true) // never fails on the wire; without permission nothing is forwarded
    }

    async fn global_request(
        &mut self,
        name: &str,
        _want_reply: bool,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<GlobalRequestReply, Self::Error> {
        if !matches!(self.state, State::Connected(_)) {
            return Ok(GlobalRequestReply::Failure);
        }
        Ok(match name {
            SESSION_ID_QUERY => GlobalRequestReply::Success(Vec::new()),
            TERMINAL_SIZE_REQUEST => match self.node.terminal_size(data) {
                Some(size) => GlobalRequestReply::Success(size),
                None => GlobalRequestReply::Failure,
            },
            _ => tunnel::ssh::answer(name, wire::VERSION, self.node.records_at_proxy()),
        })
    }
}

#[cfg(test)]
mod tests {
    use mux::rate::Rate;

    use super::*;

    #[test]
    fn addresses_that_nobody_vouches_for_are_counted_and_unknown_ones_are_not() {
        let rates = RateLimit::new([Rate::per_minute(1, 3)]);
        let now = Instant::now();
        let passed = |client: Option<SocketAddr>| (0..10).filter(|_| is_in_time(&rates, client, now)).count();
        assert_eq!(passed(Some(([192, 0, 2, 1], 0).into())), 3);
        assert_eq!(passed(Some(([192, 0, 2, 2], 4711).into())), 3);
        // What somebody may say of themselves is not what stands for nothing known.
        assert_eq!(passed(Some(UNKNOWN)), 3);
        assert_eq!(passed(None), 10);
    }
}
