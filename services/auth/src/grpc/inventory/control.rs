//! One control stream, from the instance's hello to its goodbye.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use resources::SystemRole;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tonic::{Status, Streaming};
use wire::error::{Error, Result};
use wire::proto::{
    DownstreamInventoryHello, DownstreamInventoryOneOf, InventoryHeartbeat, UpstreamInventoryHello,
    UpstreamInventoryOneOf, downstream_inventory_hello::SupportedCapabilities,
    downstream_inventory_one_of::Msg as Down, upstream_inventory_one_of::Msg as Up,
};
use wire::types::{InstanceSpecV1, InstanceV1, Metadata, ResourceHeader, ServerV2};

use super::Connected;
use crate::authz::AuthContext;
use crate::grpc::Api;
use crate::metrics::Kept;
use crate::presence;
use crate::store::kind;

/// How long an instance may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(60);
/// Lifetime of a server record after its last heartbeat or keep-alive.
const SERVER_TTL: Duration = Duration::from_secs(10 * 60);
/// How often the records of a live stream are kept alive.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Failures in a row after which the stream is closed, so that the instance announces itself anew.
const MAX_FAILURES: u32 = 3;
/// Lifetime of an instance record.
const INSTANCE_TTL: Duration = Duration::from_secs(20 * 60);
/// Time between two writes of an instance record, before jitter takes up to a quarter of it away.
const INSTANCE_INTERVAL: Duration = Duration::from_secs(18 * 60);

/// Serves one stream.
pub struct Control {
    api: Api,
    context: Arc<AuthContext>,
    to_instance: mpsc::Sender<Result<DownstreamInventoryOneOf, Status>>,
}

/// A stream whose instance has said hello.
struct Session {
    api: Api,
    context: Arc<AuthContext>,
    stream: Arc<Connected>,
    /// The last heartbeat of the SSH service that is not stored yet, or whose record is to be kept alive.
    node: Option<Node>,
    /// What is counted while the SSH service is kept alive.
    kept: Option<Kept>,
}

enum Node {
    Stored { failures: u32 },
    Waiting(Box<ServerV2>),
}

/// What a message of an instance leads to.
enum Next {
    Continue,
    Goodbye,
}

impl Control {
    pub fn new(
        api: Api,
        context: Arc<AuthContext>,
        to_instance: mpsc::Sender<Result<DownstreamInventoryOneOf, Status>>,
    ) -> Self {
        Self { api, context, to_instance }
    }

    /// Runs until the instance leaves, breaks a rule, or the service shuts down.
    pub async fn run(self, mut incoming: Streaming<UpstreamInventoryOneOf>) {
        let closing = self.api.closing();
        let outcome = tokio::select! {
            outcome = self.serve(&mut incoming) => outcome,
            () = closing.cancelled() => Err(Error::connection_problem("the Auth Service is shutting down")),
        };
        if let Err(error) = outcome {
            tracing::debug!(caller = %self.context.username(), %error, "control stream ended");
            // The instance may be gone already.
            let _ = self.to_instance.try_send(Err(error.into()));
        }
    }

    async fn serve(&self, incoming: &mut Streaming<UpstreamInventoryOneOf>) -> Result<()> {
        let first = timeout(HELLO_TIMEOUT, incoming.message()).await;
        let first = first.map_err(|_| Error::bad_parameter("no hello within 60 s"))??;
        let Some(UpstreamInventoryOneOf { msg: Some(Up::Hello(hello)) }) = first else {
            return Err(Error::bad_parameter("the first message of a control stream is a hello"));
        };
        let hello = self.check(hello)?;
        let reply = DownstreamInventoryHello {
            version: wire::VERSION.to_owned(),
            server_id: self.api.auth().host_uuid().to_owned(),
            capabilities: Some(capabilities()),
        };
        let reply = DownstreamInventoryOneOf { msg: Some(Down::Hello(reply)) };
        if self.to_instance.send(Ok(reply)).await.is_err() {
            return Ok(());
        }
        let stream = Arc::new(Connected { hello, to_instance: self.to_instance.clone(), pings: Mutex::default() });
        let mut session = Session {
            api: self.api.clone(),
            context: Arc::clone(&self.context),
            stream: Arc::clone(&stream),
            node: None,
            kept: None,
        };
        self.api.auth().0.metrics.heartbeats();
        self.api.inventory().add(Arc::clone(&stream));
        let outcome = session.run(incoming).await;
        self.api.inventory().remove(&stream);
        outcome
    }

    /// An instance says hello for itself, and for the services its certificate holds; others are left out.
    fn check(&self, mut hello: UpstreamInventoryHello) -> Result<UpstreamInventoryHello> {
        self.context.require_own_server(&hello.server_id)?;
        hello.services.retain(|service| self.context.has_role_named(service));
        hello.services.truncate(SystemRole::ALL.len());
        for text in [&mut hello.version, &mut hello.hostname, &mut hello.external_upgrader] {
            shorten(text);
        }
        shorten(&mut hello.external_upgrader_version);
        Ok(hello)
    }
}

impl Session {
    async fn run(&mut self, incoming: &mut Streaming<UpstreamInventoryOneOf>) -> Result<()> {
        let start = Instant::now();
        let mut keep_alive = interval_at(start + crate::random::jitter(KEEP_ALIVE), KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut report_at = start;
        loop {
            tokio::select! {
                message = incoming.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    if matches!(self.take(message).await?, Next::Goodbye) {
                        return Ok(());
                    }
                }
                _ = keep_alive.tick() => self.keep_alive().await?,
                () = sleep_until(report_at) => {
                    report(&self.api, &self.stream.hello).await;
                    report_at = Instant::now() + report_pause();
                }
            }
        }
    }

    async fn take(&mut self, message: UpstreamInventoryOneOf) -> Result<Next> {
        match message.msg {
            Some(Up::Hello(_)) => Err(Error::bad_parameter("a second hello")),
            Some(Up::Heartbeat(heartbeat)) => self.heartbeat(heartbeat).await.map(|()| Next::Continue),
            Some(Up::Pong(pong)) => {
                self.stream.answered(pong.id);
                Ok(Next::Continue)
            }
            Some(Up::AgentMetadata(metadata)) => {
                tracing::debug!(server = %self.server_id(), os = %metadata.os, "agent metadata");
                Ok(Next::Continue)
            }
            Some(Up::Goodbye(goodbye)) => {
                if goodbye.delete_resources {
                    self.forget().await;
                }
                Ok(Next::Goodbye)
            }
            None => Err(Error::bad_parameter("unknown message on the control stream")),
        }
    }

    async fn heartbeat(&mut self, heartbeat: InventoryHeartbeat) -> Result<()> {
        // A heartbeat of a service that this release does not know carries nothing that it could read.
        let Some(node) = heartbeat.ssh_server else { return Ok(()) };
        if !self.stream.hello.services.iter().any(|service| service == SystemRole::Node.name()) {
            return Err(Error::access_denied("a heartbeat of the SSH service, which the hello does not name"));
        }
        if node.metadata.as_ref().map(|metadata| metadata.name.as_str()) != Some(self.server_id()) {
            return Err(Error::access_denied("a heartbeat that names another server"));
        }
        presence::require_agent(&node)?;
        self.store(node, false).await
    }

    /// Stores the record of the SSH service; the first failure is tried again at the next tick.
    async fn store(&mut self, node: ServerV2, again: bool) -> Result<()> {
        match self.api.auth().upsert_node(node.clone(), self.context.caller().remote_addr).await {
            Ok(_) => {
                self.node = Some(Node::Stored { failures: 0 });
                self.kept.get_or_insert_with(|| self.api.auth().0.metrics.kept("node"));
            }
            Err(error) if again || error.kind == wire::error::ErrorKind::BadParameter => return Err(error),
            Err(error) => {
                tracing::warn!(server = %self.server_id(), %error, "server record not written, trying again");
                self.node = Some(Node::Waiting(Box::new(node)));
            }
        }
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<()> {
        match self.node.take() {
            None => Ok(()),
            Some(Node::Waiting(node)) => self.store(*node, true).await,
            Some(Node::Stored { failures }) => {
                let expires = self.api.auth().now() + SERVER_TTL;
                let failures = match self.api.auth().store().keep_alive::<kind::Node>(self.server_id(), expires).await {
                    Ok(()) => 0,
                    Err(error) if failures + 1 >= MAX_FAILURES => return Err(error),
                    Err(error) => {
                        tracing::warn!(server = %self.server_id(), %error, "server record not kept alive");
                        failures + 1
                    }
                };
                self.node = Some(Node::Stored { failures });
                Ok(())
            }
        }
    }

    /// Removes the records of an instance that stops for good.
    async fn forget(&mut self) {
        let store = self.api.auth().store();
        if self.node.take().is_some()
            && let Err(error) = store.delete::<kind::Node>(self.server_id()).await
        {
            tracing::debug!(server = %self.server_id(), %error, "server record not removed");
        }
        if self.api.inventory().is_only(&self.stream)
            && let Err(error) = store.delete::<kind::Instance>(self.server_id()).await
        {
            tracing::debug!(server = %self.server_id(), %error, "instance record not removed");
        }
    }

    fn server_id(&self) -> &str {
        &self.stream.hello.server_id
    }
}

/// Writes the record that `tctl inventory` lists; a failure is logged, the next record comes soon enough.
pub async fn report(api: &Api, hello: &UpstreamInventoryHello) {
    let hello = api.inventory().with_all_services(hello);
    let now = api.auth().now();
    let store = api.auth().store();
    let known = store.get::<kind::Instance>(&hello.server_id).await.ok();
    let control_log = known.and_then(|known| known.spec.as_ref().map(|spec| spec.control_log.clone()));
    let metadata = Metadata {
        name: hello.server_id.clone(),
        expires: Some(wire::time::timestamp(now + INSTANCE_TTL)),
        ..Default::default()
    };
    let header = ResourceHeader {
        kind: "instance".to_owned(),
        version: "v1".to_owned(),
        metadata: Some(metadata),
        ..Default::default()
    };
    let spec = InstanceSpecV1 {
        version: hello.version.clone(),
        services: hello.services.clone(),
        hostname: hello.hostname.clone(),
        auth_id: api.auth().host_uuid().to_owned(),
        last_seen: Some(wire::time::timestamp(now)),
        control_log: control_log.unwrap_or_default(),
        external_upgrader: hello.external_upgrader.clone(),
        external_upgrader_version: hello.external_upgrader_version.clone(),
    };
    let instance = InstanceV1 { header: Some(header), spec: Some(spec) };
    if let Err(error) = store.upsert::<kind::Instance>(instance).await {
        tracing::warn!(server = %hello.server_id, %error, "instance record not written");
    }
}

/// The time until the next record of an instance.
pub fn report_pause() -> Duration {
    INSTANCE_INTERVAL * 3 / 4 + crate::random::jitter(INSTANCE_INTERVAL / 4)
}

/// What this Auth Service takes over control streams.
fn capabilities() -> SupportedCapabilities {
    SupportedCapabilities {
        node_heartbeats: true,
        node_cleanup: true,
        // Instances of other builds say goodbye only when this one is set, too.
        app_cleanup: true,
        ..Default::default()
    }
}

/// Bounds a text that is stored as it came.
fn shorten(text: &mut String) {
    const LIMIT: usize = 256;
    if text.len() > LIMIT {
        let end = (0..=LIMIT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}
