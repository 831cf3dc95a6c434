//! One tunnel of an agent to one proxy: the handshake, the heartbeats, and what the proxy asks for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use russh::keys::{Certificate, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure, Disconnect, GlobalRequestReply, client};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::tracker::{Claim, Tracker};
use super::{AgentConfig, AgentError, transport};
use crate::certificate::{claims, host_id, verify};
use crate::discovery;
use crate::keep_alive::KeepAlive;
use crate::protocol::{
    CONNECTION_TYPE_REQUEST, DISCOVERY_CHANNEL, DISCOVERY_REQUEST, DRAINING, HEARTBEAT_CHANNEL, PING_REQUEST,
    RECONNECT_REQUEST, TRANSPORT_CHANNEL, VERSION_REQUEST,
};
use crate::ssh::{self, HANDSHAKE_TIMEOUT};
use crate::stream::OpenStreams;

/// A proxy that opens more streams than this at once on one tunnel is told to wait.
const MOST_STREAMS: usize = 16 * 1024;

/// A proxy opens one discovery channel; this leaves room for mistakes and none for mischief.
const MOST_DISCOVERY_CHANNELS: usize = 4;

/// A tunnel that is up.
pub(super) struct Link {
    handle: client::Handle<ProxyHandler>,
    heartbeat: Channel<client::Msg>,
    shared: Arc<Shared>,
}

struct Shared {
    config: AgentConfig,
    tracker: Arc<Tracker>,
    /// The proxy at the other end, from the moment its certificate was accepted until the tunnel drains or ends.
    claim: Mutex<Option<Claim>>,
    draining: CancellationToken,
    streams: OpenStreams,
    handlers: TaskTracker,
}

pub(super) struct ProxyHandler {
    shared: Arc<Shared>,
    discovery: HashSet<ChannelId>,
}

/// Connects and logs in. The claim on the proxy lives in the link.
pub(super) async fn establish(
    config: &AgentConfig,
    tracker: &Arc<Tracker>,
    handlers: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Link, AgentError> {
    let stream = config.dialer.dial().await.map_err(AgentError::Dial)?;
    let shared = Arc::new(Shared {
        config: config.clone(),
        tracker: tracker.clone(),
        claim: Mutex::new(None),
        draining: stop.child_token(),
        streams: OpenStreams::default(),
        handlers: handlers.clone(),
    });
    let handshake = async {
        let handler = ProxyHandler { shared: shared.clone(), discovery: HashSet::new() };
        let mut handle = client::connect_stream(Arc::new(client_config(config.keep_alive)), stream, handler).await?;
        let identity = config.credentials.identity();
        let user = identity.user().ok_or(AgentError::NamelessAgent)?;
        let login = handle.authenticate_openssh_cert(user, identity.key.clone(), identity.certificate.clone());
        if !login.await?.success() {
            return Err(AgentError::Refused);
        }
        let heartbeat = handle.channel_open_extension(HEARTBEAT_CHANNEL, Vec::new()).await?;
        heartbeat.request(PING_REQUEST, false, Vec::new()).await?;
        Ok(Link { handle, heartbeat, shared: shared.clone() })
    };
    let outcome = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(outcome) => outcome,
        Err(_) => Err(AgentError::Timeout),
    };
    if outcome.is_err() {
        // The session may outlive this attempt by a moment; the claim must not.
        shared.claim.lock().take();
    }
    outcome
}

/// Asks a silent proxy whether it is still there: a tunnel to a proxy whose machine vanished, or that the network forgot,
/// would look alive for ever.
fn client_config(keep_alive: KeepAlive) -> client::Config {
    let (interval, times) = keep_alive.questions();
    client::Config {
        keepalive_interval: Some(interval),
        // The time that follows the last question counts.
        keepalive_max: usize::try_from(times).unwrap_or(usize::MAX).saturating_sub(1),
        maximum_packet_size: ssh::TUNNEL_PACKET,
        ..ssh::client_config()
    }
}

impl Link {
    /// Keeps the tunnel alive until either side is done with it. Says how long that was.
    pub(super) async fn run(mut self) -> Duration {
        let since = Instant::now();
        let shared = self.shared.clone();
        let interval = shared.config.keep_alive.interval;
        let mut heartbeats = tokio::time::interval_at(Instant::now() + interval, interval);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drained = false;
        loop {
            tokio::select! {
                message = self.heartbeat.wait() => match message {
                    None | Some(ChannelMsg::Close | ChannelMsg::Eof) => break,
                    Some(_) => {}
                },
                _ = heartbeats.tick(), if !drained => {
                    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
                    if self.heartbeat.request(PING_REQUEST, false, now.into_bytes()).await.is_err() {
                        break;
                    }
                }
                () = shared.draining.cancelled(), if !drained => {
                    drained = true;
                    shared.claim.lock().take();
                    info!(streams = shared.streams.count(), "tunnel drains");
                }
                () = shared.streams.none(), if drained => break,
            }
        }
        // Requests that come in from here on find a connection that drains.
        shared.draining.cancel();
        shared.claim.lock().take();
        let _ = self.handle.disconnect(Disconnect::ByApplication, "agent is done", "").await;
        since.elapsed()
    }
}

impl Shared {
    fn accept_proxy(&self, certificate: &Certificate) -> Result<(), AgentError> {
        let authorities = self.config.credentials.proxy_authorities();
        verify(certificate, &authorities, None, SystemTime::now())?;
        let claims = claims(certificate)?;
        if claims.role != "Proxy" {
            return Err(AgentError::NotAProxy(claims.role));
        }
        let proxy = host_id(certificate.valid_principals(), &claims.cluster).ok_or(AgentError::NamelessProxy)?;
        let claim = self.tracker.claim(proxy).ok_or_else(|| AgentError::AlreadyClaimed(proxy.to_owned()))?;
        *self.claim.lock() = Some(claim);
        Ok(())
    }

    /// Starts waiting for the request of a stream that was accepted.
    fn serve(self: &Arc<Self>, channel: Channel<client::Msg>, place: crate::stream::StreamPlace) {
        let shared = self.clone();
        self.handlers.spawn(async move {
            if let Some(incoming) = transport::receive(channel, place).await {
                debug!(request = ?incoming.request(), "stream through the tunnel");
                shared.config.transports.handle(incoming).await;
            }
        });
    }
}

impl client::Handler for ProxyHandler {
    type Error = AgentError;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, AgentError> {
        match key {
            PublicKeyOrCertificate::PublicKey { .. } => Err(AgentError::PlainHostKey),
            PublicKeyOrCertificate::Certificate(certificate) => {
                self.shared.accept_proxy(certificate)?;
                Ok(true)
            }
        }
    }

    async fn server_channel_open_extension(
        &mut self,
        channel: Channel<client::Msg>,
        typ: &str,
        _data: &[u8],
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), AgentError> {
        match typ {
            DISCOVERY_CHANNEL if self.discovery.len() < MOST_DISCOVERY_CHANNELS => {
                self.discovery.insert(channel.id());
                reply.accept().await;
            }
            TRANSPORT_CHANNEL if self.shared.draining.is_cancelled() => {
                reply.reject_with(ChannelOpenFailure::ConnectFailed, DRAINING).await;
            }
            TRANSPORT_CHANNEL => match self.shared.streams.enter(MOST_STREAMS) {
                Some(place) => {
                    reply.accept().await;
                    self.shared.serve(channel, place);
                }
                None => reply.reject_with(ChannelOpenFailure::ResourceShortage, "too many streams").await,
            },
            DISCOVERY_CHANNEL => reply.reject(ChannelOpenFailure::ResourceShortage).await,
            _ => reply.reject(ChannelOpenFailure::UnknownChannelType).await,
        }
        Ok(())
    }

    async fn channel_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        want_reply: bool,
        data: &[u8],
        session: &mut client::Session,
    ) -> Result<(), AgentError> {
        if name == DISCOVERY_REQUEST && self.discovery.contains(&channel) {
            match discovery::from_payload(data) {
                Ok(proxies) => self.shared.tracker.track(proxies),
                Err(error) => debug!(%error, "unreadable discovery message"),
            }
        }
        // On transport channels whoever holds the channel answers the first request; later ones are not answered, but
        // for the question whether the target was reached through another tunnel: it was not.
        if want_reply && (self.discovery.contains(&channel) || name == CONNECTION_TYPE_REQUEST) {
            session.channel_failure(channel)?;
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut client::Session) -> Result<(), AgentError> {
        self.discovery.remove(&channel);
        Ok(())
    }

    async fn global_request(
        &mut self,
        name: &str,
        _want_reply: bool,
        _data: &[u8],
        _session: &mut client::Session,
    ) -> Result<GlobalRequestReply, AgentError> {
        Ok(match (name, &self.shared.config.auth_version) {
            (VERSION_REQUEST, Some(version)) => GlobalRequestReply::Success(version.clone().into_bytes()),
            (RECONNECT_REQUEST, _) => {
                self.shared.draining.cancel();
                GlobalRequestReply::Success(Vec::new())
            }
            _ => GlobalRequestReply::Failure,
        })
    }
}
