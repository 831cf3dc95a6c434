//! Shorthand for roles, servers and sets.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rbac::{RoleSet, Traits};
use serde_json::{Value, json};
use wire::types::{RoleV6, ServerV2};

pub fn role(name: &str, allow: Value, deny: Value, options: Value) -> RoleV6 {
    versioned("v7", name, allow, deny, options)
}

pub fn versioned(version: &str, name: &str, allow: Value, deny: Value, options: Value) -> RoleV6 {
    serde_json::from_value(json!({
        "kind": "role", "version": version, "metadata": {"name": name},
        "spec": {"allow": allow, "deny": deny, "options": options}
    }))
    .unwrap()
}

pub fn traits(entries: &[(&str, &[&str])]) -> Traits {
    entries.iter().map(|(k, v)| ((*k).to_owned(), v.iter().map(|s| (*s).to_owned()).collect())).collect()
}

pub fn set(roles: Vec<RoleV6>) -> RoleSet {
    RoleSet::compile(roles, traits(&[("logins", &["root"]), ("team", &["db", "web"]), ("region", &["us-east-1"])]))
}

/// A server with the labels of the tables.
pub fn lab1() -> ServerV2 {
    serde_json::from_value(json!({
        "kind": "node", "version": "v2",
        "metadata": {"name": "id-lab1", "labels": {"env": "prod", "team": "db", "region": "us-east-1", "owner": "tpbob"}},
        "spec": {"hostname": "lab1", "cmd_labels": {"kernel": {"period": "1m0s", "command": ["uname"], "result": "Linux"}}}
    }))
    .unwrap()
}
