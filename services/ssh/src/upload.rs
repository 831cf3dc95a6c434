//! Recordings on their way to the Auth Service.

use async_trait::async_trait;
use futures::StreamExt;
use recording::{StatusStream, UploadTarget};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::codec::CompressionEncoding;
use wire::client::ApiChannel;
use wire::error::Error;
use wire::events::OneOf;
use wire::proto::AuditStreamRequest;
use wire::proto::auth_service_client::AuthServiceClient;

use crate::audit::NodeAudit;

/// The Auth Service as the end of uploads.
pub(crate) struct ToAuth {
    pub channel: ApiChannel,
    pub audit: NodeAudit,
}

#[async_trait]
impl UploadTarget for ToAuth {
    async fn stream(&self, requests: mpsc::Receiver<AuditStreamRequest>) -> Result<StatusStream, Error> {
        let mut client = AuthServiceClient::new(self.channel.clone()).send_compressed(CompressionEncoding::Gzip);
        let answers = client.create_audit_stream(Request::new(ReceiverStream::new(requests))).await?.into_inner();
        Ok(Box::pin(answers.map(|answer| answer.map_err(Error::from))))
    }

    async fn session_ended(&self, event: OneOf) -> Result<(), Error> {
        self.audit.emit(event).await;
        Ok(())
    }
}
