//! A client and a node, with one channel between them.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;

use process::leases::Leases;
use recording::Uploads;
use russh::keys::PublicKeyOrCertificate;
use russh::server::{Auth, Msg, Session};
use russh::{Channel, ChannelId};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::types::ServerV2;

use super::*;
use crate::recorded::host::Hosts;
use crate::recorded::limits::Limits;
use crate::recorded::target::Target;
use crate::recorded::{Meeting, Mode, Whose};

/// How long nothing happens that is not to happen.
const QUIET: Duration = Duration::from_millis(200);
const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// An SSH server that lets everybody in, and hands on the channels that are opened.
struct Everybody(mpsc::UnboundedSender<(Channel<Msg>, ChannelOpenHandle)>);

impl server::Handler for Everybody {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let _ = self.0.send((channel, reply));
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
        Ok(())
    }
}

/// A client that believes every server.
struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Serves one connection; gives the client's end, and the channels.
fn server() -> (DuplexStream, mpsc::UnboundedReceiver<(Channel<Msg>, ChannelOpenHandle)>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (sender, channels) = mpsc::unbounded_channel();
    let key = pki::keys::PrivateKey::generate(pki::keys::KeyAlgorithm::Ed25519).unwrap().to_ssh().unwrap();
    let config = Arc::new(server::Config { keys: vec![key], ..server::Config::default() });
    tokio::spawn(async move { server::run_stream(config, far, Everybody(sender)).await.unwrap().await });
    (near, channels)
}

async fn visit(folder: &Path, node: DuplexStream) -> Visit {
    let channel =
        wire::client::api_channel(tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
    let cache = cache::Cache::fixed(cache::State::default());
    let (log, _delivery) = audit::RemoteLog::start(channel.clone(), &folder.join("events.spool"), "c").unwrap();
    let tasks = TaskTracker::new();
    let shared = crate::recorded::Shared {
        host_uuid: "proxy".into(),
        hosts: Hosts::new(channel.clone(), cache.clone()),
        leases: Leases { channel: channel.clone(), tasks: tasks.clone(), host_uuid: "proxy".into() },
        cache: cache.clone(),
        channel,
        log,
        uploads: Uploads::open(folder).unwrap(),
        tasks,
        shutdown: CancellationToken::new(),
    };
    let meeting = Meeting {
        whose: Whose::User("alice".into()),
        client: HERE,
        server: HERE,
        node: Arc::new(ServerV2::default()),
        name: "node1".into(),
        cluster: "c".into(),
        mode: Mode::Proxy,
        agentless: false,
        cache,
    };
    Visit {
        shared: Arc::new(shared),
        meeting: Arc::new(meeting),
        target: Target::of_test(node).await,
        identity: pki::identity::Identity { username: "alice".into(), ..Default::default() },
        watch: None,
        login: "dev".into(),
        limits: Limits::none(),
        is_openssh: OnceLock::new(),
        last_words: watch::Sender::new(None),
    }
}

/// A session channel, with the proxy in the middle.
struct Joined {
    client: Channel<client::Msg>,
    node: Channel<Msg>,
    folder: TempDir,
    _connection: client::Handle<Trusting>,
}

impl Joined {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (to_node, mut at_node) = server();
        let visit = Arc::new(visit(folder.path(), to_node).await);
        let (to_proxy, mut at_proxy) = server();
        tokio::spawn(async move {
            let (channel, reply) = at_proxy.recv().await.unwrap();
            serve(channel, reply, visit).await;
        });
        let mut connection =
            client::connect_stream(Arc::new(client::Config::default()), to_proxy, Trusting).await.unwrap();
        assert!(connection.authenticate_none("dev").await.unwrap().success());
        let (client, node) = tokio::join!(connection.channel_open_session(), async {
            let (node, reply) = at_node.recv().await.unwrap();
            reply.accept().await;
            node
        });
        Self { client: client.unwrap(), node, folder, _connection: connection }
    }

    /// What comes to the node next; nothing when nothing comes.
    async fn at_node(&mut self) -> Option<ChannelMsg> {
        timeout(QUIET, self.node.wait()).await.ok().flatten()
    }

    /// Answers that come to the client.
    async fn answers(&mut self) -> Vec<bool> {
        let mut answers = Vec::new();
        while let Ok(Some(message)) = timeout(QUIET, self.client.wait()).await {
            match message {
                ChannelMsg::Success => answers.push(true),
                ChannelMsg::Failure => answers.push(false),
                _ => {}
            }
        }
        answers
    }
}

#[tokio::test]
async fn one_thing_runs_on_a_channel_and_answers_come_in_the_order_of_the_requests() {
    let mut joined = Joined::new().await;
    joined.client.exec(true, "one").await.unwrap();
    joined.client.agent_forward(true).await.unwrap();
    joined.client.set_env(true, JOIN_SESSION, "x").await.unwrap();
    joined.client.exec(true, "two").await.unwrap();
    assert!(matches!(joined.at_node().await, Some(ChannelMsg::Exec { command, .. }) if command == b"one"));
    assert!(matches!(joined.at_node().await, Some(ChannelMsg::AgentForward { want_reply: false })));
    assert!(joined.at_node().await.is_none(), "a second command would run unrecorded");
    assert!(joined.answers().await.is_empty(), "none before that to the first");
    joined.node.reply(true).await.unwrap();
    assert_eq!(joined.answers().await, [true, true, false, false]);
    joined.client.exec(true, "three").await.unwrap();
    assert_eq!(joined.answers().await, [false]);
    assert!(joined.at_node().await.is_none());
}

#[tokio::test]
async fn something_else_may_run_where_the_node_has_refused_the_first() {
    let mut joined = Joined::new().await;
    joined.client.exec(true, "one").await.unwrap();
    assert!(matches!(joined.at_node().await, Some(ChannelMsg::Exec { .. })));
    joined.node.reply(false).await.unwrap();
    assert_eq!(joined.answers().await, [false]);
    joined.client.exec(true, "two").await.unwrap();
    assert!(matches!(joined.at_node().await, Some(ChannelMsg::Exec { command, .. }) if command == b"two"));
    joined.node.reply(true).await.unwrap();
    assert_eq!(joined.answers().await, [true]);
}

#[tokio::test]
async fn what_is_typed_waits_until_the_node_runs_the_shell_and_it_is_recorded() {
    let mut joined = Joined::new().await;
    joined.client.data_bytes(&b"early"[..]).await.unwrap();
    joined.client.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    joined.client.request_shell(true).await.unwrap();
    joined.client.data_bytes(&b"typed"[..]).await.unwrap();
    assert!(matches!(joined.at_node().await, Some(ChannelMsg::RequestPty { .. })));
    assert!(matches!(joined.at_node().await, Some(ChannelMsg::RequestShell { .. })));
    joined.node.reply(true).await.unwrap();
    // As long as a node that waits for moderators says nothing.
    assert!(joined.at_node().await.is_none());
    assert_eq!(joined.answers().await, [true]);
    let spool = joined.folder.path().join("events.spool");
    let told = |what: &str| String::from_utf8_lossy(&std::fs::read(&spool).unwrap()).contains(what);
    assert!(!told("session.start"));
    joined.node.reply(true).await.unwrap();
    let Some(ChannelMsg::Data { data }) = joined.node.wait().await else { unreachable!() };
    assert_eq!(data, "typed", "what came before there was anything to type at is thrown away");
    assert!(told("session.start"));
}
