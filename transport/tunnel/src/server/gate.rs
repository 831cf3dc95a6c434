//! Lets agents in: checks their certificates, registers them, and takes the channels they open.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure, Disconnect};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::connection::{self, Connection};
use super::registry::TunnelInfo;
use super::{Shared, TunnelError};
use crate::certificate::{HostClaims, claims, verify};
use crate::dial::TunnelType;
use crate::protocol::{DIAL_REQUEST, HEARTBEAT_CHANNEL, NO_SESSIONS_HERE, PING_REQUEST, STDERR, TRANSPORT_CHANNEL};
use crate::ssh::HANDSHAKE_TIMEOUT;
use crate::stream::OpenStreams;

/// How long dialling an Auth Service may take.
const AUTH_DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// For how long after its start a proxy tells agents nothing of other proxies: when it was restarted all agents come at once,
/// know the others from before, and are let in first.
const RUSH: Duration = Duration::from_secs(3);

/// An agent has one connection to the Auth Service for calls and a few for uploads; this leaves much room.
const MOST_AUTH_STREAMS: usize = 1024;

/// The state of one connection.
pub(super) struct Gate {
    shared: Arc<Shared>,
    peer: SocketAddr,
    login: CancellationToken,
    agent: Option<Agent>,
    heartbeat: Option<ChannelId>,
    tunnel: Arc<Registration>,
    auth_streams: OpenStreams,
    /// Ends with the connection.
    tasks: JoinSet<()>,
}

/// Who logged in.
#[derive(Clone)]
struct Agent {
    user: String,
    claims: HostClaims,
}

/// The connection's entry in the registry, taken out when the connection ends.
struct Registration {
    shared: Arc<Shared>,
    connection: OnceLock<Arc<Connection>>,
    /// Set when the session is over, so that an entry is not made after it.
    over: Mutex<bool>,
}

impl Gate {
    pub(super) fn new(shared: Arc<Shared>, peer: SocketAddr) -> Self {
        let registration =
            Registration { shared: shared.clone(), connection: OnceLock::new(), over: Mutex::new(false) };
        Self {
            shared,
            peer,
            login: CancellationToken::new(),
            agent: None,
            heartbeat: None,
            tunnel: Arc::new(registration),
            auth_streams: OpenStreams::default(),
            tasks: JoinSet::new(),
        }
    }

    /// Is cancelled when the agent has logged in.
    pub(super) fn login(&self) -> CancellationToken {
        self.login.clone()
    }

    async fn admit(&self, user: &str, certificate: &Certificate) -> Result<Agent, TunnelError> {
        let claims = claims(certificate)?;
        let authorities = self.shared.config.authorities.host_authority(&claims.cluster).await;
        verify(certificate, &authorities, Some(user), SystemTime::now())?;
        Ok(Agent { user: user.to_owned(), claims })
    }

    /// What the tunnel of this agent would be, or why it gets none.
    fn tunnel_of(&self, agent: &Agent) -> Result<TunnelInfo, String> {
        let own = agent.claims.cluster == self.shared.config.cluster;
        let tunnel_type = TunnelType::of_role(&agent.claims.role)
            .filter(|kind| (*kind == TunnelType::Proxy) != own)
            .ok_or_else(|| format!("unsupported role {}", agent.claims.role))?;
        Ok(TunnelInfo {
            server_id: agent.user.clone(),
            tunnel_type,
            cluster: agent.claims.cluster.clone(),
            peer: self.peer,
            auth_version: None,
        })
    }

    async fn open_heartbeat(&mut self, channel: Channel<Msg>, reply: ChannelOpenHandle, handle: russh::server::Handle) {
        let admitted = match &self.agent {
            None => Err("not logged in".to_owned()),
            Some(_) if self.heartbeat.is_some() => Err("this connection has a heartbeat channel already".to_owned()),
            Some(_) if self.shared.draining.is_cancelled() => Err("this proxy shuts down".to_owned()),
            Some(agent) => self.tunnel_of(agent),
        };
        match admitted {
            Ok(info) => {
                self.heartbeat = Some(channel.id());
                reply.accept().await;
                self.tasks.spawn(register(self.tunnel.clone(), info, handle));
            }
            Err(reason) => {
                debug!(peer = %self.peer, reason, "heartbeat channel refused");
                reply.reject_with(ChannelOpenFailure::ConnectFailed, reason).await;
            }
        }
    }

    async fn open_transport(&mut self, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        let own = |agent: &Agent| agent.claims.cluster == self.shared.config.cluster;
        if !self.agent.as_ref().is_some_and(own) {
            let reason = "the auth servers of this cluster are for its own agents";
            return reply.reject_with(ChannelOpenFailure::ConnectFailed, reason).await;
        }
        while self.tasks.try_join_next().is_some() {}
        let Some(place) = self.auth_streams.enter(MOST_AUTH_STREAMS) else {
            return reply.reject_with(ChannelOpenFailure::ResourceShortage, "too many streams").await;
        };
        reply.accept().await;
        let (shared, peer) = (self.shared.clone(), self.peer);
        self.tasks.spawn(async move {
            serve_auth(channel, &shared, peer).await;
            drop(place);
        });
    }

    async fn refuse(&self, what: &str, reply: ChannelOpenHandle) {
        let reason = format!("reversetunnel received unknown channel request {what} from {}", self.peer);
        reply.reject_with(ChannelOpenFailure::ConnectFailed, reason).await;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.tunnel.end();
    }
}

impl Registration {
    fn begin(&self, connection: &Arc<Connection>) -> bool {
        let over = self.over.lock();
        if *over || self.connection.set(connection.clone()).is_err() {
            return false;
        }
        self.shared.registry.register(connection);
        true
    }

    fn end(&self) {
        *self.over.lock() = true;
        if let Some(connection) = self.connection.get() {
            self.shared.registry.unregister(connection);
        }
    }
}

/// Makes the entry in the registry and, a little later, sends the list of proxies. The proxy of another cluster is asked for its
/// version first; one that does not answer gets no tunnel.
async fn register(registration: Arc<Registration>, mut info: TunnelInfo, handle: russh::server::Handle) {
    if info.tunnel_type == TunnelType::Proxy {
        match connection::auth_version(&handle).await {
            Ok(version) => info.auth_version = Some(version),
            Err(error) => {
                warn!(cluster = %info.cluster, peer = %info.peer, %error, "a cluster did not tell its version");
                let reason = "no answer to the version request".to_owned();
                let _ = handle.disconnect(Disconnect::ByApplication, reason, String::new()).await;
                return;
            }
        }
    }
    let connection = Connection::new(info, handle);
    if registration.begin(&connection) {
        tokio::time::sleep_until(registration.shared.started + RUSH).await;
        let payload = registration.shared.proxies.borrow().clone();
        connection.send_discovery(payload).await;
    }
}

/// Connects a stream that an agent opened to an Auth Service, whatever address it asked for.
async fn serve_auth(mut channel: Channel<Msg>, shared: &Shared, peer: SocketAddr) {
    let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, async {
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Request { name, .. }) => break name == DIAL_REQUEST,
                Some(ChannelMsg::Close | ChannelMsg::Eof) | None => break false,
                Some(_) => {}
            }
        }
    });
    if !matches!(first.await, Ok(true)) {
        let _ = channel.close().await;
        return;
    }
    let dialling = tokio::time::timeout(AUTH_DIAL_TIMEOUT, shared.config.auth.dial_auth(peer)).await;
    let mut auth = match dialling {
        Ok(Ok(auth)) => auth,
        outcome => {
            let error = outcome.map(|dialled| dialled.err()).ok().flatten();
            warn!(%peer, ?error, "an agent was not connected to an auth server");
            let _ = channel.extended_data_bytes(STDERR, &b"failed to dial auth server"[..]).await;
            let _ = channel.reply(false).await;
            let _ = channel.close().await;
            return;
        }
    };
    if channel.reply(true).await.is_err() {
        return;
    }
    let mut agent = channel.into_stream();
    if let Err(error) = tokio::io::copy_bidirectional(&mut agent, &mut auth).await {
        debug!(%peer, %error, "stream between an agent and an auth server ended");
    }
}

impl Handler for Gate {
    type Error = TunnelError;

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, TunnelError> {
        match self.admit(user, certificate).await {
            Ok(agent) => {
                self.agent = Some(agent);
                Ok(Auth::Accept)
            }
            Err(error) => {
                warn!(peer = %self.peer, user, %error, "an agent was not let in");
                Ok(Auth::reject())
            }
        }
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), TunnelError> {
        self.login.cancel();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), TunnelError> {
        reply.reject_with(ChannelOpenFailure::ConnectFailed, NO_SESSIONS_HERE).await;
        Ok(())
    }

    async fn channel_open_extension(
        &mut self,
        channel: Channel<Msg>,
        typ: &str,
        _data: &[u8],
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), TunnelError> {
        match typ {
            HEARTBEAT_CHANNEL => self.open_heartbeat(channel, reply, session.handle()).await,
            TRANSPORT_CHANNEL => self.open_transport(channel, reply).await,
            other => self.refuse(other, reply).await,
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), TunnelError> {
        self.refuse("direct-tcpip", reply).await;
        Ok(())
    }

    async fn channel_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        want_reply: bool,
        _data: &[u8],
        session: &mut Session,
    ) -> Result<(), TunnelError> {
        if self.heartbeat != Some(channel) {
            // Whoever serves the transport channel answers.
            return Ok(());
        }
        if name == PING_REQUEST
            && let Some(connection) = self.tunnel.connection.get()
        {
            self.shared.registry.heartbeat(connection);
        }
        if want_reply {
            session.channel_failure(channel)?;
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), TunnelError> {
        if self.heartbeat == Some(channel) {
            session.disconnect(Disconnect::ByApplication, "heartbeat channel closed", "")?;
        } else if let Some(connection) = self.tunnel.connection.get() {
            connection.channel_closed(channel);
        }
        Ok(())
    }
}
