//! Connections to a cluster: its proxy, and through it the Auth Service.
//!
//! Both are made when they are first used: opening a session needs the proxy alone.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dialer::webapi::{PingResponse, RequestError};
use dialer::{
    BoxStream, ClientIdentity, ClusterCredentials, Connect, Credentials, DialError, Dialer, HostPort, PartialAddress,
    ProxyEndpoint, Server, Service, TlsSetup, Verify, channel, upgrade_is_needed,
};
use mux::alpn;
use parking_lot::Mutex;
use pki::tls::server_name_of;
use pki::x509::Certificate;
use tonic::transport::Channel;
use wire::client::{ApiChannel, api_channel};
use wire::proto::auth_service_client::AuthServiceClient;
use wire::transport::GetClusterDetailsRequest;
use wire::transport::transport_service_client::TransportServiceClient;

use crate::account::Account;
use crate::error::{Error, Result};
use crate::keys::{TrustedCluster, save_trusted};
use crate::login::fetch_authorities;
use crate::proxy_stream::ProxyStream;
use crate::text;

/// Largest answer that is read: a page of a thousand resources with many labels is larger than the usual 4 MiB.
const LARGEST_MESSAGE: usize = 64 << 20;

/// How long a proxy's public name may take to be resolved, before the address that was typed is used.
const RESOLUTION: Duration = Duration::from_secs(2);

/// For how long a connection counts as made now: many sessions that move at once share one.
const NEW_FOR: Duration = Duration::from_secs(5);

/// Name and version in requests.
pub const USER_AGENT: &str = concat!("tsh/", env!("CARGO_PKG_VERSION"));

/// Connections with a user's credentials. Clones share them.
#[derive(Clone)]
pub struct ClusterClient {
    account: Arc<Account>,
    routes: Routes,
    transport: Channel,
    /// A later one, and when it was made.
    newest: Arc<Mutex<Option<(Instant, Channel)>>>,
    /// The address of the proxy's SSH listener, where services are not reached on the web port.
    separate: Option<HostPort>,
    root: Arc<OnceLock<ApiChannel>>,
    selected: Arc<OnceLock<ApiChannel>>,
    resumes: bool,
}

impl ClusterClient {
    /// Prepares connections. Asks the proxy about itself where no login has done so: with an identity file, and if the
    /// address lacks a port. Dials nothing else.
    pub async fn new(mut account: Account) -> Result<Self> {
        let web = web_verify(account.insecure, &account.keys.tls_authorities());
        let dialer = dialer(&web)?;
        let address = find(&mut account, &dialer, &web).await?;
        let credentials = Credentials::new(cluster_credentials(&account));
        let endpoint =
            ProxyEndpoint::with_credentials(dialer.clone(), address, web, credentials).with_user_agent(USER_AGENT);
        let routes = Routes::new(dialer, &endpoint, account.profile.tls_routing_conn_upgrade_required);
        let separate = match account.profile.ssh_proxy_addr.as_str() {
            "" => None,
            _ if account.profile.tls_routing_enabled => None,
            address => Some(HostPort::parse(address, 3023).map_err(DialError::from)?),
        };
        let transport = carrier(&routes, separate.as_ref(), &account);
        let account = Arc::new(account);
        let (newest, root, selected) = Default::default();
        Ok(Self { account, routes, transport, newest, separate, root, selected, resumes: true })
    }

    /// The same, knowing the authorities of the cluster that commands are about: it may have come to be trusted since
    /// the login, or an identity file may not name it.
    ///
    /// # Errors
    /// When the root cluster does not know that cluster either.
    pub async fn acquainted(self) -> Result<Self> {
        let cluster = &self.account.cluster;
        let known = |trusted: &[TrustedCluster]| trusted.iter().any(|trusted| trusted.name == *cluster);
        if self.account.cluster == self.account.root_cluster() || known(&self.account.keys.trusted) {
            return Ok(self);
        }
        let trusted = fetch_authorities(&self).await?;
        if !known(&trusted) {
            let names: Vec<_> = trusted.iter().map(|trusted| text::line(&trusted.name)).collect();
            return Err(Error::other(format!("cluster {cluster:?} is not known; there are: {}", names.join(", "))));
        }
        let mut account = Account::clone(&self.account);
        account.keys.trusted = trusted;
        if let Some(home) = &account.home
            && let Err(error) = save_trusted(home, account.proxy_host(), &account.keys.trusted)
        {
            tracing::debug!(%error, "renewed authorities are not saved");
        }
        let resumes = self.resumes;
        Ok(Self { resumes, ..Self::new(account).await? })
    }

    /// The same, with or without sessions that outlive their network connections. They do, unless this is said.
    pub fn with_resumption(self, resumes: bool) -> Self {
        Self { resumes, ..self }
    }

    /// Whether sessions outlive their network connections.
    pub fn resumes(&self) -> bool {
        self.resumes
    }

    /// Whose connections these are.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The proxy's web API.
    pub fn endpoint(&self) -> &ProxyEndpoint {
        &self.routes.direct
    }

    /// What the proxy says about itself.
    pub async fn ping(&self) -> Result<PingResponse> {
        Ok(self.endpoint().ping().await?)
    }

    /// One round trip to the proxy, on the connection that carries sessions.
    pub async fn probe(&self) -> Result<()> {
        self.transport().get_cluster_details(GetClusterDetailsRequest::default()).await?;
        Ok(())
    }

    /// The service that carries connections into the cluster.
    pub fn transport(&self) -> TransportServiceClient<ApiChannel> {
        TransportServiceClient::new(api_channel(self.transport.clone()))
    }

    /// The same over a connection made now, for what is not to depend on an older one.
    pub fn transport_anew(&self) -> TransportServiceClient<ApiChannel> {
        let mut newest = self.newest.lock();
        newest.take_if(|(made, _)| made.elapsed() >= NEW_FOR);
        let make = || (Instant::now(), carrier(&self.routes, self.separate.as_ref(), &self.account));
        let (_, channel) = newest.get_or_insert_with(make);
        TransportServiceClient::new(api_channel(channel.clone()))
    }

    /// The channel to the Auth Service of the cluster that commands are about.
    pub fn auth_channel(&self) -> ApiChannel {
        if self.account.cluster == self.account.root_cluster() {
            return self.root_channel();
        }
        self.selected.get_or_init(|| self.auth_of(&self.account.cluster)).clone()
    }

    /// The channel to the Auth Service of the root cluster: the one that issues certificates.
    pub fn root_channel(&self) -> ApiChannel {
        self.root.get_or_init(|| self.auth_of(self.account.root_cluster())).clone()
    }

    /// The main service of the Auth Service of the cluster that commands are about.
    pub fn auth(&self) -> AuthServiceClient<ApiChannel> {
        AuthServiceClient::new(self.auth_channel()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    /// The main service of the Auth Service of the root cluster.
    pub fn root_auth(&self) -> AuthServiceClient<ApiChannel> {
        AuthServiceClient::new(self.root_channel()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    fn auth_of(&self, cluster: &str) -> ApiChannel {
        api_channel(match &self.separate {
            None => self.routes.channel(Service::auth_grpc(cluster)),
            Some(_) => {
                let credentials = self.endpoint().credentials().clone();
                let connect = Carried { transport: self.transport(), credentials, cluster: cluster.to_owned() };
                channel(Arc::new(connect), Some(USER_AGENT))
            }
        })
    }
}

/// A channel to the service that carries connections into the cluster.
fn carrier(routes: &Routes, separate: Option<&HostPort>, account: &Account) -> Channel {
    let mut service = Service::transport();
    if let Some(cluster) = &account.proxy_cluster {
        service.server = Server::Cluster(cluster.clone());
    }
    match separate {
        Some(address) => routes.direct.channel_at(address.clone(), service),
        None => routes.channel(service),
    }
}

/// The address of an account's proxy, with its port.
async fn find(account: &mut Account, dialer: &Dialer, web: &Verify) -> Result<HostPort> {
    let address: PartialAddress = account.profile.web_proxy_addr.parse().map_err(DialError::from)?;
    let known = address.port.map(|port| HostPort::new(address.host.clone(), port));
    let met = !account.profile.ssh_proxy_addr.is_empty();
    if let (Some(address), true) = (&known, met) {
        return Ok(address.clone());
    }
    let (endpoint, ping) = match (ProxyEndpoint::discover(dialer, address, web).await, known) {
        (Ok(found), _) => found,
        // The web port's certificate matters for nothing else: services show those of the cluster.
        (Err(RequestError::Dial(error @ DialError::Tls { .. })), Some(address)) => {
            tracing::debug!(%error, "the proxy is not asked about itself: one port for everything is assumed");
            return Ok(address);
        }
        (Err(error), _) => return Err(error.into()),
    };
    if !met {
        let address = endpoint.address();
        if ping.cluster_name != account.root_cluster() && !ping.cluster_name.is_empty() {
            return Err(Error::NotLoggedIn(of_another_cluster(account, &ping.cluster_name)));
        }
        let ssh = ping.proxy.ssh_address(address).map_err(DialError::from)?;
        account.profile.ssh_proxy_addr = ssh.to_string();
        account.profile.tls_routing_enabled = ping.proxy.tls_routing_enabled;
        let has_public = ping.proxy.tls_routing_enabled && !ping.proxy.ssh.public_addr.is_empty();
        if has_public && is_known_here(address, &ssh).await {
            return Ok(ssh);
        }
    }
    Ok(endpoint.address().clone())
}

/// Whether the address that a proxy goes by can be used instead of the one under which it was reached: it may be a
/// name that only others know.
async fn is_known_here(reached: &HostPort, public: &HostPort) -> bool {
    if reached.host == public.host {
        return true;
    }
    let found = tokio::net::lookup_host((public.host.as_str(), public.port));
    let found = tokio::time::timeout(RESOLUTION, found).await;
    let found = found.is_ok_and(|found| found.is_ok_and(|mut addresses| addresses.next().is_some()));
    if !found {
        tracing::debug!(%public, %reached, "the proxy's public address cannot be resolved here");
    }
    found
}

/// What to say about a proxy that cannot know an account.
pub(crate) fn of_another_cluster(account: &Account, cluster: &str) -> String {
    let (address, ours) = (&account.profile.web_proxy_addr, account.root_cluster());
    let how = match &account.home {
        Some(_) => format!("log in there with 'tsh login --proxy={address}'"),
        None => "an identity file of that cluster is needed".to_owned(),
    };
    let theirs = text::line(cluster);
    format!("the proxy at {address} is of cluster {theirs}, and your credentials are of cluster {ours}: {how}")
}

/// The account at another proxy (`-J`): of the same cluster, or of one that trusts it. Commands are about the cluster
/// of that proxy then.
///
/// # Errors
/// When the proxy does not answer, or is of a cluster that the login does not know.
pub async fn through(mut account: Account, proxy: &str) -> Result<Account> {
    let web = web_verify(account.insecure, &account.keys.tls_authorities());
    let dialer = dialer(&web)?;
    let address: PartialAddress = proxy.parse().map_err(DialError::from)?;
    let (endpoint, ping) = ProxyEndpoint::discover(&dialer, address, &web).await?;
    let cluster = ping.cluster_name;
    if !account.keys.trusted.iter().any(|trusted| trusted.name == cluster) {
        return Err(Error::other(format!(
            "jump host {proxy} is of cluster {}, which your login at {} does not know: log in again if it has come to \
             be trusted since",
            text::line(&cluster),
            account.profile.web_proxy_addr,
        )));
    }
    account.profile.web_proxy_addr = endpoint.address().to_string();
    account.profile.ssh_proxy_addr = ping.proxy.ssh_address(endpoint.address()).map_err(DialError::from)?.to_string();
    account.profile.tls_routing_enabled = ping.proxy.tls_routing_enabled;
    account.profile.tls_routing_conn_upgrade_required = false;
    account.proxy_cluster = Some(cluster.clone()).filter(|cluster| cluster != account.root_cluster());
    account.cluster = cluster;
    // What is learnt on the way is about another proxy than the one the folder is for.
    account.home = None;
    Ok(account)
}

/// What the proxy at an address says about itself, for whoever is not logged in there.
pub async fn ping(address: &str, web: Verify) -> Result<PingResponse> {
    let dialer = dialer(&web)?;
    let address: PartialAddress = address.parse().map_err(DialError::from)?;
    Ok(ProxyEndpoint::discover(&dialer, address, &web).await?.1)
}

/// Makes connections, through a proxy that the environment names. Whoever takes any certificate takes that of an
/// `https` proxy as well.
pub(crate) fn dialer(web: &Verify) -> Result<Dialer> {
    let dialer = Dialer::from_env().map_err(DialError::from)?;
    Ok(match web {
        Verify::Insecure => dialer.with_proxy_verify(Verify::Insecure),
        _ => dialer,
    })
}

/// How the certificate of a proxy's web port is verified.
pub fn web_verify(insecure: bool, authorities: &[Certificate]) -> Verify {
    match insecure {
        true => Verify::Insecure,
        false if authorities.is_empty() => Verify::System,
        false => Verify::SystemAnd(authorities.to_vec()),
    }
}

fn cluster_credentials(account: &Account) -> ClusterCredentials {
    let identity =
        ClientIdentity { certificate: account.keys.tls_certificate.clone(), key: account.keys.tls_key.clone() };
    ClusterCredentials {
        cluster: account.root_cluster().to_owned(),
        identity: Some(identity),
        authorities: account.keys.tls_authorities(),
    }
}

/// The two ways to the services on a web port.
#[derive(Clone)]
struct Routes {
    dialer: Dialer,
    direct: ProxyEndpoint,
    upgraded: ProxyEndpoint,
    /// Whether the login found that upgrades are needed.
    upgrade: bool,
}

impl Routes {
    fn new(dialer: Dialer, endpoint: &ProxyEndpoint, upgrade: bool) -> Self {
        let direct = endpoint.clone().with_upgrade_required(false);
        let upgraded = endpoint.clone().with_upgrade_required(true);
        Self { dialer, direct, upgraded, upgrade }
    }

    fn channel(&self, service: Service) -> Channel {
        channel(Arc::new(Routed { routes: self.clone(), service }), Some(USER_AGENT))
    }
}

/// Connections to a service on the web port. Unless the login found a load balancer that ends TLS, none is assumed,
/// and it is looked for only when the assumption fails: the test would cost every command a connection.
struct Routed {
    routes: Routes,
    service: Service,
}

#[async_trait]
impl Connect for Routed {
    async fn connect(&self) -> Result<BoxStream, DialError> {
        let Routes { dialer, direct, upgraded, upgrade } = &self.routes;
        let first = if *upgrade { upgraded } else { direct };
        match first.open(&self.service).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(DialError::Tls { .. } | DialError::Protocol { .. })
                if !upgrade && upgrade_is_needed(dialer, direct.address()).await.is_ok_and(|needed| needed) =>
            {
                Ok(Box::new(upgraded.open(&self.service).await?))
            }
            Err(error) => Err(error),
        }
    }
}

/// Connections to an Auth Service inside streams of the proxy's SSH listener.
struct Carried {
    transport: TransportServiceClient<ApiChannel>,
    credentials: Credentials,
    cluster: String,
}

#[async_trait]
impl Connect for Carried {
    async fn connect(&self) -> Result<BoxStream, DialError> {
        let credentials = self.credentials.current();
        let name = server_name_of(&credentials.cluster)?;
        let verify = credentials.verify_auth(&self.cluster)?;
        let setup = TlsSetup::new(&name.to_str(), &[alpn::H2], &verify, credentials.identity.as_ref())?;
        let stream = ProxyStream::to_cluster(self.transport.clone(), &self.cluster);
        let target = format!("the Auth Service of {}", self.cluster);
        Ok(Box::new(setup.connect(&target, Box::new(stream)).await?))
    }
}
