//! Looks after all tunnels of a server in one task, instead of a timer per tunnel.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use tokio::sync::watch;

use super::Shared;
use super::connection::Connection;

/// How often the list of proxies is repeated. Agents forget a proxy that is not named for three minutes.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(2 * 60);

/// How many tunnels are talked to at once, so that a few that hang do not hold up the rest.
const AT_ONCE: usize = 256;

/// Runs until the server is gone.
pub(super) async fn run(server: Weak<Shared>, mut proxies: watch::Receiver<Bytes>) {
    loop {
        let changed = tokio::time::timeout(DISCOVERY_INTERVAL, proxies.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            return;
        }
        let Some(server) = server.upgrade() else { return };
        let payload = proxies.borrow_and_update().clone();
        let threshold = server.registry.offline_threshold();
        let connections = server.registry.connections();
        drop(server);
        for_each(connections, |connection| {
            let payload = payload.clone();
            async move {
                if connection.is_abandoned(threshold) {
                    connection.disconnect("no heartbeats").await;
                } else {
                    connection.send_discovery(payload).await;
                }
            }
        })
        .await;
    }
}

pub(super) async fn for_each<F, T>(connections: Vec<Arc<Connection>>, action: F)
where
    F: Fn(Arc<Connection>) -> T,
    T: Future<Output = ()>,
{
    stream::iter(connections).for_each_concurrent(AT_ONCE, action).await;
}
