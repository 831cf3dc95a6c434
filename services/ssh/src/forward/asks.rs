//! Where a client asks to listen: `tcpip-forward`, `streamlocal-forward` and their ends.

use std::sync::Arc;

use russh::GlobalRequestReply;
use tracing::debug;

use super::Place;
use crate::connection::Connection;

/// What a client asks.
#[derive(Debug)]
pub(crate) enum Ask {
    /// To listen at a place.
    Listen(Place),
    /// To listen there no longer.
    Stop(Place),
}

impl Connection {
    /// Does what the client asks; refuses it once the connection ends.
    pub async fn do_what_is_asked(self: Arc<Self>, ask: Ask) -> GlobalRequestReply {
        let done = async {
            match ask {
                Ask::Listen(place) => self.listens_at(place).await,
                Ask::Stop(place) => self.stop_listening(&place).await.then(Vec::new),
            }
        };
        let done = tokio::select! {
            done = done => done,
            () = self.over() => None,
        };
        done.map_or(GlobalRequestReply::Failure, GlobalRequestReply::Success)
    }

    /// The content of the answer: the port, where the client left that to the host (RFC 4254 §7.1).
    async fn listens_at(self: &Arc<Self>, place: Place) -> Option<Vec<u8>> {
        match self.listen_at(place.clone()).await {
            Ok(port) if matches!(place, Place::Port(_, 0)) => Some(u32::from(port).to_be_bytes().to_vec()),
            Ok(_) => Some(Vec::new()),
            Err(reason) => {
                debug!(reason, %place, "not listening for the client");
                None
            }
        }
    }
}
