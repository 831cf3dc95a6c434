//! Reverse tunnels, both ends: agents in private networks connect out to the proxies, and the proxies reach the
//! agents' services back through those connections.
//!
//! A tunnel is an SSH connection. Both ends prove who they are with SSH host certificates; a plain key is nobody's.
//! On the connection there are three kinds of channels:
//!
//! | channel | opened by | carries |
//! | --- | --- | --- |
//! | `teleport-heartbeat` | agent | `ping` requests; the tunnel is registered as long as it is open |
//! | `teleport-discovery` | proxy | the list of proxies, so that the agent connects to each of them |
//! | `teleport-transport` | either | one byte stream, to the agent's service or to the Auth Service |
//!
//! The crate knows nothing of services. [`agent::AgentPool`] keeps the tunnels of one agent, [`server::TunnelServer`]
//! serves the agents of one proxy, [`server::Registry`] dials through tunnels. [`ssh`] has the settings that every SSH
//! client and server of the product shares, [`modes`] what a terminal is like at both ends.

pub mod agent;
pub mod certificate;
pub mod dial;
pub mod discovery;
mod in_order;
mod keep_alive;
pub mod modes;
mod protocol;
pub mod server;
pub mod ssh;
mod stream;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use self::certificate::HostIdentity;
pub use self::dial::{DialRequest, TunnelType};
pub use self::in_order::InOrder;
pub use self::keep_alive::KeepAlive;
pub use self::stream::{BoxedStream, Stream, TunnelStream};
