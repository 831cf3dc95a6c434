//! Agents and proxies talking over memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pki::keys::PublicKey;
use russh::keys::{PrivateKey, PublicKeyOrCertificate};
use russh::{ChannelOpenFailure, Error, client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::{AgentConfig, AgentCredentials, AgentPool, IncomingTransport, ProxyDialer};
use crate::certificate::HostIdentity;
use crate::dial::{DialRequest, TunnelType};
use crate::discovery::DiscoveredProxy;
use crate::keep_alive::KeepAlive;
use crate::server::{AuthDialer, DialError, HostAuthorities, TunnelEvent, TunnelServer, TunnelServerConfig};
use crate::stream::BoxedStream;
use crate::testing::{Authority, key};

mod silence;

const CLUSTER: &str = "c";
const NODE: &str = "node.c";
const PEER: &str = "192.0.2.7:40000";

async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("nothing happened for 20 s")
}

/// What the proxies of a test know.
#[derive(Default)]
struct World {
    authorities: Mutex<HashMap<String, Vec<PublicKey>>>,
}

#[async_trait]
impl HostAuthorities for World {
    async fn host_authority(&self, cluster: &str) -> Vec<PublicKey> {
        self.authorities.lock().get(cluster).cloned().unwrap_or_default()
    }
}

/// An Auth Service that repeats what it hears, if there is one.
struct Echo(bool);

#[async_trait]
impl AuthDialer for Echo {
    async fn dial_auth(&self, _: SocketAddr) -> io::Result<BoxedStream> {
        if !self.0 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut reading, mut writing) = tokio::io::split(far);
            tokio::io::copy(&mut reading, &mut writing).await
        });
        Ok(Box::new(near))
    }
}

fn identity(authority: &Authority, role: &str, name: &str) -> HostIdentity {
    let key = Arc::new(key());
    let certificate = authority.host(&key, role, &[name, "localhost"]);
    HostIdentity { key, certificate }
}

fn server(authority: &Authority, name: &str, known: &[(&str, &Authority)]) -> TunnelServer {
    server_with(authority, name, known, KeepAlive::default())
}

fn server_with(authority: &Authority, name: &str, known: &[(&str, &Authority)], keep_alive: KeepAlive) -> TunnelServer {
    let world = World::default();
    for (cluster, authority) in known {
        world.authorities.lock().insert((*cluster).to_owned(), vec![authority.public()]);
    }
    TunnelServer::new(TunnelServerConfig {
        cluster: CLUSTER.to_owned(),
        identity: identity(authority, "Proxy", name),
        authorities: Arc::new(world),
        auth: Arc::new(Echo(true)),
        keep_alive,
    })
}

/// The address that agents dial: leads to one proxy after the other, or to none.
#[derive(Clone, Default)]
struct Address {
    proxies: Arc<Mutex<Vec<TunnelServer>>>,
    turn: Arc<AtomicUsize>,
    /// How often no tunnel was left.
    cut_off: Arc<AtomicUsize>,
}

impl Address {
    fn of(proxies: &[&TunnelServer]) -> Self {
        let address = Self::default();
        address.lead_to(proxies);
        address
    }

    fn lead_to(&self, proxies: &[&TunnelServer]) {
        *self.proxies.lock() = proxies.iter().map(|proxy| (*proxy).clone()).collect();
    }

    fn connect(&self) -> io::Result<BoxedStream> {
        let proxies = self.proxies.lock();
        if proxies.is_empty() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let proxy = proxies[self.turn.fetch_add(1, Ordering::Relaxed) % proxies.len()].clone();
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move { proxy.serve(Box::new(far), PEER.parse().unwrap(), ()).await });
        Ok(Box::new(near))
    }
}

#[async_trait]
impl ProxyDialer for Address {
    async fn dial(&self) -> io::Result<BoxedStream> {
        self.connect()
    }

    fn cut_off(&self) {
        self.cut_off.fetch_add(1, Ordering::Relaxed);
    }
}

struct Credentials {
    identity: Arc<HostIdentity>,
    authorities: Vec<PublicKey>,
}

impl AgentCredentials for Credentials {
    fn identity(&self) -> Arc<HostIdentity> {
        self.identity.clone()
    }

    fn proxy_authorities(&self) -> Vec<PublicKey> {
        self.authorities.clone()
    }
}

/// A service that answers with the client's address and then repeats what it hears; or refuses.
async fn service(transport: IncomingTransport) {
    if transport.request().address == "refuse:1" {
        return transport.refuse(" not today \n").await;
    }
    let mut stream = transport.accept().await.unwrap();
    let greeting = stream.client_addr().map(|address| address.to_string()).unwrap_or_default();
    stream.write_all(format!("{greeting}\n").as_bytes()).await.unwrap();
    let (mut reading, mut writing) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut reading, &mut writing).await;
    let _ = writing.shutdown().await;
}

struct Agent {
    stop: CancellationToken,
    running: JoinHandle<()>,
    connected: tokio::sync::watch::Receiver<Vec<String>>,
}

fn agent_config(identity: HostIdentity, trusted: &Authority, address: &Address) -> AgentConfig {
    let credentials = Credentials { identity: Arc::new(identity), authorities: vec![trusted.public()] };
    AgentConfig::new(Arc::new(credentials), Arc::new(address.clone()), Arc::new(service))
}

fn start(config: AgentConfig) -> Agent {
    let stop = CancellationToken::new();
    let pool = AgentPool::new(config);
    let connected = pool.connected();
    Agent { running: tokio::spawn(pool.run(stop.clone())), stop, connected }
}

fn node(authority: &Authority, address: &Address) -> Agent {
    start(agent_config(identity(authority, "Node", NODE), authority, address))
}

async fn registered(proxy: &TunnelServer, server_id: &str, kind: TunnelType) {
    let mut events = proxy.registry().subscribe();
    while !proxy.registry().contains(server_id, kind) {
        soon(events.recv()).await.unwrap();
    }
}

async fn dial(proxy: &TunnelServer) -> Result<crate::TunnelStream, DialError> {
    let request =
        DialRequest::local_service(NODE, TunnelType::Node).with_client("198.51.100.9:1234".parse().unwrap(), None);
    soon(proxy.registry().dial(NODE, TunnelType::Node, &request)).await
}

async fn line(stream: &mut crate::TunnelStream) -> String {
    let mut line = Vec::new();
    loop {
        let byte = soon(stream.read_u8()).await.unwrap();
        if byte == b'\n' {
            return String::from_utf8(line).unwrap();
        }
        line.push(byte);
    }
}

/// Sends a line and expects it back.
async fn echo(stream: &mut crate::TunnelStream, text: &str) {
    stream.write_all(format!("{text}\n").as_bytes()).await.unwrap();
    assert_eq!(line(stream).await, text);
}

#[tokio::test]
async fn a_proxy_reaches_the_service_of_an_agent_through_its_tunnel() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let agent = node(&authority, &Address::of(&[&proxy]));
    registered(&proxy, NODE, TunnelType::Node).await;
    assert_eq!(*agent.connected.borrow(), ["proxy"]);

    let mut stream = dial(&proxy).await.unwrap();
    assert_eq!(line(&mut stream).await, "198.51.100.9:1234");
    echo(&mut stream, "hello").await;
    soon(stream.shutdown()).await.unwrap();
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_large_transfer_through_a_tunnel_arrives_whole() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let _agent = node(&authority, &Address::of(&[&proxy]));
    registered(&proxy, NODE, TunnelType::Node).await;
    let mut stream = dial(&proxy).await.unwrap();
    line(&mut stream).await;
    let (mut reading, mut writing) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..24 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move {
            writing.write_all(&sent).await.unwrap();
            writing.shutdown().await.unwrap();
        }
    });
    let mut received = Vec::new();
    soon(reading.read_to_end(&mut received)).await.unwrap();
    soon(sending).await.unwrap();
    assert!(sent == received);
}

#[tokio::test]
async fn data_is_taken_from_a_stream_as_it_came_and_nothing_is_lost_in_between() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let _agent = node(&authority, &Address::of(&[&proxy]));
    registered(&proxy, NODE, TunnelType::Node).await;
    let stream: crate::BoxedStream = Box::new(dial(&proxy).await.unwrap());
    let mut stream = crate::TunnelStream::of_stream(stream).map_err(|_| "not a tunnel's").unwrap();
    // Some of it is read as bytes, the rest of the same packet is taken as it is.
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'1');
    let expected: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    // Half of it is copied, the rest given.
    let (copied, given) = expected.split_at(150_000);
    let (mut given, mut taken) = (bytes::Bytes::copy_from_slice(given), Vec::new());
    soon(stream.write_all(copied)).await.unwrap();
    while !given.is_empty() {
        let left = given.len();
        let written = soon(std::future::poll_fn(|cx| stream.poll_write_bytes(cx, &mut given))).await.unwrap();
        assert_eq!((written, written > 0), (left - given.len(), true));
    }
    soon(stream.shutdown()).await.unwrap();
    while let Some(data) = soon(std::future::poll_fn(|cx| stream.poll_data(cx))).await {
        taken.extend_from_slice(&data);
    }
    assert_eq!(taken.strip_prefix(b"98.51.100.9:1234\n"), Some(&expected[..]));
    let other = crate::TunnelStream::of_stream(Box::new(tokio::io::empty()));
    assert!(other.is_err(), "a stream of another kind");
}

#[tokio::test]
async fn a_refused_dial_comes_back_with_the_agents_text() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let _agent = node(&authority, &Address::of(&[&proxy]));
    registered(&proxy, NODE, TunnelType::Node).await;
    let request = DialRequest { address: "refuse:1".to_owned(), ..DialRequest::default() };
    let refused = soon(proxy.registry().dial(NODE, TunnelType::Node, &request)).await.unwrap_err();
    assert_eq!(refused, DialError::Refused("not today".to_owned()));
    // The tunnel is as good as before.
    assert!(dial(&proxy).await.is_ok());
}

#[tokio::test]
async fn who_waits_for_a_tunnel_is_told_when_it_comes_and_others_are_not() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let registry = proxy.registry().clone();
    let short = Duration::from_millis(50);
    assert!(!registry.comes(NODE, TunnelType::Node, short).await);
    let waiting = [NODE, NODE, "another.c"].map(|name| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.comes(name, TunnelType::Node, Duration::from_secs(3)).await })
    });
    while registry.waiting() < waiting.len() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _agent = node(&authority, &Address::of(&[&proxy]));
    let [first, second, other] = waiting;
    assert!(soon(first).await.unwrap() && soon(second).await.unwrap());
    assert!(soon(registry.comes(NODE, TunnelType::Node, short)).await, "it is there");
    assert!(!other.is_finished());
    assert!(!soon(other).await.unwrap());
    assert_eq!(registry.waiting(), 0, "nothing is kept of those who waited");
}

#[tokio::test]
async fn a_dial_to_an_unknown_agent_says_so() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let failed = dial(&proxy).await.unwrap_err();
    assert_eq!(failed.to_string(), "no node reverse tunnel for node.c found");
}

#[tokio::test]
async fn the_registry_tells_when_tunnels_come_and_go() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let mut events = proxy.registry().subscribe();
    let agent = node(&authority, &Address::of(&[&proxy]));
    let TunnelEvent::Registered(info) = soon(events.recv()).await.unwrap() else { panic!() };
    assert_eq!((info.server_id.as_str(), info.tunnel_type, info.cluster.as_str()), (NODE, TunnelType::Node, CLUSTER));
    assert_eq!(info.peer, PEER.parse().unwrap());
    agent.stop.cancel();
    soon(agent.running).await.unwrap();
    loop {
        if matches!(soon(events.recv()).await.unwrap(), TunnelEvent::Unregistered(gone) if gone == info) {
            break;
        }
    }
    assert!(proxy.registry().is_empty());
}

#[tokio::test]
async fn an_agent_is_back_within_a_second_after_its_proxy_restarts() {
    let authority = Authority::new(CLUSTER);
    let known = [(CLUSTER, &authority)];
    let old = server(&authority, "proxy.c", &known);
    let address = Address::of(&[&old]);
    let _agent = node(&authority, &address);
    registered(&old, NODE, TunnelType::Node).await;

    address.lead_to(&[]);
    old.close().await;
    soon(old.registry().emptied()).await;
    // The proxy's process takes a moment to start.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let new = server(&authority, "proxy.c", &known);
    address.lead_to(&[&new]);
    let since = Instant::now();
    registered(&new, NODE, TunnelType::Node).await;
    assert!(since.elapsed() < Duration::from_secs(1), "took {:?}", since.elapsed());
    assert!(dial(&new).await.is_ok());
    assert_eq!(address.cut_off.load(Ordering::Relaxed), 1, "what else leads to the proxies was not told");
}

#[tokio::test]
async fn the_newest_tunnel_of_an_agent_that_restarted_is_used() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let address = Address::of(&[&proxy]);
    let first = start(agent_config(identity(&authority, "Node", NODE), &authority, &address));
    registered(&proxy, NODE, TunnelType::Node).await;
    let mut events = proxy.registry().subscribe();
    // The second one refuses everything, so that the two can be told apart.
    let mut config = agent_config(identity(&authority, "Node", NODE), &authority, &address);
    config.transports = Arc::new(|transport: IncomingTransport| async move { transport.refuse("second").await });
    let second = start(config);
    while proxy.registry().len() < 2 {
        soon(events.recv()).await.unwrap();
    }
    assert_eq!(dial(&proxy).await.unwrap_err(), DialError::Refused("second".to_owned()));
    second.stop.cancel();
    soon(second.running).await.unwrap();
    while proxy.registry().len() > 1 {
        soon(events.recv()).await.unwrap();
    }
    assert!(dial(&proxy).await.is_ok());
    drop(first);
}

#[tokio::test]
async fn an_agent_connects_to_every_proxy_it_hears_of() {
    let authority = Authority::new(CLUSTER);
    let known = [(CLUSTER, &authority)];
    let (one, two) = (server(&authority, "one.c", &known), server(&authority, "two.c", &known));
    let proxies = ["one", "two"].map(|id| DiscoveredProxy { id: id.to_owned(), ..DiscoveredProxy::default() });
    one.set_proxies(&proxies);
    let agent = node(&authority, &Address::of(&[&one, &two]));
    registered(&one, NODE, TunnelType::Node).await;
    registered(&two, NODE, TunnelType::Node).await;
    let mut connected = agent.connected.borrow().clone();
    connected.sort();
    assert_eq!(connected, ["one", "two"]);
}

#[tokio::test]
async fn a_draining_proxy_sends_agents_elsewhere_and_keeps_open_streams() {
    let authority = Authority::new(CLUSTER);
    let known = [(CLUSTER, &authority)];
    let (old, new) = (server(&authority, "old.c", &known), server(&authority, "new.c", &known));
    let address = Address::of(&[&old]);
    let _agent = node(&authority, &address);
    registered(&old, NODE, TunnelType::Node).await;
    let mut open = dial(&old).await.unwrap();
    line(&mut open).await;

    address.lead_to(&[&new]);
    soon(old.drain()).await;
    registered(&new, NODE, TunnelType::Node).await;
    assert_eq!(dial(&old).await.unwrap_err().to_string(), "node is offline: no active node tunnels found");
    echo(&mut open, "still here").await;
    drop(open);
    soon(old.registry().emptied()).await;
}

#[tokio::test]
async fn a_stopping_agent_lets_open_streams_end() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let agent = node(&authority, &Address::of(&[&proxy]));
    registered(&proxy, NODE, TunnelType::Node).await;
    let mut open = dial(&proxy).await.unwrap();
    line(&mut open).await;
    agent.stop.cancel();
    echo(&mut open, "still here").await;
    assert!(!agent.running.is_finished());
    drop(open);
    soon(agent.running).await.unwrap();
}

#[tokio::test]
async fn an_agent_of_another_authority_is_not_let_in() {
    let (authority, stranger) = (Authority::new(CLUSTER), Authority::new(CLUSTER));
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let (near, far) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn({
        let proxy = proxy.clone();
        async move { proxy.serve(Box::new(far), PEER.parse().unwrap(), ()).await }
    });
    let mut client = connect(near).await;
    let login = identity(&stranger, "Node", NODE);
    let outcome = soon(client.authenticate_openssh_cert(NODE, login.key, login.certificate)).await.unwrap();
    assert!(!outcome.success());
    // The right authority, but somebody else's name.
    let login = identity(&authority, "Node", "other.c");
    let outcome = soon(client.authenticate_openssh_cert(NODE, login.key, login.certificate)).await.unwrap();
    assert!(!outcome.success());
    // A plain key.
    let plain = russh::keys::PrivateKeyWithHashAlg::new(Arc::new(key()), None);
    assert!(!soon(client.authenticate_publickey(NODE, plain)).await.unwrap().success());
    drop(client);
    let _ = soon(serving).await.unwrap();
    assert!(proxy.registry().is_empty());
}

#[tokio::test]
async fn an_agent_does_not_trust_a_proxy_of_another_authority() {
    let (authority, stranger) = (Authority::new(CLUSTER), Authority::new(CLUSTER));
    let false_proxy = server(&stranger, "proxy.c", &[(CLUSTER, &authority)]);
    let host_without_role = {
        let world = World::default();
        world.authorities.lock().insert(CLUSTER.to_owned(), vec![authority.public()]);
        TunnelServer::new(TunnelServerConfig {
            cluster: CLUSTER.to_owned(),
            identity: identity(&authority, "Node", "node2.c"),
            authorities: Arc::new(world),
            auth: Arc::new(Echo(true)),
            keep_alive: KeepAlive::default(),
        })
    };
    let right = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let address = Address::of(&[&false_proxy, &host_without_role, &right]);
    let _agent = node(&authority, &address);
    registered(&right, NODE, TunnelType::Node).await;
    assert!(false_proxy.registry().is_empty() && host_without_role.registry().is_empty());
    assert!(address.turn.load(Ordering::Relaxed) >= 3);
}

#[tokio::test]
async fn channels_that_have_no_business_here_are_refused_with_a_text() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let client = logged_in(&proxy, &identity(&authority, "Node", NODE)).await;
    let cases = [
        ("session", "Cannot open new SSH session on reverse tunnel. Are you connecting to the right port?"),
        ("toaster", "reversetunnel received unknown channel request toaster from 192.0.2.7:40000"),
    ];
    for (kind, text) in cases {
        let refused = soon(client.channel_open_extension(kind, Vec::new())).await.unwrap_err();
        let Error::ChannelOpenFailure(rejection) = refused else { panic!("{refused}") };
        assert_eq!(rejection.reason, ChannelOpenFailure::ConnectFailed);
        assert_eq!(rejection.description, text);
    }
}

#[tokio::test]
async fn only_agents_get_tunnels() {
    let (authority, leaf) = (Authority::new(CLUSTER), Authority::new("leaf"));
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority), ("leaf", &leaf)]);
    let cases = [
        (identity(&authority, "Auth", NODE), "unsupported role Auth"),
        (identity(&authority, "Proxy", NODE), "unsupported role Proxy"),
        (identity(&leaf, "Node", NODE), "unsupported role Node"),
    ];
    for (login, text) in cases {
        let client = logged_in(&proxy, &login).await;
        let refused = soon(client.channel_open_extension("teleport-heartbeat", Vec::new())).await.unwrap_err();
        let Error::ChannelOpenFailure(rejection) = refused else { panic!("{refused}") };
        assert_eq!(rejection.description, text);
    }
    assert!(proxy.registry().is_empty());
}

#[tokio::test]
async fn a_leaf_cluster_tells_its_version_and_is_reached_by_its_name() {
    let (authority, leaf) = (Authority::new(CLUSTER), Authority::new("leaf"));
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority), ("leaf", &leaf)]);
    let mut config = agent_config(identity(&leaf, "Proxy", "lp.leaf"), &authority, &Address::of(&[&proxy]));
    config.auth_version = Some("17.0.0".to_owned());
    let _agent = start(config);
    registered(&proxy, "lp.leaf", TunnelType::Proxy).await;
    assert_eq!(proxy.registry().list()[0].auth_version.as_deref(), Some("17.0.0"));
    let request = DialRequest::auth_server();
    let mut stream = soon(proxy.registry().dial_cluster("leaf", &request)).await.unwrap();
    assert_eq!(line(&mut stream).await, "");
    echo(&mut stream, "hello").await;
    assert!(soon(proxy.registry().dial_cluster("other", &request)).await.is_err());
}

#[tokio::test]
async fn an_agent_reaches_the_auth_service_through_its_proxy() {
    let authority = Authority::new(CLUSTER);
    let proxy = server(&authority, "proxy.c", &[(CLUSTER, &authority)]);
    let client = logged_in(&proxy, &identity(&authority, "Node", NODE)).await;
    let mut channel = soon(client.channel_open_extension("teleport-transport", Vec::new())).await.unwrap();
    channel.request("teleport-transport-dial", true, DialRequest::auth_server().to_payload()).await.unwrap();
    assert!(matches!(soon(channel.wait()).await, Some(russh::ChannelMsg::Success)));
    let mut stream = channel.into_stream();
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"hello");
}

#[tokio::test]
async fn an_agent_hears_when_no_auth_service_is_reached() {
    let authority = Authority::new(CLUSTER);
    let world = World::default();
    world.authorities.lock().insert(CLUSTER.to_owned(), vec![authority.public()]);
    let proxy = TunnelServer::new(TunnelServerConfig {
        cluster: CLUSTER.to_owned(),
        identity: identity(&authority, "Proxy", "proxy.c"),
        authorities: Arc::new(world),
        auth: Arc::new(Echo(false)),
        keep_alive: KeepAlive::default(),
    });
    let client = logged_in(&proxy, &identity(&authority, "Node", NODE)).await;
    let mut channel = soon(client.channel_open_extension("teleport-transport", Vec::new())).await.unwrap();
    channel.request("teleport-transport-dial", true, DialRequest::auth_server().to_payload()).await.unwrap();
    let Some(russh::ChannelMsg::ExtendedData { data, ext: 1 }) = soon(channel.wait()).await else { panic!() };
    assert_eq!(&data[..], b"failed to dial auth server");
    assert!(matches!(soon(channel.wait()).await, Some(russh::ChannelMsg::Failure)));
}

/// A bare client, for what a well-behaved agent does not do.
struct Bare;

impl client::Handler for Bare {
    type Error = Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(key.certificate().is_some())
    }
}

async fn connect(stream: tokio::io::DuplexStream) -> client::Handle<Bare> {
    client::connect_stream(Arc::new(crate::ssh::client_config()), stream, Bare).await.unwrap()
}

async fn logged_in(proxy: &TunnelServer, login: &HostIdentity) -> client::Handle<Bare> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let proxy = proxy.clone();
    tokio::spawn(async move { proxy.serve(Box::new(far), PEER.parse().unwrap(), ()).await });
    let mut client = connect(near).await;
    let user = login.user().unwrap().to_owned();
    let key: Arc<PrivateKey> = login.key.clone();
    assert!(client.authenticate_openssh_cert(user, key, login.certificate.clone()).await.unwrap().success());
    client
}
