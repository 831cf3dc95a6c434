//! The SSH door, for clients that speak nothing but SSH: `ssh -J`, or a `ProxyCommand` with the subsystem
//! `proxy:<host>:<port>[@<cluster>]`.
//!
//! It runs no commands and knows no accounts: a user certificate of the cluster lets a client in, and each channel is
//! a way to one node, where the client logs in again, end to end.

mod channel;
mod request;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cache::Cache;
use chrono::{DateTime, TimeZone, Utc};
use pki::ssh_cert::{self, Kind, Requirements, UserCertificate};
use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, GlobalRequestReply, Preferred};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::dial::NodeDialer;
use crate::gate::Gate;
use crate::recorded::{AgentSource, Recorded};
use crate::shown::Shown;
use crate::transport::TransportPeer;
use crate::tunnels::ssh_keys;

/// The login with which sessions are joined, and nothing else.
pub(crate) const JOIN_LOGIN: &str = "-teleport-internal-join";
/// How long a client may take from its first byte to being let in.
const LOGIN_GRACE: Duration = Duration::from_secs(30);
/// How long a client may take to open its agent.
const AGENT: Duration = Duration::from_secs(10);
/// How long a connection may take to end once it has to.
const FAREWELL: Duration = Duration::from_secs(1);
/// Channels of one connection at a time; a multiplexing client opens one per session.
const MOST_CHANNELS: usize = 1024;

/// Serves SSH clients. Clones are the same server.
#[derive(Clone)]
pub(crate) struct SshDoor {
    shared: Arc<Shared>,
}

struct Shared {
    shown: Shown,
    cache: Cache,
    dialer: NodeDialer,
    recorded: Recorded,
    gate: Gate,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    algorithms: Preferred,
}

impl SshDoor {
    /// A door that shows this host certificate and offers these algorithms.
    pub(crate) fn new(
        (shown, cache): (Shown, Cache),
        ((dialer, recorded), gate): ((NodeDialer, Recorded), Gate),
        algorithms: Preferred,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self { shared: Arc::new(Shared { shown, cache, dialer, recorded, gate, tasks, shutdown, algorithms }) }
    }

    /// The name of the cluster that the door belongs to.
    pub(crate) fn cluster_name(&self) -> String {
        self.shared.cache.cluster_name()
    }

    /// Serves one connection to its end; what the client asks for counts for the last of the addresses.
    pub(crate) async fn serve<S>(&self, stream: S, client: SocketAddr, server: SocketAddr, counted: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (entered, mut is_in) = watch::channel(false);
        let handler = Visitor {
            shared: self.shared.clone(),
            client,
            server,
            counted,
            peer: None,
            refusal: None,
            entered,
            places: Arc::new(Semaphore::new(MOST_CHANNELS)),
        };
        let identity = self.shared.shown.ssh();
        let config = russh::server::Config {
            preferred: self.shared.algorithms.clone(),
            ..tunnel::ssh::server_config(vec![(*identity.key).clone()], vec![identity.certificate])
        };
        let starting = russh::server::run_stream(Arc::new(config), stream, handler);
        let mut running = match timeout(LOGIN_GRACE, starting).await {
            Ok(Ok(running)) => running,
            Ok(Err(error)) => return debug!(%client, %error, "connection ended before the handshake"),
            Err(_) => return debug!(%client, "waited 30 s for the client's identification"),
        };
        let handle = running.handle();
        let waiting = timeout(LOGIN_GRACE, is_in.wait_for(|is_in| *is_in));
        let logged_in = tokio::select! {
            ended = &mut running => return note_end(client, ended),
            logged_in = waiting => matches!(logged_in, Ok(Ok(_))),
        };
        let reason = if logged_in {
            tokio::select! {
                ended = &mut running => return note_end(client, ended),
                () = self.shared.shutdown.cancelled() => "the proxy is shutting down",
            }
        } else {
            "waited 30 s for authentication"
        };
        let leave = handle.disconnect(Disconnect::ByApplication, reason.to_owned(), String::new());
        if !see_off(&mut running, Duration::ZERO, leave).await {
            running.abort();
        }
    }
}

/// Waits for the end of a connection: first while its sessions say why, then while it takes leave. Whether it came; a client
/// that does not read holds up both.
pub(crate) async fn see_off(mut running: impl Future + Unpin, patience: Duration, leave: impl Future) -> bool {
    if timeout(patience, &mut running).await.is_ok() {
        return true;
    }
    let leaving = async {
        leave.await;
        running.await;
    };
    timeout(FAREWELL, leaving).await.is_ok()
}

fn note_end(client: SocketAddr, ended: Result<(), russh::Error>) {
    if let Err(error) = ended {
        debug!(%client, %error, "connection ended");
    }
}

/// One client.
struct Visitor {
    shared: Arc<Shared>,
    client: SocketAddr,
    server: SocketAddr,
    counted: IpAddr,
    /// Who it is, once its certificate was accepted.
    peer: Option<TransportPeer>,
    /// Why the last login was refused; for a client that has shown a key of its own.
    refusal: Option<String>,
    entered: watch::Sender<bool>,
    places: Arc<Semaphore>,
}

impl Visitor {
    /// The client and a place for one more channel, or why there is none.
    fn channel(&self) -> Result<(TransportPeer, OwnedSemaphorePermit), &'static str> {
        let peer = self.peer.clone().ok_or("not logged in")?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| "too many channels on this connection")?;
        Ok((peer, place))
    }
}

/// Checks a certificate that is shown at a door: signed by the users' authority of this cluster, valid, not pinned to
/// another address, and good for the login that is asked for; then whether its holder is locked out.
pub(crate) fn admitted(
    cache: &Cache,
    login: &str,
    certificate: &Certificate,
    (client, server): (SocketAddr, SocketAddr),
) -> Result<TransportPeer, String> {
    let own = cache.cluster_name();
    let requirements =
        Requirements { kind: Kind::User, principal: Some(login), now: Utc::now(), source: Some(client.ip()) };
    let mut refusal = "no cluster's authority for users is known yet".to_owned();
    for authority in cache.authorities("user") {
        let cluster = authority.spec.as_ref().map(|s| s.cluster_name.clone()).unwrap_or_default();
        match ssh_cert::check(certificate, &ssh_keys(&authority), &requirements) {
            // Users of trusting clusters are let in by their own proxy.
            Ok(_) if cluster != own => refusal = format!("users of cluster {cluster:?} log in at its own proxy"),
            Ok(_) => {
                let view = UserCertificate::from_certificate(certificate.clone()).map_err(|e| e.to_string())?;
                let mut identity = view.identity;
                identity.teleport_cluster = cluster;
                identity.expires = identity.expires.or(end_of(certificate));
                let peer = TransportPeer::new(Arc::new(identity), client, server);
                Gate::new(cache.clone()).admit(&peer).map_err(|status| status.message().to_owned())?;
                return Ok(peer);
            }
            Err(error) => refusal = error.to_string(),
        }
    }
    Err(refusal)
}

/// When a certificate's validity ends; none for one that lasts for ever.
pub(crate) fn end_of(certificate: &Certificate) -> Option<DateTime<Utc>> {
    i64::try_from(certificate.valid_before()).ok().and_then(|seconds| Utc.timestamp_opt(seconds, 0).single())
}

/// The agent at the other end of a connection. OpenSSH offers it too late to be waited for: it is opened unasked, and
/// clients that do not forward one refuse.
fn agent_of(client: russh::server::Handle) -> AgentSource {
    AgentSource::new(|| async move {
        match timeout(AGENT, client.channel_open_agent()).await {
            Ok(Ok(channel)) => Ok(Box::new(channel.into_stream()) as tunnel::BoxedStream),
            _ => {
                Err("Failed to request agent: sessions are recorded by the proxy, which needs the user's agent to log \
                in to the node. Set 'ForwardAgent yes' for the proxy's host"
                    .to_owned())
            }
        }
    })
}

impl Handler for Visitor {
    type Error = russh::Error;

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        match admitted(&self.shared.cache, user, certificate, (self.client, self.server)) {
            Ok(peer) => {
                self.peer = Some(TransportPeer { counted: self.counted, ..peer });
                Ok(Auth::Accept)
            }
            Err(reason) => {
                info!(client = %self.client, login = user, reason, "login refused");
                self.refusal = Some(reason);
                Ok(Auth::reject())
            }
        }
    }

    async fn rejection_banner(&mut self) -> Result<Option<String>, Self::Error> {
        Ok(self.refusal.take())
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Self::Error> {
        self.entered.send_replace(true);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channel() {
            Ok((peer, place)) => {
                reply.accept().await;
                let (shared, agent) = (self.shared.clone(), agent_of(session.handle()));
                self.shared.tasks.spawn(async move {
                    channel::session(channel, &shared, peer, agent).await;
                    drop(place);
                });
            }
            Err(reason) => reply.reject_with(ChannelOpenFailure::AdministrativelyProhibited, reason).await,
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channel() {
            Ok((peer, place)) => {
                let (shared, host) = (self.shared.clone(), host.to_owned());
                let agent = agent_of(session.handle());
                self.shared.tasks.spawn(async move {
                    channel::jump((channel, reply), &shared, peer, (&host, port), agent).await;
                    drop(place);
                });
            }
            Err(reason) => reply.reject_with(ChannelOpenFailure::AdministrativelyProhibited, reason).await,
        }
        Ok(())
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
        Ok(true) // never fails on the wire; where the proxy records, it opens the agent when it needs it
    }

    async fn global_request(
        &mut self,
        name: &str,
        _: bool,
        _: &[u8],
        _: &mut Session,
    ) -> Result<GlobalRequestReply, Self::Error> {
        let records = self.shared.recorded.mode(&self.shared.cache).is_some();
        Ok(tunnel::ssh::answer(name, wire::VERSION, records))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::sleep;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_ended_is_not_waited_for_again() {
        let left = AtomicBool::new(false);
        let leave = async || left.store(true, Ordering::Relaxed);
        // Either end of the wait: while sessions speak, or after the leave.
        assert!(see_off(Box::pin(async {}), PATIENCE, leave()).await);
        assert!(!left.load(Ordering::Relaxed));
        assert!(see_off(Box::pin(sleep(PATIENCE * 2)), PATIENCE, leave()).await);
        assert!(left.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_holds_up_nothing() {
        let for_ever = || Box::pin(std::future::pending::<()>());
        assert!(!see_off(for_ever(), PATIENCE, async {}).await);
        assert!(!see_off(for_ever(), Duration::ZERO, for_ever()).await);
    }
}
