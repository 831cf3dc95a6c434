//! What this proxy tells the audit log itself: connections that it has ended before the host could.

use std::sync::Arc;
use std::time::Duration;

use cache::Cache;
use chrono::Utc;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use wire::events::{ClientDisconnect, ConnectionMetadata, ServerMetadata, UserMetadata};

use crate::settings::Settings;
use crate::transport::TransportPeer;
use crate::upstream::Upstream;

/// Attempts to hand an event over, and the pause after the first, which doubles.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);

/// Hands events to the Auth Service. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Reports {
    pub upstream: Upstream,
    pub settings: Arc<Settings>,
    pub cache: Cache,
    pub tasks: TaskTracker,
}

impl Reports {
    /// A user's connection was ended.
    pub(crate) fn disconnected(&self, peer: &TransportPeer, reason: &str) {
        let identity = &peer.identity;
        let body = ClientDisconnect {
            user: Some(UserMetadata {
                user: identity.username.clone(),
                impersonator: identity.impersonator.clone(),
                access_requests: identity.active_requests.clone(),
                bot_name: identity.bot_name.clone(),
                user_kind: if identity.bot_name.is_empty() { 1 } else { 2 },
                ..Default::default()
            }),
            connection: Some(ConnectionMetadata {
                local_addr: peer.server.to_string(),
                remote_addr: peer.client.to_string(),
                protocol: "ssh".into(),
            }),
            server: Some(ServerMetadata {
                server_namespace: "default".into(),
                server_id: self.settings.host_uuid.clone(),
                server_addr: peer.server.to_string(),
                server_version: wire::VERSION.into(),
                ..Default::default()
            }),
            reason: reason.to_owned(),
            ..Default::default()
        };
        let mut event = audit::codes::CLIENT_DISCONNECT.event(body);
        if let Err(error) = audit::event::prepare(&mut event, &self.cache.cluster_name(), Utc::now()) {
            warn!(%error, "event dropped: it cannot be completed");
            return;
        }
        let upstream = self.upstream.clone();
        self.tasks.spawn(async move {
            let mut pause = PAUSE;
            for _ in 0..ATTEMPTS {
                match upstream.emit(event.clone()).await {
                    Ok(()) => return,
                    Err(error) => debug!(%error, "event not delivered yet"),
                }
                sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                pause *= 2;
            }
            warn!("event lost: the Auth Service did not take it");
        });
    }
}
