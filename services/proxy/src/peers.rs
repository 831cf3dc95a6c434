//! Proxy peering: with the tunnel strategy `proxy_peering` an agent holds tunnels to some of the proxies only, and a
//! proxy without one reaches it through a proxy that has one.
//!
//! Proxies speak gRPC with mutual TLS on a port of their own; both ends show host certificates with the role Proxy.

mod client;
mod server;

use std::net::SocketAddr;
use std::time::Duration;

use cache::Cache;
use wire::proto::frame::Message;
use wire::proto::{Data, Frame, NetAddr};
use wire::types::tunnel_strategy_v1::Strategy;

pub(crate) use client::Peers;
pub(crate) use server::PeerDoor;

/// How long a peer may take to reach an agent.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one frame may wait for a side that does not read.
const STALLED: Duration = Duration::from_secs(300);
/// The largest frame.
const FRAME: usize = 64 * 1024;
/// Frames that may wait.
const FRAME_QUEUE: usize = 8;
/// The system role of both ends.
const PROXY: &str = "Proxy";

/// Whether agents of this cluster hold tunnels to some of the proxies only.
pub(crate) fn is_on(cache: &Cache) -> bool {
    let networking = cache.networking();
    let strategy = networking.spec.as_ref().and_then(|spec| spec.tunnel_strategy.as_ref());
    matches!(strategy.and_then(|s| s.strategy.as_ref()), Some(Strategy::ProxyPeering(_)))
}

fn data(bytes: Vec<u8>) -> Frame {
    Frame { message: Some(Message::Data(Data { bytes })) }
}

fn address(address: SocketAddr) -> NetAddr {
    NetAddr { network: "tcp".to_owned(), addr: address.to_string() }
}
