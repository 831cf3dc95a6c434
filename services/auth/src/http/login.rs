//! Logins that a proxy passes on, and the sessions of browsers.

use std::{collections::HashMap, time::Duration};

use axum::extract::{Path, State};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use resources::SystemRole;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use wire::{
    error::{Error, Result},
    types::WebSessionV2,
};
use zeroize::Zeroizing;

use super::{
    answer::{Answer, Done, Json, done},
    caller::By,
    cluster::part,
};
use crate::{
    Auth, Credentials, LoginClient, PublicKeys, SshLogin, SshLoginResponse, TrustedCertificates, WebSessionRequest,
};

/// How a user proves who it is. Bytes are in base64.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Proof {
    pass: Option<Password>,
    otp: Option<OneTimeCode>,
    webauthn: Option<Value>,
    session: Option<Value>,
    client_metadata: Option<ClientMetadata>,
    headless_authentication_id: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Password {
    #[serde(deserialize_with = "bytes")]
    password: Zeroizing<Vec<u8>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OneTimeCode {
    #[serde(deserialize_with = "bytes")]
    password: Zeroizing<Vec<u8>>,
    token: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClientMetadata {
    user_agent: String,
    remote_addr: String,
}

/// A login from the command line.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SshRequest {
    #[serde(flatten)]
    proof: Proof,
    /// One key for SSH and TLS, an authorized_keys line.
    #[serde(deserialize_with = "text")]
    public_key: String,
    /// The SSH key alone, an authorized_keys line.
    #[serde(deserialize_with = "text")]
    ssh_public_key: String,
    /// The TLS key alone, PEM.
    #[serde(deserialize_with = "text")]
    tls_public_key: String,
    /// Nanoseconds.
    ttl: i64,
    compatibility_mode: String,
    route_to_cluster: String,
    kubernetes_cluster: String,
}

/// A login of a browser.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WebRequest {
    #[serde(flatten)]
    proof: Proof,
}

/// The continuation of a session.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SessionRequest {
    prev_session_id: String,
    access_request_id: String,
    switchback: bool,
    reload_user: bool,
}

/// What a login from the command line gets. Bytes are in base64.
#[derive(Serialize)]
pub(super) struct SshAnswer {
    username: String,
    cert: String,
    tls_cert: String,
    host_signers: Vec<HostSigner>,
    #[serde(rename = "samlSingleLogoutEnabled")]
    saml_single_logout_enabled: bool,
}

#[derive(Serialize)]
struct HostSigner {
    domain_name: String,
    checking_keys: Vec<String>,
    tls_certs: Vec<String>,
}

/// `POST /users/<user>/ssh/authenticate`.
pub(super) async fn ssh(
    State(auth): State<Auth>,
    by: By,
    Path(path): Path<HashMap<String, String>>,
    Json(request): Json<SshRequest>,
) -> Answer<SshAnswer> {
    by.service(&[SystemRole::Proxy])?;
    let keys = request.keys()?;
    let client = request.proof.client();
    let login = SshLogin {
        credentials: request.proof.credentials(part(&path, "user")?)?,
        client,
        keys,
        ttl: Duration::from_nanos(u64::try_from(request.ttl).unwrap_or(0)),
        compatibility: request.compatibility_mode,
        route_to_cluster: request.route_to_cluster,
        kubernetes_cluster: request.kubernetes_cluster,
    };
    Ok(Json(auth.authenticate_ssh_user(login).await?.into()))
}

/// `POST /users/<user>/web/authenticate`.
pub(super) async fn web(
    State(auth): State<Auth>,
    by: By,
    Path(path): Path<HashMap<String, String>>,
    Json(request): Json<WebRequest>,
) -> Answer<WebSessionV2> {
    by.service(&[SystemRole::Proxy])?;
    let client = request.proof.client();
    let credentials = request.proof.credentials(part(&path, "user")?)?;
    Ok(Json(auth.authenticate_web_user(credentials, client).await?))
}

/// `POST /users/<user>/web/sessions`.
pub(super) async fn extend_session(
    State(auth): State<Auth>,
    by: By,
    Path(path): Path<HashMap<String, String>>,
    Json(request): Json<SessionRequest>,
) -> Answer<WebSessionV2> {
    let user = part(&path, "user")?;
    by.user_or_proxy(user)?;
    if request.prev_session_id.is_empty() {
        return Err(Error::bad_parameter("missing parameter prev_session_id: sessions begin with a login").into());
    }
    if !request.access_request_id.is_empty() || request.switchback {
        return Err(Error::not_implemented("sessions cannot take over access requests yet").into());
    }
    let request = WebSessionRequest {
        user: user.to_owned(),
        previous_session: request.prev_session_id,
        reload_user: request.reload_user,
    };
    Ok(Json(auth.extend_web_session(&request).await?))
}

/// `GET /users/<user>/web/sessions/<id>`.
pub(super) async fn session(
    State(auth): State<Auth>,
    by: By,
    Path(path): Path<HashMap<String, String>>,
) -> Answer<WebSessionV2> {
    let user = part(&path, "user")?;
    by.user_or_proxy(user)?;
    Ok(Json(auth.get_web_session(user, part(&path, "id")?).await?))
}

/// `DELETE /users/<user>/web/sessions/<id>`.
pub(super) async fn delete_session(
    State(auth): State<Auth>,
    by: By,
    Path(path): Path<HashMap<String, String>>,
) -> Answer<Done> {
    let user = part(&path, "user")?;
    by.user_or_proxy(user)?;
    auth.delete_web_session(user, part(&path, "id")?).await?;
    Ok(done())
}

impl Proof {
    fn credentials(self, user: &str) -> Result<Credentials> {
        if self.session.is_some() {
            return Err(Error::not_implemented("logins with a session of the web interface are not supported"));
        }
        if !self.headless_authentication_id.is_empty() {
            return Err(Error::not_implemented("headless logins are not supported yet"));
        }
        let (password, otp) = match (self.otp, self.pass) {
            (Some(code), _) => (code.password, code.token),
            (None, Some(pass)) => (pass.password, String::new()),
            (None, None) => Default::default(),
        };
        let webauthn = self.webauthn.is_some_and(|answer| !answer.is_null());
        Ok(Credentials { username: user.to_owned(), password, otp, webauthn })
    }

    fn client(&self) -> LoginClient {
        let client = self.client_metadata.as_ref();
        LoginClient {
            user_agent: client.map(|c| c.user_agent.clone()).unwrap_or_default(),
            remote_addr: client.map(|c| c.remote_addr.clone()).unwrap_or_default(),
        }
    }
}

impl SshRequest {
    fn keys(&self) -> Result<PublicKeys> {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        match (given(&self.public_key), given(&self.ssh_public_key), given(&self.tls_public_key)) {
            (Some(one), None, None) => PublicKeys::one(&one),
            (None, ssh, tls) if ssh.is_some() || tls.is_some() => Ok(PublicKeys { ssh, tls }),
            (None, None, None) => Err(Error::bad_parameter("missing parameter public_key")),
            _ => Err(Error::bad_parameter("public_key cannot be given together with ssh_public_key or tls_public_key")),
        }
    }
}

impl From<SshLoginResponse> for SshAnswer {
    fn from(response: SshLoginResponse) -> Self {
        Self {
            username: response.username,
            cert: STANDARD.encode(&response.cert),
            tls_cert: STANDARD.encode(&response.tls_cert),
            host_signers: response.host_signers.into_iter().map(HostSigner::from).collect(),
            saml_single_logout_enabled: false,
        }
    }
}

impl From<TrustedCertificates> for HostSigner {
    fn from(trusted: TrustedCertificates) -> Self {
        let list = |items: Vec<Vec<u8>>| items.iter().map(|item| STANDARD.encode(item)).collect();
        Self {
            domain_name: trusted.cluster_name,
            checking_keys: list(trusted.authorized_keys),
            tls_certs: list(trusted.tls_certificates),
        }
    }
}

/// Bytes in base64; `null` is none.
fn bytes<'de, D: Deserializer<'de>>(d: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
    let encoded = Zeroizing::new(Option::<String>::deserialize(d)?.unwrap_or_default());
    STANDARD.decode(encoded.as_bytes()).map(Zeroizing::new).map_err(|_| serde::de::Error::custom("expected base64"))
}

/// Text in base64; `null` is none.
fn text<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    String::from_utf8(bytes(d)?.to_vec()).map_err(|_| serde::de::Error::custom("expected text in base64"))
}
