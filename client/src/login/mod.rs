//! Logging in: password and second factor for short-lived certificates.

mod authorities;
mod messages;
mod reissue;

use std::str::FromStr;
use std::time::Duration;

use dialer::webapi::{JsonClient, PingResponse};
use dialer::{DialError, HostPort, PartialAddress, ProxyEndpoint};
use pki::suite::SignatureSuite;
use zeroize::Zeroizing;

use crate::account::Account;
use crate::cluster::{ClusterClient, USER_AGENT, dialer, web_verify};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::keys::{KeyRing, NewKeys};
use crate::profile::Profile;
use crate::text;
use messages::{
    BeginLogin, FinishLogin, LoginChallenge, LoginResponse, MessageOfTheDay, PasswordLogin, PublicKeys, Wanted,
};

pub use authorities::fetch as fetch_authorities;
pub use reissue::{exchange_requests, select_cluster, single_use_certificate};

/// How long certificates are asked for when neither the user nor the cluster says it.
const DEFAULT_TTL: Duration = Duration::from_secs(12 * 3600);

/// A login to do.
#[derive(Clone, Debug)]
pub struct LoginRequest {
    /// Address of the proxy.
    pub proxy: String,
    /// Who logs in.
    pub user: String,
    /// How: `local`, or the name of a connector. `None`: as the cluster prefers.
    pub connector: Option<String>,
    /// How long the certificates are to be valid.
    pub ttl: Option<Duration>,
    /// The cluster that commands are to be about; `None` for the root cluster.
    pub cluster: Option<String>,
    /// Whether the certificate of the web port may be anybody's.
    pub insecure: bool,
    /// Where the credentials will be kept; `None` for an identity file, whose certificates share one key.
    pub home: Option<Home>,
    /// The form of the SSH certificate, `standard` or `oldssh`; empty for what the roles say.
    pub certificate_format: String,
}

/// Asks the person who logs in.
pub trait Ask {
    /// The password of a user.
    fn password(&mut self, user: &str) -> Result<Zeroizing<String>>;
    /// A one-time code.
    fn code(&mut self) -> Result<Zeroizing<String>>;
    /// Shows the message of the day, and waits until it is acknowledged.
    fn acknowledge(&mut self, message: &str) -> Result<()>;
    /// Says something that is worth knowing.
    fn warn(&mut self, warning: &str);
}

/// A login that succeeded.
#[derive(Clone, Debug)]
pub struct Login {
    /// Who is logged in where.
    pub account: Account,
    /// What administrators want users to read, oldest first.
    pub alerts: Vec<String>,
}

/// Logs in. Nothing is written; see [`Login::save`].
pub async fn login(request: &LoginRequest, ask: &mut impl Ask) -> Result<Login> {
    let (endpoint, ping) = find_proxy(request).await?;
    check_versions(&ping, ask);
    let web = endpoint.web_client();
    if ping.auth.has_motd {
        let motd: MessageOfTheDay = web.get("/webapi/motd").await?;
        ask.acknowledge(&text::lines(&motd.text))?;
    }
    check_connector(request, &ping)?;
    let keys = new_keys(request, &ping)?;
    let wanted = wanted(request, &ping, &keys);
    let answer = authenticate(&web, &ping, request, &wanted, ask).await?;
    let keys = key_ring(&keys, &answer)?;
    let upgrade = endpoint.upgrade_required().await?;
    let account = account(request, &ping, &endpoint, keys, upgrade)?;
    complete(account).await
}

impl Login {
    /// Writes the profile, which becomes the current one, and the credentials.
    pub fn save(&self) -> Result<()> {
        self.account.save_keys()?;
        if let Some(home) = &self.account.home {
            self.account.profile.save(home, true)?;
        }
        Ok(())
    }
}

/// Finds the proxy and what it says about logins.
async fn find_proxy(request: &LoginRequest) -> Result<(ProxyEndpoint, PingResponse)> {
    let address: PartialAddress = request.proxy.parse().map_err(DialError::from)?;
    let verify = web_verify(request.insecure, &[]);
    let dialer = dialer(&verify)?;
    let (endpoint, mut ping) = ProxyEndpoint::discover(&dialer, address, &verify).await?;
    let endpoint = endpoint.with_user_agent(USER_AGENT);
    // A cluster that prefers another way says only under the connector's name what local users need.
    if let Some(name) = request.connector.as_deref().filter(|_| ping.auth.kind != "local") {
        let path =
            format!("/webapi/ping/{}", url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>());
        ping = endpoint.web_client().get(&path).await?;
    }
    Ok((endpoint, ping))
}

/// Tells the user when client and server are too far apart.
fn check_versions(ping: &PingResponse, ask: &mut impl Ask) {
    let ours = wire::VERSION;
    if is_older(ours, &ping.min_client_version) {
        let (min, server) = (text::line(&ping.min_client_version), text::line(&ping.server_version));
        ask.warn(&format!(
            "this tsh is version {ours}, and the cluster (version {server}) wants at least {min}: please update tsh"
        ));
    }
}

fn check_connector(request: &LoginRequest, ping: &PingResponse) -> Result<()> {
    let kind = ping.auth.kind.as_str();
    let name = request.connector.as_deref().unwrap_or_default();
    match (kind, name) {
        ("local", "" | "local") => Ok(()),
        ("local", other) => Err(Error::other(format!("login with {other:?} is not part of this build yet"))),
        _ => Err(Error::other(format!(
            "the cluster wants login by {}, which is not part of this build yet: local users log in with --auth=local",
            text::line(kind)
        ))),
    }
}

/// Keys of the kind that the cluster asks for.
fn new_keys(request: &LoginRequest, ping: &PingResponse) -> Result<NewKeys> {
    let suite = Some(ping.auth.signature_algorithm_suite.as_str()).filter(|s| !s.is_empty());
    let suite = suite.map(SignatureSuite::from_str).transpose().map_err(|e| Error::other(e.to_string()))?;
    let keys = match request.home {
        Some(_) => NewKeys::generate(suite),
        None => NewKeys::generate_single(suite),
    };
    keys.map_err(|e| Error::other(format!("making keys: {e}")))
}

fn wanted(request: &LoginRequest, ping: &PingResponse, keys: &NewKeys) -> Wanted {
    let announced = wire::duration::parse(&ping.auth.default_session_ttl).ok();
    let announced = announced.and_then(|ns| u64::try_from(ns).ok()).filter(|ns| *ns > 0).map(Duration::from_nanos);
    let ttl = request.ttl.or(announced).unwrap_or(DEFAULT_TTL);
    Wanted {
        keys: PublicKeys::new(keys, !ping.auth.signature_algorithm_suite.is_empty()),
        ttl: i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX),
        route_to_cluster: request.cluster.clone().unwrap_or_default(),
        compatibility: request.certificate_format.clone(),
        ..Default::default()
    }
}

/// Asks for what the cluster wants to see, and shows it.
async fn authenticate(
    web: &JsonClient,
    ping: &PingResponse,
    request: &LoginRequest,
    wanted: &Wanted,
    ask: &mut impl Ask,
) -> Result<LoginResponse> {
    let user = request.user.as_str();
    match ping.auth.second_factor.as_str() {
        factor @ ("off" | "otp") => {
            let password = ask.password(user)?;
            let code = if factor == "otp" { ask.code()? } else { Zeroizing::default() };
            let login = PasswordLogin { user, password: &password, otp_token: &code, wanted };
            Ok(web.post("/v1/webapi/ssh/certs", &login).await?)
        }
        "on" | "optional" | "webauthn" => {
            let password = ask.password(user)?;
            let begin = BeginLogin { user, pass: &password, passwordless: false };
            let challenge: LoginChallenge = web.post("/v1/webapi/mfa/login/begin", &begin).await?;
            let code = match (challenge.totp_challenge, &challenge.webauthn_challenge) {
                (true, _) => ask.code()?,
                (false, None) => Zeroizing::default(),
                (false, Some(_)) => {
                    return Err(Error::other("login with a security key is not part of this build yet"));
                }
            };
            let finish = FinishLogin { user, password: &password, totp_code: &code, wanted };
            Ok(web.post("/v1/webapi/mfa/login/finish", &finish).await?)
        }
        other => Err(Error::other(format!("the cluster wants an unknown second factor {other:?}"))),
    }
}

/// Keys with the certificates that were issued for them.
fn key_ring(keys: &NewKeys, answer: &LoginResponse) -> Result<KeyRing> {
    let (ssh_certificate, tls_certificate) = answer.certificates()?;
    let trusted = answer.trusted()?;
    if trusted.is_empty() {
        return Err(Error::other("the proxy named no authorities of its cluster"));
    }
    let for_others = |what| Error::other(format!("the proxy issued a {what} certificate for another key"));
    if tls_certificate.public_key().ok().as_ref() != Some(keys.tls.public()) {
        return Err(for_others("TLS"));
    }
    let ssh_key = pki::keys::PublicKey::from_ssh(ssh_certificate.public_key());
    if ssh_key.ok().as_ref() != Some(keys.ssh.public()) {
        return Err(for_others("SSH"));
    }
    Ok(KeyRing { ssh_key: keys.ssh.clone(), tls_key: keys.tls.clone(), ssh_certificate, tls_certificate, trusted })
}

fn account(
    request: &LoginRequest,
    ping: &PingResponse,
    endpoint: &ProxyEndpoint,
    keys: KeyRing,
    upgrade: bool,
) -> Result<Account> {
    let dialled: &HostPort = endpoint.address();
    let cluster = request.cluster.clone().unwrap_or_else(|| keys.root_cluster().to_owned());
    let ssh = ping.proxy.ssh_address(dialled).map_err(DialError::from)?;
    let profile = Profile {
        web_proxy_addr: dialled.to_string(),
        ssh_proxy_addr: ssh.to_string(),
        kube_proxy_addr: ping.proxy.kube.public_addr.clone(),
        postgres_proxy_addr: ping.proxy.db.postgres_public_addr.clone(),
        mysql_proxy_addr: ping.proxy.db.mysql_public_addr.clone(),
        mongo_proxy_addr: ping.proxy.db.mongo_public_addr.clone(),
        username: request.user.clone(),
        site_name: cluster.clone(),
        tls_routing_enabled: ping.proxy.tls_routing_enabled,
        tls_routing_conn_upgrade_required: upgrade,
        auth_connector: request.connector.clone().unwrap_or_else(|| "local".to_owned()),
        load_all_cas: ping.auth.load_all_cas,
        private_key_policy: ping.auth.private_key_policy.clone(),
        ..Default::default()
    };
    let username = request.user.clone();
    Ok(Account {
        profile,
        keys,
        username,
        cluster,
        home: request.home.clone(),
        insecure: request.insecure,
        proxy_cluster: None,
    })
}

/// Learns from the cluster what the proxy does not know.
async fn complete(mut account: Account) -> Result<Login> {
    let client = ClusterClient::new(account.clone()).await?;
    let (trusted, alerts) = tokio::join!(fetch_authorities(&client), login_alerts(&client));
    account.keys.trusted = trusted?;
    Ok(Login { account, alerts })
}

/// What administrators want users to read when they log in. A cluster that does not answer has nothing to say.
async fn login_alerts(client: &ClusterClient) -> Vec<String> {
    let labels = [("teleport.internal/alert-on-login".to_owned(), "yes".to_owned())].into();
    let request = wire::types::GetClusterAlertsRequest { labels, ..Default::default() };
    match client.root_auth().get_cluster_alerts(request).await {
        Ok(answer) => {
            let alerts = answer.into_inner().alerts.into_iter();
            let messages = alerts.filter_map(|alert| alert.spec).map(|spec| text::lines(&spec.message).into_owned());
            messages.collect()
        }
        Err(status) => {
            tracing::debug!(%status, "no cluster alerts");
            Vec::new()
        }
    }
}

/// Whether a semantic version is lower than another. Versions that are none compare as equal.
fn is_older(version: &str, than: &str) -> bool {
    let key = |version: &str| {
        let (numbers, pre) = version.split_once('-').map_or((version, None), |(n, p)| (n, Some(p.to_owned())));
        let parts: Vec<u64> = numbers.split('.').map_while(|part| part.parse().ok()).collect();
        // A release is higher than its pre-releases.
        (parts.len() == 3).then_some((parts, pre.is_none(), pre))
    };
    match (key(version), key(than)) {
        (Some(version), Some(than)) => version < than,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (older, newer) in
            [("16.9.9", "17.0.0"), ("17.0.0-aa", "17.0.0"), ("9.0.0", "10.0.0"), ("17.0.0-aa", "17.0.0-dev")]
        {
            assert!(is_older(older, newer) && !is_older(newer, older), "{older} {newer}");
        }
        assert!(!is_older("17.0.0", "17.0.0") && !is_older("17.0.0", "") && !is_older("x", "17.0.0"));
        assert!(!is_older("17.0.0", "16.0.0-aa"));
    }
}
