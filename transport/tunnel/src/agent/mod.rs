//! The agent's end: keeps one tunnel to each proxy and hands out what comes through them.

mod backoff;
mod link;
mod pool;
mod tracker;
mod transport;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pki::keys::PublicKey;

pub use self::pool::AgentPool;
pub use self::tracker::TunnelStrategy;
pub use self::transport::IncomingTransport;
use crate::certificate::{CertificateError, HostIdentity};
use crate::keep_alive::KeepAlive;
use crate::stream::BoxedStream;

/// What an agent logs in with and whom it trusts. Asked anew for every connection, so that renewed certificates and
/// rotated authorities count from the next connection on.
pub trait AgentCredentials: Send + Sync + 'static {
    /// The key and certificate of this agent's role.
    fn identity(&self) -> Arc<HostIdentity>;

    /// The keys of the authorities that may have signed a proxy's host certificate.
    fn proxy_authorities(&self) -> Vec<PublicKey>;
}

/// Connects to the tunnel address of the proxies.
#[async_trait]
pub trait ProxyDialer: Send + Sync + 'static {
    /// A new connection on which SSH is spoken next. The implementation limits its own time.
    async fn dial(&self) -> io::Result<BoxedStream>;

    /// Hears whether the last dial led to a proxy: where it did not, the address may be out of date.
    fn led_to_a_proxy(&self, _led: bool) {}

    /// Hears that the last tunnel has ended.
    fn cut_off(&self) {}
}

/// Takes the streams that proxies open to this agent.
pub trait TransportHandler: Send + Sync + 'static {
    /// Answers one request. Runs in a task of its own.
    fn handle(&self, transport: IncomingTransport) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl<F, T> TransportHandler for F
where
    F: Fn(IncomingTransport) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    fn handle(&self, transport: IncomingTransport) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self(transport))
    }
}

/// Everything an agent's pool of tunnels needs.
#[derive(Clone)]
pub struct AgentConfig {
    /// Who the agent is and whom it trusts.
    pub credentials: Arc<dyn AgentCredentials>,
    /// How to reach a proxy.
    pub dialer: Arc<dyn ProxyDialer>,
    /// Where the streams go.
    pub transports: Arc<dyn TransportHandler>,
    /// How often to tell the proxies that the agent is alive, and to make sure that they are.
    pub keep_alive: KeepAlive,
    /// How many tunnels to keep.
    pub strategy: TunnelStrategy,
    /// The version of this cluster's Auth Service, for the proxies of another cluster to ask (trusted clusters only).
    pub auth_version: Option<String>,
    /// How long streams may go on after the pool was told to stop.
    pub drain_timeout: Duration,
}

impl AgentConfig {
    /// The settings of an agent of its own cluster.
    pub fn new(
        credentials: Arc<dyn AgentCredentials>,
        dialer: Arc<dyn ProxyDialer>,
        transports: Arc<dyn TransportHandler>,
    ) -> Self {
        Self {
            credentials,
            dialer,
            transports,
            keep_alive: KeepAlive::default(),
            strategy: TunnelStrategy::default(),
            auth_version: None,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentConfig")
            .field("keep_alive", &self.keep_alive)
            .field("strategy", &self.strategy)
            .finish_non_exhaustive()
    }
}

/// Why a tunnel did not come about.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The proxy was not reached.
    #[error("dialling the proxy: {0}")]
    Dial(#[source] io::Error),
    /// It took too long.
    #[error("the proxy did not complete the handshake in time")]
    Timeout,
    /// The proxy showed a plain key instead of a certificate.
    #[error("the proxy presented a plain host key instead of a certificate")]
    PlainHostKey,
    /// The proxy is not one of ours.
    #[error("the proxy's host certificate: {0}")]
    ProxyCertificate(#[from] CertificateError),
    /// Whoever answered is one of ours, but no proxy.
    #[error("the host at the tunnel address has the role {0:?} instead of Proxy")]
    NotAProxy(String),
    /// The proxy's certificate does not say which proxy it is.
    #[error("the proxy's host certificate has no principal of its cluster")]
    NamelessProxy,
    /// The load balancer led to a proxy that has a tunnel already.
    #[error("{0}: proxy already claimed")]
    AlreadyClaimed(String),
    /// The agent has no usable certificate.
    #[error("the agent's own host certificate has no principals")]
    NamelessAgent,
    /// The proxy does not want this agent.
    #[error("the proxy refused the agent's certificate")]
    Refused,
    /// Something went wrong in SSH.
    #[error("ssh: {0}")]
    Ssh(#[from] russh::Error),
}
