//! Accepting TCP connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::Arrival;

/// Idle time before, and between, keepalive probes of accepted and dialled sockets.
pub const KEEPALIVE: Duration = Duration::from_secs(180);
/// Simultaneous connections of one address unless configured otherwise.
pub const CONNECTIONS_PER_IP: usize = 15_000;

/// Connections the kernel completes before they are accepted.
const BACKLOG: u32 = 4096;
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause after accepting failed; descriptors are given back all the time.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A listening socket whose connections are counted per address of the other end.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    limit: ConnectionLimit,
}

/// An accepted connection.
#[derive(Debug)]
pub struct Incoming {
    /// The socket, with keepalive and without Nagle's delay.
    pub stream: TcpStream,
    /// Both ends.
    pub arrival: Arrival,
    /// Keeps the connection counted; dropped with it.
    pub permit: Permit,
}

/// Counts connections per address; clones share the count, so one limit may span listeners.
#[derive(Debug, Clone)]
pub struct ConnectionLimit {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_ip: usize,
}

/// A counted connection; gives its place back when dropped.
#[derive(Debug)]
pub struct Permit {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    ip: IpAddr,
}

impl Listener {
    /// Listens on `address`; a port of 0 lets the system choose.
    pub fn bind(address: SocketAddr, limit: ConnectionLimit) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for connections of the previous process to time out.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Self::new(socket.listen(BACKLOG)?, limit)
    }

    /// Takes over a socket that listens already.
    pub fn new(socket: TcpListener, limit: ConnectionLimit) -> io::Result<Self> {
        Ok(Self { local: socket.local_addr()?, socket, limit })
    }

    /// Where it listens, with the port chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits for the next connection. Never fails: errors of accepting are logged and paused after, connections over
    /// the limit are closed. Cancel-safe.
    pub async fn accept(&self) -> Incoming {
        let mut pause = SHORTEST_PAUSE;
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    if let Some(incoming) = self.admit(stream, peer) {
                        return incoming;
                    }
                }
                Err(error) if concerns_one_connection(&error) => {
                    tracing::debug!(listener = %self.local, %error, "connection was gone before it was accepted");
                }
                Err(error) => {
                    tracing::warn!(listener = %self.local, %error, ?pause, "cannot accept connections, trying again");
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Option<Incoming> {
        let Some(permit) = self.limit.admit(peer.ip()) else {
            tracing::debug!(listener = %self.local, %peer, limit = self.limit.per_ip, "too many connections of one address");
            return None;
        };
        let local = stream.local_addr().unwrap_or(self.local);
        if let Err(error) = tune(&stream) {
            tracing::debug!(%peer, %error, "set socket options");
        }
        Some(Incoming { stream, arrival: Arrival { peer, local, handed_on: false }, permit })
    }
}

impl ConnectionLimit {
    /// A limit of so many simultaneous connections per address.
    pub fn new(per_ip: usize) -> Self {
        Self { open: Arc::default(), per_ip }
    }

    /// Counts a connection; `None` when the address has too many.
    pub fn admit(&self, ip: IpAddr) -> Option<Permit> {
        let ip = ip.to_canonical();
        let mut open = self.open.lock();
        let count = open.entry(ip).or_default();
        if *count >= self.per_ip {
            return None;
        }
        *count += 1;
        Some(Permit { open: self.open.clone(), ip })
    }
}

impl Default for ConnectionLimit {
    fn default() -> Self {
        Self::new(CONNECTIONS_PER_IP)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.ip);
            }
        }
    }
}

/// Keepalive every 3 minutes and no delay of small writes, for accepted and dialled sockets alike.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// A duration between half of `pause` and all of it, so that many who wait do not come back at once.
pub fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    // Every state has keys of its own, so the hash of nothing is a fresh number; this needs no secrecy.
    let parts = (RandomState::new().hash_one(()) % 1024) as u32;
    pause / 2 + pause / 2 * parts / 1024
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn accepted_sockets_have_keepalive_and_no_delay() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), ConnectionLimit::default()).unwrap();
        let client = TcpStream::connect(listener.local_addr()).await.unwrap();
        let incoming = listener.accept().await;
        assert_eq!(incoming.arrival.peer, client.local_addr().unwrap());
        assert_eq!(incoming.arrival.local, listener.local_addr());
        assert!(incoming.stream.nodelay().unwrap());
        assert!(SockRef::from(&incoming.stream).keepalive().unwrap());
    }

    #[tokio::test]
    async fn connections_over_the_limit_are_closed_until_others_end() {
        let limit = ConnectionLimit::new(1);
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), limit.clone()).unwrap();
        let address = listener.local_addr();
        let _first = TcpStream::connect(address).await.unwrap();
        let held = listener.accept().await;
        let mut second = TcpStream::connect(address).await.unwrap();
        let waiting = tokio::spawn(async move { listener.accept().await });
        assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed without an answer");
        drop(held);
        let third = TcpStream::connect(address).await.unwrap();
        assert_eq!(waiting.await.unwrap().arrival.peer, third.local_addr().unwrap());
        assert!(limit.open.lock().is_empty());
    }

    #[test]
    fn addresses_are_counted_apart_and_mapped_ones_together() {
        let limit = ConnectionLimit::new(1);
        let _one = limit.admit("192.0.2.1".parse().unwrap()).unwrap();
        assert!(limit.admit("::ffff:192.0.2.1".parse().unwrap()).is_none());
        assert!(limit.admit("192.0.2.2".parse().unwrap()).is_some());
    }

    #[test]
    fn jitter_stays_between_half_and_all() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(2));
            assert!((1000..=2000).contains(&pause.as_millis()));
        }
    }
}
