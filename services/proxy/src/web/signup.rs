//! Passwords: accepting an invitation with one and a one-time-code device, and changing it later.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use wire::error::ErrorKind;
use wire::proto::{
    ChangePasswordRequest, ChangeUserAuthenticationRequest, CreateRegisterChallengeRequest, DeviceType,
    MfaRegisterResponse, TotpRegisterResponse, mfa_register_challenge, mfa_register_response,
};

use super::user::WebUser;
use super::{ClientAddress, JsonBody, Web, WebError, WebResult, check_csrf, client_ip, session};

/// What everybody with a bad link is told.
fn bad_token() -> WebError {
    WebError::new(ErrorKind::AccessDenied, "bad or expired token")
}

/// `POST /webapi/mfa/token/{token}/registerchallenge`.
#[derive(Deserialize)]
pub(super) struct RegisterRequest {
    #[serde(default, rename = "deviceType")]
    device_type: String,
}

/// Begins the registration of a device for the holder of a token.
pub(super) async fn register_challenge(
    State(web): State<Web>,
    Extension(client): Extension<ClientAddress>,
    Path(token): Path<String>,
    JsonBody(request): JsonBody<RegisterRequest>,
) -> WebResult {
    match request.device_type.as_str() {
        "totp" => {
            let totp = totp_challenge(&web, client, token).await?;
            Ok(Json(json!({"totp": {"qrCode": totp.qr_code, "secret": totp.secret}})).into_response())
        }
        "webauthn" => Err(WebError::new(ErrorKind::NotImplemented, "WebAuthn is not part of this build yet")),
        other => {
            Err(WebError::new(ErrorKind::BadParameter, format!("unsupported device type {other:?}: expected totp")))
        }
    }
}

/// `GET /webapi/users/password/token/{token}`: whose token it is, and a device to register with it.
pub(super) async fn token(
    State(web): State<Web>,
    Extension(client): Extension<ClientAddress>,
    Path(token): Path<String>,
) -> WebResult {
    let found = web.upstream.reset_password_token(token.clone(), client_ip(client)).await.map_err(|_| bad_token())?;
    let user = found.spec.map(|s| s.user).unwrap_or_default();
    let totp = totp_challenge(&web, client, token.clone()).await.unwrap_or_default();
    let answer = json!({"tokenId": token, "user": user, "qrCode": totp.qr_code, "secret": totp.secret});
    Ok(Json(answer).into_response())
}

/// A one-time-code device to register: as a picture, and as text for those who cannot scan it.
#[derive(Default)]
struct TotpDevice {
    /// PNG, base64.
    qr_code: String,
    /// The secret, base32.
    secret: String,
}

async fn totp_challenge(web: &Web, client: ClientAddress, token: String) -> WebResult<TotpDevice> {
    let request =
        CreateRegisterChallengeRequest { token_id: token, device_type: DeviceType::Totp as i32, ..Default::default() };
    let challenge = web.upstream.register_challenge(request, client_ip(client)).await?;
    match challenge.request {
        Some(mfa_register_challenge::Request::Totp(totp)) => {
            Ok(TotpDevice { qr_code: STANDARD.encode(totp.qr_code), secret: totp.secret })
        }
        _ => Err(WebError::new(ErrorKind::Other, "the cluster offered no one-time-code device")),
    }
}

/// `PUT /webapi/users/password/token`.
#[derive(Deserialize)]
pub(super) struct AcceptRequest {
    token: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    second_factor_token: String,
    #[serde(default, rename = "deviceName")]
    device_name: String,
    #[serde(default, rename = "webauthnCreationResponse")]
    webauthn: Option<serde_json::Value>,
}

/// Sets the password and registers the device, both or neither, and logs the user in.
pub(super) async fn accept(
    State(web): State<Web>,
    Extension(client): Extension<ClientAddress>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<AcceptRequest>,
) -> WebResult {
    check_csrf(&headers)?;
    if request.webauthn.as_ref().is_some_and(|w| !w.is_null()) {
        return Err(WebError::new(ErrorKind::NotImplemented, "WebAuthn is not part of this build yet"));
    }
    let password = decoded("password", &request.password)?;
    let device = (!request.second_factor_token.is_empty()).then(|| MfaRegisterResponse {
        response: Some(mfa_register_response::Response::Totp(TotpRegisterResponse {
            code: request.second_factor_token,
            ..Default::default()
        })),
    });
    let change = ChangeUserAuthenticationRequest {
        token_id: request.token,
        new_password: password,
        new_mfa_register_response: device,
        new_device_name: request.device_name,
        login_ip: client_ip(client).to_string(),
    };
    let changed = web.upstream.change_user_authentication(change, client_ip(client)).await?;
    let mut response =
        Json(json!({"recovery": {"codes": null, "created": null}, "privateKeyPolicyEnabled": false})).into_response();
    if let Some(web_session) = changed.web_session {
        session::set_cookie(&mut response, &web_session);
    }
    Ok(response)
}

/// `PUT /webapi/users/password`.
#[derive(Deserialize)]
pub(super) struct ChangeRequest {
    #[serde(default)]
    old_password: String,
    #[serde(default)]
    new_password: String,
    #[serde(default)]
    second_factor_token: String,
    #[serde(default, rename = "webauthnAssertionResponse")]
    webauthn: Option<serde_json::Value>,
}

/// Gives somebody who is logged in another password, for the old one and a second factor.
pub(super) async fn change_password(
    State(web): State<Web>,
    user: WebUser,
    JsonBody(request): JsonBody<ChangeRequest>,
) -> WebResult {
    if request.webauthn.as_ref().is_some_and(|w| !w.is_null()) {
        return Err(WebError::new(ErrorKind::NotImplemented, "WebAuthn is not part of this build yet"));
    }
    let change = ChangePasswordRequest {
        user: user.name.clone(),
        old_password: decoded("old_password", &request.old_password)?,
        new_password: decoded("new_password", &request.new_password)?,
        second_factor_token: request.second_factor_token,
        ..Default::default()
    };
    let cluster = web.cache.cluster_name();
    user.ask(&cluster, |mut auth| async move { auth.change_password(change).await }).await?;
    Ok(Json(json!({"message": "ok"})).into_response())
}

/// Bytes of a JSON field.
fn decoded(field: &str, text: &str) -> WebResult<Vec<u8>> {
    STANDARD.decode(text).map_err(|_| WebError::new(ErrorKind::BadParameter, format!("{field}: expected base64")))
}
