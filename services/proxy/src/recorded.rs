//! Sessions that the proxy records (the modes `proxy` and `proxy-sync`).
//!
//! The proxy ends the client's SSH connection ([`door`]), showing a host certificate in the node's name ([`host`]), and
//! opens one of its own to the node ([`target`]), for which the user's agent signs ([`agent`]). Between the two it
//! passes on channels and requests ([`session`]), and keeps what is shown ([`trail`]).
//!
//! The node decides about the user as it always does: it sees the user's own certificate. Servers without an agent
//! (nodes of the sub-kind `openssh`) cannot decide: for them a proxy of their cluster does, enforces what the roles limit
//! ([`limits`]), records whatever the mode is, tells what is done to files ([`copies`], [`operations`]), and logs in with a certificate of
//! its own ([`agentless`]). For users of other clusters as well ([`foreign`]): a proxy of theirs leads to this one as it does
//! to nodes.

mod agent;
mod agentless;
mod copies;
mod door;
mod foreign;
mod host;
mod limits;
mod operations;
mod session;
mod target;
mod trail;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use audit::RemoteLog;
use cache::Cache;
use process::leases::Leases;
use recording::{ToAuth, Uploader, UploaderConfig, Uploads};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tunnel::BoxedStream;
use wire::client::ApiChannel;
use wire::error::Error;
use wire::types::ServerV2;

pub(crate) use agent::AgentSource;
use host::Hosts;

use crate::dial::Dialled;
use crate::resolve::Target;
use crate::transport::TransportPeer;

/// The sub-kind of servers without an agent.
pub(crate) const AGENTLESS: &str = "openssh";
/// Bytes between the client's connection and this proxy's end of it.
const PIPE: usize = 256 << 10;

/// Stands between clients and nodes. Clones share everything.
#[derive(Clone)]
pub(crate) struct Recorded {
    shared: Arc<Shared>,
}

/// What all sessions have in common.
struct Shared {
    /// UUID of the proxy's host.
    host_uuid: String,
    cache: Cache,
    hosts: Hosts,
    channel: ApiChannel,
    log: RemoteLog,
    uploads: Uploads,
    leases: Leases,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// Who records a session, and how; as it is called in settings and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The proxy, on its disk first.
    Proxy,
    /// The proxy, and uploads while the session runs.
    ProxySync,
    /// Nobody; for servers without an agent, whose sessions the proxy carries all the same.
    Off,
}

impl Mode {
    /// The proxy's part in a cluster with these settings; `None` when nodes record, or nobody.
    pub(crate) fn of(cache: &Cache) -> Option<Self> {
        match cache.recording().spec.as_ref()?.mode.as_str() {
            "proxy" => Some(Self::Proxy),
            "proxy-sync" => Some(Self::ProxySync),
            _ => None,
        }
    }

    /// The proxy's part for servers without an agent, which cannot record.
    fn of_agentless(cache: &Cache) -> Self {
        match cache.recording().spec.as_ref().map_or("", |spec| &spec.mode) {
            "off" => Self::Off,
            "node-sync" | "proxy-sync" => Self::ProxySync,
            _ => Self::Proxy,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Proxy => "proxy",
            Self::ProxySync => "proxy-sync",
        }
    }
}

/// One connection of a client to a node.
struct Meeting {
    whose: Whose,
    /// Where the client is.
    client: SocketAddr,
    /// Where it arrived.
    server: SocketAddr,
    node: Arc<ServerV2>,
    /// The host as the client calls it.
    name: String,
    /// The cluster of the node.
    cluster: String,
    mode: Mode,
    /// Whether the node is a server without an agent.
    agentless: bool,
    /// What is known of the node's cluster.
    cache: Cache,
}

/// Whose connections lead to a meeting.
enum Whose {
    /// Those of this user, who is connected to this proxy.
    User(String),
    /// Those of all users of this cluster, whose proxy has let them in.
    Cluster(String),
}

impl Recorded {
    /// Begins with what an earlier process has left below the data folder.
    pub(crate) fn start(
        (host_uuid, data_dir): (&str, &Path),
        cache: Cache,
        channel: ApiChannel,
        ((tasks, sessions), shutdown): ((TaskTracker, TaskTracker), CancellationToken),
    ) -> Result<Self, Error> {
        let cluster = cache.cluster_name();
        // Apart from what a node of the same process keeps: it has another identity.
        let folder = data_dir.join("proxy");
        let uploads = Uploads::open(&folder).map_err(|e| Error::other(e.to_string()))?;
        let spool = folder.join("log").join("events.spool");
        let (log, delivery) = RemoteLog::start(channel.clone(), &spool, &cluster).map_err(Error::from)?;
        tasks.spawn(crate::until(&shutdown, delivery));
        let target = ToAuth { channel: channel.clone(), log: log.clone() };
        let uploader = Uploader::new(uploads.clone(), Arc::new(target), UploaderConfig::default());
        tasks.spawn(crate::until(&shutdown, uploader.run()));
        let hosts = Hosts::new(channel.clone(), cache.clone());
        let host_uuid = host_uuid.to_owned();
        let leases = Leases { channel: channel.clone(), tasks, host_uuid: host_uuid.clone() };
        let shared = Shared { host_uuid, cache, hosts, channel, log, uploads, leases, tasks: sessions, shutdown };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The way to the audit log, which waits on disk while the Auth Service is away.
    pub(crate) fn log(&self) -> RemoteLog {
        self.shared.log.clone()
    }

    /// How sessions with a node of the cluster that `cache` is about are recorded here.
    pub(crate) fn mode(&self, cache: &Cache) -> Option<Mode> {
        Mode::of(&self.shared.cache).or_else(|| Mode::of(cache))
    }

    /// The stream on which the client of `dialled` is to be served: it leads to the node as it is, or to this proxy
    /// if that records.
    pub(crate) async fn stand_between(
        &self,
        peer: &TransportPeer,
        target: &str,
        dialled: Dialled,
        agent: AgentSource,
    ) -> Result<BoxedStream, Status> {
        // In other clusters it is a proxy of theirs that stands in for a server without an agent.
        let agentless = dialled.node.sub_kind == AGENTLESS && dialled.cluster == self.shared.cache.cluster_name();
        let mode = if agentless { Some(Mode::of_agentless(&dialled.cache)) } else { self.mode(&dialled.cache) };
        let Some(mode) = mode else { return Ok(dialled.stream) };
        let whose = Whose::User(peer.identity.username.clone());
        let ends = (peer.client, peer.server);
        self.meet(whose, ends, (host_of(target), agentless, mode), dialled, agent).await
    }

    /// The stream on which users of a cluster that this one trusts are served at a server without an agent.
    pub(crate) async fn stand_in(
        &self,
        cluster: &str,
        ends: (SocketAddr, SocketAddr),
        dialled: Dialled,
    ) -> Result<BoxedStream, Status> {
        let mode = Mode::of_agentless(&dialled.cache);
        let name = dialled.node.spec.as_ref().map(|spec| spec.hostname.clone()).unwrap_or_default();
        let none = AgentSource::new(|| async { Err("there is no agent".to_owned()) });
        self.meet(Whose::Cluster(cluster.to_owned()), ends, (name, true, mode), dialled, none).await
    }

    async fn meet(
        &self,
        whose: Whose,
        (client, server): (SocketAddr, SocketAddr),
        (name, agentless, mode): (String, bool, Mode),
        dialled: Dialled,
        agent: AgentSource,
    ) -> Result<BoxedStream, Status> {
        let Dialled { node, cluster, cache, stream, .. } = dialled;
        let meeting = Meeting { whose, client, server, node, name, cluster, mode, agentless, cache };
        let shown = self.shared.hosts.identity(&meeting).await.map_err(|error| {
            Status::unavailable(format!(
                "sessions are recorded by the proxy, which cannot stand in for the node: {error}"
            ))
        })?;
        let (near, far) = tokio::io::duplex(PIPE);
        let shared = self.shared.clone();
        self.shared.tasks.spawn(async move {
            door::serve(shared, Arc::new(meeting), shown, far, (stream, agent)).await;
        });
        Ok(Box::new(near))
    }
}

/// The host in `host:port`, `[address]:port` or a host alone.
fn host_of(target: &str) -> String {
    Target::parse(target).map_or_else(|_| target.to_owned(), |target| target.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_stands_before_the_port() {
        for (target, host) in [
            ("web-1:0", "web-1"),
            ("[::1]:22", "::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("web-1", "web-1"),
            ("10.0.0.1:3022", "10.0.0.1"),
        ] {
            assert_eq!(host_of(target), host);
        }
    }
}
