//! The proxy in the cluster's inventory, when it is a process of its own: a stream to the Auth Service that is open for
//! as long as the proxy runs. The process of an Auth Service speaks for all of its services itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};
use tracing::debug;
use wire::client::ApiChannel;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::proto::upstream_inventory_one_of::Msg;
use wire::proto::{
    UpstreamInventoryAgentMetadata, UpstreamInventoryHello, UpstreamInventoryOneOf, UpstreamInventoryPong,
    downstream_inventory_one_of,
};

use crate::settings::Settings;

/// How long the Auth Service may take for its greeting.
const HELLO: Duration = Duration::from_secs(30);
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// Keeps the stream for ever.
pub(crate) async fn keep(channel: ApiChannel, settings: Arc<Settings>) {
    let mut backoff = MIN_BACKOFF;
    loop {
        let start = Instant::now();
        if let Err(status) = stream(&channel, &settings).await {
            debug!(reason = status.message(), "inventory stream lost");
        }
        // A stream that breaks at once is no success.
        if start.elapsed() > MAX_BACKOFF {
            backoff = MIN_BACKOFF;
        }
        sleep(mux::listener::jittered(backoff)).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

async fn stream(channel: &ApiChannel, settings: &Settings) -> Result<(), Status> {
    let (up, requests) = mpsc::channel(8);
    let send = |msg: Msg| {
        up.try_send(UpstreamInventoryOneOf { msg: Some(msg) }).map_err(|_| Status::unavailable("stream is stuck"))
    };
    send(Msg::Hello(UpstreamInventoryHello {
        version: wire::VERSION.into(),
        server_id: settings.host_uuid.clone(),
        services: vec!["Proxy".into()],
        hostname: settings.hostname.clone(),
        ..Default::default()
    }))?;
    let mut client = AuthServiceClient::new(channel.clone());
    let opening = client.inventory_control_stream(Request::new(ReceiverStream::new(requests)));
    let late = |_| Status::deadline_exceeded("waited 30 s for the inventory stream");
    let mut down = timeout(HELLO, opening).await.map_err(late)??.into_inner();
    timeout(HELLO, down.message()).await.map_err(late)??.ok_or_else(|| Status::unavailable("no greeting"))?;
    send(Msg::AgentMetadata(UpstreamInventoryAgentMetadata {
        os: std::env::consts::OS.into(),
        host_architecture: std::env::consts::ARCH.into(),
        ..Default::default()
    }))?;
    while let Some(message) = down.message().await? {
        if let Some(downstream_inventory_one_of::Msg::Ping(ping)) = message.msg {
            send(Msg::Pong(UpstreamInventoryPong { id: ping.id }))?;
        }
    }
    Ok(())
}
