//! Places on the node where a client listens: `tcpip-forward` and `streamlocal-forward`.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{ANSWER, MAX_LISTENERS, Place, copy, unix_listener};
use crate::connection::Connection;
use crate::worker::protocol::Operation;

/// Pause after accepting failed: descriptors are given back all the time.
const PAUSE: Duration = Duration::from_millis(200);

impl Connection {
    /// Listens at a place for the client; gives the port that was chosen.
    ///
    /// # Errors
    /// In words, when the roles or the node do not allow it, or the place cannot be had.
    pub async fn listen_at(self: &Arc<Self>, place: Place) -> Result<u16, String> {
        if let Err(reason) = self.may_forward() {
            self.audit.port_refused(self, &place.to_string(), &reason).await;
            return Err(reason);
        }
        if self.forwards.listeners.lock().len() >= MAX_LISTENERS {
            return Err(format!("more than {MAX_LISTENERS} places are listened at for one connection"));
        }
        let operation = match place.clone() {
            Place::Port(host, port) => Operation::Listen { host, port },
            Place::Socket(path) => Operation::ListenUnix { path },
        };
        let (answer, descriptors) = self.open_as_user(operation).await?;
        let end = self.forwards.closed.child_token();
        let (connection, listening) = (self.clone(), self.interest.hold());
        let bound = match place {
            Place::Port(host, _) => {
                let listener = tcp_listener(descriptors)?;
                let asked = host.clone();
                let serving = async move {
                    connection.forward_port(listener, &asked, answer.port).await;
                    drop(listening);
                };
                self.node.tasks.spawn(until_closed(end.clone(), serving));
                Place::Port(host, answer.port)
            }
            Place::Socket(path) => {
                let listener = unix_listener(descriptors)?;
                let asked = path.clone();
                let serving = async move {
                    connection.forward_socket(listener, &asked).await;
                    drop(listening);
                };
                self.node.tasks.spawn(until_closed(end.clone(), serving));
                Place::Socket(path)
            }
        };
        self.forwards.listeners.lock().insert(bound.to_string(), end);
        Ok(answer.port)
    }

    /// Stops listening; false when nobody listened there for this connection.
    pub async fn stop_listening(self: &Arc<Self>, place: &Place) -> bool {
        let listener = self.forwards.listeners.lock().remove(&place.to_string());
        let Some(listener) = listener else { return false };
        listener.cancel();
        if let Place::Socket(path) = place {
            let _ = self.open_as_user(Operation::Remove { path: path.clone() }).await; // ends with the worker
        }
        true
    }

    async fn forward_port(self: Arc<Self>, listener: TcpListener, asked: &str, port: u16) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "forwarded connection not accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // Whoever comes while too many are there is turned away, not queued: the sockets are those of the whole node.
            let Some(place) = self.forwards.place() else { continue };
            let (connection, asked) = (self.clone(), asked.to_owned());
            self.node.tasks.spawn(async move {
                connection.hand_over(stream, asked, port).await;
                drop(place);
            });
        }
    }

    /// Hands a connection to the client, under the address that it asked for: OpenSSH knows it by that.
    async fn hand_over(self: Arc<Self>, stream: TcpStream, asked: String, port: u16) {
        let Ok(from) = stream.peer_addr() else { return };
        let _ = stream.set_nodelay(true); // a slower socket is still one
        let origin = from.ip().to_canonical().to_string();
        let opened = self.handle.channel_open_forwarded_tcpip(asked, port.into(), origin, from.port().into());
        match taken(opened).await {
            Ok(channel) => {
                copy::run(channel, stream, &self).await;
                self.audit.port_forwarded(&self, &from.to_string()).await;
            }
            Err(error) => debug!(%error, "client does not take a forwarded connection"),
        }
    }

    async fn forward_socket(self: Arc<Self>, listener: UnixListener, path: &str) {
        while let Some(stream) = accept_unix(&listener).await {
            let Some(place) = self.forwards.place() else { continue };
            let (connection, path) = (self.clone(), path.to_owned());
            self.node.tasks.spawn(async move {
                let _place = place;
                match taken(connection.handle.channel_open_forwarded_streamlocal(path.clone())).await {
                    Ok(channel) => {
                        copy::run(channel, stream, &connection).await;
                        connection.audit.port_forwarded(&connection, &path).await;
                    }
                    Err(error) => debug!(%error, "client does not take a forwarded connection"),
                }
            });
        }
    }
}

/// What a client answers to a channel that is opened to it, in time.
pub(super) async fn taken<T>(opening: impl Future<Output = Result<T, russh::Error>>) -> Result<T, russh::Error> {
    timeout(ANSWER, opening).await.unwrap_or(Err(russh::Error::ConnectionTimeout))
}

/// The next connection; failures are waited out.
pub(super) async fn accept_unix(listener: &UnixListener) -> Option<UnixStream> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some(stream),
            Err(error) => {
                debug!(%error, "forwarded connection not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Work that ends with the connection, or when it is cancelled.
pub(super) async fn until_closed(end: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = end.cancelled() => {}
        () = work => {}
    }
}

fn tcp_listener(descriptors: Vec<OwnedFd>) -> Result<TcpListener, String> {
    let listener = descriptors.into_iter().next().ok_or("the worker opened nothing")?;
    let listener = std::net::TcpListener::from(listener);
    let ready = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    ready.map_err(|e| e.to_string())
}
