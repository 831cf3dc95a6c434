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

/// Goes on to the next page of a list: whether there is one. `token` is where the page began that was read.
///
/// # Errors
/// `DataLoss` when the server names the same page again, which would never end.
pub fn turn_page(token: &mut String, next: String) -> Result<bool, Status> {
    if next.is_empty() {
        return Ok(false);
    }
    if next == *token {
        return Err(Status::data_loss("the server names the same page of a list again: the rest is unknown"));
    }
    *token = next;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_list_whose_pages_do_not_go_on_is_an_error() {
        let mut token = String::new();
        assert!(turn_page(&mut token, "b".into()).unwrap());
        assert_eq!(token, "b");
        assert!(turn_page(&mut token, "b".into()).is_err());
        assert!(!turn_page(&mut token, String::new()).unwrap());
    }
}
