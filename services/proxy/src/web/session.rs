//! Sessions of the browser.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::error::ErrorKind;
use wire::types::WebSessionV2;

use super::login::{encode, second_factor};
use super::{ClientAddress, JsonBody, Web, WebError, WebResult, check_csrf, cookie};

/// The cookie that names a session.
pub(super) const SESSION_COOKIE: &str = "__Host-session";

/// `POST /webapi/sessions/web`.
#[derive(Deserialize)]
pub(super) struct CreateRequest {
    #[serde(default)]
    user: String,
    #[serde(default)]
    pass: String,
    #[serde(default)]
    second_factor_token: String,
}

/// Logs in with a password and a one-time code.
pub(super) async fn create(
    State(web): State<Web>,
    Extension(client): Extension<ClientAddress>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CreateRequest>,
) -> WebResult {
    check_csrf(&headers)?;
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut body = json!({
        "username": request.user,
        "client_metadata": {"user_agent": agent, "remote_addr": client.0.to_string()},
    });
    let password = encode(&request.pass);
    if second_factor(&web) == "off" {
        body["pass"] = json!({"password": password});
    } else {
        body["otp"] = json!({"password": password, "token": request.second_factor_token});
    }
    let mut path = String::from("/v2/users/");
    path.extend(url::form_urlencoded::byte_serialize(request.user.as_bytes()).map(|p| p.replace('+', "%20")));
    path.push_str("/web/authenticate");
    let session = web.upstream.post(&path, &body).await.map_err(|_| WebError::invalid_credentials())?;
    let session: WebSessionV2 =
        serde_json::from_value(session).map_err(|e| WebError::new(ErrorKind::Other, format!("session: {e}")))?;
    let mut response = Json(describe(&session)).into_response();
    set_cookie(&mut response, &session);
    Ok(response)
}

/// Logs out: the session ends here and at auth.
pub(super) async fn delete(State(web): State<Web>, headers: HeaderMap) -> WebResult {
    let missing = || WebError::new(ErrorKind::AccessDenied, "missing session cookie");
    let (user, id) = cookie(&headers, SESSION_COOKIE).and_then(decode_cookie).ok_or_else(missing)?;
    let found =
        web.upstream.web_session(&user, &id).await.map_err(|_| WebError::new(ErrorKind::AccessDenied, "need auth"))?;
    let bearer =
        headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let expected = found.spec.map(|s| s.bearer_token).unwrap_or_default();
    let valid = bearer.is_some_and(|b| {
        !expected.is_empty() && bool::from(subtle::ConstantTimeEq::ct_eq(b.as_bytes(), expected.as_bytes()))
    });
    if !valid {
        return Err(WebError::new(ErrorKind::AccessDenied, "bad bearer token"));
    }
    web.upstream.delete_web_session(&user, &id).await?;
    let mut response = Json(json!({"message": "ok"})).into_response();
    let cleared = format!("{SESSION_COOKIE}=; Path=/; HttpOnly; Secure; Max-Age=0");
    if let Ok(value) = HeaderValue::from_str(&cleared) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    Ok(response)
}

/// Gives the browser its session.
pub(super) fn set_cookie(response: &mut Response, session: &WebSessionV2) {
    let id = session.metadata.as_ref().map(|m| m.name.as_str()).unwrap_or_default();
    let user = session.spec.as_ref().map(|s| s.user.as_str()).unwrap_or_default();
    let value = hex::encode(json!({"user": user, "sid": id}).to_string());
    let cookie = format!("{SESSION_COOKIE}={value}; Path=/; HttpOnly; Secure");
    if let Ok(value) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// User and id of a session cookie.
pub(super) fn decode_cookie(value: &str) -> Option<(String, String)> {
    let json: Value = serde_json::from_slice(&hex::decode(value).ok()?).ok()?;
    Some((json.get("user")?.as_str()?.to_owned(), json.get("sid")?.as_str()?.to_owned()))
}

/// A session as the browser sees it.
fn describe(session: &WebSessionV2) -> Value {
    let Some(spec) = &session.spec else { return json!({}) };
    let now = Utc::now();
    let bearer_expires = wire::time::moment(spec.bearer_token_expires.as_ref()).unwrap_or(now);
    let expires = wire::time::moment(spec.expires.as_ref()).unwrap_or(now);
    json!({
        "type": "Bearer",
        "token": spec.bearer_token,
        "expires_in": (bearer_expires - now).num_seconds().max(0),
        "sessionExpires": expires.to_rfc3339(),
        "sessionInactiveTimeout": 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_that_is_not_ours_names_no_session() {
        for value in ["", "zz", "7b7d", &hex::encode("[]"), &hex::encode("{\"user\":1,\"sid\":\"x\"}")] {
            assert_eq!(decode_cookie(value), None, "{value}");
        }
        let good = hex::encode("{\"user\":\"alice\",\"sid\":\"s\"}");
        assert_eq!(decode_cookie(&good), Some(("alice".into(), "s".into())));
    }
}
