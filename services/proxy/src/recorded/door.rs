//! The client's connection, which ends here.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use pki::identity::Identity;
use recording::SessionId;
use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, GlobalRequestReply, client};
use tokio::io::DuplexStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tonic::Request;
use tracing::{debug, info};
use tunnel::{BoxedStream, HostIdentity, InOrder};
use wire::proto::GetSessionTrackerRequest;
use wire::proto::auth_service_client::AuthServiceClient;

use super::agent::AgentSource;
use super::host::node_id;
use super::limits::Limits;
use super::target::Target;
use super::{Meeting, Shared, Whose, agentless, foreign, session, trail};
use crate::gate::Watch;
use crate::ssh::{JOIN_LOGIN, admitted, see_off};

/// How long a client may take until it is logged in, at the node as well.
const LOGIN_GRACE: Duration = Duration::from_secs(45);
/// How long the node may take to open a channel.
const OPENING: Duration = Duration::from_secs(20);
/// How long the node may take to listen somewhere, which it may have to ask PAM for first.
const LISTENING: Duration = Duration::from_secs(150);
/// How long a node may take to register a session that it has named, and the pause between looks.
const REGISTERING: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long sessions have to tell their users why they end.
const TOLD: Duration = Duration::from_millis(500);
/// Channels of one connection at a time.
const MOST_CHANNELS: usize = 1024;

const KEEP_ALIVE: &str = "keepalive@openssh.com";
const VERSION_REQUEST: &str = "x-teleport-version";
const SESSION_ID_QUERY: &str = "session-id-query@goteleport.com";

/// Who is logged in, and where.
pub(super) struct Visit {
    pub shared: Arc<Shared>,
    pub meeting: Arc<Meeting>,
    pub target: Target,
    /// What the user's certificate says, in terms of this cluster.
    pub identity: Identity,
    /// What else ends the connection, where nobody watches it on its way here.
    pub watch: Option<Watch>,
    /// The account on the node.
    pub login: String,
    /// What is enforced here.
    pub limits: Limits,
    /// Whether the client is OpenSSH's.
    pub is_openssh: OnceLock<bool>,
    /// The last words to the user, once the connection is to end.
    pub last_words: watch::Sender<Option<String>>,
}

impl Visit {
    /// Whether the node has registered this session as its own. A host may claim any id: that of a session elsewhere would
    /// put its recording in the other's place.
    pub(super) async fn has_registered(&self, id: SessionId) -> bool {
        let Self { shared, meeting, .. } = self;
        if meeting.agentless || meeting.cluster != shared.cache.cluster_name() {
            return false;
        }
        let looking = async {
            loop {
                let request = Request::new(GetSessionTrackerRequest { session_id: id.to_string() });
                match AuthServiceClient::new(shared.channel.clone()).get_session_tracker(request).await {
                    Ok(tracker) => {
                        return tracker.into_inner().spec.is_some_and(|spec| spec.host_id == node_id(meeting));
                    }
                    // The node tells the Auth Service and this proxy at the same time.
                    Err(_) => sleep(LOOK_AGAIN).await,
                }
            }
        };
        timeout(REGISTERING, looking).await.unwrap_or(false)
    }
}

/// Serves one connection to its end. `way` is the stream to the node, and the user's agent.
pub(super) async fn serve(
    shared: Arc<Shared>,
    meeting: Arc<Meeting>,
    shown: HostIdentity,
    stream: DuplexStream,
    way: (BoxedStream, AgentSource),
) {
    let client = meeting.client;
    let visit = Arc::<OnceLock<Arc<Visit>>>::default();
    let (entered, mut is_in) = watch::channel(false);
    let door = Door {
        shared: shared.clone(),
        meeting,
        way: Mutex::new(Some(way)),
        visit: visit.clone(),
        refusal: None,
        entered,
        places: Arc::new(Semaphore::new(MOST_CHANNELS)),
        asks: InOrder::default(),
    };
    let config = tunnel::ssh::server_config(vec![(*shown.key).clone()], vec![shown.certificate]);
    let mut running = match timeout(LOGIN_GRACE, russh::server::run_stream(Arc::new(config), stream, door)).await {
        Ok(Ok(running)) => running,
        Ok(Err(error)) => return debug!(%client, %error, "connection ended before the handshake"),
        Err(_) => return debug!(%client, "waited 45 s for the client's identification"),
    };
    let handle = running.handle();
    let ending = async {
        if !matches!(timeout(LOGIN_GRACE, is_in.wait_for(|is_in| *is_in)).await, Ok(Ok(_))) {
            return "waited 45 s for authentication".to_owned();
        }
        let Some(visit) = visit.get().cloned() else { return "not logged in".to_owned() };
        tokio::select! {
            words = visit.target.ended() => words,
            words = agentless::must_end(&visit), if visit.meeting.agentless => words,
            () = shared.shutdown.cancelled() => "the proxy is shutting down".to_owned(),
        }
    };
    let reason = tokio::select! {
        ended = &mut running => {
            if let Err(error) = ended {
                debug!(%client, %error, "connection ended");
            }
            None
        }
        reason = ending => Some(reason),
    };
    if let Some(reason) = reason {
        let told = visit.get().map(|visit| visit.last_words.send_replace(Some(reason.clone())));
        let leave = handle.disconnect(Disconnect::ByApplication, reason, String::new());
        if !see_off(&mut running, told.map_or(Duration::ZERO, |_| TOLD), leave).await {
            running.abort();
        }
    }
    if let Some(visit) = visit.get() {
        visit.target.close().await;
    }
}

/// The protocol's callbacks.
struct Door {
    shared: Arc<Shared>,
    meeting: Arc<Meeting>,
    /// The way to the node, until it is used.
    way: Mutex<Option<(BoxedStream, AgentSource)>>,
    visit: Arc<OnceLock<Arc<Visit>>>,
    /// Why the last login was refused; for a client that has shown a key of its own.
    refusal: Option<String>,
    entered: watch::Sender<bool>,
    places: Arc<Semaphore>,
    /// What the client asks the node for.
    asks: InOrder,
}

impl Door {
    /// Checks the client's certificate as every door does, and logs in to the node in its user's name: only then the
    /// client is in.
    async fn admit(&self, login: &str, certificate: &Certificate) -> Result<Visit, String> {
        let (shared, meeting) = (&self.shared, &self.meeting);
        let (peer, watch) = match &meeting.whose {
            Whose::User(name) => {
                let peer = admitted(&shared.cache, login, certificate, (meeting.client, meeting.server))?;
                if peer.identity.username != *name {
                    return Err("the certificate is of another user than the connection to the proxy".to_owned());
                }
                (peer, None) // the connection to the proxy is watched
            }
            Whose::Cluster(cluster) => {
                let (peer, watch) = foreign::admitted(shared, meeting, cluster, (login, certificate))?;
                (peer, Some(watch))
            }
        };
        if login == JOIN_LOGIN {
            return Err("session joining is not supported in proxy recording mode".to_owned());
        }
        let limits = match meeting.agentless {
            true => agentless::decide(shared, meeting, &peer.identity, login).await?,
            false => Limits::none(),
        };
        let way = self.way.lock().take().ok_or("the node has refused an earlier login on this connection")?;
        let target = Target::connect(shared, meeting, (login, &peer.identity, &limits), certificate, way).await?;
        Ok(Visit {
            shared: shared.clone(),
            meeting: meeting.clone(),
            target,
            identity: (*peer.identity).clone(),
            watch,
            login: login.to_owned(),
            limits,
            is_openssh: OnceLock::new(),
            last_words: watch::Sender::new(None),
        })
    }

    /// The visit and a place for one more channel, or why there is none.
    fn place(&self) -> Result<(Arc<Visit>, OwnedSemaphorePermit), &'static str> {
        let visit = self.visit.get().cloned().ok_or("not logged in")?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| "too many channels on this connection")?;
        Ok((visit, place))
    }

    /// Asks the node for what the client asks for; gives it the content of the node's answer. Nothing waits for that but the
    /// answers to what the client asks later.
    fn ask<F>(&mut self, session: &mut Session, asking: impl FnOnce(Arc<Visit>) -> F)
    where
        F: Future<Output = Result<Vec<u8>, russh::Error>> + Send + 'static,
    {
        let Some(asking) = self.visit.get().cloned().map(asking) else { return };
        let answered = async move {
            match timeout(LISTENING, asking).await {
                Ok(Ok(content)) => GlobalRequestReply::Success(content),
                _ => GlobalRequestReply::Failure,
            }
        };
        self.asks.put(&self.shared.tasks, answered, session.answer_later());
    }

    /// Opens a channel at the node for one of the client, and carries bytes.
    async fn pass<F>(
        &self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        open: impl FnOnce(Arc<Visit>) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Channel<client::Msg>, russh::Error>> + Send + 'static,
    {
        let (visit, place) = match self.place() {
            Ok(found) => found,
            Err(reason) => return reply.reject_with(ChannelOpenFailure::AdministrativelyProhibited, reason).await,
        };
        self.shared.tasks.spawn(async move {
            let limits = visit.limits.clone();
            match opened(open(visit)).await {
                Ok(target) => {
                    reply.accept().await;
                    mux::copy_both(&mut limits.watched(channel.into_stream()), &mut target.into_stream()).await;
                }
                Err((failure, reason)) => reply.reject_with(failure, reason).await,
            }
            drop(place);
        });
    }
}

/// A channel that the node opens, or its refusal.
pub(super) async fn opened<M: From<(ChannelId, russh::ChannelMsg)>>(
    opening: impl Future<Output = Result<Channel<M>, russh::Error>>,
) -> Result<Channel<M>, (ChannelOpenFailure, String)> {
    match timeout(OPENING, opening).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(russh::Error::ChannelOpenFailure(rejection))) => Err((rejection.reason, rejection.description)),
        Ok(Err(error)) => Err((ChannelOpenFailure::ConnectFailed, format!("the node: {error}"))),
        Err(_) => Err((ChannelOpenFailure::ConnectFailed, "waited 20 s for the node".to_owned())),
    }
}

impl Handler for Door {
    type Error = russh::Error;

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        match self.admit(user, certificate).await {
            Ok(visit) => {
                let _ = self.visit.set(Arc::new(visit)); // there is one login for each way
                Ok(Auth::Accept)
            }
            Err(reason) => {
                info!(client = %self.meeting.client, login = user, reason, "login refused");
                self.refusal = Some(reason);
                Ok(Auth::reject())
            }
        }
    }

    async fn rejection_banner(&mut self) -> Result<Option<String>, Self::Error> {
        Ok(self.refusal.take())
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        if let Some(visit) = self.visit.get() {
            let _ = visit.target.client.set(session.handle()); // called once
            let _ = visit.is_openssh.set(session.remote_sshid().starts_with(b"SSH-2.0-OpenSSH"));
        }
        self.entered.send_replace(true);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.place() {
            Ok((visit, place)) => match visit.limits.session() {
                Ok(session) => drop(self.shared.tasks.spawn(async move {
                    session::serve(channel, reply, visit).await;
                    drop((place, session));
                })),
                Err((message, max)) => {
                    let Visit { shared, meeting, identity, login, .. } = &*visit;
                    trail::rejected(shared, meeting, (identity, login.as_str()), ("max_sessions limit reached", max))
                        .await;
                    reply.reject_with(ChannelOpenFailure::AdministrativelyProhibited, message).await;
                }
            },
            Err(reason) => reply.reject_with(ChannelOpenFailure::AdministrativelyProhibited, reason).await,
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        origin: &str,
        origin_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let (host, origin) = (host.to_owned(), origin.to_owned());
        self.pass(channel, reply, move |visit| async move {
            visit.target.handle.channel_open_direct_tcpip(host, port, origin, origin_port).await
        })
        .await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let path = path.to_owned();
        self.pass(channel, reply, move |visit| async move {
            visit.target.handle.channel_open_direct_streamlocal(path).await
        })
        .await;
        Ok(())
    }

    async fn tcpip_forward(&mut self, host: &str, port: &mut u32, session: &mut Session) -> Result<bool, Self::Error> {
        let (host, port) = (host.to_owned(), *port);
        self.ask(session, move |visit| async move {
            let bound = visit.target.handle.tcpip_forward(host, port).await?;
            Ok(if port == 0 { bound.to_be_bytes().to_vec() } else { Vec::new() })
        });
        Ok(false)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        host: &str,
        port: u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let host = host.to_owned();
        self.ask(session, move |visit| async move {
            visit.target.handle.cancel_tcpip_forward(host, port).await.map(|()| Vec::new())
        });
        Ok(false)
    }

    async fn streamlocal_forward(&mut self, path: &str, session: &mut Session) -> Result<bool, Self::Error> {
        let path = path.to_owned();
        self.ask(session, move |visit| async move {
            visit.target.handle.streamlocal_forward(path).await.map(|()| Vec::new())
        });
        Ok(false)
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, session: &mut Session) -> Result<bool, Self::Error> {
        let path = path.to_owned();
        self.ask(session, move |visit| async move {
            visit.target.handle.cancel_streamlocal_forward(path).await.map(|()| Vec::new())
        });
        Ok(false)
    }

    async fn channel_request(
        &mut self,
        _: ChannelId,
        _: &str,
        _: bool,
        _: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(()) // the channel's task answers
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(false) // the channel's task answers
    }

    async fn global_request(
        &mut self,
        name: &str,
        _: bool,
        _: &[u8],
        _: &mut Session,
    ) -> Result<GlobalRequestReply, Self::Error> {
        Ok(match name {
            KEEP_ALIVE | SESSION_ID_QUERY => GlobalRequestReply::Success(Vec::new()),
            VERSION_REQUEST => GlobalRequestReply::Success(wire::VERSION.as_bytes().to_vec()),
            _ => GlobalRequestReply::Failure,
        })
    }
}
