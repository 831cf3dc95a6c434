//! The proxy's record in the cluster, from which others know where people reach it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use wire::types::{Metadata, ServerSpecV2, ServerV2};

use crate::{Settings, Upstream};

/// How long a record lives without being told again.
const TTL: TimeDelta = TimeDelta::minutes(10);
/// How often it is told, before jitter takes up to a tenth away.
const REPEAT: Duration = Duration::from_secs(5 * 60);
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How long the Auth Service may take to remove the record of a proxy that stops.
const GOODBYE: Duration = Duration::from_secs(2);

/// Tells the record until `closing`, and then takes it back: nobody should look for a proxy that has stopped.
pub(crate) async fn announce(settings: Arc<Settings>, peering: bool, upstream: Upstream, closing: CancellationToken) {
    tokio::select! {
        () = closing.cancelled() => {}
        () = repeat(&settings, peering, &upstream) => {}
    }
    let path = format!("/v2/proxies/{}", settings.host_uuid);
    match timeout(GOODBYE, upstream.delete(&path)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "the record of this proxy ends by itself"),
        Err(_) => debug!("the record of this proxy ends by itself: waited 2 s for the auth service"),
    }
}

/// Tells the record for ever; with `peering` it says where other proxies find this one.
async fn repeat(settings: &Settings, peering: bool, upstream: &Upstream) {
    let mut backoff = MIN_BACKOFF;
    loop {
        let pause = match upstream.post("/v2/proxies", &json!({"server": record(settings, peering)})).await {
            Ok(_) => {
                backoff = MIN_BACKOFF;
                REPEAT
            }
            Err(error) => {
                warn!(%error, "this proxy could not be announced, trying again");
                backoff = (backoff * 2).min(MAX_BACKOFF);
                backoff
            }
        };
        sleep(pause.mul_f64(rand::random_range(0.9..=1.0))).await;
    }
}

fn record(settings: &Settings, peering: bool) -> ServerV2 {
    ServerV2 {
        kind: "proxy".into(),
        version: "v2".into(),
        metadata: Some(Metadata {
            name: settings.host_uuid.clone(),
            namespace: "default".into(),
            expires: Some(wire::time::timestamp(Utc::now() + TTL)),
            ..Default::default()
        }),
        spec: Some(ServerSpecV2 {
            addr: settings.web.to_string(),
            hostname: settings.hostname.clone(),
            version: wire::VERSION.into(),
            peer_addr: settings.advertised_peer().filter(|_| peering).map(|a| a.to_string()).unwrap_or_default(),
            public_addrs: settings.public_addrs.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
