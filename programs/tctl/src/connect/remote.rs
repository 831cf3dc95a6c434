//! Administrators elsewhere: with an identity file or a login of `tsh`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use client::account::Selection;
use client::cluster::{ClusterClient, web_verify};
use client::home::Home;
use client::keys::KeyRing;
use client::profile::Profile;
use dialer::webapi::JsonClient;
use dialer::{
    AuthEndpoint, AuthTrust, BoxStream, ClientIdentity, ClusterCredentials, Connect, Credentials, DialError, Dialer,
    HostPort, PartialAddress, ProxyEndpoint, Service, Verify, channel,
};
use mux::alpn;
use wire::client::api_channel;

use super::{AUTH_PORT, USER_AGENT, Wanted};
use crate::api::Api;
use crate::error::{Error, Result};

/// Port of a proxy's web address when it has none.
const WEB_PORT: u16 = 3080;

/// How long a proxy that refused may take to say who it is.
const WHO_TIMEOUT: Duration = Duration::from_secs(5);

/// What the Auth Service is called in HTTP requests, whatever its address.
const HTTP_HOST: &str = "teleport.cluster.local";

/// Connects with an identity file to the first of `servers` that answers, each an Auth Service or a proxy.
pub fn with_identity_file(path: &Path, servers: &[String], insecure: bool) -> Result<Api> {
    let said = |e: String| Error::other(format!("identity file {}: {e}", path.display()));
    let keys = KeyRing::from_identity_file(path).map_err(|e| said(e.to_string()))?;
    let until = keys.valid_until();
    if until <= Utc::now() {
        return Err(said(format!("it expired at {}", crate::output::time::exact(until))));
    }
    let cluster = keys.root_cluster().to_owned();
    let dialer = Dialer::from_env().map_err(DialError::from)?;
    let dialer = if insecure { dialer.with_proxy_verify(Verify::Insecure) } else { dialer };
    let ways = servers.iter().map(|server| Way::new(&dialer, server, &keys, insecure)).collect::<Result<Vec<_>>>()?;
    let ways: Arc<[Way]> = ways.into();
    let connect = |protocol| Arc::new(Reach { ways: Arc::clone(&ways), protocol });
    let grpc = channel(connect(Protocol::Grpc(cluster.clone())), Some(USER_AGENT));
    let http = JsonClient::new(connect(Protocol::Http(cluster.clone())), HTTP_HOST).with_user_agent(USER_AGENT);
    Ok(Api::new(cluster, api_channel(grpc), http))
}

/// Connects with the current login of `tsh`; `None` without one.
pub async fn with_login(wanted: &Wanted) -> Result<Option<Api>> {
    let home = Home::from_environment();
    if Profile::current_name(&home).map_err(client::Error::from)?.is_none() && wanted.servers.is_empty() {
        return Ok(None);
    }
    let selection = Selection {
        home,
        proxy: wanted.servers.first().cloned(),
        user: None,
        cluster: None,
        identity: None,
        insecure: wanted.insecure,
    };
    let account = selection.valid_account(Utc::now())?;
    let cluster = account.cluster.clone();
    let connection = ClusterClient::new(account).await?;
    let http = connection.endpoint().auth_http(&cluster);
    Ok(Some(Api::new(cluster, connection.auth_channel(), http)))
}

/// The two things that an address may be.
struct Way {
    auth: AuthEndpoint,
    proxy: ProxyEndpoint,
}

impl Way {
    fn new(dialer: &Dialer, server: &str, keys: &KeyRing, insecure: bool) -> Result<Self> {
        let given: PartialAddress = server.parse().map_err(|e| Error::bad(format!("--auth-server: {e}")))?;
        let at = |default| HostPort::new(given.host.clone(), given.port.unwrap_or(default));
        let identity = ClientIdentity { certificate: keys.tls_certificate.clone(), key: keys.tls_key.clone() };
        let authorities = keys.tls_authorities();
        let web = web_verify(insecure, &authorities);
        let credentials = Credentials::new(ClusterCredentials {
            cluster: keys.root_cluster().to_owned(),
            identity: Some(identity),
            authorities,
        });
        let auth = AuthEndpoint::new(dialer.clone(), vec![at(AUTH_PORT)], AuthTrust::Cluster, credentials.clone());
        let proxy = ProxyEndpoint::with_credentials(dialer.clone(), at(WEB_PORT), web, credentials);
        Ok(Self { auth, proxy: proxy.with_user_agent(USER_AGENT) })
    }
}

#[derive(Clone)]
enum Protocol {
    Grpc(String),
    Http(String),
}

/// Connections to the Auth Service: at its own port, or through a proxy.
struct Reach {
    ways: Arc<[Way]>,
    protocol: Protocol,
}

impl Reach {
    /// A proxy of another cluster knows no way to ours, and cannot say so: asked who it is, it tells.
    async fn explain(&self, way: &Way, error: DialError) -> DialError {
        let (Protocol::Grpc(wanted) | Protocol::Http(wanted)) = &self.protocol;
        match tokio::time::timeout(WHO_TIMEOUT, way.proxy.find()).await {
            Ok(Ok(found)) if !found.cluster_name.is_empty() && found.cluster_name != *wanted => {
                let target = way.proxy.address().to_string();
                DialError::OtherCluster { target, found: found.cluster_name, wanted: wanted.clone() }
            }
            _ => error,
        }
    }
}

#[async_trait]
impl Connect for Reach {
    async fn connect(&self) -> Result<BoxStream, DialError> {
        let (name, service) = match &self.protocol {
            Protocol::Grpc(cluster) => (alpn::H2, Service::auth_grpc(cluster)),
            Protocol::Http(cluster) => (alpn::HTTP_1_1, Service::auth_http(cluster)),
        };
        let mut last = DialError::NoAddress;
        for way in self.ways.iter() {
            match way.auth.open(&[name]).await {
                Ok(stream) => return Ok(Box::new(stream)),
                // Nobody is there at all: the proxy's protocol would change nothing.
                Err(error @ (DialError::Resolve { .. } | DialError::Timeout { .. })) => {
                    last = error;
                    continue;
                }
                Err(error) => tracing::debug!(%error, "no Auth Service at this address; trying it as a proxy"),
            }
            match way.proxy.open(&service).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => last = self.explain(way, error).await,
            }
        }
        Err(last)
    }
}
