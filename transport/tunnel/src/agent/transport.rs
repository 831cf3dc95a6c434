//! One stream that a proxy opens to an agent, from the request to the answer.

use std::net::SocketAddr;
use std::time::Duration;

use russh::{Channel, ChannelMsg, client};
use tracing::debug;

use crate::dial::{DialRequest, DialRequestError};
use crate::protocol::{DIAL_REQUEST, STDERR};
use crate::ssh::HANDSHAKE_TIMEOUT;
use crate::stream::{StreamPlace, TunnelStream};

/// How long a refusal may wait for room in the connection.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A request for a stream that waits for its answer. Dropping it refuses it without a text.
#[derive(Debug)]
pub struct IncomingTransport {
    request: DialRequest,
    channel: Channel<client::Msg>,
    place: StreamPlace,
}

impl IncomingTransport {
    /// What to connect to. An agent with a single service connects to that, whatever the address.
    pub fn request(&self) -> &DialRequest {
        &self.request
    }

    /// Where the client comes from, if the proxy said so.
    pub fn client_addr(&self) -> Option<SocketAddr> {
        self.request.client_source()
    }

    /// Says yes; what follows on the stream is between the client and the service.
    pub async fn accept(self) -> Result<TunnelStream, russh::Error> {
        self.channel.reply(true).await?;
        let client = self.client_addr();
        Ok(TunnelStream::of_agent(self.channel.into_stream(), client, self.place))
    }

    /// Says no, and why.
    pub async fn refuse(self, reason: &str) {
        refuse(&self.channel, reason).await;
    }
}

/// Waits for the request on a channel that was just accepted.
pub(super) async fn receive(mut channel: Channel<client::Msg>, place: StreamPlace) -> Option<IncomingTransport> {
    let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, first_request(&mut channel)).await;
    let payload = match first {
        Ok(Some(payload)) => payload,
        Ok(None) => return None,
        Err(_) => {
            debug!("no request on a transport channel in time");
            let _ = channel.close().await;
            return None;
        }
    };
    match DialRequest::from_payload(&payload) {
        Ok(request) => Some(IncomingTransport { request, channel, place }),
        Err(DialRequestError::NoTarget) => {
            refuse(&channel, &DialRequestError::NoTarget.to_string()).await;
            None
        }
        Err(error) => {
            refuse(&channel, &format!("bad dial request: {error}")).await;
            None
        }
    }
}

async fn first_request(channel: &mut Channel<client::Msg>) -> Option<bytes::Bytes> {
    loop {
        match channel.wait().await? {
            ChannelMsg::Request { name, data, .. } if name == DIAL_REQUEST => return Some(data),
            ChannelMsg::Request { want_reply, .. } => {
                if want_reply {
                    channel.reply(false).await.ok()?;
                }
                channel.close().await.ok()?;
                return None;
            }
            ChannelMsg::Close | ChannelMsg::Eof => {
                let _ = channel.close().await;
                return None;
            }
            _ => {}
        }
    }
}

async fn refuse(channel: &Channel<client::Msg>, reason: &str) {
    let refusal = async {
        channel.extended_data_bytes(STDERR, reason.as_bytes().to_vec()).await?;
        channel.reply(false).await?;
        channel.eof().await?;
        channel.close().await
    };
    if !matches!(tokio::time::timeout(REFUSAL_TIMEOUT, refusal).await, Ok(Ok(()))) {
        debug!("the connection ended before a transport was refused");
    }
}
