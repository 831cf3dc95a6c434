//! Joining a cluster with a token.
//!
//! A token is a secret, so it is shown only to a server that has proven itself: by its public certificate, by the
//! pin of the cluster's authority, or because the administrator chose not to ask (`--insecure`).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dialer::webapi::{JsonClient, RequestError};
use dialer::{
    AuthEndpoint, AuthTrust, ClusterCredentials, Credentials, Dialer, HostPort, ProxyEndpoint, Service, Verify,
};
use pki::pin::check_pins;
use pki::x509::Certificate;
use serde::Deserialize;
use tonic::Request;
use tracing::warn;
use wire::client::api_channel;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::types::RegisterUsingTokenRequest;

use crate::identity::{HostIdentity, IdentityError, NewHostKeys, Parts};

/// What a host asks for.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Name of the role, such as `Node`.
    pub role: String,
    /// UUID of the host.
    pub host_uuid: String,
    /// Name of the host.
    pub node_name: String,
    /// The token.
    pub token: Arc<zeroize::Zeroizing<String>>,
    /// Names and addresses the certificates are to be good for.
    pub principals: Vec<String>,
    /// DNS names beyond the principals.
    pub dns_names: Vec<String>,
}

/// Why a host did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The cluster refused.
    #[error("joining as {role}: {message}")]
    Refused {
        /// The role asked for.
        role: String,
        /// The cluster's words.
        message: String,
    },
    /// The cluster could not be reached.
    #[error("joining: {0}")]
    Unreachable(String),
    /// Another cluster answers than the one that was pinned.
    #[error("the cluster's authority does not match the given CA pin: {0}")]
    Pin(String),
    /// What came back is unusable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Keys could not be made.
    #[error("making keys: {0}")]
    Keys(String),
}

impl JoinError {
    /// Whether another attempt may succeed without anybody changing anything.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

/// Certificates as the HTTP interface reports them; all fields are base64.
#[derive(Deserialize)]
struct Certificates {
    ssh: String,
    tls: String,
    tls_ca_certs: Vec<String>,
    ssh_ca_certs: Vec<String>,
}

/// Joins through a proxy's public port.
///
/// With pins the cluster's authority is fetched and checked first, and the token goes to the Auth Service over a
/// connection that this authority vouches for: a false proxy learns nothing.
pub async fn join_through_proxy(
    dialer: &Dialer,
    address: &HostPort,
    web: Verify,
    pins: &[String],
    request: &JoinRequest,
) -> Result<HostIdentity, JoinError> {
    if pins.is_empty() {
        let proxy = ProxyEndpoint::new(dialer.clone(), address.clone(), web);
        return register(&proxy.web_client(), "/v1/webapi/host/credentials", request).await;
    }
    let unverified = ProxyEndpoint::new(dialer.clone(), address.clone(), Verify::Insecure);
    let cluster = unverified.find().await.map_err(|e| failed(e, request))?.cluster_name;
    let passage = pki::cluster_name::auth_alpn(&cluster);
    let channel = unverified.channel(Service::web(&[&passage, "h2"]));
    let authorities = pinned_authorities(channel, pins).await?;
    let credentials = Credentials::new(ClusterCredentials { cluster: cluster.clone(), identity: None, authorities });
    let verified = ProxyEndpoint::with_credentials(dialer.clone(), address.clone(), web, credentials);
    register(&verified.auth_http(&cluster), "/v2/tokens/register", request).await
}

/// Joins at the Auth Service itself.
pub async fn join_at_auth(
    dialer: &Dialer,
    addresses: &[HostPort],
    pins: &[String],
    request: &JoinRequest,
) -> Result<HostIdentity, JoinError> {
    let nobody = Credentials::new(ClusterCredentials::default());
    let unverified = AuthEndpoint::new(dialer.clone(), addresses.to_vec(), AuthTrust::Anyone, nobody);
    if pins.is_empty() {
        warn!("joining without a CA pin: the Auth Service cannot be told from somebody in its place");
        return register(&unverified.http(), "/v2/tokens/register", request).await;
    }
    let authorities = pinned_authorities(unverified.channel(), pins).await?;
    let cluster = authorities.first().and_then(Certificate::common_name).unwrap_or_default().to_owned();
    let credentials = Credentials::new(ClusterCredentials { cluster, identity: None, authorities });
    let verified = AuthEndpoint::new(dialer.clone(), addresses.to_vec(), AuthTrust::Cluster, credentials);
    register(&verified.http(), "/v2/tokens/register", request).await
}

/// The cluster's authorities, if each of them is one that was pinned.
async fn pinned_authorities(
    channel: tonic::transport::Channel,
    pins: &[String],
) -> Result<Vec<Certificate>, JoinError> {
    let mut client = AuthServiceClient::new(api_channel(channel));
    let answer = client.get_cluster_ca_cert(Request::new(())).await;
    let pem = answer.map_err(|status| JoinError::Unreachable(status.message().to_owned()))?.into_inner().tlsca;
    let certificates = Certificate::bundle_from_pem(&String::from_utf8_lossy(&pem));
    let certificates = certificates.map_err(|e| JoinError::Pin(e.to_string()))?;
    check_pins(&certificates, pins).map_err(|e| JoinError::Pin(e.to_string()))?;
    Ok(certificates)
}

/// Shows the token and takes the certificates.
async fn register(http: &JsonClient, path: &str, request: &JoinRequest) -> Result<HostIdentity, JoinError> {
    let made = tokio::task::spawn_blocking(NewHostKeys::generate).await;
    let keys = made.map_err(|e| JoinError::Keys(e.to_string()))?.map_err(|e| JoinError::Keys(e.to_string()))?;
    let body = RegisterUsingTokenRequest {
        host_id: request.host_uuid.clone(),
        node_name: request.node_name.clone(),
        role: request.role.clone(),
        token: request.token.as_str().to_owned(),
        additional_principals: request.principals.clone(),
        dns_names: request.dns_names.clone(),
        public_tls_key: keys.tls.public().to_pem().into_bytes(),
        public_ssh_key: keys.ssh.public().to_ssh_line().into_bytes(),
        ..Default::default()
    };
    let answer: Certificates = http.post(path, &body).await.map_err(|e| failed(e, request))?;
    let decode = |text: &String| {
        STANDARD.decode(text).map_err(|e| JoinError::Unreachable(format!("the answer is not base64: {e}")))
    };
    let list = |texts: &[String]| texts.iter().map(decode).collect::<Result<Vec<_>, _>>();
    let (tls_authorities, ssh_authorities) = (list(&answer.tls_ca_certs)?, list(&answer.ssh_ca_certs)?);
    let parts = Parts {
        ssh: &decode(&answer.ssh)?,
        tls: &decode(&answer.tls)?,
        tls_authorities: &tls_authorities,
        ssh_authorities: &ssh_authorities,
    };
    Ok(HostIdentity::assemble(keys, &parts)?)
}

fn failed(error: RequestError, request: &JoinRequest) -> JoinError {
    match error.api() {
        Some(api) if (400..500).contains(&api.status) && api.status != 429 => {
            JoinError::Refused { role: request.role.clone(), message: api.message.clone() }
        }
        Some(api) => JoinError::Unreachable(api.message.clone()),
        None => JoinError::Unreachable(error.to_string()),
    }
}
