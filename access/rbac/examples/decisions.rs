//! Measures decisions: 20 roles over 1,000 servers. Run with `cargo run --release -p rbac --example decisions`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use rbac::{AccessState, ParsedRole, RoleSet, Traits};
use serde_json::json;
use wire::types::{RoleV6, ServerV2};

const SERVERS: usize = 1_000;
const ROUNDS: usize = 50;

fn main() {
    let servers: Vec<ServerV2> = (0..SERVERS).map(server).collect();
    let roles: Vec<_> = (0..20).map(|i| ParsedRole::new(role(i))).collect();
    let traits: Traits = [("team".to_owned(), vec!["t1".to_owned(), "t2".to_owned()])].into_iter().collect();
    let expanded = best(|| RoleSet::new(roles.iter().cloned(), traits.clone()));
    println!("expand 20 roles for a user:       {expanded:>9.1?}");

    let set = RoleSet::new(roles, traits);
    let state = AccessState::of(&set, &wire::types::AuthPreferenceV2::default(), true, true);
    let seen = best(|| servers.iter().filter(|s| set.can_see_node(s)).count());
    println!("which of 1,000 servers are seen:  {seen:>9.1?}");
    let reached = best(|| servers.iter().filter(|s| set.check_node(s, "root", &state).is_allowed()).count());
    println!("decisions with reasons on 1,000:  {reached:>9.1?}");
}

/// The shortest of many runs.
fn best<T>(mut run: impl FnMut() -> T) -> Duration {
    let mut time = || {
        let start = Instant::now();
        black_box(run());
        start.elapsed()
    };
    (0..ROUNDS).map(|_| time()).min().unwrap()
}

/// Roles of the usual kinds: fixed labels, globs, regular expressions, templates, expressions, some denying.
fn role(i: usize) -> RoleV6 {
    let allow = match i % 5 {
        0 => json!({"node_labels": {"env": format!("env{i}"), "team": "*"}}),
        1 => json!({"node_labels": {"region": format!("us-*-{i}")}}),
        2 => json!({"node_labels": {"region": format!("^eu-(east|west)-{i}$")}}),
        3 => json!({"node_labels": {"team": "{{external.team}}", "env": "prod"}}),
        _ => {
            json!({"node_labels_expression": format!("labels[\"env\"] == \"env{i}\" && contains(user.spec.traits.team, labels.team)")})
        }
    };
    let mut allow = allow;
    allow["logins"] = json!(["root"]);
    let deny = if i.is_multiple_of(4) { json!({"node_labels": {"secret": "yes"}}) } else { json!({}) };
    serde_json::from_value(json!({
        "kind": "role", "version": "v7", "metadata": {"name": format!("role-{i}")}, "spec": {"allow": allow, "deny": deny}
    }))
    .unwrap()
}

fn server(i: usize) -> ServerV2 {
    let labels = json!({
        "env": format!("env{}", i % 40), "team": format!("t{}", i % 7), "region": format!("us-east-{}", i % 50),
        "os": "linux", "arch": "amd64", "owner": format!("o{i}")
    });
    serde_json::from_value(json!({
        "kind": "node", "version": "v2", "metadata": {"name": format!("id-{i}"), "labels": labels},
        "spec": {"hostname": format!("host-{i}"), "cmd_labels": {"kernel": {"period": "1m0s", "command": ["uname"], "result": "Linux"}}}
    }))
    .unwrap()
}
