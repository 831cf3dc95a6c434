//! The node's presence in the cluster: its record, told over the inventory stream for as long as it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use process::inventory::{Inventory, Msg, Pauses};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, info};
use wire::client::ApiChannel;
use wire::proto::InventoryHeartbeat;
use wire::types::{Metadata, ServerSpecV2, ServerV2};

use crate::labels::NodeLabels;
use crate::node::NodeConfig;

/// How long a record lives without a heartbeat.
const TTL: Duration = Duration::from_secs(600);
/// How often an unchanged record is told again: well before it ends.
const REPEAT: Duration = Duration::from_secs(400);
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
    let mut pauses = Pauses::new();
    loop {
        match follow(&channel, &record, &presence, &leaving).await {
            Ok(()) => debug!("inventory stream ended"),
            Err(status) => debug!(reason = status.message(), "inventory stream lost"),
        }
        if leaving.is_cancelled() {
            return;
        }
        presence.send_replace(Presence::Unknown);
        tokio::select! {
            () = leaving.cancelled() => return,
            () = sleep(pauses.after_end()) => {}
        }
    }
}

async fn follow(
    channel: &ApiChannel,
    record: &NodeRecord,
    presence: &watch::Sender<Presence>,
    leaving: &CancellationToken,
) -> Result<(), Status> {
    let host = (record.config.host_uuid.as_str(), record.config.hostname.as_str());
    let mut inventory = tokio::select! {
        () = leaving.cancelled() => return Ok(()),
        opened = Inventory::open(channel, "Node", host) => opened?,
    };
    let heartbeat =
        || Msg::Heartbeat(InventoryHeartbeat { ssh_server: Some(record.current()), ..InventoryHeartbeat::default() });
    inventory.send(heartbeat())?;
    presence.send_replace(Presence::Known);
    info!("the cluster knows this node");
    let mut labels = record.labels.clone();
    labels.mark_unchanged();
    let mut proxies = record.proxies.clone();
    proxies.mark_unchanged();
    let mut repeat = Instant::now() + REPEAT.mul_f64(rand::random_range(0.9..=1.0));
    loop {
        tokio::select! {
            () = leaving.cancelled() => return inventory.leave().await,
            ended = inventory.answer() => return ended,
            Ok(()) = labels.changed() => {
                sleep(Duration::from_millis(100)).await; // several labels often change together
                labels.mark_unchanged();
            }
            Ok(()) = proxies.changed() => proxies.mark_unchanged(),
            () = sleep_until(repeat) => repeat = Instant::now() + REPEAT.mul_f64(rand::random_range(0.9..=1.0)),
        }
        inventory.send(heartbeat())?;
    }
}
