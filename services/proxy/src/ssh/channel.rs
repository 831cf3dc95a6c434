//! One channel of a client: what it asks for, and the bytes that follow.

use std::time::Duration;

use russh::server::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelMsg, ChannelOpenFailure};
use serde_json::json;
use tokio::time::timeout;
use tonic::Status;
use tracing::{debug, info};
use tunnel::BoxedStream;

use super::Shared;
use super::request::Subsystem;
use crate::gate::Watch;
use crate::recorded::AgentSource;
use crate::resolve::Target;
use crate::transport::TransportPeer;

/// How long a client may take to say what a session channel is for.
const PREPARATION: Duration = Duration::from_secs(30);
/// The stream of extended data for errors.
const STDERR: u32 = 1;
/// How a refused request ends.
const FAILED: u32 = 255;
/// The port that a jump names when its user named none.
const SSH_PORT: u16 = 22;

/// Serves a session channel: one subsystem, and nothing else.
pub(super) async fn session(mut channel: Channel<Msg>, shared: &Shared, peer: TransportPeer, agent: AgentSource) {
    let asked = match timeout(PREPARATION, subsystem(&mut channel)).await {
        Ok(Some(asked)) => asked,
        Ok(None) => return,
        Err(_) => Err("waited 30 s for a subsystem".to_owned()),
    };
    let opened = match asked.and_then(|name| Subsystem::parse(&name)) {
        Ok(Subsystem::Sites) => return sites(channel, shared, &peer).await,
        Ok(Subsystem::Node { target, cluster }) => {
            let cluster = if cluster.is_empty() { peer.identity.route_to_cluster.clone() } else { cluster };
            node(shared, &peer, (&target, &cluster), agent).await.map_err(|status| status.message().to_owned())
        }
        Ok(Subsystem::Auth { cluster }) => auth(shared, &peer, &cluster).await.map_err(|s| s.message().to_owned()),
        Err(reason) => Err(reason),
    };
    match opened {
        Ok((watch, stream)) => {
            if channel.reply(true).await.is_ok() {
                join(channel, stream, watch, shared, &peer).await;
            }
        }
        Err(reason) => refuse(&channel, &reason).await,
    }
}

/// Serves a `direct-tcpip` channel. It is accepted when the node has answered, so that the client learns of a failure.
pub(super) async fn jump(
    (channel, reply): (Channel<Msg>, ChannelOpenHandle),
    shared: &Shared,
    peer: TransportPeer,
    (host, port): (&str, u32),
    agent: AgentSource,
) {
    // A jump always names a port. The usual one mostly means that the user named none, and few nodes listen there.
    let port = u16::try_from(port).ok().filter(|port| *port != SSH_PORT).unwrap_or(0);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    match node(shared, &peer, (&format!("{host}:{port}"), &peer.identity.route_to_cluster), agent).await {
        Ok((watch, stream)) => {
            reply.accept().await;
            join(channel, stream, watch, shared, &peer).await;
        }
        Err(status) => reply.reject_with(ChannelOpenFailure::ConnectFailed, status.message()).await,
    }
}

/// Answers requests until one names a subsystem; `None` when the client went away.
async fn subsystem(channel: &mut Channel<Msg>) -> Option<Result<String, String>> {
    loop {
        let (want_reply, accepted) = match channel.wait().await? {
            ChannelMsg::RequestSubsystem { name, .. } => return Some(Ok(name)),
            ChannelMsg::RequestShell { .. } | ChannelMsg::Exec { .. } => {
                return Some(Err("this is a proxy: it runs no commands. Name a node, for example with ssh -J".into()));
            }
            ChannelMsg::SetEnv { want_reply, .. } => (want_reply, true),
            ChannelMsg::Request { name, want_reply, .. } => {
                let ignored = ["envs@goteleport.com", "simple@putty.projects.tartarus.org"].contains(&name.as_str());
                (want_reply, ignored)
            }
            ChannelMsg::RequestPty { want_reply, .. } | ChannelMsg::RequestX11 { want_reply, .. } => {
                (want_reply, false)
            }
            ChannelMsg::Close => return None,
            // Agent forwarding is answered by the handler.
            _ => (false, true),
        };
        if want_reply && channel.reply(accepted).await.is_err() {
            return None;
        }
    }
}

async fn node(
    shared: &Shared,
    peer: &TransportPeer,
    (target, cluster): (&str, &str),
    agent: AgentSource,
) -> Result<(Watch, BoxedStream), Status> {
    Target::parse(target).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let watch = shared.gate.admit(peer)?;
    let dialled = shared.dialer.dial(peer, target, cluster).await?;
    debug!(user = %peer.identity.username, node = dialled.id, "client connected to node");
    Ok((watch, shared.recorded.stand_between(peer, target, dialled, agent).await?))
}

async fn auth(shared: &Shared, peer: &TransportPeer, cluster: &str) -> Result<(Watch, BoxedStream), Status> {
    let watch = shared.gate.admit(peer)?;
    Ok((watch, shared.dialer.dial_auth(peer, cluster).await?))
}

/// Copies bytes until one side ends, the user is shut out, or the proxy stops.
async fn join(channel: Channel<Msg>, mut stream: BoxedStream, watch: Watch, shared: &Shared, peer: &TransportPeer) {
    let mut client = channel.into_stream();
    tokio::select! {
        copied = mux::copy_both(&mut client, &mut stream) => {
            debug!(user = %peer.identity.username, up = copied.a_to_b, down = copied.b_to_a, "channel ended");
        }
        reason = watch.ended() => info!(user = %peer.identity.username, reason = %reason, "connection ended"),
        () = shared.shutdown.cancelled() => {}
    }
}

/// Lists the clusters, in the form that old clients read.
async fn sites(channel: Channel<Msg>, shared: &Shared, peer: &TransportPeer) {
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let mut sites = vec![json!({"name": shared.cache.cluster_name(), "lastconnected": now, "status": "online"})];
    sites.extend(shared.dialer.visible_clusters(peer).into_iter().map(|cluster| {
        let (name, status, seen) = (cluster.name, cluster.status, cluster.last_heartbeat);
        json!({"name": name, "lastconnected": seen, "status": status})
    }));
    let text = json!(sites).to_string();
    let sent = async {
        channel.reply(true).await?;
        channel.data_bytes(text.into_bytes()).await?;
        channel.exit_status(0).await?;
        channel.eof().await?;
        channel.close().await
    };
    let _ = timeout(PREPARATION, sent).await; // the client may be gone
}

/// Accepts the request and lets it fail: of a refused one OpenSSH shows only that it was refused, and not what is
/// written to its error stream before.
async fn refuse(channel: &Channel<Msg>, reason: &str) {
    let said = async {
        channel.reply(true).await?;
        channel.extended_data_bytes(STDERR, format!("{reason}\n").into_bytes()).await?;
        channel.exit_status(FAILED).await?;
        channel.eof().await?;
        channel.close().await
    };
    let _ = timeout(PREPARATION, said).await; // the client may be gone
}
