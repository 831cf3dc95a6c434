//! The node's presence in the cluster: its record, told over the inventory stream for as long as it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use tracing::{debug, info};
use wire::client::ApiChannel;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::proto::{
    InventoryHeartbeat, UpstreamInventoryAgentMetadata, UpstreamInventoryGoodbye, UpstreamInventoryHello,
    UpstreamInventoryOneOf, UpstreamInventoryPong, downstream_inventory_one_of, upstream_inventory_one_of,
};
use wire::types::{Metadata, ServerSpecV2, ServerV2};

use crate::labels::NodeLabels;
use crate::node::NodeConfig;

/// How long a record lives without a heartbeat.
const TTL: Duration = Duration::from_secs(600);
/// How often an unchanged record is told again: well before it ends.
const REPEAT: Duration = Duration::from_secs(400);
/// How long the Auth Service may take for its greeting.
const HELLO: Duration = Duration::from_secs(30);
/// How long the Auth Service may take to let the node go.
const GOODBYE: Duration = Duration::from_secs(2);
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// The node's record as the cluster sees it.
#[derive(Clone)]
pub(crate) struct NodeRecord {
    config: Arc<NodeConfig>,
    labels: watch::Receiver<Arc<NodeLabels>>,
    /// The proxies with a tunnel, where that is not all of them.
    proxies: watch::Receiver<Vec<String>>,
}

impl NodeRecord {
    pub fn new(
        config: Arc<NodeConfig>,
        labels: watch::Receiver<Arc<NodeLabels>>,
        proxies: watch::Receiver<Vec<String>>,
    ) -> Self {
        Self { config, labels, proxies }
    }

    /// All labels with their present values.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.labels.borrow().values()
    }

    /// The record with the present values of labels.
    pub fn current(&self) -> ServerV2 {
        let (config, labels) = (&self.config, self.labels.borrow().clone());
        ServerV2 {
            kind: "node".into(),
            version: "v2".into(),
            metadata: Some(Metadata {
                name: config.host_uuid.clone(),
                namespace: "default".into(),
                labels: labels.fixed.clone(),
                expires: Some(wire::time::timestamp(Utc::now() + TTL)),
                ..Default::default()
            }),
            spec: Some(ServerSpecV2 {
                addr: config.address.map(|a| a.to_string()).unwrap_or_default(),
                hostname: config.hostname.clone(),
                cmd_labels: labels.commands.clone(),
                use_tunnel: config.address.is_none(),
                version: wire::VERSION.into(),
                public_addrs: config.public_addrs.clone(),
                proxy_i_ds: self.proxies.borrow().clone(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// Whether the cluster knows the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Not yet, or not any more.
    Unknown,
    /// Heartbeats are taken.
    Known,
}

/// Tells the node's record until `leaving`, and then takes leave; `presence` says how that goes.
pub(crate) async fn run(
    channel: ApiChannel,
    record: NodeRecord,
    presence: watch::Sender<Presence>,
    leaving: CancellationToken,
) {
    let mut backoff = MIN_BACKOFF;
    loop {
        let start = Instant::now();
        match follow(&channel, &record, &presence, &leaving).await {
            Ok(()) => debug!("inventory stream ended"),
            Err(status) => debug!(reason = status.message(), "inventory stream lost"),
        }
        if leaving.is_cancelled() {
            return;
        }
        presence.send_replace(Presence::Unknown);
        // A stream that breaks at once is no success.
        if start.elapsed() > MAX_BACKOFF {
            backoff = MIN_BACKOFF;
        }
        tokio::select! {
            () = leaving.cancelled() => return,
            () = sleep(backoff.mul_f64(rand::random_range(0.5..=1.0))) => {}
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

async fn follow(
    channel: &ApiChannel,
    record: &NodeRecord,
    presence: &watch::Sender<Presence>,
    leaving: &CancellationToken,
) -> Result<(), Status> {
    use upstream_inventory_one_of::Msg;
    let (up, requests) = mpsc::channel(8);
    let send = |msg: Msg| {
        up.try_send(UpstreamInventoryOneOf { msg: Some(msg) }).map_err(|_| Status::unavailable("stream is stuck"))
    };
    send(Msg::Hello(UpstreamInventoryHello {
        version: wire::VERSION.into(),
        server_id: record.config.host_uuid.clone(),
        services: vec!["Node".into()],
        hostname: record.config.hostname.clone(),
        ..Default::default()
    }))?;
    let mut client = AuthServiceClient::new(channel.clone());
    let open = client.inventory_control_stream(Request::new(ReceiverStream::new(requests)));
    let greeting = async {
        let mut down = within(HELLO, open).await?.into_inner();
        within(HELLO, down.message()).await?.ok_or_else(|| Status::unavailable("no greeting"))?;
        Ok::<_, Status>(down)
    };
    let mut down = tokio::select! {
        () = leaving.cancelled() => return Ok(()),
        down = greeting => down?,
    };
    send(Msg::AgentMetadata(agent_metadata()))?;
    let heartbeat =
        || Msg::Heartbeat(InventoryHeartbeat { ssh_server: Some(record.current()), ..InventoryHeartbeat::default() });
    send(heartbeat())?;
    presence.send_replace(Presence::Known);
    info!("the cluster knows this node");
    let mut labels = record.labels.clone();
    labels.mark_unchanged();
    let mut proxies = record.proxies.clone();
    proxies.mark_unchanged();
    let mut repeat = Instant::now() + REPEAT.mul_f64(rand::random_range(0.9..=1.0));
    loop {
        tokio::select! {
            () = leaving.cancelled() => {
                // A node that stops is gone at once, not when its record ends.
                send(Msg::Goodbye(UpstreamInventoryGoodbye { delete_resources: true }))?;
                let taken = async { while let Ok(Some(_)) = down.message().await {} };
                let _ = timeout(GOODBYE, taken).await; // the record ends by itself
                return Ok(());
            }
            message = down.message() => match message? {
                None => return Ok(()),
                Some(message) => if let Some(downstream_inventory_one_of::Msg::Ping(ping)) = message.msg {
                    send(Msg::Pong(UpstreamInventoryPong { id: ping.id }))?;
                },
            },
            Ok(()) = labels.changed() => {
                sleep(Duration::from_millis(100)).await; // several labels often change together
                labels.mark_unchanged();
                send(heartbeat())?;
            },
            Ok(()) = proxies.changed() => {
                proxies.mark_unchanged();
                send(heartbeat())?;
            },
            () = sleep_until(repeat) => {
                send(heartbeat())?;
                repeat = Instant::now() + REPEAT.mul_f64(rand::random_range(0.9..=1.0));
            }
        }
    }
}

/// What kind of host this is.
fn agent_metadata() -> UpstreamInventoryAgentMetadata {
    UpstreamInventoryAgentMetadata {
        os: std::env::consts::OS.into(),
        host_architecture: std::env::consts::ARCH.into(),
        ..Default::default()
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Status::deadline_exceeded("waited 30 s for the inventory stream")),
    }
}
