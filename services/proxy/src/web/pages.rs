//! The pages: invitation, password reset, and a plain front page.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::json;

use super::{Web, cookie, login};

/// The cookie that our own pages repeat in a header.
pub(super) const CSRF_COOKIE: &str = "__Host-grv_csrf";

const INDEX: &str = include_str!("../../assets/index.html");
const STYLE: &str = include_str!("../../assets/style.css");
const SCRIPT: &str = include_str!("../../assets/app.js");

const POLICY: &str = "base-uri 'self'; connect-src 'self' wss:; default-src 'self'; font-src 'self' data:; \
                      form-action 'self'; frame-ancestors 'none'; img-src 'self' data: blob:; object-src 'none'; \
                      script-src 'self'; style-src 'self' 'unsafe-inline';";

/// `/` leads to the pages.
pub(super) async fn root() -> Response {
    Redirect::to("/web").into_response()
}

/// Nothing here is for search engines.
pub(super) async fn robots() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain"), (header::CACHE_CONTROL, "public, max-age=86400")];
    (headers, "User-agent: *\nDisallow: /\n").into_response()
}

/// Every page is this one; its script shows what the path asks for.
pub(super) async fn index(headers: HeaderMap) -> Response {
    let token = match cookie(&headers, CSRF_COOKIE) {
        Some(token) if hex::decode(token).is_ok_and(|t| t.len() == 32) => token.to_owned(),
        _ => random_token(),
    };
    let page = INDEX.replace("{{csrf}}", &token);
    let set = format!("{CSRF_COOKIE}={token}; Path=/; HttpOnly; Secure; SameSite=None");
    let mut response = ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&set) {
        headers.append(header::SET_COOKIE, value);
    }
    response
}

/// The files pages refer to.
pub(super) async fn asset(Path(file): Path<String>) -> Response {
    let (kind, body) = match file.as_str() {
        "style.css" => ("text/css; charset=utf-8", STYLE),
        "app.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], body).into_response()
}

/// Settings for pages and for the desktop client.
pub(super) async fn config(State(web): State<Web>) -> Response {
    let second_factor = login::second_factor(&web);
    let preference = web.cache.auth_preference();
    let motd = preference.spec.as_ref().map(|s| s.message_of_the_day.clone()).unwrap_or_default();
    let config = json!({
        "auth": {
            "second_factor": second_factor, "providers": [], "localAuthEnabled": true, "allowPasswordless": false,
            "authType": "local", "preferredLocalMfa": "otp", "localConnectorName": "", "privateKeyPolicy": "none",
            "motd": motd,
        },
        "canJoinSessions": true,
        "proxyCluster": web.cache.cluster_name(),
        "isCloud": false,
        "edition": "ent",
        "automaticUpgrades": false,
        "entitlements": {},
    });
    let script = format!("var GRV_CONFIG = {config};");
    ([(header::CONTENT_TYPE, "application/javascript")], script).into_response()
}

/// 32 random bytes, in hexadecimal.
fn random_token() -> String {
    hex::encode([uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_32_bytes_and_never_the_same() {
        let (a, b) = (random_token(), random_token());
        assert_eq!(a.len(), 64);
        assert_ne!(a, b);
    }
}
