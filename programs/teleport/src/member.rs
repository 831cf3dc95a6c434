//! How the services of this process become members of the cluster, and reach its Auth Service.

use std::sync::Arc;
use std::time::Duration;

use auth_service::{Auth, LocalIdentityRequest, SystemRole};
use cache::Cache;
use config::{Config, HostPort, JoinMethod, Secret, Server};
use dialer::webapi::JsonClient;
use dialer::{AuthEndpoint, AuthTrust, Credentials, Dialer, Line, ProxyEndpoint, Service, Verify};
use process::{HostIdentity, IdentityStore, JoinError, JoinRequest, TunnelDialer, join_at_auth, join_through_proxy};
use tokio::time::sleep;
use tracing::{error, info, warn};
use wire::client::{ApiChannel, api_channel};
use zeroize::Zeroizing;

use crate::error::{Failure, Result};
use crate::exchange::WebExchange;
use crate::rotation::{Identities, Serve};

/// Waits between attempts to join while the cluster is out of reach.
const OUT_OF_REACH: Retry = Retry { first: Duration::from_millis(500), longest: Duration::from_secs(10) };
/// Waits between attempts after a refusal: an administrator may still make the token, but nobody wants an audit log full
/// of attempts until then.
const REFUSED: Retry = Retry { first: Duration::from_secs(2), longest: Duration::from_secs(60) };

/// Waits that double from the first to the longest.
struct Retry {
    first: Duration,
    longest: Duration,
}

impl Retry {
    /// The wait after so many attempts, some of it left to chance.
    fn wait(&self, attempts: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempts.min(16));
        mux::listener::jittered(doubled.min(self.longest))
    }
}

/// What every service of this process has in common.
pub struct Process {
    pub config: Config,
    pub host_uuid: String,
    pub store: Arc<IdentityStore>,
    pub dialer: Dialer,
    /// The Auth Service, when it runs in this process.
    pub auth: Option<Auth>,
    /// Where it listens then.
    pub local_auth: Vec<HostPort>,
}

/// The way to the cluster.
#[derive(Clone)]
pub enum Route {
    /// To the Auth Service itself.
    Auth(Vec<HostPort>),
    /// Through a proxy's public port.
    Proxy(HostPort),
}

/// A service's identity and its connections to the Auth Service.
pub struct Member {
    pub identity: HostIdentity,
    pub route: Route,
    pub channel: ApiChannel,
    /// What the channel's connection is on.
    pub line: Line,
    pub http: JsonClient,
    /// The way to the proxies' tunnel port, when the way leads through proxies.
    pub tunnel: Option<Arc<TunnelDialer>>,
    /// What is shown on that way; follows the identity when it is renewed.
    pub credentials: Credentials,
    /// What the identity's certificates were asked for.
    pub names: Names,
}

/// The names a service asks its certificates for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub principals: Vec<String>,
    pub dns_names: Vec<String>,
}

impl Process {
    /// Becomes a member in a role: from storage, from the Auth Service in this process, or by joining.
    pub async fn member(&self, role: SystemRole, names: Names) -> Result<Member> {
        let route = self.route().await?;
        let wanted = names.clone();
        let identity = match &self.auth {
            Some(auth) => {
                let request = LocalIdentityRequest {
                    host_uuid: self.host_uuid.clone(),
                    node_name: self.config.global.nodename.clone(),
                    additional_principals: names.principals,
                    dns_names: names.dns_names,
                    ..Default::default()
                };
                crate::auth::identity(auth, &self.store, role, request).await?
            }
            None => self.load_or_join(role, names, &route).await?,
        };
        let agent = format!("teleport/{}", wire::VERSION);
        let credentials = identity.credentials();
        let line = Line::default();
        let (channel, http, tunnel) = match &route {
            Route::Auth(addresses) => {
                let addresses = addresses.iter().map(host_port).collect();
                let endpoint =
                    AuthEndpoint::new(self.dialer.clone(), addresses, AuthTrust::Cluster, credentials.clone());
                let endpoint = endpoint.with_user_agent(&agent);
                (endpoint.channel_on(&line), endpoint.http(), None)
            }
            Route::Proxy(address) => {
                let address = host_port(address);
                let endpoint =
                    ProxyEndpoint::with_credentials(self.dialer.clone(), address, self.verify(), credentials.clone());
                let endpoint = endpoint.with_user_agent(&agent);
                let http = endpoint.auth_http(&identity.cluster);
                let auth = endpoint.connector(Service::auth_grpc(&identity.cluster));
                let tunnel = TunnelDialer::new(endpoint, self.dialer.clone());
                let channel = dialer::channel(line.over(tunnel.after_tunnel(auth)), Some(&agent));
                (channel, http, Some(Arc::new(tunnel)))
            }
        };
        Ok(Member { identity, route, channel: api_channel(channel), line, http, tunnel, credentials, names: wanted })
    }

    /// What keeps a member's identity current.
    pub fn identities(&self, member: Member, cache: Cache, serve: Serve) -> Identities {
        Identities {
            client: member.identity.clone(),
            server: member.identity,
            credentials: member.credentials,
            store: self.store.clone(),
            channel: member.channel,
            line: member.line,
            cache,
            node_name: self.config.global.nodename.clone(),
            names: member.names,
            serve,
        }
    }

    /// The way to the proxies of other clusters.
    pub fn exchange(&self) -> WebExchange {
        WebExchange::new(self.dialer.clone(), self.verify())
    }

    /// How certificates of proxies are verified.
    pub fn verify(&self) -> Verify {
        if self.config.insecure { Verify::Insecure } else { Verify::System }
    }

    async fn load_or_join(&self, role: SystemRole, names: Names, route: &Route) -> Result<HostIdentity> {
        if let Some(identity) = self.store.load(role.name()).await? {
            let now = std::time::SystemTime::now().into();
            if identity.host_uuid == self.host_uuid && identity.is_valid_at(now) {
                return Ok(identity);
            }
        }
        let identity = self.join(role, names, route).await?;
        info!(role = role.name(), cluster = identity.cluster, "joined the cluster");
        self.store.save(&identity).await?;
        Ok(identity)
    }

    async fn join(&self, role: SystemRole, names: Names, route: &Route) -> Result<HostIdentity> {
        let join = self.config.global.join.as_ref();
        let join = join
            .ok_or_else(|| Failure(format!("joining as {}: no token given: set teleport.join_params", role.name())))?;
        if join.method != JoinMethod::Token {
            let method = join.method.as_str();
            return Err(Failure(format!(
                "teleport.join_params.method: {method} is not part of this build yet, use token"
            )));
        }
        let token = join.token.as_ref().ok_or_else(|| Failure("teleport.join_params.token_name: missing".into()))?;
        let mut request = JoinRequest {
            role: role.name().to_owned(),
            host_uuid: self.host_uuid.clone(),
            node_name: self.config.global.nodename.clone(),
            token: secret(&token.read().map_err(Failure::new)?),
            principals: names.principals,
            dns_names: names.dns_names,
        };
        let (mut unreached, mut refused) = (0, 0);
        loop {
            let wait = match self.join_once(&request, route).await {
                Ok(identity) => return Ok(identity),
                Err(error) if error.is_temporary() => {
                    let wait = OUT_OF_REACH.wait(unreached);
                    warn!(%error, "cluster out of reach: trying again");
                    unreached += 1;
                    wait
                }
                Err(error) => {
                    let wait = REFUSED.wait(refused);
                    error!(%error, retry_seconds = wait.as_secs(), "the cluster does not take this process in");
                    (unreached, refused) = (0, refused + 1);
                    wait
                }
            };
            sleep(wait).await;
            // Whoever replaces an old token in its file by a good one need not restart anything.
            match token.read() {
                Ok(read) => request.token = secret(&read),
                Err(error) => warn!(%error, "the token's file cannot be read"),
            }
        }
    }

    async fn join_once(&self, request: &JoinRequest, route: &Route) -> Result<HostIdentity, JoinError> {
        let pins = &self.config.global.ca_pins;
        match route {
            Route::Auth(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(host_port).collect();
                join_at_auth(&self.dialer, &addresses, pins, request).await
            }
            Route::Proxy(address) => {
                join_through_proxy(&self.dialer, &host_port(address), self.verify(), pins, request).await
            }
        }
    }

    /// The way to the cluster. In old files an address may be the Auth Service's or a proxy's: it is asked.
    async fn route(&self) -> Result<Route> {
        if self.auth.is_some() {
            return Ok(Route::Auth(self.local_auth.clone()));
        }
        match &self.config.global.server {
            Some(Server::Auth(address)) => Ok(Route::Auth(vec![address.clone()])),
            Some(Server::Proxy(address)) => Ok(Route::Proxy(address.clone())),
            Some(Server::Any(addresses)) => {
                for address in addresses {
                    let endpoint = ProxyEndpoint::new(self.dialer.clone(), host_port(address), self.verify());
                    if endpoint.find().await.is_ok_and(|found| !found.cluster_name.is_empty()) {
                        return Ok(Route::Proxy(address.clone()));
                    }
                }
                Ok(Route::Auth(addresses.clone()))
            }
            None => Err(Failure(
                "neither an Auth Service nor a proxy is configured: set teleport.auth_server or teleport.proxy_server"
                    .into(),
            )),
        }
    }
}

fn secret(token: &Secret) -> Arc<Zeroizing<String>> {
    Arc::new(Zeroizing::new(token.expose().to_owned()))
}

/// An address of the configuration as the dialer takes it.
pub fn host_port(address: &HostPort) -> dialer::HostPort {
    dialer::HostPort::new(address.host.clone(), address.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        for attempts in 0..100 {
            let most = REFUSED.first.saturating_mul(1 << attempts.min(16)).min(REFUSED.longest);
            let wait = REFUSED.wait(attempts);
            assert!(wait <= most && wait >= most / 2, "{attempts}: {wait:?}");
        }
    }
}
