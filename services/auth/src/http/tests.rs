#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use resources::SystemRole;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::router;
use crate::{
    Caller,
    testing::{PASSWORD, STATIC_TOKEN, Service, keys},
};

async fn call(service: &Service, caller: Caller, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let mut request = Request::builder().method(method).uri(path).body(body).unwrap();
    request.extensions_mut().insert(caller);
    let response = router(service.auth.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn proxy() -> Caller {
    Caller::service(SystemRole::Proxy, "proxy-1", Some(([192, 0, 2, 3], 5000).into()))
}

fn nobody() -> Caller {
    Caller::anonymous(Some(([192, 0, 2, 66], 6000).into()))
}

fn join(token: &str, role: &str) -> Value {
    let keys = keys();
    json!({
        "hostID": "11111111-2222-3333-4444-555555555555", "node_name": "node1", "role": role, "token": token,
        "public_tls_key": STANDARD.encode(keys.tls.unwrap()), "public_ssh_key": STANDARD.encode(keys.ssh.unwrap()),
    })
}

#[tokio::test]
async fn the_name_of_the_cluster_is_told_to_members_only() {
    let service = Service::start().await;
    let (status, body) = call(&service, proxy(), "GET", "/v2/configuration/name", Value::Null).await;
    assert_eq!((status, &body["spec"]["cluster_name"]), (StatusCode::OK, &json!("main.test")));
    let (status, body) = call(&service, nobody(), "GET", "/v2/configuration/name", Value::Null).await;
    assert_eq!((status, &body["error"]["message"]), (StatusCode::FORBIDDEN, &json!("access denied")));
    let (_, namespaces) = call(&service, proxy(), "GET", "/v2/namespaces", Value::Null).await;
    assert_eq!(namespaces[0]["metadata"]["name"], "default");
}

#[tokio::test]
async fn the_audit_log_is_verified_for_those_who_may_read_it() {
    let service = Service::start().await;
    for caller in [nobody(), proxy()] {
        let (status, body) = call(&service, caller, "GET", "/v2/audit/integrity", Value::Null).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    }
    let admin = Caller::service(SystemRole::Admin, "auth-1", None);
    let (status, body) = call(&service, admin, "GET", "/v2/audit/integrity", Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["hosts"][0]["findings"], json!([]), "{body}");
    assert!(body["key"].as_str().unwrap().contains("PUBLIC KEY"), "{body}");
}

#[tokio::test]
async fn the_key_of_recordings_is_replaced_by_those_who_may_and_while_there_is_one() {
    let service = Service::start().await;
    let (get, rotate) = ("/v2/recordings/encryption", "/v2/recordings/encryption/rotate");
    for caller in [nobody(), proxy()] {
        assert_eq!(call(&service, caller.clone(), "GET", get, Value::Null).await.0, StatusCode::FORBIDDEN);
        assert_eq!(call(&service, caller, "POST", rotate, json!({})).await.0, StatusCode::FORBIDDEN);
    }
    let admin = || Caller::service(SystemRole::Admin, "auth-1", None);
    let (_, body) = call(&service, admin(), "GET", get, Value::Null).await;
    assert_eq!(body, json!({ "enabled": false, "keys": [] }));
    let (status, body) = call(&service, admin(), "POST", rotate, json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let mut config = (*service.auth.recording_config().unwrap()).clone();
    config.spec.get_or_insert_default().encryption.get_or_insert_default().enabled = true;
    service.auth.set_recording_config(&admin(), config, crate::Write::Upsert).await.unwrap();
    let (_, before) = call(&service, admin(), "GET", get, Value::Null).await;
    let (status, after) = call(&service, admin(), "POST", rotate, json!({})).await;
    assert_eq!(status, StatusCode::OK, "{after}");
    assert_eq!((after["keys"].as_array().unwrap().len(), &after["keys"][0]), (2, &before["keys"][0]));
    assert!(after["keys"].as_array().unwrap().iter().all(|name| name.as_str().unwrap().len() == 16), "{after}");
}

#[tokio::test]
async fn an_instance_joins_with_a_token_and_without_a_certificate() {
    let service = Service::start().await;
    let (status, body) = call(&service, nobody(), "POST", "/v2/tokens/register", join(STATIC_TOKEN, "Node")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let ssh = String::from_utf8(STANDARD.decode(body["ssh"].as_str().unwrap()).unwrap()).unwrap();
    assert!(ssh.contains("-cert-v01@openssh.com "));
    assert_eq!(body["tls_ca_certs"].as_array().unwrap().len(), 1);
    let (status, body) = call(&service, nobody(), "POST", "/v2/tokens/register", join("wrong", "Node")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body["message"].as_str().unwrap().ends_with("token expired or not found"));
}

#[tokio::test]
async fn proxies_pass_logins_on_and_nobody_else_does() {
    let service = Service::start().await;
    let alice = service.user("alice").await;
    let request = json!({
        "username": "alice",
        "public_key": STANDARD.encode(keys().ssh.unwrap()),
        "otp": {"password": STANDARD.encode(PASSWORD), "token": service.code(&alice.secret)},
        "client_metadata": {"user_agent": "tsh/17.0.0", "remote_addr": "192.0.2.9:4711"},
        "ttl": 3_600_000_000_000_i64, "attestation_statement": null, "session": null,
    });
    let path = "/v2/users/alice/ssh/authenticate";
    let (status, _) = call(&service, nobody(), "POST", path, request.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, body) = call(&service, proxy(), "POST", path, request).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!((&body["username"], &body["host_signers"][0]["domain_name"]), (&json!("alice"), &json!("main.test")));
    assert_eq!(body["samlSingleLogoutEnabled"], false);
}

#[tokio::test]
async fn servers_announce_themselves_and_only_themselves() {
    let service = Service::start().await;
    let server = |name: &str| {
        json!({"server": {
        "kind": "proxy", "version": "v2", "metadata": {"name": name},
        "spec": {"addr": "0.0.0.0:3080", "hostname": "p", "public_addrs": ["proxy.test:443"]},
    }, "ttl": 600_000_000_000_i64})
    };
    let (status, _) = call(&service, proxy(), "POST", "/v2/proxies", server("proxy-2")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = call(&service, proxy(), "POST", "/v2/proxies", server("proxy-1")).await;
    assert_eq!(status, StatusCode::OK);
    let (_, list) = call(&service, proxy(), "GET", "/v2/proxies", Value::Null).await;
    assert_eq!((&list[0]["metadata"]["name"], &list[0]["spec"]["addr"]), (&json!("proxy-1"), &json!("192.0.2.3:3080")));
    let token = service.invite("alice").await;
    let url = service.auth.get_reset_password_token(&token).await.unwrap().spec.unwrap().url;
    assert_eq!(url, format!("https://proxy.test:443/web/invite/{token}"));
    let (_, list) = call(&service, proxy(), "GET", "/v2/authservers", Value::Null).await;
    assert_eq!(list[0]["metadata"]["name"], service.auth.host_uuid());
}

#[tokio::test]
async fn noise_gets_an_answer_and_no_more() {
    let service = Service::start().await;
    for body in [json!("text"), json!([1]), json!({"ttl": "x"}), json!({"public_key": "***"}), json!({})] {
        let (status, _) = call(&service, proxy(), "POST", "/v2/users/a/ssh/authenticate", body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        let (status, _) = call(&service, nobody(), "POST", "/v2/tokens/register", body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
    let (status, _) = call(&service, proxy(), "GET", "/v2/nothing", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let long = json!({"node_name": "x".repeat(super::MAX_BODY)});
    let (status, _) = call(&service, nobody(), "POST", "/v2/tokens/register", long).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
}
