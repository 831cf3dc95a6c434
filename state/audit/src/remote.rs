//! The log as the other members of a cluster see it: the Auth Service's API at the end of an outbox.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use chrono::Utc;
use tonic::{Code, Request, Status};
use tracing::error;
use wire::{client::ApiChannel, events::OneOf, proto::auth_service_client::AuthServiceClient};

use crate::{Courier, EventExt, Outbox, Result, Spool, Undelivered, event};

/// How large the file of events that wait may become.
const SPOOL_LIMIT: u64 = 256 << 20;

/// Takes events of a member. Clones share the queue.
#[derive(Clone)]
pub struct RemoteLog {
    outbox: Outbox,
    cluster: Arc<str>,
}

impl RemoteLog {
    /// Starts delivering what is in the file `spool` and what comes; the returned task ends when all clones are gone
    /// and the queue is empty, or stays on disk.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Storage`].
    pub fn start(
        channel: ApiChannel,
        spool: &Path,
        cluster: &str,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>)> {
        let spool = Spool::open(spool, SPOOL_LIMIT)?;
        let (outbox, delivery) = Outbox::new(spool, ToAuth(AuthServiceClient::new(channel)));
        Ok((Self { outbox, cluster: cluster.into() }, delivery.run()))
    }

    /// Emits an event: fills in what is common to all, and queues it on disk.
    pub async fn emit(&self, mut event: OneOf) {
        if let Err(error) = event::prepare(&mut event, &self.cluster, Utc::now()) {
            error!(%error, event = event.name(), "event dropped: it cannot be completed");
            return;
        }
        self.outbox.put(event).await;
    }
}

/// Takes events to the Auth Service.
struct ToAuth(AuthServiceClient<ApiChannel>);

#[async_trait]
impl Courier for ToAuth {
    async fn deliver(&self, event: &OneOf) -> Result<(), Undelivered> {
        match self.0.clone().emit_audit_event(Request::new(event.clone())).await {
            Ok(_) => Ok(()),
            Err(status) if is_final(&status) => Err(Undelivered::Refused(status.message().to_owned())),
            Err(status) => Err(Undelivered::Away(status.message().to_owned())),
        }
    }
}

/// Whether trying again is pointless: the server understood the event and refused it.
fn is_final(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented)
}
