use std::io;
use std::time::Duration;

use crate::address::{AddressError, HostPort};
use crate::environment::EnvironmentError;

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// A proxy variable of the environment cannot be used.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// An address cannot be read.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The name service does not know the host.
    #[error("resolve {host:?}: {source}")]
    Resolve {
        /// The name asked for.
        host: String,
        /// Its answer.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("connect to {target}: {source}")]
    Connect {
        /// What was dialled: the target, or the proxy on the way.
        target: String,
        /// The reason.
        source: io::Error,
    },
    /// The other side did not answer in time.
    #[error("connect to {target}: timed out after {after:?} waiting for {waited_for}")]
    Timeout {
        /// What was to be reached.
        target: String,
        /// The step that did not end.
        waited_for: String,
        /// Time for the whole dial.
        after: Duration,
    },
    /// A proxy answered, but not with a connection.
    #[error("connect to {target} through {proxy}: unable to proxy connection: {status}")]
    ProxyRefused {
        /// What was to be reached.
        target: HostPort,
        /// The proxy and the variable that named it.
        proxy: String,
        /// Its answer, such as `407 Proxy Authentication Required`.
        status: String,
    },
    /// What is listening at the proxy's address does not speak like one.
    #[error("connect to {target} through {proxy}: {problem}")]
    ProxyAnswer {
        /// What was to be reached.
        target: HostPort,
        /// The proxy and the variable that named it.
        proxy: String,
        /// What it did.
        problem: String,
    },
    /// The TLS handshake failed; the source of the I/O error is a [`rustls::Error`] unless the connection broke.
    #[error("TLS connection to {target}: {source}")]
    Tls {
        /// What was dialled.
        target: String,
        /// The reason.
        source: io::Error,
    },
    /// The server did not take up any of the protocols that were offered.
    #[error("{target} does not speak any of {offered:?}; is it a Teleport proxy, or a load balancer that ends TLS?")]
    Protocol {
        /// What was dialled.
        target: String,
        /// The application protocols offered.
        offered: Vec<String>,
    },
    /// The proxy did not grant a connection upgrade.
    #[error("connection upgrade at {target}: {problem}")]
    Upgrade {
        /// What was dialled.
        target: HostPort,
        /// What it did.
        problem: String,
    },
    /// A proxy of another cluster than the credentials are for.
    #[error("the proxy at {target} is of cluster {found:?}, the credentials are for cluster {wanted:?}")]
    OtherCluster {
        /// The address of the proxy.
        target: String,
        /// The cluster it says it is of.
        found: String,
        /// The cluster of the credentials.
        wanted: String,
    },
    /// There is nothing to verify a server of this cluster with.
    #[error("no certificate authority is known for cluster {0:?}")]
    NoAuthority(String),
    /// Authorities, certificates or keys of our own cannot be used.
    #[error("TLS settings: {0}")]
    Credentials(#[from] pki::Error),
    /// No address is configured.
    #[error("no address to dial is configured")]
    NoAddress,
}

impl DialError {
    /// The TLS error below, if the handshake failed for one: an expired certificate, an unknown authority.
    pub fn tls_error(&self) -> Option<&rustls::Error> {
        match self {
            Self::Tls { source, .. } => source.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
}
