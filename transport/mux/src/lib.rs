//! What happens to a connection between `accept` and the first byte of a service.
//!
//! The steps, in the order a connection meets them:
//!
//! 1. [`listener`]: accept with keepalive, back-off and a limit of connections per address.
//! 2. [`detect`](detect()): look at the first bytes without consuming them, unwrap PROXY protocol headers
//!    ([`proxy_protocol`]) and name the protocol.
//! 3. [`client_hello`](client_hello()): for TLS, read server name and application protocols, still consuming nothing.
//! 4. [`router`]: choose the handler and say whether TLS ends here ([`tls`]) or is passed on untouched.
//! 5. [`pingconn`] and [`upgrade`]: framings that some routes carry inside.
//! 6. [`copy_both`]: join two streams; [`memory`] says what becomes of the memory that it took.
//!
//! Decisions (`proxy_protocol::parse`, `router::Router::decide`, the framings) are free of I/O; the rest is thin.

pub mod alpn;
mod client_hello;
mod copy;
mod detect;
mod framed;
pub mod listener;
pub mod memory;
pub mod pingconn;
pub mod proxy_protocol;
pub mod rate;
mod read_ahead;
mod rewind;
pub mod router;
pub mod server_name;
pub mod tls;
pub mod upgrade;

pub use client_hello::{ClientHello, HelloError, client_hello};
pub use copy::{Copied, CopyOptions, copy_both, copy_both_with};
pub use detect::{Arrival, DetectConfig, DetectError, Detected, HeaderSeen, Protocol, ProxyProtocolMode, detect};
pub use read_ahead::ReadAhead;
pub use rewind::Rewind;
