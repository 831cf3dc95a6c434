//! The proxy's connection to the node.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::Utc;
use parking_lot::Mutex;
use pki::identity::Identity;
use pki::keys::PublicKey;
use pki::ssh_cert::{Kind, Requirements, check};
use russh::client::{ChannelOpenHandle, DisconnectReason, Handle, Handler, Msg, Session};
use russh::keys::{Certificate, PublicKeyOrCertificate};
use russh::{Channel, ChannelOpenFailure, Disconnect, GlobalRequestReply, server};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::warn;
use tunnel::BoxedStream;

use super::agent::{AgentSource, log_in};
use super::host::node_id;
use super::limits::Limits;
use super::{Meeting, Shared, agentless, trail};
use crate::tunnels::ssh_keys;

/// How long the connection to the node and the login may take.
const LOGIN: Duration = Duration::from_secs(20);
/// How long a message to either side may wait.
const PASSED_ON: Duration = Duration::from_secs(10);
/// Channels that a node has opened to the client, at a time.
const MOST_CHANNELS: usize = 512;
/// Most of a banner that is kept.
const LONGEST_BANNER: usize = 4 << 10;

/// A connection to a node on which the user is logged in.
pub(super) struct Target {
    /// The way to use it.
    pub handle: Handle<NodeSide>,
    /// The client's connection, once it is there.
    pub client: Arc<OnceLock<server::Handle>>,
    notes: Arc<Mutex<Notes>>,
}

/// What the node has said.
#[derive(Default)]
struct Notes {
    banner: String,
    refusal: Option<String>,
    farewell: Option<String>,
}

/// The protocol's callbacks.
pub(super) struct NodeSide {
    /// Names of which the node's certificate must have one, and who signs it.
    names: Vec<String>,
    authorities: Vec<PublicKey>,
    /// Whether a key without a certificate is refused.
    strict: bool,
    notes: Arc<Mutex<Notes>>,
    client: Arc<OnceLock<server::Handle>>,
    /// What counts the bytes of the channels that the node opens.
    limits: Limits,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Target {
    /// Connects on a stream that leads to the node, and logs in for the holder of `shown`.
    pub(super) async fn connect(
        shared: &Shared,
        meeting: &Meeting,
        (login, identity, limits): (&str, &Identity, &Limits),
        shown: &Certificate,
        (stream, agent): (BoxedStream, AgentSource),
    ) -> Result<Self, String> {
        let (notes, client) = (Arc::<Mutex<Notes>>::default(), Arc::default());
        let node_side = NodeSide::new(shared, meeting, limits.clone(), (notes.clone(), Arc::clone(&client)));
        let opening = async {
            let config = Arc::new(tunnel::ssh::client_config());
            let mut handle = russh::client::connect_stream(config, stream, node_side).await.map_err(|error| {
                let refusal = notes.lock().refusal.take();
                refusal.unwrap_or_else(|| format!("the SSH handshake with the node failed: {error}"))
            })?;
            let logged_in = match meeting.agentless {
                true => agentless::log_in(&mut handle, shared, identity, login).await,
                false => log_in(&mut handle, login, shown, agent).await,
            };
            logged_in.map_err(|reason| {
                let banner = std::mem::take(&mut notes.lock().banner);
                let said = Some(banner.trim().to_owned()).filter(|said| !said.is_empty());
                let denied = || format!("access denied to {login} connecting to {}", meeting.name);
                if reason.is_empty() { said.unwrap_or_else(denied) } else { reason }
            })?;
            Ok::<_, String>(handle)
        };
        let handle = timeout(LOGIN, opening).await.map_err(|_| "waited 20 s for the node".to_owned())??;
        if meeting.agentless {
            // No agent is there to say that somebody came.
            trail::connected(shared, meeting).await;
        }
        Ok(Self { handle, client, notes })
    }

    /// Waits until the connection has ended; returns the node's last words.
    pub(super) async fn ended(&self) -> String {
        self.handle.closed().await;
        self.notes.lock().farewell.take().unwrap_or_else(|| "the node closed the connection".to_owned())
    }

    /// Takes leave of the node.
    pub(super) async fn close(&self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "");
        let _ = timeout(PASSED_ON, goodbye).await; // the node notices the end of the connection as well
    }
}

impl NodeSide {
    fn new(
        shared: &Shared,
        meeting: &Meeting,
        limits: Limits,
        (notes, client): (Arc<Mutex<Notes>>, Arc<OnceLock<server::Handle>>),
    ) -> Self {
        let authority = meeting.cache.authority("host", &meeting.cluster);
        let authority = authority.or_else(|| shared.cache.authority("host", &meeting.cluster));
        let recording = meeting.cache.recording();
        let strict = recording.spec.as_ref().and_then(|spec| spec.proxy_checks_host_keys.as_ref());
        let (id, spec) = (node_id(meeting), meeting.node.spec.clone().unwrap_or_default());
        let mut names = vec![pki::cluster_name::host_fqdn(id, &meeting.cluster), id.to_owned(), meeting.name.clone()];
        if meeting.agentless {
            names.extend([spec.hostname, super::host_of(&spec.addr)]);
        }
        Self {
            names,
            authorities: authority.map(|authority| ssh_keys(&authority)).unwrap_or_default(),
            strict: strict.is_none_or(|value| value.value),
            notes,
            client,
            limits,
            places: Arc::new(Semaphore::new(MOST_CHANNELS)),
            tasks: shared.tasks.clone(),
        }
    }

    /// Why a host is not believed to be the node.
    fn judge(&self, presented: &PublicKeyOrCertificate) -> Result<(), String> {
        let PublicKeyOrCertificate::Certificate(certificate) = presented else {
            if self.strict {
                return Err("remote host presented a public key, expected a host certificate".to_owned());
            }
            warn!(host = self.names.last(), "the host's key is not verified: proxy_checks_host_keys is off");
            return Ok(());
        };
        let mut problem = String::new();
        for name in self.names.iter().filter(|name| !name.is_empty()) {
            let required = Requirements { kind: Kind::Host, principal: Some(name), now: Utc::now(), source: None };
            match check(certificate, &self.authorities, &required) {
                Ok(_) => return Ok(()),
                Err(error) if problem.is_empty() => problem = format!("the host {error}"),
                Err(_) => {}
            }
        }
        Err(problem)
    }

    /// Opens a channel to the client for one that the node has opened, and carries bytes.
    fn join<F>(&self, channel: Channel<Msg>, reply: ChannelOpenHandle, open: impl FnOnce(server::Handle) -> F)
    where
        F: Future<Output = Result<Channel<server::Msg>, russh::Error>> + Send + 'static,
    {
        // A reply that is dropped refuses the channel.
        let Some(opening) = self.client.get().cloned().map(open) else { return };
        let Ok(place) = self.places.clone().try_acquire_owned() else { return };
        let limits = self.limits.clone();
        self.tasks.spawn(async move {
            match timeout(PASSED_ON, opening).await {
                Ok(Ok(client)) => {
                    reply.accept().await;
                    mux::copy_both(&mut limits.watched(client.into_stream()), &mut channel.into_stream()).await;
                }
                _ => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
            drop(place);
        });
    }
}

impl Handler for NodeSide {
    type Error = russh::Error;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let judged = self.judge(presented);
        if let Err(problem) = &judged {
            self.notes.lock().refusal = Some(problem.clone());
        }
        Ok(judged.is_ok())
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Self::Error> {
        let mut notes = self.notes.lock();
        if notes.banner.len() + banner.len() <= LONGEST_BANNER {
            notes.banner.push_str(banner);
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        origin: &str,
        origin_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let (address, origin) = (address.to_owned(), origin.to_owned());
        self.join(channel, reply, move |client| async move {
            client.channel_open_forwarded_tcpip(address, port, origin, origin_port).await
        });
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let path = path.to_owned();
        self.join(channel, reply, move |client| async move { client.channel_open_forwarded_streamlocal(path).await });
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.join(channel, reply, |client| async move { client.channel_open_agent().await });
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: Channel<Msg>,
        origin: &str,
        origin_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let origin = origin.to_owned();
        self.join(channel, reply, move |client| async move { client.channel_open_x11(origin, origin_port).await });
        Ok(())
    }

    async fn channel_request(
        &mut self,
        _: russh::ChannelId,
        _: &str,
        _: bool,
        _: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(()) // the channel's task answers
    }

    async fn global_request(
        &mut self,
        _: &str,
        _: bool,
        _: &[u8],
        _: &mut Session,
    ) -> Result<GlobalRequestReply, Self::Error> {
        Ok(GlobalRequestReply::Failure)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.notes.lock().farewell = Some(info.message).filter(|message| !message.is_empty());
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use pki::keys::{KeyAlgorithm, PrivateKey};
    use pki::ssh_cert::{HostCertificateParams, SshIssuer};

    use super::*;

    fn side(strict: bool, authorities: Vec<PublicKey>) -> NodeSide {
        NodeSide {
            names: vec!["id.one".into(), "id".into(), "web".into()],
            authorities,
            strict,
            notes: Arc::default(),
            client: Arc::default(),
            limits: Limits::none(),
            places: Arc::new(Semaphore::new(1)),
            tasks: TaskTracker::new(),
        }
    }

    impl Target {
        /// A connection to a node that lets everybody in.
        pub(in crate::recorded) async fn of_test(stream: tokio::io::DuplexStream) -> Self {
            let side = side(false, Vec::new());
            let (client, notes) = (side.client.clone(), side.notes.clone());
            let mut handle = russh::client::connect_stream(Arc::default(), stream, side).await.unwrap();
            assert!(handle.authenticate_none("dev").await.unwrap().success());
            Self { handle, client, notes }
        }
    }

    #[test]
    fn a_node_shows_a_certificate_of_its_cluster_and_a_key_alone_only_where_that_is_allowed() {
        let generate = || PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
        let (authority, other, key) = (generate(), generate(), generate());
        let host = |id: &str| {
            let params = HostCertificateParams {
                public_key: key.public(),
                host_id: id,
                node_name: "",
                cluster: "one",
                role: "Node",
                additional_principals: &[],
                now: Utc::now(),
                not_after: None,
            };
            let issuer = SshIssuer::new(authority.clone()).issue_host(&params).unwrap();
            PublicKeyOrCertificate::Certificate(issuer)
        };
        let known = side(true, vec![authority.public().clone()]);
        assert_eq!(known.judge(&host("id")), Ok(()));
        assert!(known.judge(&host("another")).is_err());
        assert!(side(true, vec![other.public().clone()]).judge(&host("id")).is_err());
        let plain = PublicKeyOrCertificate::PublicKey { key: key.public().to_ssh(), hash_alg: None };
        assert!(known.judge(&plain).unwrap_err().contains("expected a host certificate"));
        assert_eq!(side(false, Vec::new()).judge(&plain), Ok(()));
    }
}
