//! Connections that a client makes from the node: `direct-tcpip` and `direct-streamlocal`.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use russh::server::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::net::{TcpStream, UnixStream};
use tracing::debug;

use super::{Place, copy};
use crate::connection::Connection;
use crate::worker::protocol::Operation;

impl Connection {
    /// Serves a channel that asks to be connected to a place.
    pub fn connect_to(self: &Arc<Self>, channel: Channel<Msg>, reply: ChannelOpenHandle, place: Place) {
        let connection = self.clone();
        self.node.tasks.spawn(async move {
            if let Err(reason) = connection.may_forward() {
                connection.audit.port_refused(&connection, &place.to_string(), &reason).await;
                reply.reject_with(ChannelOpenFailure::AdministrativelyProhibited, reason).await;
                return;
            }
            let open = connection.interest.hold();
            if let Err(reason) = connection.connect(channel, reply, &place).await {
                debug!(%place, reason, "connection not made");
            }
            drop(open);
        });
    }

    async fn connect(
        self: &Arc<Self>,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        place: &Place,
    ) -> Result<(), String> {
        let operation = match place.clone() {
            Place::Port(host, port) => Operation::Connect { host, port },
            Place::Socket(path) => Operation::ConnectUnix { path },
        };
        let opened = self.open_as_user(operation).await;
        let socket = opened.and_then(|(_, sockets)| sockets.into_iter().next().ok_or("nothing was opened".to_owned()));
        let socket = match socket {
            Ok(socket) => socket,
            Err(reason) => {
                reply.reject_with(ChannelOpenFailure::ConnectFailed, format!("{place}: {reason}")).await;
                return Err(reason);
            }
        };
        reply.accept().await;
        match place {
            Place::Port(..) => copy::run(channel, tcp(socket).map_err(|e| e.to_string())?, self).await,
            Place::Socket(_) => copy::run(channel, unix(socket).map_err(|e| e.to_string())?, self).await,
        }
        self.audit.port_forwarded(self, &place.to_string()).await;
        Ok(())
    }
}

fn tcp(socket: OwnedFd) -> std::io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

fn unix(socket: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
