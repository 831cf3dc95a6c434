//! A proxy as seen from outside.

use std::sync::Arc;

use async_trait::async_trait;
use mux::alpn;
use mux::upgrade::Content;
use pki::cluster_name::API_DOMAIN;
use pki::tls::server_name_of;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::DialError;
use crate::address::{HostPort, PartialAddress};
use crate::auth::HTTP_HOST;
use crate::channel::{Connect, channel};
use crate::credentials::{ClusterCredentials, Credentials};
use crate::deadline::Deadline;
use crate::environment::Traffic;
use crate::stream::{BoxStream, TlsStream};
use crate::tcp::Dialer;
use crate::tls::{TlsSetup, Verify};
use crate::upgrade::{self, UpgradeMode};
use crate::webapi::{JsonClient, PingResponse, RequestError};

/// Ports that are tried when an address has none: the proxy's own default, and that of the web.
const WEB_PORTS: [u16; 2] = [3080, 443];

/// The web port of a proxy and everything behind it; clones share what was found out about it.
#[derive(Debug, Clone)]
pub struct ProxyEndpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dialer: Dialer,
    address: HostPort,
    web: Verify,
    credentials: Credentials,
    user_agent: Option<String>,
    mode: UpgradeMode,
    upgrade: OnceCell<bool>,
}

/// A service behind the web port, by application protocol.
#[derive(Debug, Clone)]
pub struct Service {
    /// Application protocols to offer, the one that decides first.
    pub alpn: Vec<String>,
    /// Who is expected to answer.
    pub server: Server,
    /// Whether the client certificate is shown.
    pub identify: bool,
    /// What an upgraded connection carries.
    pub content: Content,
}

/// Who answers behind the web port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// The web port itself, with its public certificate. In an upgraded connection it is the proxy, with its
    /// certificate of the cluster.
    Web,
    /// Auth or Proxy with a certificate of this cluster's host authority; asked for by the cluster's name, so that it
    /// accepts certificates of that cluster. Empty: that of the credentials.
    Cluster(String),
    /// Auth of a cluster, which may be another than the one that issued the client certificate.
    Auth(String),
}

impl Service {
    /// Reverse tunnels of agents. `peering` when the cluster uses proxy peering.
    pub fn reverse_tunnel(peering: bool) -> Self {
        let names: &[&str] =
            if peering { &[alpn::REVERSE_TUNNEL_V2, alpn::REVERSE_TUNNEL] } else { &[alpn::REVERSE_TUNNEL] };
        Self::new(names, Server::Web, false)
    }

    /// The gRPC transport service that carries user sessions.
    pub fn transport() -> Self {
        Self::new(&[alpn::PROXY_SSH_GRPC, alpn::H2], Server::Cluster(String::new()), true)
    }

    /// The gRPC services of the proxy for clients with a certificate.
    pub fn grpc() -> Self {
        Self::new(&[alpn::PROXY_GRPC_MTLS, alpn::H2], Server::Cluster(String::new()), true)
    }

    /// The gRPC join service, for hosts without certificate.
    pub fn join() -> Self {
        Self::new(&[alpn::PROXY_GRPC, alpn::H2], Server::Web, false)
    }

    /// The Auth Service of `cluster` through the proxy, gRPC.
    pub fn auth_grpc(cluster: &str) -> Self {
        Self::new(&[&alpn::auth(cluster), alpn::H2], Server::Auth(cluster.to_owned()), true)
    }

    /// The Auth Service of `cluster` through the proxy, JSON over HTTP.
    pub fn auth_http(cluster: &str) -> Self {
        Self::new(&[&alpn::auth(cluster), alpn::HTTP_1_1], Server::Auth(cluster.to_owned()), true)
    }

    /// Any other names, with the public certificate.
    pub fn web(alpn: &[&str]) -> Self {
        Self { content: Content::Alpn, ..Self::new(alpn, Server::Web, false) }
    }

    fn new(alpn: &[&str], server: Server, identify: bool) -> Self {
        let alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
        Self { alpn, server, identify, content: Content::AlpnPing }
    }
}

impl ProxyEndpoint {
    /// A proxy at its web address. `web` says how its public certificate is verified.
    pub fn new(dialer: Dialer, address: HostPort, web: Verify) -> Self {
        Self::with_credentials(dialer, address, web, Credentials::default())
    }

    /// The same, with what is needed for services inside the cluster.
    pub fn with_credentials(dialer: Dialer, address: HostPort, web: Verify, credentials: Credentials) -> Self {
        let lookup = |name: &str| std::env::var(name).ok();
        let upgrade = upgrade::override_for(&lookup, &address);
        Self(Arc::new(Inner {
            dialer,
            address,
            web,
            credentials,
            user_agent: None,
            mode: UpgradeMode::from_lookup(&lookup),
            upgrade: OnceCell::new_with(upgrade),
        }))
    }

    /// Names the program in requests, such as `tsh/17.0.0`.
    #[must_use]
    pub fn with_user_agent(self, user_agent: &str) -> Self {
        self.change(|inner| inner.user_agent = Some(user_agent.to_owned()))
    }

    /// Says what [`upgrade_required`](Self::upgrade_required) would find out, unless the environment has decided.
    #[must_use]
    pub fn with_upgrade_required(self, required: bool) -> Self {
        self.change(|inner| {
            // Fails when the environment has said it: that wins.
            let _ = inner.upgrade.set(required);
        })
    }

    /// The web address.
    pub fn address(&self) -> &HostPort {
        &self.0.address
    }

    /// What is shown and believed inside the cluster.
    pub fn credentials(&self) -> &Credentials {
        &self.0.credentials
    }

    /// The client of the web API. It shows no client certificate: with one, the proxy takes requests for those to an
    /// application.
    pub fn web_client(&self) -> JsonClient {
        let client = JsonClient::new(Arc::new(WebConnect(self.clone())), self.0.address.to_string());
        match &self.0.user_agent {
            Some(user_agent) => client.with_user_agent(user_agent),
            None => client,
        }
    }

    /// What the proxy says about itself to users.
    pub async fn ping(&self) -> Result<PingResponse, RequestError> {
        self.web_client().get("/webapi/ping").await
    }

    /// What the proxy says about itself to agents.
    pub async fn find(&self) -> Result<PingResponse, RequestError> {
        self.web_client().get("/webapi/find").await
    }

    /// Whether a load balancer in front strips application protocols, so that services are only reached by connection
    /// upgrades. Found out once; the environment can say it instead ([`crate::UPGRADE_OVERRIDE_VARIABLE`]).
    ///
    /// # Errors
    /// When the proxy cannot be reached at all. A handshake that fails for another reason counts as a no, for now.
    pub async fn upgrade_required(&self) -> Result<bool, DialError> {
        let Inner { dialer, address, upgrade, .. } = &*self.0;
        match upgrade.get_or_try_init(|| upgrade::is_needed(dialer, address)).await {
            Ok(required) => Ok(*required),
            Err(DialError::Tls { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A connection to a service behind the web port, TLS included.
    pub async fn open(&self, service: &Service) -> Result<TlsStream, DialError> {
        let upgraded = self.upgrade_required().await?;
        let setup = self.setup(service, upgraded)?;
        let Inner { dialer, address, .. } = &*self.0;
        let deadline = dialer.deadline(address);
        let stream = if upgraded {
            self.upgraded(&deadline, service.content).await?
        } else {
            dialer.tcp_until(&deadline, address, Traffic::Raw).await?
        };
        let stream = setup.handshake(&deadline, address, stream).await?;
        self.check_protocol(service, &stream)?;
        Ok(stream)
    }

    /// A connection to a service on a listener of its own, TLS included: the SSH port speaks TLS to
    /// [`Service::transport`].
    pub async fn open_at(&self, address: &HostPort, service: &Service) -> Result<TlsStream, DialError> {
        let setup = self.setup(service, false)?;
        self.0.dialer.tls(address, Traffic::Raw, &setup).await
    }

    /// A gRPC channel to a service behind the web port. Dials lazily and reconnects; see [`channel()`].
    pub fn channel(&self, service: Service) -> Channel {
        channel(self.connector(service), self.0.user_agent.as_deref())
    }

    /// Makes the connections of such a channel.
    pub fn connector(&self, service: Service) -> Arc<dyn Connect> {
        Arc::new(ServiceConnect { proxy: self.clone(), service, at: None })
    }

    /// A gRPC channel to a service on a listener of its own.
    pub fn channel_at(&self, address: HostPort, service: Service) -> Channel {
        let connect = ServiceConnect { proxy: self.clone(), service, at: Some(address) };
        channel(Arc::new(connect), self.0.user_agent.as_deref())
    }

    /// The JSON client of the Auth Service of `cluster`, through the web port.
    pub fn auth_http(&self, cluster: &str) -> JsonClient {
        let connect = ServiceConnect { proxy: self.clone(), service: Service::auth_http(cluster), at: None };
        JsonClient::new(Arc::new(connect), HTTP_HOST)
    }

    /// Finds the proxy at an address that may lack a port: both usual ports are asked at once and the first that
    /// answers like a proxy wins.
    pub async fn discover(
        dialer: &Dialer,
        address: PartialAddress,
        web: &Verify,
    ) -> Result<(Self, PingResponse), RequestError> {
        let ports = address.port.map_or_else(|| WEB_PORTS.to_vec(), |port| vec![port]);
        let mut asked = JoinSet::new();
        for port in ports {
            let endpoint = Self::new(dialer.clone(), HostPort::new(&address.host, port), web.clone());
            asked.spawn(async move {
                let answer = endpoint.ping().await;
                (endpoint, answer)
            });
        }
        let mut failures = Vec::new();
        while let Some(ended) = asked.join_next().await {
            match ended {
                Ok((endpoint, Ok(answer))) => return Ok((endpoint, answer)),
                Ok((endpoint, Err(error))) => failures.push((endpoint.0.address.port, error)),
                Err(error) => tracing::debug!(%error, "port not asked"),
            }
        }
        Err(most_telling(failures))
    }

    fn change(self, change: impl FnOnce(&mut Inner)) -> Self {
        let Inner { dialer, address, web, credentials, user_agent, mode, upgrade } = &*self.0;
        let mut inner = Inner {
            dialer: dialer.clone(),
            address: address.clone(),
            web: web.clone(),
            credentials: credentials.clone(),
            user_agent: user_agent.clone(),
            mode: *mode,
            upgrade: upgrade.clone(),
        };
        change(&mut inner);
        Self(Arc::new(inner))
    }

    fn setup(&self, service: &Service, upgraded: bool) -> Result<TlsSetup, DialError> {
        let credentials = self.0.credentials.current();
        let (server_name, verify) = self.expectation(service, upgraded, &credentials)?;
        let alpn: Vec<&str> = service.alpn.iter().map(String::as_str).collect();
        let identity = credentials.identity.as_ref().filter(|_| service.identify);
        TlsSetup::new(&server_name, &alpn, &verify, identity)
    }

    /// Name to ask for, and whom to believe.
    fn expectation(
        &self,
        service: &Service,
        upgraded: bool,
        credentials: &ClusterCredentials,
    ) -> Result<(String, Verify), DialError> {
        let name_of = |cluster: &str| Ok::<_, DialError>(server_name_of(cluster)?.to_str().into_owned());
        Ok(match &service.server {
            Server::Web if !upgraded => (self.0.address.host.clone(), self.0.web.clone()),
            Server::Web => {
                let verify = match (&self.0.web, credentials.verify_any()?) {
                    (_, Some(verify)) => verify,
                    (Verify::Insecure, None) => Verify::Insecure,
                    (_, None) => Verify::AnyAuthority { name: API_DOMAIN.to_owned() },
                };
                (self.0.address.host.clone(), verify)
            }
            Server::Cluster(cluster) => {
                let cluster = if cluster.is_empty() { &credentials.cluster } else { cluster };
                (name_of(cluster)?, credentials.verify(cluster)?)
            }
            Server::Auth(cluster) => (name_of(&credentials.cluster)?, credentials.verify_auth(cluster)?),
        })
    }

    async fn upgraded(&self, deadline: &Deadline, content: Content) -> Result<BoxStream, DialError> {
        let Inner { address, mode, .. } = &*self.0;
        let stream = self.web_stream(deadline, Traffic::Raw).await?;
        upgrade::upgrade(deadline, address, stream, content, *mode).await
    }

    async fn web_stream(&self, deadline: &Deadline, traffic: Traffic) -> Result<TlsStream, DialError> {
        let Inner { dialer, address, web, .. } = &*self.0;
        let setup = TlsSetup::new(&address.host, &[alpn::HTTP_1_1], web, None)?;
        let stream = dialer.tcp_until(deadline, address, traffic).await?;
        setup.handshake(deadline, address, stream).await
    }

    /// A public web server in the proxy's place negotiates nothing; better to say so than to talk to it. Services
    /// whose TLS is passed on are known by their certificate instead.
    fn check_protocol(&self, service: &Service, stream: &TlsStream) -> Result<(), DialError> {
        let negotiated = stream.get_ref().1.alpn_protocol().is_some();
        if negotiated || service.server != Server::Web || service.alpn.is_empty() {
            return Ok(());
        }
        Err(DialError::Protocol { target: self.0.address.to_string(), offered: service.alpn.clone() })
    }
}

/// The failure to show when every port failed: one that says more than that nothing listens there.
fn most_telling(mut failures: Vec<(u16, RequestError)>) -> RequestError {
    failures.sort_by_key(|(port, error)| {
        let rank = match error {
            RequestError::Api(_) => 0,
            RequestError::Dial(DialError::Connect { .. } | DialError::Timeout { .. }) => 2,
            _ => 1,
        };
        (rank, *port != WEB_PORTS[0])
    });
    match failures.into_iter().next() {
        Some((_, error)) => error,
        None => DialError::NoAddress.into(),
    }
}

/// Connections for the web API.
struct WebConnect(ProxyEndpoint);

#[async_trait]
impl Connect for WebConnect {
    async fn connect(&self) -> Result<BoxStream, DialError> {
        let Inner { dialer, address, .. } = &*self.0.0;
        Ok(Box::new(self.0.web_stream(&dialer.deadline(address), Traffic::Web).await?))
    }
}

/// Connections for a service.
struct ServiceConnect {
    proxy: ProxyEndpoint,
    service: Service,
    at: Option<HostPort>,
}

#[async_trait]
impl Connect for ServiceConnect {
    async fn connect(&self) -> Result<BoxStream, DialError> {
        Ok(Box::new(match &self.at {
            Some(address) => self.proxy.open_at(address, &self.service).await?,
            None => self.proxy.open(&self.service).await?,
        }))
    }
}
