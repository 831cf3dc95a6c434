//! Outbound connections of clients, agents and proxies.
//!
//! * [`Dialer`]: TCP and TLS, directly or through the HTTP or SOCKS proxy that the environment names
//!   ([`environment`]). A whole dial takes at most 10 seconds and an error says what it was waiting for.
//! * [`ProxyEndpoint`]: a proxy's web API ([`webapi`]) and the services behind its web port, through load balancers
//!   that end TLS where it has to be.
//! * [`AuthEndpoint`]: the Auth Service at its own port.
//! * [`channel()`]: gRPC on any of these. [`Line`]: what notices that its connection is dead. [`Credentials`]: certificates
//!   and authorities that may change meanwhile.

mod address;
mod auth;
mod channel;
mod credentials;
mod deadline;
pub mod environment;
mod error;
mod http_head;
mod line;
mod proxy;
mod socks;
mod stream;
mod tcp;
mod tls;
mod upgrade;
pub mod webapi;

pub use address::{AddressError, HostPort, PartialAddress};
pub use auth::{AuthEndpoint, AuthTrust};
pub use channel::{ClientVersion, Connect, channel};
pub use credentials::{ClusterCredentials, Credentials};
pub use environment::{EnvironmentError, ProxyEnvironment, Traffic};
pub use error::DialError;
pub use line::Line;
pub use proxy::{ProxyEndpoint, Server, Service};
pub use stream::{BoxStream, ByteStream, TlsStream};
pub use tcp::{DIAL_TIMEOUT, Dialer};
pub use tls::{ClientIdentity, TlsSetup, Verify};
pub use upgrade::{
    MODE_VARIABLE as UPGRADE_MODE_VARIABLE, OVERRIDE_VARIABLE as UPGRADE_OVERRIDE_VARIABLE, UpgradeMode,
    is_needed as upgrade_is_needed, override_for as upgrade_override,
};

/// Reads one environment variable; a parameter so that decisions stay free of the process's environment.
pub type EnvironmentLookup<'a> = &'a dyn Fn(&str) -> Option<String>;
