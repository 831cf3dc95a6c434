//! One SSH connection to the node: who is there, and what they open.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, GlobalRequestReply};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::{debug, info};

use crate::access::Access;
use crate::channel::{self, Refusal};
use crate::node::Node;
use crate::os::environment::Facts;
use crate::os::pty::TerminalSize;

/// The login with which sessions are joined, and nothing else.
pub(crate) const JOIN_LOGIN: &str = "-teleport-internal-join";
/// How long a client may take from its first byte to being authenticated.
const LOGIN_GRACE: Duration = Duration::from_secs(30);
/// How long a notice to a client may wait for its connection.
const NOTICE: Duration = Duration::from_secs(10);

/// Global request that asks for a session's terminal size.
const TERMINAL_SIZE_REQUEST: &str = "x-teleport-terminal-size";
/// Global request that asks for the server's version.
const VERSION_REQUEST: &str = "x-teleport-version";
/// Global request that asks who makes session ids.
const SESSION_ID_QUERY: &str = "session-id-query@goteleport.com";
/// Global request that asks how the cluster records and whether it is in FIPS mode.
const CLUSTER_DETAILS: &str = "cluster-details@goteleport.com";
/// Global request that carries an audit event to a client.
const EVENT_REQUEST: &str = "x-teleport-event";

/// An authenticated connection; its channels share it.
pub(crate) struct Connection {
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
}

impl Connection {
    /// Whether the client is gone.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Whether something may be run without anybody watching.
    pub fn unattended_allowed(&self) -> Result<(), Refusal> {
        if self.access.login == JOIN_LOGIN {
            return Err(Refusal::new("attempted exec request in join-only mode"));
        }
        Ok(())
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
        let payload = event.to_string();
        let sent = self.handle.send_global_request(EVENT_REQUEST, payload.as_bytes(), false);
        if timeout(NOTICE, sent).await.is_err() {
            debug!("client does not take notices");
        }
    }
}

/// Serves one connection to its end.
///
/// `client` is the client's own address, which a tunnel reports; `server` is where it arrived.
pub(crate) async fn serve<S>(node: Node, stream: S, client: SocketAddr, server: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (authenticated, mut is_authenticated) = tokio::sync::watch::channel(false);
    let handler = Door { node: node.clone(), client, server, state: State::Stranger, refusal: None, authenticated };
    let config = node.ssh_config();
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
    authenticated: tokio::sync::watch::Sender<bool>,
}

impl Door {
    /// The connection, made when it is first needed after authentication.
    fn connection(&mut self, session: &Session) -> Option<Arc<Connection>> {
        if let State::Connected(connection) = &self.state {
            return Some(connection.clone());
        }
        let State::Known(access) = std::mem::replace(&mut self.state, State::Stranger) else { return None };
        let connection = Arc::new(Connection {
            node: self.node.clone(),
            access: *access,
            client: self.client,
            server: self.server,
            handle: session.handle(),
            audit: self.node.audit.clone(),
        });
        self.state = State::Connected(connection.clone());
        Some(connection)
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
        if let Some(refusal) = connection.access.refusal() {
            reply.reject_with(ChannelOpenFailure::AdministrativelyProhibited, refusal).await;
            return Ok(());
        }
        let Some(place) = connection.access.session_channel() else {
            let text = connection.access.too_many_channels();
            reply.reject_with(ChannelOpenFailure::AdministrativelyProhibited, text).await;
            return Ok(());
        };
        reply.accept().await;
        self.node.tasks.spawn(async move {
            channel::serve(channel, connection).await;
            drop(place);
        });
        Ok(())
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
        Ok(match name {
            "keepalive@openssh.com" | SESSION_ID_QUERY => GlobalRequestReply::Success(Vec::new()),
            VERSION_REQUEST => GlobalRequestReply::Success(wire::VERSION.as_bytes().to_vec()),
            CLUSTER_DETAILS => GlobalRequestReply::Success(vec![u8::from(self.node.records_at_proxy()), 0]),
            TERMINAL_SIZE_REQUEST => match self.node.terminal_size(data) {
                Some(size) => GlobalRequestReply::Success(size),
                None => GlobalRequestReply::Failure,
            },
            _ => GlobalRequestReply::Failure,
        })
    }
}
