//! A member's connection to the Auth Service: whether there still is one.

use ::tunnel::KeepAlive;
use cache::Cache;
use dialer::Line;
use mux::listener::jittered;
use tokio::time::{Instant, sleep, timeout};
use tracing::info;
use wire::client::ApiChannel;
use wire::proto::PingRequest;
use wire::proto::auth_service_client::AuthServiceClient;

/// How often the ends of this cluster's connections say that they are there.
pub fn keep_alive(cache: &Cache) -> KeepAlive {
    let networking = cache.networking();
    let spec = networking.spec.as_ref();
    spec.map_or_else(KeepAlive::default, |spec| KeepAlive::of(spec.keep_alive_interval, spec.keep_alive_count_max))
}

/// Gives up the connection of `channel`, which is on `line`, when the Auth Service is not heard any more; for ever. It is
/// asked when it was quiet for a while, as `keep_alive` says: what waits on a connection that the network forgot, such as an
/// event to be delivered or news of a lock, would wait for minutes.
pub async fn keep_connected(line: Line, channel: ApiChannel, keep_alive: impl Fn() -> KeepAlive) {
    loop {
        let (interval, times) = keep_alive().questions();
        line.quiet_for(jittered(interval)).await;
        let (asked, patience) = (Instant::now(), interval * times.saturating_sub(1));
        let mut client = AuthServiceClient::new(channel.clone());
        let answer = timeout(patience, client.ping(PingRequest {})).await;
        if answer.is_err() && line.heard() < asked {
            info!(seconds = patience.as_secs(), "the Auth Service does not answer: connecting anew");
            line.give_up();
        }
        if !matches!(answer, Ok(Ok(_))) {
            sleep(jittered(interval)).await; // it is away, or somebody else connects already
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::time::Duration;

    use async_trait::async_trait;
    use dialer::{BoxStream, Connect, DialError, channel};
    use tokio::io::{copy_bidirectional, duplex};
    use tokio::sync::watch;
    use tokio_stream::Stream;
    use tonic::transport::Server;
    use tonic::{Request, Response, Status, Streaming};
    use wire::client::api_channel;
    use wire::transport::transport_service_client::TransportServiceClient;
    use wire::transport::transport_service_server::{TransportService, TransportServiceServer};
    use wire::transport::{GetClusterDetailsRequest, GetClusterDetailsResponse, ProxySshRequest, ProxySshResponse};

    use super::*;

    /// Answers, whatever it is asked: what it does not know as well.
    struct Auth;

    #[async_trait]
    impl TransportService for Auth {
        async fn get_cluster_details(
            &self,
            _: Request<GetClusterDetailsRequest>,
        ) -> Result<Response<GetClusterDetailsResponse>, Status> {
            // A call may take longer than a silence that is suspicious.
            sleep(Duration::from_secs(60)).await;
            Ok(Response::new(GetClusterDetailsResponse::default()))
        }

        async fn proxy_ssh(
            &self,
            _: Request<Streaming<ProxySshRequest>>,
        ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<ProxySshResponse, Status>> + Send>>>, Status> {
            Err(Status::unimplemented(""))
        }
    }

    /// A network that can forget the connections there are.
    struct Network(watch::Sender<usize>);

    #[async_trait]
    impl Connect for Network {
        async fn connect(&self) -> Result<BoxStream, DialError> {
            let ((near, mut here), (mut there, far)) = (duplex(1 << 16), duplex(1 << 16));
            let server = Server::builder().add_service(TransportServiceServer::new(Auth));
            tokio::spawn(server.serve_with_incoming(tokio_stream::once(Ok::<_, io::Error>(far))));
            let mut forgotten = self.0.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    _ = copy_bidirectional(&mut here, &mut there) => {}
                    _ = forgotten.changed() => std::future::pending().await,
                }
            });
            Ok(Box::new(near))
        }
    }

    /// Time passes at once, whenever all wait.
    #[tokio::test(start_paused = true)]
    async fn a_member_gives_up_a_connection_to_auth_that_is_silent_and_makes_another() {
        let (network, line) = (Arc::new(Network(watch::Sender::new(0))), Line::default());
        let channel = api_channel(channel(line.over(network.clone()), None));
        let keep_alive = KeepAlive { interval: Duration::from_secs(10), count: 3 };
        let keeping = tokio::spawn(keep_connected(line, channel.clone(), move || keep_alive));
        let ask = async || {
            let mut client = TransportServiceClient::new(channel.clone());
            client.get_cluster_details(GetClusterDetailsRequest::default()).await
        };
        for _ in 0..3 {
            ask().await.unwrap();
            let begin = Instant::now();
            network.0.send_modify(|times| *times += 1);
            ask().await.unwrap_err();
            assert!(begin.elapsed() <= keep_alive.threshold(), "took {:?}", begin.elapsed());
        }
        keeping.abort();
    }
}
