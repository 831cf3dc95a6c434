//! What an agent calls from its start on: watches, control stream, events, recordings.

use std::time::Duration;

use audit::codes;
use futures::StreamExt;
use resources::SystemRole;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use wire::clusterconfig::cluster_config_service_client::ClusterConfigServiceClient;
use wire::events::{Exec, OneOf, ServerMetadata, SessionEnd, SessionMetadata, SessionPrint, SessionStart, UserCreate};
use wire::proto::audit_stream_request::Request as Upload;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::proto::downstream_inventory_one_of::Msg as Down;
use wire::proto::event::Resource;
use wire::proto::upstream_inventory_one_of::Msg as Up;
use wire::proto::{
    AuditStreamRequest, CompleteStream, CreateSessionTrackerRequest, CreateStream, DownstreamInventoryOneOf, Event,
    GetLocksRequest, InventoryHeartbeat, InventoryPingRequest, InventoryStatusRequest, Operation,
    StreamSessionEventsRequest, UpdateSessionTrackerRequest, UpstreamInventoryGoodbye, UpstreamInventoryHello,
    UpstreamInventoryOneOf, UpstreamInventoryPong, Watch, update_session_tracker_request,
};
use wire::trust::GetCertAuthorityRequest;
use wire::trust::trust_service_client::TrustServiceClient;
use wire::types::{
    LockSpecV2, LockTarget, LockV2, Metadata, ResourceInNamespaceRequest, ServerSpecV2, ServerV2,
    SessionRecordingConfigSpecV2, SessionRecordingConfigV2, SessionRecordingEncryptionConfig, SessionTrackerSpecV1,
    SessionTrackerV1, WatchKind,
};

use crate::server::testing::{CLUSTER, Cluster, Holder};

const NODE: &str = "6d1f5a3e-0000-4000-8000-000000000001";
const OTHER: &str = "6d1f5a3e-0000-4000-8000-000000000002";
const SESSION: &str = "5a6ecf12-3df8-4c1b-a1ea-6f1e6dbb2c4e";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn node(cluster: &Cluster) -> Holder {
    cluster.service(SystemRole::Node, NODE).await
}

fn kind(name: &str) -> WatchKind {
    WatchKind { kind: name.to_owned(), ..Default::default() }
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, tonic::Status> {
    tokio::time::timeout(PATIENCE, stream.message()).await.expect("nothing came")
}

async fn watch(client: &mut AuthServiceClient<Channel>, kinds: Vec<WatchKind>, partial: bool) -> Streaming<Event> {
    let request = Watch { kinds, allow_partial_success: partial };
    client.watch_events(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_role_that_an_agent_has_not_heard_of_is_asked_for() {
    let cluster = Cluster::start().await;
    cluster.add_role(serde_json::json!({"kind": "role", "version": "v7", "metadata": {"name": "new"}})).await;
    let channel = wire::client::api_channel(cluster.channel(Some(&node(&cluster).await)).await);
    let (tasks, end) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    // As one whose events have not arrived yet: it holds no roles at all.
    let agent = cache::Cache::start(channel, vec![cache::Kind::Locks], &tasks, end.clone());
    assert!(agent.ready(PATIENCE).await);
    assert!(agent.role("new").is_none());
    let role = agent.find_role("new").await.expect("a role");
    assert_eq!(role.metadata.as_ref().map(|metadata| metadata.name.as_str()), Some("new"));
    assert!(agent.find_role("none").await.is_none());
    end.cancel();
}

#[tokio::test]
async fn an_agent_finds_all_it_reads_at_its_start() {
    let cluster = Cluster::start().await;
    let channel = cluster.channel(Some(&node(&cluster).await)).await;
    let mut auth = AuthServiceClient::new(channel.clone());
    auth.ping(wire::proto::PingRequest {}).await.unwrap();
    let mut trust = TrustServiceClient::new(channel.clone());
    let host = GetCertAuthorityRequest { r#type: "host".to_owned(), domain: CLUSTER.to_owned(), include_key: false };
    trust.get_cert_authority(host).await.unwrap();
    let filtered = WatchKind {
        filter: [("host", CLUSTER), ("user", "*")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..kind("cert_authority")
    };
    let kinds = [
        "cluster_name",
        "cluster_audit_config",
        "cluster_networking_config",
        "cluster_auth_preference",
        "session_recording_config",
        "role",
        "network_restrictions",
        "access_graph_settings",
    ];
    let namespace = WatchKind { name: "default".to_owned(), ..kind("namespace") };
    let all = kinds.into_iter().map(kind).chain([filtered, namespace]).collect();
    let mut events = watch(&mut auth, all, true).await;
    let init = next(&mut events).await.unwrap().unwrap();
    assert_eq!(init.r#type, Operation::Init as i32);
    let Some(Resource::WatchStatus(status)) = init.resource else { panic!("no watch status") };
    let confirmed: Vec<String> = status.spec.unwrap().kinds.into_iter().map(|kind| kind.kind).collect();
    assert_eq!(confirmed.len(), 9, "{confirmed:?}");
    assert!(!confirmed.contains(&"access_graph_settings".to_owned()));

    auth.get_cluster_audit_config(()).await.unwrap();
    let mut configs = ClusterConfigServiceClient::new(channel);
    configs.get_auth_preference(wire::clusterconfig::GetAuthPreferenceRequest {}).await.unwrap();
    configs.get_session_recording_config(wire::clusterconfig::GetSessionRecordingConfigRequest {}).await.unwrap();
    configs.get_cluster_networking_config(wire::clusterconfig::GetClusterNetworkingConfigRequest {}).await.unwrap();
    assert!(!auth.list_roles(wire::proto::ListRolesRequest::default()).await.unwrap().into_inner().roles.is_empty());
    assert_eq!(auth.get_network_restrictions(()).await.unwrap_err().code(), Code::NotFound);
    auth.get_locks(GetLocksRequest { in_force_only: true, ..Default::default() }).await.unwrap();
}

#[tokio::test]
async fn whoever_reads_no_settings_learns_where_sessions_are_recorded_and_no_more() {
    let cluster = Cluster::start().await;
    let config = SessionRecordingConfigV2 {
        spec: Some(SessionRecordingConfigSpecV2 {
            mode: "proxy-sync".to_owned(),
            encryption: Some(SessionRecordingEncryptionConfig { enabled: true }),
            ..Default::default()
        }),
        ..Default::default()
    };
    cluster.auth.set_recording_config(&cluster.admin_caller(), config, crate::Write::Upsert).await.unwrap();
    let told = async |roles: &[&str], name: &str| {
        let holder = cluster.user(name, roles, &[]).await;
        let mut configs = ClusterConfigServiceClient::new(cluster.channel(Some(&holder)).await);
        let request = wire::clusterconfig::GetSessionRecordingConfigRequest {};
        configs.get_session_recording_config(request).await.unwrap().into_inner().spec.unwrap()
    };
    let (clerk, editor) = (told(&["access"], "clerk").await, told(&["editor"], "chief").await);
    assert_eq!((clerk.mode.as_str(), editor.mode.as_str()), ("proxy-sync", "proxy-sync"));
    assert!(clerk.encryption.is_none() && clerk.proxy_checks_host_keys.is_none());
    assert!(editor.encryption.is_some_and(|encryption| encryption.enabled));
}

#[tokio::test]
async fn watchers_are_told_of_every_change_in_order_and_only_of_what_they_may_see() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client(Some(&node(&cluster).await)).await;
    let mut events = watch(&mut client, vec![kind("lock")], false).await;
    assert_eq!(next(&mut events).await.unwrap().unwrap().r#type, Operation::Init as i32);
    for round in 0..3 {
        let lock = LockV2 {
            metadata: Some(Metadata { name: "l1".to_owned(), ..Default::default() }),
            spec: Some(LockSpecV2 {
                target: Some(LockTarget { user: "zed".to_owned(), ..Default::default() }),
                message: round.to_string(),
                ..Default::default()
            }),
            ..Default::default()
        };
        cluster.auth.upsert_lock(&cluster.admin_caller(), lock).await.unwrap();
    }
    cluster.auth.delete_lock(&cluster.admin_caller(), "l1").await.unwrap();
    for round in 0..3 {
        let event = next(&mut events).await.unwrap().unwrap();
        let Some(Resource::Lock(lock)) = event.resource else { panic!("no lock") };
        assert_eq!(lock.spec.unwrap().message, round.to_string());
    }
    let event = next(&mut events).await.unwrap().unwrap();
    assert_eq!(event.r#type, Operation::Delete as i32);
    let Some(Resource::ResourceHeader(header)) = event.resource else { panic!("no header") };
    assert_eq!((header.kind.as_str(), header.metadata.unwrap().name.as_str()), ("lock", "l1"));

    let denied = async |kinds: Vec<WatchKind>, partial: bool| {
        let mut client = cluster.client(Some(&node(&cluster).await)).await;
        let request = Watch { kinds, allow_partial_success: partial };
        match client.watch_events(request).await {
            Err(status) => status.code(),
            Ok(stream) => stream.into_inner().message().await.unwrap_err().code(),
        }
    };
    assert_eq!(denied(vec![], true).await, Code::PermissionDenied);
    assert_eq!(denied(vec![kind("token")], false).await, Code::PermissionDenied);
    assert_eq!(denied(vec![kind("token"), kind("nonsense")], true).await, Code::InvalidArgument);
    let secret = WatchKind { load_secrets: true, ..kind("cert_authority") };
    assert_eq!(denied(vec![secret], false).await, Code::PermissionDenied);
}

/// A control stream of an instance.
struct Control {
    up: mpsc::Sender<UpstreamInventoryOneOf>,
    down: Streaming<DownstreamInventoryOneOf>,
}

impl Control {
    async fn open(client: &mut AuthServiceClient<Channel>, server_id: &str) -> Self {
        let (up, outgoing) = mpsc::channel(8);
        let hello = UpstreamInventoryHello {
            version: "17.0.0".to_owned(),
            server_id: server_id.to_owned(),
            services: vec!["Node".to_owned(), "Proxy".to_owned(), "Nonsense".to_owned()],
            hostname: "web1".to_owned(),
            ..Default::default()
        };
        up.send(UpstreamInventoryOneOf { msg: Some(Up::Hello(hello)) }).await.unwrap();
        let down = client.inventory_control_stream(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Self { up, down }
    }

    async fn send(&self, message: Up) {
        self.up.send(UpstreamInventoryOneOf { msg: Some(message) }).await.unwrap();
    }

    async fn heartbeat(&self, server_id: &str) {
        let server = ServerV2 {
            kind: "node".to_owned(),
            version: "v2".to_owned(),
            metadata: Some(Metadata { name: server_id.to_owned(), ..Default::default() }),
            spec: Some(ServerSpecV2 { hostname: "web1".to_owned(), use_tunnel: true, ..Default::default() }),
            ..Default::default()
        };
        self.send(Up::Heartbeat(InventoryHeartbeat { ssh_server: Some(server), ..Default::default() })).await;
    }
}

#[tokio::test]
async fn a_control_stream_registers_its_own_server_answers_pings_and_cleans_up() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let mut nodes = watch(&mut admin, vec![kind("node")], false).await;
    next(&mut nodes).await.unwrap();
    let mut client = cluster.client(Some(&node(&cluster).await)).await;
    let mut control = Control::open(&mut client, NODE).await;
    let Some(Down::Hello(hello)) = next(&mut control.down).await.unwrap().unwrap().msg else { panic!("no hello") };
    assert!(hello.capabilities.unwrap().node_heartbeats);
    control.heartbeat(NODE).await;
    let Some(Resource::Server(server)) = next(&mut nodes).await.unwrap().unwrap().resource else { panic!("no server") };
    assert!(wire::time::moment(server.metadata.unwrap().expires.as_ref()).unwrap() > cluster.auth.now());

    let status = InventoryStatusRequest { connected: true };
    let status = admin.get_inventory_status(status).await.unwrap().into_inner();
    assert_eq!(status.connected[0].services, ["Node"]);
    let ping = admin.ping_inventory(InventoryPingRequest { server_id: NODE.to_owned(), control_log: false });
    let pong = async {
        let Some(Down::Ping(ping)) = next(&mut control.down).await.unwrap().unwrap().msg else { panic!("no ping") };
        control.send(Up::Pong(UpstreamInventoryPong { id: ping.id })).await;
    };
    let (pinged, ()) = tokio::join!(ping, pong);
    assert!(pinged.unwrap().into_inner().duration > 0);
    let counts = |name: &str, value: usize| {
        let counted = cluster.metrics();
        assert!(counted.lines().any(|line| line == format!("{name} {value}")), "{name} {value} in {counted}");
    };
    counts("heartbeat_connections_received_total", 1);
    counts("teleport_connected_resources{type=\"node\"}", 1);
    counts("heartbeats_missed_total", 0);
    cluster.clock.advance(Duration::from_secs(7 * 60));
    counts("heartbeats_missed_total", 1);
    control.send(Up::Goodbye(UpstreamInventoryGoodbye { delete_resources: true })).await;
    assert!(next(&mut control.down).await.unwrap().is_none());
    counts("teleport_connected_resources{type=\"node\"}", 0);
    assert_eq!(next(&mut nodes).await.unwrap().unwrap().r#type, Operation::Delete as i32);
    let gone = admin.ping_inventory(InventoryPingRequest { server_id: NODE.to_owned(), control_log: false }).await;
    assert_eq!(gone.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn an_agent_speaks_for_no_other_server() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client(Some(&node(&cluster).await)).await;
    let mut control = Control::open(&mut client, OTHER).await;
    assert_eq!(next(&mut control.down).await.unwrap_err().code(), Code::PermissionDenied);
    let mut control = Control::open(&mut client, NODE).await;
    next(&mut control.down).await.unwrap();
    control.heartbeat(OTHER).await;
    assert_eq!(next(&mut control.down).await.unwrap_err().code(), Code::PermissionDenied);
    let foreign = ResourceInNamespaceRequest { name: OTHER.to_owned(), namespace: "default".to_owned() };
    assert_eq!(client.delete_node(foreign).await.unwrap_err().code(), Code::PermissionDenied);
    let certs =
        wire::proto::HostCertsRequest { host_id: OTHER.to_owned(), role: "Node".to_owned(), ..Default::default() };
    assert_eq!(client.generate_host_certs(certs.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let proxy = wire::proto::HostCertsRequest { host_id: NODE.to_owned(), role: "Proxy".to_owned(), ..certs.clone() };
    assert_eq!(client.generate_host_certs(proxy).await.unwrap_err().code(), Code::PermissionDenied);
    let key = pki::keys::PrivateKey::generate(pki::keys::KeyAlgorithm::EcdsaP256).unwrap();
    let own = |principal: &str| wire::proto::HostCertsRequest {
        host_id: NODE.to_owned(),
        public_tls_key: key.public().to_pem().into_bytes(),
        public_ssh_key: key.public().to_ssh_line().into_bytes(),
        additional_principals: vec![principal.to_owned()],
        ..certs.clone()
    };
    for foreign in [OTHER, "teleport.cluster.local"] {
        assert_eq!(client.generate_host_certs(own(foreign)).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let renewed = client.generate_host_certs(own("web1.example.com")).await.unwrap().into_inner();
    assert!(!renewed.tls.is_empty() && !renewed.ssh.is_empty());
}

#[tokio::test]
async fn an_agent_does_not_say_that_it_is_a_server_without_one() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client(Some(&node(&cluster).await)).await;
    let server = |sub_kind: &str| ServerV2 {
        kind: "node".to_owned(),
        sub_kind: sub_kind.to_owned(),
        version: "v2".to_owned(),
        metadata: Some(Metadata { name: NODE.to_owned(), ..Default::default() }),
        spec: Some(ServerSpecV2 { hostname: "db1".into(), addr: "10.0.0.9:22".into(), ..Default::default() }),
    };
    for sub_kind in ["openssh", "openssh-ec2-ice", "anything"] {
        let mut control = Control::open(&mut client, NODE).await;
        next(&mut control.down).await.unwrap();
        let heartbeat = InventoryHeartbeat { ssh_server: Some(server(sub_kind)), ..Default::default() };
        control.send(Up::Heartbeat(heartbeat)).await;
        assert_eq!(next(&mut control.down).await.unwrap_err().code(), Code::PermissionDenied, "{sub_kind}");
        let refused = client.upsert_node(server(sub_kind)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    }
    assert!(cluster.auth.store().cached_list::<crate::store::kind::Node>().is_empty());
    client.upsert_node(server("teleport")).await.unwrap();
    // Those who register others go on doing so.
    for registrar in [cluster.admin().await, cluster.service(SystemRole::Discovery, OTHER).await] {
        cluster.client(Some(&registrar)).await.upsert_node(server("openssh")).await.unwrap();
    }
}

fn of(server_id: &str) -> Option<ServerMetadata> {
    Some(ServerMetadata { server_id: server_id.to_owned(), ..Default::default() })
}

fn session() -> Option<SessionMetadata> {
    Some(SessionMetadata { session_id: SESSION.to_owned(), ..Default::default() })
}

#[tokio::test]
async fn events_are_taken_from_services_about_themselves_only() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client(Some(&node(&cluster).await)).await;
    let exec = |server: &str, session: Option<SessionMetadata>| {
        codes::EXEC.event(Exec { server: of(server), session, ..Default::default() })
    };
    let mut twice = exec(NODE, session());
    audit::EventExt::metadata_mut(&mut twice).unwrap().id = "11111111-0000-4000-8000-000000000001".to_owned();
    // The answer to the first delivery was lost: the event is in the log once all the same.
    client.emit_audit_event(twice.clone()).await.unwrap();
    client.emit_audit_event(twice).await.unwrap();
    let error = client.emit_audit_event(exec(OTHER, session())).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert!(error.message().contains("failed to validate event metadata"));
    let bad = Some(SessionMetadata { session_id: "../../etc".to_owned(), ..Default::default() });
    assert_eq!(client.emit_audit_event(exec(NODE, bad)).await.unwrap_err().code(), Code::InvalidArgument);
    let lie = codes::USER_CREATE.event(UserCreate::default());
    assert_eq!(client.emit_audit_event(lie).await.unwrap_err().code(), Code::PermissionDenied);
    let alice = cluster.user("alice", &["access"], &[]).await;
    let mut person = cluster.client(Some(&alice)).await;
    assert_eq!(person.emit_audit_event(exec(NODE, session())).await.unwrap_err().code(), Code::PermissionDenied);
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let query = wire::proto::GetEventsRequest { event_types: vec!["exec".to_owned()], ..Default::default() };
    assert_eq!(admin.get_events(query).await.unwrap().into_inner().items.len(), 1);
}

#[tokio::test]
async fn trackers_belong_to_the_service_that_made_them_and_are_seen_by_participants() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client(Some(&node(&cluster).await)).await;
    let tracker = SessionTrackerV1 {
        spec: Some(SessionTrackerSpecV1 {
            session_id: SESSION.to_owned(),
            kind: "ssh".to_owned(),
            host_user: "alice".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let create = CreateSessionTrackerRequest { session_tracker: Some(tracker) };
    let made = client.create_session_tracker(create.clone()).await.unwrap().into_inner();
    assert_eq!(made.spec.unwrap().host_id, NODE);
    let mut other = cluster.client(Some(&cluster.service(SystemRole::Node, OTHER).await)).await;
    assert_eq!(other.create_session_tracker(create).await.unwrap_err().code(), Code::PermissionDenied);
    let end = UpdateSessionTrackerRequest {
        session_id: SESSION.to_owned(),
        update: Some(update_session_tracker_request::Update::UpdateState(wire::proto::SessionTrackerUpdateState {
            state: wire::types::SessionState::Terminated as i32,
        })),
    };
    assert_eq!(other.update_session_tracker(end.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let get = || wire::proto::GetSessionTrackerRequest { session_id: SESSION.to_owned() };
    let alice = cluster.user("alice", &["access"], &[]).await;
    let bob = cluster.user("bob", &["access"], &[]).await;
    cluster.client(Some(&alice)).await.get_session_tracker(get()).await.unwrap();
    let hidden = cluster.client(Some(&bob)).await.get_session_tracker(get()).await;
    assert_eq!(hidden.unwrap_err().code(), Code::NotFound);
    client.update_session_tracker(end).await.unwrap();
}

/// Uploads a recording of one line and waits for the end of the stream.
async fn upload(client: &mut AuthServiceClient<Channel>, server: &str) -> Result<(), tonic::Status> {
    let start = codes::SESSION_START.event(SessionStart {
        server: of(server),
        session: session(),
        user: Some(wire::events::UserMetadata { user: "alice".to_owned(), ..Default::default() }),
        ..Default::default()
    });
    let print =
        codes::SESSION_PRINT.event(SessionPrint { data: b"hello\r\n".to_vec(), bytes: 7, ..Default::default() });
    let end = codes::SESSION_END.event(SessionEnd {
        server: of(server),
        session: session(),
        participants: vec!["alice".to_owned()],
        ..Default::default()
    });
    let mut messages = vec![Upload::CreateStream(CreateStream { session_id: SESSION.to_owned() })];
    for (index, mut event) in [start, print, end].into_iter().enumerate() {
        set_index(&mut event, index);
        messages.push(Upload::Event(event));
    }
    messages.push(Upload::CompleteStream(CompleteStream {}));
    let messages = messages.into_iter().map(|request| AuditStreamRequest { request: Some(request) });
    let mut statuses = client.create_audit_stream(futures::stream::iter(messages)).await?.into_inner();
    let first = next(&mut statuses).await?.expect("no status");
    assert_eq!(first.last_event_index, -1);
    assert!(!first.upload_id.is_empty());
    while next(&mut statuses).await?.is_some() {}
    Ok(())
}

fn set_index(event: &mut OneOf, index: usize) {
    use audit::EventExt as _;
    event.metadata_mut().unwrap().index = i64::try_from(index).unwrap();
}

#[tokio::test]
async fn a_recording_is_uploaded_by_its_agent_and_replayed_by_participants() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client(Some(&node(&cluster).await)).await;
    upload(&mut client, NODE).await.unwrap();
    let end = codes::SESSION_END.event(SessionEnd {
        server: of(NODE),
        session: session(),
        participants: vec!["alice".to_owned()],
        ..Default::default()
    });
    client.emit_audit_event(end).await.unwrap();
    let play = || StreamSessionEventsRequest { session_id: SESSION.to_owned(), start_index: 0 };
    let alice = cluster.user("alice", &["access"], &[]).await;
    let mut alice = cluster.client(Some(&alice)).await;
    let events: Vec<_> = alice.stream_session_events(play()).await.unwrap().into_inner().collect().await;
    assert_eq!(events.len(), 3);
    let listed = alice.get_session_events(wire::proto::GetSessionEventsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.items.len(), 1);
    let bob = cluster.user("bob", &["access"], &[]).await;
    let mut bob = cluster.client(Some(&bob)).await;
    assert_eq!(bob.stream_session_events(play()).await.unwrap_err().code(), Code::PermissionDenied);
    let none = bob.get_session_events(wire::proto::GetSessionEventsRequest::default()).await.unwrap().into_inner();
    assert!(none.items.is_empty());
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let query = |name: &str| wire::proto::GetEventsRequest { event_types: vec![name.to_owned()], ..Default::default() };
    assert_eq!(admin.get_events(query("session.upload")).await.unwrap().into_inner().items.len(), 1);
    assert_eq!(admin.get_events(query("session.recording.access")).await.unwrap().into_inner().items.len(), 1);

    let mut other = cluster.client(Some(&cluster.service(SystemRole::Node, OTHER).await)).await;
    assert_eq!(other.stream_session_events(play()).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(upload(&mut other, OTHER).await.is_err());
    assert!(upload(&mut other, NODE).await.is_err());
    let events: Vec<_> = alice.stream_session_events(play()).await.unwrap().into_inner().collect().await;
    assert_eq!(events.len(), 3);
}

/// A running session whose recording has come so far.
async fn recording_of(cluster: &Cluster, session: recording::SessionId) -> Box<dyn recording::Upload> {
    let mut upload = cluster.auth.recordings().create(session).await.unwrap();
    let mut print = codes::SESSION_PRINT.event(SessionPrint { data: b"hello".to_vec(), ..Default::default() });
    set_index(&mut print, 0);
    upload.write(&print).await.unwrap();
    upload.flush().await.unwrap();
    upload
}

#[tokio::test]
async fn recordings_are_played_while_their_keys_cannot_be_read() {
    let cluster = Cluster::start().await;
    let session = recording::SessionId::random();
    recording_of(&cluster, session).await.complete().await.unwrap();
    let key = backend::Key::root("/recordings").child("sealing_keys").unwrap();
    cluster.auth.store().backend().put(backend::Item::new(key, "no keys")).await.unwrap();
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let play = StreamSessionEventsRequest { session_id: session.to_string(), start_index: 0 };
    let events: Vec<_> = admin.stream_session_events(play).await.unwrap().into_inner().collect().await;
    assert_eq!(events.len(), 1);
}

#[tokio::test]
async fn one_user_watches_so_many_running_sessions_and_no_more() {
    let cluster = Cluster::start().await;
    let session = recording::SessionId::random();
    let upload = recording_of(&cluster, session).await;
    let play = || StreamSessionEventsRequest { session_id: session.to_string(), start_index: 0 };
    let alice = cluster.user("alice", &["auditor"], &[]).await;
    let mut alice = cluster.client(Some(&alice)).await;
    let mut watching = Vec::new();
    let refused = loop {
        match alice.stream_session_events(play()).await {
            Ok(events) => watching.push(events.into_inner()),
            Err(status) => break status,
        }
        assert!(watching.len() <= 64);
    };
    assert_eq!((watching.len(), refused.code()), (64, Code::ResourceExhausted));
    assert!(refused.message().contains("tsh join --mode=observer"), "{refused}");
    // Others watch all the same, and complete recordings need no place.
    let bob = cluster.user("bob", &["auditor"], &[]).await;
    let mut bob = cluster.client(Some(&bob)).await;
    let mut events = bob.stream_session_events(play()).await.unwrap().into_inner();
    assert!(events.next().await.unwrap().is_ok());
    upload.complete().await.unwrap();
    assert!(events.next().await.is_none());
    alice.stream_session_events(play()).await.unwrap();
}
