//! SSH connections that outlive the network connections they run over (reference/ssh.md, SSH connection resumption v1).
//!
//! The identification line of a server carries a key. A client that knows the protocol answers with its own key before
//! it speaks SSH; both derive a token, and SSH then runs over frames with acknowledgements. When the network
//! connection is lost, the client comes with a new one and the token, both say how much they have received, and the
//! rest is sent again. A client or a server that does not know the protocol speaks SSH at once and is served as ever.
//!
//! [`engine`] is the protocol of frames without any input or output, the same on both sides; [`exchange`] is how a
//! connection begins. [`server`] and [`client`] run them.

pub mod client;
pub mod engine;
pub mod exchange;
mod network;
mod plain;
pub mod server;
mod stream;

pub use plain::Plain;
pub use stream::{Stream, VirtualStream};
