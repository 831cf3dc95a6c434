//! The Auth Service as the end of uploads.

use async_trait::async_trait;
use audit::RemoteLog;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, codec::CompressionEncoding};
use wire::{
    client::ApiChannel,
    error::Error,
    events::OneOf,
    proto::{AuditStreamRequest, auth_service_client::AuthServiceClient},
};

use super::{StatusStream, UploadTarget};

/// Uploads to the Auth Service with a member's identity.
pub struct ToAuth {
    /// Its API.
    pub channel: ApiChannel,
    /// The member's way to the audit log.
    pub log: RemoteLog,
}

#[async_trait]
impl UploadTarget for ToAuth {
    async fn stream(&self, requests: mpsc::Receiver<AuditStreamRequest>) -> Result<StatusStream, Error> {
        let client = AuthServiceClient::new(self.channel.clone()).send_compressed(CompressionEncoding::Gzip);
        // Some servers answer as they are spoken to.
        let mut client = client.accept_compressed(CompressionEncoding::Gzip);
        let answers = client.create_audit_stream(Request::new(ReceiverStream::new(requests))).await?.into_inner();
        Ok(Box::pin(answers.map(|answer| answer.map_err(Error::from))))
    }

    async fn session_ended(&self, event: OneOf) -> Result<(), Error> {
        self.log.emit(event).await;
        Ok(())
    }
}
