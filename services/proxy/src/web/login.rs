//! Logging in from the command line: password and one-time code against certificates.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::error::ErrorKind;
use wire::proto::{
    CreateAuthenticateChallengeRequest, UserCredentials, create_authenticate_challenge_request::Request,
};

use super::{ClientAddress, JsonBody, Web, WebError, WebResult, client_ip};

/// Keys for which certificates are asked, in the forms of old and new clients, and their names at the Auth Service.
const KEY_FIELDS: [(&str, &str); 3] =
    [("pub_key", "public_key"), ("ssh_pub_key", "ssh_public_key"), ("tls_pub_key", "tls_public_key")];

/// `POST /webapi/ssh/certs`.
#[derive(Deserialize)]
pub(super) struct CertificateRequest {
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    otp_token: String,
    #[serde(default)]
    headless_id: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Password, and one-time code when the cluster asks for one, against certificates.
pub(super) async fn ssh_certificates(
    State(web): State<Web>,
    Extension(client): Extension<ClientAddress>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CertificateRequest>,
) -> WebResult {
    if !request.headless_id.is_empty() {
        return Err(WebError::new(ErrorKind::NotImplemented, "headless login is not part of this build yet"));
    }
    let mut body = certificate_body(&request.user, &request.rest, client, &headers);
    match second_factor(&web).as_str() {
        "off" => {
            body.insert("pass".into(), json!({"password": encode(&request.password)}));
        }
        "otp" | "on" | "optional" => {
            body.insert("otp".into(), json!({"password": encode(&request.password), "token": request.otp_token}));
        }
        other => {
            return Err(WebError::new(ErrorKind::AccessDenied, format!("unsupported second factor type: {other:?}")));
        }
    }
    authenticate(&web, &request.user, body).await
}

/// `POST /webapi/mfa/login/begin`.
#[derive(Deserialize)]
pub(super) struct BeginRequest {
    #[serde(default)]
    user: String,
    #[serde(default)]
    pass: String,
    #[serde(default)]
    passwordless: bool,
}

/// Checks the password and says which second factors the user has.
pub(super) async fn begin(
    State(web): State<Web>,
    Extension(client): Extension<ClientAddress>,
    JsonBody(request): JsonBody<BeginRequest>,
) -> WebResult {
    if request.passwordless {
        return Err(WebError::new(ErrorKind::NotImplemented, "passwordless login is not part of this build yet"));
    }
    let credentials = UserCredentials { username: request.user, password: request.pass.into_bytes() };
    let challenge = CreateAuthenticateChallengeRequest {
        request: Some(Request::UserCredentials(credentials)),
        ..Default::default()
    };
    let challenge =
        web.upstream.challenge(challenge, client_ip(client)).await.map_err(|_| WebError::invalid_credentials())?;
    Ok(Json(json!({"webauthn_challenge": null, "totp_challenge": challenge.totp.is_some()})).into_response())
}

/// `POST /webapi/mfa/login/finish`.
#[derive(Deserialize)]
pub(super) struct FinishRequest {
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    totp_code: String,
    #[serde(default)]
    webauthn_challenge_response: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The answer to the challenge against certificates.
pub(super) async fn finish(
    State(web): State<Web>,
    Extension(client): Extension<ClientAddress>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<FinishRequest>,
) -> WebResult {
    let mut body = certificate_body(&request.user, &request.rest, client, &headers);
    if request.webauthn_challenge_response.is_some() {
        return Err(WebError::new(ErrorKind::NotImplemented, "WebAuthn is not part of this build yet"));
    }
    if request.totp_code.is_empty() {
        body.insert("pass".into(), json!({"password": encode(&request.password)}));
    } else {
        body.insert("otp".into(), json!({"password": encode(&request.password), "token": request.totp_code}));
    }
    authenticate(&web, &request.user, body).await
}

/// What auth is told about the certificates wanted and about the client.
fn certificate_body(
    user: &str,
    request: &Map<String, Value>,
    client: ClientAddress,
    headers: &HeaderMap,
) -> Map<String, Value> {
    let get = |name: &str| request.get(name).cloned().unwrap_or(Value::Null);
    let agent = headers.get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut body = Map::new();
    body.insert("username".into(), user.into());
    for (field, name) in KEY_FIELDS {
        if let Some(value) = request.get(field) {
            body.insert(name.into(), value.clone());
        }
    }
    body.insert("ttl".into(), get("ttl"));
    body.insert("compatibility_mode".into(), get("compatibility"));
    body.insert("route_to_cluster".into(), get("RouteToCluster"));
    body.insert("kubernetes_cluster".into(), get("KubernetesCluster"));
    let metadata = json!({"user_agent": agent, "remote_addr": client.0.to_string()});
    body.insert("client_metadata".into(), metadata);
    body.retain(|_, v| !v.is_null());
    body
}

async fn authenticate(web: &Web, user: &str, body: Map<String, Value>) -> WebResult {
    if user.is_empty() {
        return Err(WebError::invalid_credentials());
    }
    let mut path = String::from("/v2/users/");
    path.extend(url::form_urlencoded::byte_serialize(user.as_bytes()).map(|part| part.replace('+', "%20")));
    path.push_str("/ssh/authenticate");
    let response: Response = Json(web.upstream.post(&path, &Value::Object(body)).await?).into_response();
    Ok(response)
}

pub(super) fn second_factor(web: &Web) -> String {
    let preference = web.cache.auth_preference();
    let factor = preference.spec.as_ref().map(|s| s.second_factor.clone()).unwrap_or_default();
    if factor.is_empty() { "otp".into() } else { factor }
}

/// Bytes in JSON.
pub(super) fn encode(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
