//! Resources as administrators write them: what is accepted, what is refused and what the refusal says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use resources::{AnyResource, Fields, Resource, decode, encode, parse_documents, to_json, to_yaml};
use serde_json::{Value, json};
use wire::types::RoleV6;

fn refused(document: &Value, words: &[&str]) {
    let error = match parse_documents(&document.to_string(), Fields::Known) {
        Ok(_) => panic!("accepted: {document}"),
        Err(error) => error.to_string(),
    };
    for word in words {
        assert!(error.to_lowercase().contains(&word.to_lowercase()), "no {word:?} in: {error}");
    }
}

fn role(allow: Value, deny: Value, options: Value) -> Value {
    json!({"kind": "role", "version": "v7", "metadata": {"name": "bad-role"},
           "spec": {"allow": allow, "deny": deny, "options": options}})
}

fn of_kind(kind: &str, version: &str, spec: Value) -> Value {
    json!({"kind": kind, "version": version, "metadata": {"name": "x"}, "spec": spec})
}

#[test]
fn bad_roles_are_refused_by_the_name_of_the_field() {
    let none = || json!({});
    let kube = |resource: Value| json!({"kubernetes_labels": {"*": "*"}, "kubernetes_resources": [resource]});
    let allow = [
        (json!({"logins": ["*"]}), vec!["wildcard is not allowed in allow.logins"]),
        (json!({"node_labels": {"*": "x"}}), vec!["spec.allow.node_labels", "selector *:x is not supported"]),
        (json!({"logins": {"a": "b"}}), vec!["spec.allow.logins", "expected a list, found a map"]),
        (json!({"host_sudoers": "x"}), vec!["spec.allow.host_sudoers"]),
        (json!({"rules": [{"resources": ["user"]}]}), vec!["spec.allow.rules[0]", "missing verbs"]),
        (json!({"rules": [{"verbs": ["list"]}]}), vec!["missing resources to match"]),
        (json!({"impersonate": {"users": ["a"]}}), vec!["impersonate"]),
        (json!({"request": {"roles": ["a"], "max_duration": "9999h"}}), vec!["max_duration", "14 days"]),
        (kube(json!({"kind": "bogus", "namespace": "*", "name": "*"})), vec!["kind", "bogus"]),
        (kube(json!({"kind": "pod", "namespace": "*", "name": "*", "verbs": ["bogus"]})), vec!["verb", "bogus"]),
        (kube(json!({"kind": "pod", "namespace": "*", "name": "*", "verbs": ["*", "get"]})), vec!["verb"]),
        (json!({"aws_role_arns": ["*"]}), vec!["allow.aws_role_arns"]),
        (json!({"db_roles": ["*"]}), vec!["wildcard is not allowed in allow.database_roles"]),
        (json!({"require_session_join": [{"on_leave": "stay"}]}), vec!["require_session_join[0].on_leave", "stay"]),
    ];
    for (allow, words) in allow {
        refused(&role(allow, none(), none()), &words);
    }
    let deny = json!({"impersonate": {"users": ["a"], "roles": ["b"], "where": "true"}});
    refused(&role(none(), deny, none()), &["deny.impersonate", "where"]);
    refused(
        &role(none(), json!({"request": {"roles": ["a"], "thresholds": [{"approve": 1}]}}), none()),
        &["thresholds"],
    );
    let options = [
        (json!({"max_session_ttl": "soon"}), ["spec.options.max_session_ttl", "\"soon\" is not a duration"]),
        (json!({"max_session_ttl": "-1h"}), ["spec.options.max_session_ttl", "negative"]),
        (json!({"lock": "bogus"}), ["spec.options.lock", "bogus"]),
        (json!({"require_session_mfa": "bogus"}), ["require_session_mfa", "bogus"]),
        (json!({"create_host_user_mode": "bogus"}), ["create_host_user_mode", "bogus"]),
        (json!({"enhanced_recording": ["bogus"]}), ["enhanced_recording", "bogus"]),
        (json!({"device_trust_mode": "bogus"}), ["device_trust_mode", "bogus"]),
        (json!({"record_session": {"default": "bogus"}}), ["record_session.default", "bogus"]),
    ];
    for (options, words) in options {
        refused(&role(none(), none(), options), &words);
    }
}

#[test]
fn names_and_versions_are_checked() {
    let doc =
        |name: &str, version: &str| json!({"kind": "role", "version": version, "metadata": {"name": name}, "spec": {}});
    refused(&doc("x", "v99"), &["role version \"v99\" is not supported"]);
    refused(&json!({"kind": "role", "metadata": {"name": "x"}, "spec": {}}), &["role version \"\" is not supported"]);
    refused(&doc("", "v7"), &["missing parameter Name"]);
    refused(&doc("Admin", "v7"), &["reserved role: Admin"]);
    refused(&doc("a/../b", "v7"), &["name", "slash"]);
    refused(&doc("a\u{1b}[31m", "v7"), &["control characters"]);
    let labels = json!({"kind": "role", "version": "v7", "metadata": {"name": "x", "labels": {"bad key!": "x"}}});
    refused(&labels, &["invalid label key: \"bad key!\""]);
    refused(&of_kind("user", "v9", json!({})), &["user resource version \"v9\" is not supported"]);
    refused(&json!({"version": "v1", "metadata": {"name": "x"}}), &["kind"]);
    refused(&of_kind("widget", "v1", json!({})), &["\"widget\" is not supported"]);
    refused(&of_kind("rolle", "v1", json!({})), &["did you mean \"role\"?"]);
}

#[test]
fn other_kinds_are_refused_by_the_name_of_the_field() {
    let bad = [
        ("user", "v2", json!({"traits": {"team": "x"}}), vec!["spec.traits.team", "list"]),
        ("token", "v2", json!({"join_method": "token"}), vec!["roles"]),
        ("token", "v2", json!({"roles": ["Bogus"]}), vec!["Bogus"]),
        ("token", "v2", json!({"roles": ["Node"], "join_method": "bogus"}), vec!["join_method", "bogus"]),
        ("token", "v2", json!({"roles": ["Bot"]}), vec!["bot_name"]),
        ("token", "v2", json!({"roles": ["Node"], "join_method": "github"}), vec!["spec.github"]),
        (
            "token",
            "v2",
            json!({"roles": ["Node"], "join_method": "github", "github": {"allow": [{}]}}),
            vec!["repository"],
        ),
        ("lock", "v2", json!({"message": "x"}), vec!["target"]),
        ("lock", "v2", json!({"target": {"user": "x"}, "expires": "soon"}), vec!["spec.expires", "soon"]),
        ("trusted_cluster", "v2", json!({"token": "x"}), vec!["missing 'role_map' parameter"]),
        (
            "trusted_cluster",
            "v2",
            json!({"roles": ["a"], "role_map": [{"remote": "a", "local": ["b"]}]}),
            vec!["should set either 'roles' or 'role_map', not both"],
        ),
        ("cluster_auth_preference", "v2", json!({"second_factor": "bogus"}), vec!["second_factor", "bogus"]),
        ("cluster_auth_preference", "v2", json!({"second_factor": "webauthn"}), vec!["webauthn"]),
        ("cluster_auth_preference", "v2", json!({"second_faktor": "otp"}), vec!["did you mean \"second_factor\"?"]),
        ("cluster_auth_preference", "v2", json!({"type": "bogus"}), vec!["type", "bogus"]),
        ("cluster_auth_preference", "v2", json!({"locking_mode": "bogus"}), vec!["locking_mode", "bogus"]),
        (
            "cluster_networking_config",
            "v2",
            json!({"client_idle_timeout": "soon"}),
            vec!["client_idle_timeout", "soon"],
        ),
        ("cluster_networking_config", "v2", json!({"routing_strategy": "bogus"}), vec!["routing_strategy"]),
        ("session_recording_config", "v2", json!({"mode": "bogus"}), vec!["mode", "bogus"]),
        ("network_restrictions", "v4", json!({"allow": [{"cidr": "10.0.0.0/99"}]}), vec!["spec.allow[0].cidr"]),
    ];
    for (kind, version, spec, words) in bad {
        refused(&of_kind(kind, version, spec), &words);
    }
    let server = |sub_kind: &str, spec: Value| json!({"kind": "node", "version": "v2", "sub_kind": sub_kind, "metadata": {"name": "6a4a0d71-2f0b-4b1b-8d3c-0123456789ab"}, "spec": spec});
    refused(&server("openssh", json!({"hostname": "x"})), &["addr"]);
    refused(&server("openssh", json!({"addr": "10.0.0.1:22"})), &["hostname"]);
    refused(&server("bogus", json!({"addr": "10.0.0.1:22", "hostname": "x"})), &["bogus"]);
}

#[test]
fn texts_that_hold_no_resource_are_refused() {
    for (text, word) in [
        ("kind: [role\n", "yaml"),
        ("", "no resources"),
        ("---\n---\n", "no resources"),
        ("hello", "expected a resource"),
    ] {
        let error = parse_documents(text, Fields::Known).unwrap_err().to_string();
        assert!(error.to_lowercase().contains(word), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let twice = "kind: role\nversion: v7\nversion: v7\nmetadata: {name: x}\n";
    let error = parse_documents(twice, Fields::Known).unwrap_err().to_string();
    assert_eq!(error, "invalid YAML: duplicate mapping key: version at line 3, column 1");
}

#[test]
fn fields_of_newer_builds_pass_when_asked() {
    let text = "kind: role\nversion: v7\nmetadata: {name: x}\nspec: {allow: {brand_new: [1]}}\n";
    assert!(parse_documents(text, Fields::Known).is_err());
    assert_eq!(parse_documents(text, Fields::Any).unwrap().len(), 1);
}

const EVERY_KIND: &str = r#"
kind: role
version: v7
metadata: {name: dev, labels: {team: web, port: "22"}}
spec:
  options: {max_session_ttl: 8h, forward_agent: yes}
  allow:
    logins: [root, '{{external.logins}}']
    node_labels: {env: [dev, test], '*': '*'}
    rules: [{resources: [event], verbs: [list, read]}]
---
kind: user
version: v2
metadata: {name: alice, expires: "2037-01-02T03:04:05Z"}
spec: {roles: [access], traits: {logins: [root], none: []}}
---
kind: token
version: v2
metadata: {name: secret, namespace: default}
spec: {roles: [node, App], suggested_labels: {k: [v, w]}}
---
kind: cluster_auth_preference
version: v2
spec: {second_factor: webauthn, webauthn: {rp_id: example.com}, require_session_mfa: hardware_key}
---
kind: lock
version: v2
metadata: {name: l}
spec: {target: {login: mallory}, message: go away}
---
kind: trusted_cluster
version: v2
metadata: {name: root}
spec: {enabled: true, token: x, web_proxy_addr: "root:443", role_map: [{remote: access, local: [access]}]}
---
kind: node
version: v2
sub_kind: openssh
metadata: {name: 6a4a0d71-2f0b-4b1b-8d3c-0123456789ab}
spec: {addr: "10.1.1.1:22", hostname: ossh1}
"#;

#[test]
fn what_is_written_reads_back_as_the_same() {
    let read = parse_documents(EVERY_KIND, Fields::Known).unwrap();
    assert_eq!(read.len(), 7);
    let yaml = to_yaml(&read).unwrap();
    assert_eq!(parse_documents(&yaml, Fields::Known).unwrap(), read, "{yaml}");
    let json = to_json(&read).unwrap();
    assert_eq!(parse_documents(&json, Fields::Known).unwrap(), read, "{json}");
    assert!(json.starts_with("[\n    {\n        \"kind\": \"role\""), "{json}");
}

#[test]
fn blanks_are_filled() {
    let read = parse_documents(EVERY_KIND, Fields::Known).unwrap();
    let json: Vec<Value> = read.iter().map(|r| serde_json::to_value(r).unwrap()).collect();
    let options = &json[0]["spec"]["options"];
    assert_eq!(options["max_session_ttl"], "8h0m0s");
    assert_eq!(options["enhanced_recording"], json!(["command", "network"]));
    assert_eq!(options["forward_agent"], true);
    assert_eq!(options["record_session"], json!({"default": "best_effort", "desktop": true}));
    assert_eq!(json[0]["spec"]["deny"], json!({}));
    assert_eq!(json[2]["spec"]["roles"], json!(["Node", "App"]));
    assert_eq!(json[2]["spec"]["join_method"], "token");
    assert_eq!(json[3]["metadata"]["name"], "cluster-auth-preference");
    assert_eq!(json[3]["spec"]["allow_passwordless"], true);
    assert_eq!(json[5]["spec"]["tunnel_addr"], "root:443");
}

#[test]
fn versions_of_roles_differ_in_what_they_open() {
    let allow = |version: &str, allow: Value| {
        let doc = json!({"kind": "role", "version": version, "metadata": {"name": "x"}, "spec": {"allow": allow}});
        let read = parse_documents(&doc.to_string(), Fields::Known).unwrap();
        serde_json::to_value(&read[0]).unwrap()["spec"]["allow"].clone()
    };
    let any = json!({"*": "*"});
    let v3 = allow("v3", json!({"logins": ["root"]}));
    assert_eq!((&v3["node_labels"], &v3["app_labels"], &v3["db_labels"]), (&any, &any, &any));
    assert_eq!(v3["kubernetes_resources"][0]["kind"], "pod");
    assert_eq!(allow("v3", json!({}))["node_labels"], json!({}));
    assert_eq!(allow("v5", json!({"logins": ["root"]})).get("node_labels"), None);
    let kube = json!({"kubernetes_labels": {"*": "*"}});
    assert_eq!(allow("v4", kube.clone())["kubernetes_resources"][0]["kind"], "pod");
    assert_eq!(allow("v6", kube.clone()).get("kubernetes_resources"), None);
    assert_eq!(
        allow("v7", kube)["kubernetes_resources"][0],
        json!({"kind": "*", "namespace": "*", "name": "*", "verbs": ["*"]})
    );
}

#[test]
fn places_follow_the_names() {
    let read = parse_documents(EVERY_KIND, Fields::Known).unwrap();
    let paths: Vec<String> = read.iter().map(|r| r.place().path()).collect();
    assert_eq!(
        paths,
        [
            "/roles/dev/params",
            "/web/users/alice/params",
            "/tokens/secret",
            "/authentication/preference/general",
            "/locks/l",
            "/trustedclusters/root",
            "/nodes/default/6a4a0d71-2f0b-4b1b-8d3c-0123456789ab",
        ]
    );
}

#[test]
fn stored_resources_keep_everything_but_what_defaults_restore() {
    let AnyResource::Role(role) = parse_documents(EVERY_KIND, Fields::Known).unwrap().remove(0) else { panic!() };
    assert_eq!(decode::<RoleV6>(&encode(&*role).unwrap()).unwrap(), *role);
    assert_eq!(role.metadata().namespace, "default");
}

/// One resource of each kind that agents serve or administrators keep, as small as it can be.
fn smallest() -> Vec<Value> {
    let served = |kind: &str, spec: Value| of_kind(kind, "v3", spec);
    let db = json!({"protocol": "postgres", "uri": "localhost:5432"});
    let list = json!({"title": "t", "owners": [{"name": "o"}], "grants": {"roles": ["access"]}});
    let member = json!({"access_list": "l", "name": "x", "added_by": "o", "joined": "2026-01-01T00:00:00Z"});
    let oidc = json!({"issuer_url": "https://idp", "client_id": "c", "redirect_url": "https://proxy/cb"});
    let saml = json!({"acs": "https://proxy/acs", "entity_descriptor": "<xml/>",
                      "attributes_to_roles": [{"name": "g", "value": "v", "roles": ["access"]}]});
    let rule = json!({"subjects": ["access_request"], "condition": "true"});
    let import = json!({"database_labels": [{"name": "env", "values": ["*"]}],
                        "mappings": [{"match": {"table_names": ["*"]}, "add_labels": {"a": "b"}}]});
    let object = json!({"name": "t", "protocol": "postgres", "database_service_name": "d", "object_kind": "table"});
    vec![
        served("app", json!({"uri": "http://localhost:1"})),
        served("app_server", json!({"host_id": "h", "app": served("app", json!({"uri": "tcp://localhost:1"}))})),
        served("db", db.clone()),
        served("db_server", json!({"host_id": "h", "hostname": "h", "database": served("db", db)})),
        of_kind("db_service", "v1", json!({"resources": [{"labels": {"env": "dev"}}]})),
        of_kind("db_object", "v1", object),
        of_kind("db_object_import_rule", "v1", import),
        served("kube_cluster", json!({"kubeconfig": "e30K"})),
        served("kube_server", json!({"host_id": "h", "cluster": served("kube_cluster", json!({}))})),
        served("windows_desktop", json!({"host_id": "h", "addr": "10.0.0.1:3389"})),
        served("windows_desktop_service", json!({"addr": "10.0.0.1:3389", "teleport_version": "17.0.0"})),
        of_kind("server_info", "v1", json!({"new_labels": {"a": "b"}})),
        of_kind("installer", "v1", json!({"script": "echo"})),
        of_kind("ui_config", "v1", json!({})),
        of_kind(
            "cluster_maintenance_config",
            "v1",
            json!({"agent_upgrades": {"utc_start_hour": 2, "weekdays": ["Mon"]}}),
        ),
        of_kind("vnet_config", "v1", json!({})),
        of_kind(
            "discovery_config",
            "v1",
            json!({"discovery_group": "g", "aws": [{"types": ["ec2"], "regions": ["*"]}]}),
        ),
        of_kind("integration", "v1", json!({"aws_oidc": {"role_arn": "arn:aws:iam::1:role/x"}})),
        of_kind("user_group", "v1", json!({})),
        of_kind(
            "okta_import_rule",
            "v1",
            json!({"mappings": [{"match": [{"app_ids": ["1"]}], "add_labels": {"a": "b"}}]}),
        ),
        of_kind("device", "v1", json!({"os_type": "linux", "asset_tag": "t"})),
        of_kind("static_host_user", "v1", json!({"login": "deploy", "node_labels": {"env": "dev"}})),
        of_kind("bot", "v1", json!({"roles": ["access"], "traits": [{"name": "logins", "values": ["root"]}]})),
        of_kind("access_list", "v1", list),
        of_kind("access_list_member", "v1", member),
        of_kind("access_list_review", "v1", json!({"access_list": "l", "reviewers": ["o"]})),
        of_kind("access_monitoring_rule", "v1", rule),
        of_kind("crown_jewel", "v1", json!({"teleport_matchers": [{"kinds": ["node"], "names": ["a"]}]})),
        of_kind("audit_query", "v1", json!({"query": "select 1"})),
        of_kind("security_report", "v1", json!({"audit_queries": [{"name": "q", "query": "select 1"}]})),
        of_kind("login_rule", "v1", json!({"priority": 1, "traits_map": {"logins": ["external.logins"]}})),
        of_kind("oidc", "v3", oidc),
        of_kind("saml", "v2", saml),
        of_kind("saml_idp_service_provider", "v1", json!({"entity_id": "e", "acs_url": "https://sp/acs"})),
    ]
}

#[test]
fn every_kind_reads_what_it_writes() {
    for document in smallest() {
        let read = parse_documents(&document.to_string(), Fields::Known).unwrap_or_else(|e| panic!("{e}: {document}"));
        let text = to_yaml(&read).unwrap();
        assert_eq!(parse_documents(&text, Fields::Known).unwrap(), read, "{text}");
        assert_eq!(read[0].kind(), document["kind"], "{text}");
        let written: Value = serde_json::to_value(&read[0]).unwrap();
        assert_eq!(written["kind"], document["kind"], "{written}");
        assert_eq!(written["version"], document["version"], "{written}");
    }
}

#[test]
fn every_kind_refuses_fields_it_does_not_have() {
    for mut document in smallest() {
        document["spec"]["bogus_field"] = json!("x");
        refused(&document, &["spec.bogus_field", "unknown field"]);
        document["spec"].as_object_mut().unwrap().remove("bogus_field");
        document["version"] = json!("v99");
        refused(&document, &["version", "v99"]);
    }
}

#[test]
fn values_that_could_never_work_are_refused_by_the_name_of_the_field() {
    let app = |spec: Value| of_kind("app", "v3", spec);
    let cases = [
        (app(json!({})), vec!["spec.uri"]),
        (app(json!({"uri": "http://x", "rewrite": {"jwt_claims": "some"}})), vec!["jwt_claims", "some"]),
        (app(json!({"uri": "http://x", "public_addr": "https://x"})), vec!["spec.public_addr"]),
        (of_kind("db", "v3", json!({"protocol": "bogus", "uri": "a:1"})), vec!["spec.protocol", "bogus"]),
        (of_kind("db", "v3", json!({"protocol": "mysql"})), vec!["spec.uri"]),
        (of_kind("kube_cluster", "v3", json!({"kubeconfig": "***"})), vec!["spec.kubeconfig", "base64"]),
        (of_kind("windows_desktop", "v3", json!({"host_id": "h"})), vec!["spec.addr"]),
        (of_kind("ui_config", "v1", json!({"scrollback_lines": -1})), vec!["scrollback_lines"]),
        (
            of_kind("cluster_maintenance_config", "v1", json!({"agent_upgrades": {"utc_start_hour": 25}})),
            vec!["hour", "25"],
        ),
        (of_kind("vnet_config", "v1", json!({"ipv4_cidr_range": "x"})), vec!["ipv4_cidr_range"]),
        (of_kind("login_rule", "v1", json!({"priority": 1})), vec!["traits_map"]),
        (of_kind("access_list", "v1", json!({"title": "t"})), vec!["owners are missing"]),
        (of_kind("device", "v1", json!({"os_type": "beos", "asset_tag": "t"})), vec!["os_type", "beos"]),
        (of_kind("bot", "v1", json!({"roles": [""]})), vec!["spec.roles"]),
    ];
    for (document, words) in cases {
        refused(&document, &words);
    }
    let mut reserved =
        of_kind("oidc", "v3", json!({"issuer_url": "https://i", "client_id": "c", "redirect_url": "https://p"}));
    reserved["metadata"]["name"] = json!("local");
    refused(&reserved, &["metadata.name", "local"]);
}
