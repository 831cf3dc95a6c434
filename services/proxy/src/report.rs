//! What this proxy tells the audit log itself: connections that it has ended before the host could.

use std::sync::Arc;

use audit::{RemoteLog, codes};
use process::said;
use wire::events::{ClientDisconnect, ServerMetadata};

use crate::transport::TransportPeer;

/// Speaks to the audit log as this proxy. Clones share the queue, which is on disk.
#[derive(Clone)]
pub(crate) struct Reports {
    log: RemoteLog,
    host_uuid: Arc<str>,
}

impl Reports {
    pub(crate) fn new(log: RemoteLog, host_uuid: &str) -> Self {
        Self { log, host_uuid: host_uuid.into() }
    }

    /// A user's connection was ended.
    pub(crate) async fn disconnected(&self, peer: &TransportPeer, reason: &str) {
        let server = ServerMetadata {
            server_namespace: "default".into(),
            server_id: self.host_uuid.to_string(),
            server_addr: peer.server.to_string(),
            server_version: wire::VERSION.into(),
            ..Default::default()
        };
        let event = codes::CLIENT_DISCONNECT.event(ClientDisconnect {
            user: Some(said::user_metadata(&peer.identity, "")),
            connection: Some(said::connection_metadata(peer.client, peer.server)),
            server: Some(server),
            reason: reason.to_owned(),
            ..Default::default()
        });
        self.log.emit(event).await;
    }
}
