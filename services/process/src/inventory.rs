//! A service in the cluster's inventory: a stream to the Auth Service that is open for as long as the service runs.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};
use wire::client::ApiChannel;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::proto::{
    DownstreamInventoryOneOf, UpstreamInventoryAgentMetadata, UpstreamInventoryGoodbye, UpstreamInventoryHello,
    UpstreamInventoryOneOf, UpstreamInventoryPong, downstream_inventory_one_of, upstream_inventory_one_of,
};

pub use upstream_inventory_one_of::Msg;

/// How long the Auth Service may take for its greeting.
const HELLO: Duration = Duration::from_secs(30);
/// How long it may take to let a service go.
const GOODBYE: Duration = Duration::from_secs(2);
/// Messages that may wait to be sent.
const QUEUE: usize = 8;

/// An open stream.
pub struct Inventory {
    up: mpsc::Sender<UpstreamInventoryOneOf>,
    down: Streaming<DownstreamInventoryOneOf>,
}

impl Inventory {
    /// Opens a stream for the service `role` of a host, and says what kind of host it is.
    ///
    /// # Errors
    ///
    /// What the Auth Service answers, or that it has not for 30 s.
    pub async fn open(channel: &ApiChannel, role: &str, (uuid, hostname): (&str, &str)) -> Result<Self, Status> {
        let (up, requests) = mpsc::channel(QUEUE);
        let hello = Msg::Hello(UpstreamInventoryHello {
            version: wire::VERSION.into(),
            server_id: uuid.to_owned(),
            services: vec![role.to_owned()],
            hostname: hostname.to_owned(),
            ..Default::default()
        });
        send(&up, hello)?;
        let mut client = AuthServiceClient::new(channel.clone());
        let opening = client.inventory_control_stream(Request::new(ReceiverStream::new(requests)));
        let greeted = async {
            let mut down = opening.await?.into_inner();
            down.message().await?.ok_or_else(|| Status::unavailable("no greeting"))?;
            Ok::<_, Status>(down)
        };
        let late = |_| Status::deadline_exceeded("waited 30 s for the inventory stream");
        let down = timeout(HELLO, greeted).await.map_err(late)??;
        let host = UpstreamInventoryAgentMetadata {
            os: std::env::consts::OS.into(),
            host_architecture: std::env::consts::ARCH.into(),
            ..Default::default()
        };
        send(&up, Msg::AgentMetadata(host))?;
        Ok(Self { up, down })
    }

    /// Sends a message without waiting.
    ///
    /// # Errors
    ///
    /// When the Auth Service does not read what is sent.
    pub fn send(&self, message: Msg) -> Result<(), Status> {
        send(&self.up, message)
    }

    /// Answers what the Auth Service asks, until it ends the stream. Nothing is lost when this is dropped and called again.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn answer(&mut self) -> Result<(), Status> {
        while let Some(message) = self.down.message().await? {
            if let Some(downstream_inventory_one_of::Msg::Ping(ping)) = message.msg {
                self.send(Msg::Pong(UpstreamInventoryPong { id: ping.id }))?;
            }
        }
        Ok(())
    }

    /// Takes leave: a service that stops is gone at once, not when its record ends.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn leave(mut self) -> Result<(), Status> {
        self.send(Msg::Goodbye(UpstreamInventoryGoodbye { delete_resources: true }))?;
        let taken = async { while let Ok(Some(_)) = self.down.message().await {} };
        let _ = timeout(GOODBYE, taken).await; // the record ends by itself
        Ok(())
    }
}

fn send(up: &mpsc::Sender<UpstreamInventoryOneOf>, message: Msg) -> Result<(), Status> {
    up.try_send(UpstreamInventoryOneOf { msg: Some(message) }).map_err(|_| Status::unavailable("stream is stuck"))
}

/// Pauses between streams: longer each time, unless the last one has lasted.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
    began: Instant,
}

impl Pauses {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(8);

    /// For the first stream, which begins now.
    pub fn new() -> Self {
        Self { next: Self::SHORTEST, began: Instant::now() }
    }

    /// The pause after a stream that has ended now, with jitter; the next one begins when it is over.
    pub fn after_end(&mut self) -> Duration {
        // A stream that breaks at once is no success.
        if self.began.elapsed() > Self::LONGEST {
            self.next = Self::SHORTEST;
        }
        let pause = self.next.mul_f64(rand::random_range(0.5..=1.0));
        self.next = (self.next * 2).min(Self::LONGEST);
        self.began = Instant::now() + pause;
        pause
    }
}

impl Default for Pauses {
    fn default() -> Self {
        Self::new()
    }
}
