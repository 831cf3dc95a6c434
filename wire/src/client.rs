//! What every gRPC client of the API sends along.

use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{VERSION, VERSION_METADATA};

/// A channel whose calls carry this build's version, as servers expect of their clients.
pub type ApiChannel = InterceptedService<Channel, SendVersion>;

/// Adds the `version` metadata entry to each call.
#[derive(Clone, Copy, Debug)]
pub struct SendVersion;

impl Interceptor for SendVersion {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(VERSION_METADATA, MetadataValue::from_static(VERSION));
        Ok(request)
    }
}

/// Wraps a channel so that its calls carry the version.
pub fn api_channel(channel: Channel) -> ApiChannel {
    InterceptedService::new(channel, SendVersion)
}
