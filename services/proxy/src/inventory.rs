//! The proxy in the cluster's inventory, when it is a process of its own. The process of an Auth Service speaks for all of
//! its services itself.

use std::sync::Arc;

use process::inventory::{Inventory, Pauses};
use tokio::time::sleep;
use tonic::Status;
use tracing::debug;
use wire::client::ApiChannel;

use crate::settings::Settings;

/// Keeps a stream for ever.
pub(crate) async fn keep(channel: ApiChannel, settings: Arc<Settings>) {
    let mut pauses = Pauses::new();
    loop {
        match stream(&channel, &settings).await {
            Ok(()) => debug!("inventory stream ended"),
            Err(status) => debug!(reason = status.message(), "inventory stream lost"),
        }
        sleep(pauses.after_end()).await;
    }
}

async fn stream(channel: &ApiChannel, settings: &Settings) -> Result<(), Status> {
    Inventory::open(channel, "Proxy", (&settings.host_uuid, &settings.hostname)).await?.answer().await
}
