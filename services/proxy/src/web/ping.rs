//! What a client learns before it logs in.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use wire::error::ErrorKind;

use super::{Web, WebError, WebResult};

/// Everything about the cluster: authentication, addresses, versions.
pub(super) async fn ping(State(web): State<Web>) -> Response {
    let auth = authentication(&web, "");
    Json(describe(&web, auth)).into_response()
}

/// The same for one way to log in.
pub(super) async fn ping_connector(State(web): State<Web>, Path(connector): Path<String>) -> WebResult {
    match connector.as_str() {
        "local" | "passwordless" | "headless" => {
            let auth = authentication(&web, &connector);
            Ok(Json(describe(&web, auth)).into_response())
        }
        other => {
            let text = format!("invalid connector name: {other}; valid options: local");
            Err(WebError::new(ErrorKind::BadParameter, text))
        }
    }
}

/// What agents need: addresses, without authentication.
pub(super) async fn find(State(web): State<Web>) -> Response {
    let auth = json!({
        "type": "", "private_key_policy": "", "piv_slot": "", "device_trust": {}, "has_motd": false,
        "default_session_ttl": "0s"
    });
    Json(describe(&web, auth)).into_response()
}

/// The message users confirm before they log in.
pub(super) async fn motd(State(web): State<Web>) -> Response {
    let preference = web.cache.auth_preference();
    let text = preference.spec.as_ref().map(|s| s.message_of_the_day.clone()).unwrap_or_default();
    Json(json!({"Text": text})).into_response()
}

fn describe(web: &Web, auth: Value) -> Value {
    json!({
        "auth": auth,
        "proxy": web.settings.advertised(&web.cache.networking()),
        "server_version": wire::VERSION,
        "min_client_version": wire::MIN_CLIENT_VERSION,
        "cluster_name": web.cache.cluster_name(),
        "automatic_upgrades": false,
        "auto_update": {"tools_version": wire::VERSION, "tools_auto_update": false},
        "edition": "ent",
        "fips": false,
    })
}

/// The `auth` object: how users log in.
fn authentication(web: &Web, connector: &str) -> Value {
    let preference = web.cache.auth_preference();
    let Some(spec) = &preference.spec else { return json!({"type": "local"}) };
    let mut auth = Map::new();
    let kind = if spec.r#type.is_empty() || !connector.is_empty() { "local" } else { &spec.r#type };
    auth.insert("type".into(), kind.into());
    let second_factor = if spec.second_factor.is_empty() { "otp" } else { &spec.second_factor };
    auth.insert("second_factor".into(), second_factor.into());
    let webauthn = spec.webauthn.as_ref().filter(|w| !w.rpid.is_empty());
    let preferred = match second_factor {
        "off" => "",
        "on" | "optional" if webauthn.is_some() => "webauthn",
        "on" | "optional" => "otp",
        other => other,
    };
    if !preferred.is_empty() {
        auth.insert("preferred_local_mfa".into(), preferred.into());
    }
    if let Some(webauthn) = webauthn {
        auth.insert("webauthn".into(), json!({"rp_id": webauthn.rpid}));
    }
    let flag = |value: &Option<wire::types::BoolValue>| value.as_ref().is_some_and(|v| v.value) && webauthn.is_some();
    for (name, on) in
        [("allow_passwordless", flag(&spec.allow_passwordless)), ("allow_headless", flag(&spec.allow_headless))]
    {
        if on {
            auth.insert(name.into(), true.into());
        }
    }
    let name = if connector.is_empty() { spec.connector_name.as_str() } else { connector };
    auth.insert("local".into(), json!({"name": name}));
    auth.insert("private_key_policy".into(), "none".into());
    auth.insert("piv_slot".into(), spec.piv_slot.as_str().into());
    auth.insert("device_trust".into(), json!({"disabled": true}));
    auth.insert("has_motd".into(), (!spec.message_of_the_day.is_empty()).into());
    auth.insert("default_session_ttl".into(), wire::duration::format(spec.default_session_ttl).into());
    let suite = match spec.signature_algorithm_suite {
        1 => "legacy",
        2 => "balanced-v1",
        3 => "fips-v1",
        4 => "hsm-v1",
        _ => "",
    };
    if !suite.is_empty() {
        auth.insert("signature_algorithm_suite".into(), suite.into());
    }
    Value::Object(auth)
}
