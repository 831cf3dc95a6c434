//! What roles cost: 20 of the usual kinds, over 1,000 nodes.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use rbac::{AccessState, ParsedRole, RoleSet, Traits};
use serde_json::json;
use wire::types::{AuthPreferenceV2, RoleV6, ServerV2};

use crate::{calls, line, milliseconds};

const NODES: usize = 1_000;
const ROLES: usize = 20;
const ROUNDS: usize = 51;

pub fn measure() {
    let nodes: Vec<ServerV2> = (0..NODES).map(calls::node).collect();
    let roles: Vec<_> = (0..ROLES).map(|number| ParsedRole::new(role(number))).collect();
    let teams = vec!["team1".to_owned(), "team2".to_owned()];
    let traits = Traits::from(BTreeMap::from([("team".to_owned(), teams)]));
    let what = format!("{ROLES} roles, {NODES} nodes: which are seen");
    let set = RoleSet::new(roles.iter().cloned(), traits.clone());
    let seen = time(|| nodes.iter().filter(|node| set.can_see_node(node)).count());
    line(&what, &milliseconds(seen), "");
    let logins = time(|| nodes.iter().map(|node| set.node_logins(node).len()).sum::<usize>());
    line("  the logins that can be used on each", &milliseconds(logins), "");
    let state = AccessState::of(&set, &AuthPreferenceV2::default(), true, true);
    let refused = time(|| nodes.iter().filter(|node| !set.check_node(node, "nobody", &state).is_allowed()).count());
    line("  a login refused on each, for all the reasons", &milliseconds(refused), "as one is told");
    let expanded = time(|| RoleSet::new(roles.iter().cloned(), traits.clone()));
    line("  the roles made for a user", &milliseconds(expanded), "");
}

/// The median of many runs.
fn time<T>(mut run: impl FnMut() -> T) -> Duration {
    let mut once = || {
        let start = Instant::now();
        black_box(run());
        start.elapsed()
    };
    crate::middle((0..ROUNDS).map(|_| once()).collect())
}

/// Roles of the usual kinds: fixed labels, globs, regular expressions, templates, expressions, some denying.
fn role(number: usize) -> RoleV6 {
    let mut allow = match number % 5 {
        0 => json!({ "node_labels": { "env": format!("env{number}"), "team": "*" } }),
        1 => json!({ "node_labels": { "region": format!("us-*-{number}") } }),
        2 => json!({ "node_labels": { "region": format!("^eu-(east|west)-{number}$") } }),
        3 => json!({ "node_labels": { "team": "{{external.team}}", "env": "env2" } }),
        _ => {
            let condition =
                format!("labels[\"env\"] == \"env{number}\" && contains(user.spec.traits.team, labels.team)");
            json!({ "node_labels_expression": condition })
        }
    };
    allow["logins"] = json!(["root"]);
    let deny = if number.is_multiple_of(4) { json!({ "node_labels": { "secret": "yes" } }) } else { json!({}) };
    let spec = json!({ "allow": allow, "deny": deny });
    let role =
        json!({ "kind": "role", "version": "v7", "metadata": { "name": format!("role-{number}") }, "spec": spec });
    serde_json::from_value(role).expect("a role")
}
