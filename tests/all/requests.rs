//! Requests for more access, as people make, decide and use them.

use std::time::Duration;

use e2e::{AgentSetup, Cluster, account, wait_for};
use regex::Regex;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn role(name: &str, spec: &Value) -> Value {
    json!({ "kind": "role", "version": "v7", "metadata": { "name": name }, "spec": spec })
}

/// A cluster with two nodes that only `operator` reaches, ann who may ask for it, and bob who reviews.
fn cluster(name: &str) -> (Cluster, [e2e::Daemon; 2]) {
    let cluster = Cluster::start(name);
    let nodes = ["web", "db"].map(|name| cluster.agent(&AgentSetup::node(name).label("kind", name)));
    let reach = json!({ "logins": [account()], "node_labels": { "*": "*" } });
    cluster.create(&role("operator", &json!({ "allow": reach })));
    let ask = json!({ "roles": ["operator"], "search_as_roles": ["operator"] });
    cluster.create(&role("asks", &json!({ "allow": { "request": ask } })));
    cluster.create(&role("reviews", &json!({ "allow": { "review_requests": { "roles": ["operator"] } } })));
    (cluster, nodes)
}

/// The id in what a command printed about a request.
#[track_caller]
fn id_in(text: &str) -> String {
    let id = Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap();
    id.find(text).unwrap_or_else(|| panic!("no id in {text}")).as_str().to_owned()
}

#[test]
fn a_role_is_asked_for_reviewed_used_and_given_back() {
    let (cluster, _nodes) = cluster("ask.test");
    let (mut ann, mut bob) = (cluster.user("ann", &["asks"]), cluster.user("bob", &["reviews"]));
    let (ann, bob) = (cluster.login(&mut ann), cluster.login(&mut bob));
    let target = format!("{}@web", account());
    ann.tsh(&["ssh", &target, "true"]).refused();

    let mut waiting = ann.terminal(&["request", "create", "--roles=operator", "--reason=the disk is full"]);
    waiting.expect("Waiting for request approval");
    let listed = bob.tsh(&["request", "ls", "--reviewable", "--format=json"]).json();
    let id = listed[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(listed[0]["spec"]["request_reason"], "the disk is full");
    let shown = bob.tsh(&["request", "show", &id]).succeeded();
    assert!(shown.stdout.contains("ann") && shown.stdout.contains("PENDING"), "{shown}");
    bob.tsh(&["request", "review", "--approve", "--reason=hurry", &id]).succeeded();
    waiting.expect("Approval received: hurry");
    assert_eq!(waiting.finish().0, 0);

    assert_eq!(ann.status()["active_requests"], json!([id]));
    ann.tsh(&["ssh", &target, "true"]).succeeded();
    cluster.wait_event("access_request.create", &[("user", "ann"), ("id", &id), ("state", "PENDING")]);
    cluster.wait_event("access_request.review", &[("reviewer", "bob"), ("proposed_state", "APPROVED")]);

    ann.tsh(&["request", "drop"]).succeeded();
    ann.tsh(&["ssh", &target, "true"]).refused();
    ann.tsh(&["login", &format!("--request-id={id}")]).succeeded();
    ann.tsh(&["ssh", &target, "true"]).succeeded();
    // A lock on the request shuts its holder out at once.
    cluster.tctl(&["lock", &format!("--access-request={id}")]).succeeded();
    wait_for("the lock", LIMIT, || match ann.tsh(&["ssh", &target, "true"]) {
        ran if ran.code != 0 => Ok(()),
        ran => Err(ran),
    });
}

#[test]
fn one_server_is_asked_for_and_no_other_is_given() {
    let (cluster, _nodes) = cluster("one.test");
    let mut ann = cluster.user("ann", &["asks"]);
    let ann = cluster.login(&mut ann);
    assert!(ann.servers().is_empty());
    let found = ann.tsh(&["request", "search", "--kind=node", "--search=web"]).succeeded();
    let resource = found.stdout.split_whitespace().find(|word| word.starts_with("/one.test/node/")).unwrap().to_owned();
    assert!(!found.stdout.contains("kind=db"), "{found}");

    let asked = ann.tsh(&["request", "create", "--nowait", "--reason=look", "--resource", &resource]).succeeded();
    let id = id_in(&asked.stdout);
    let early = ann.tsh(&["ssh", &format!("{}@web", account()), "true"]).refused();
    assert!(!early.stderr.contains("panicked"), "{early}");
    let listed = cluster.tctl(&["requests", "ls"]).succeeded();
    assert!(listed.stdout.contains(&id) && listed.stdout.contains(&resource), "{listed}");
    cluster.tctl(&["requests", "approve", &id, "--reason=ok"]).succeeded();
    ann.tsh(&["login", &format!("--request-id={id}")]).succeeded();

    assert_eq!(ann.servers(), ["web"]);
    assert_eq!(ann.status()["allowed_resources"], json!([resource]));
    ann.tsh(&["ssh", &format!("{}@web", account()), "true"]).succeeded();
    let refused = ann.tsh(&["ssh", &format!("{}@db", account()), "true"]).refused();
    assert!(!refused.stdout.contains("root"), "{refused}");
    cluster.wait_event("access_request.update", &[("id", &id), ("state", "APPROVED")]);

    cluster.tctl(&["requests", "rm", &id]).succeeded();
    cluster.tctl(&["requests", "rm", &id]).refused();
    ann.tsh(&["login", &format!("--request-id={id}")]).refused();
}

#[test]
fn a_denial_tells_why() {
    let (cluster, _nodes) = cluster("deny.test");
    let mut ann = cluster.user("ann", &["asks"]);
    let ann = cluster.login(&mut ann);
    let refused = ann.tsh(&["request", "create", "--nowait", "--roles=editor"]).refused();
    assert!(refused.stderr.contains("editor"), "{refused}");
    let asked = ann.tsh(&["login", "--request-roles=operator", "--request-reason=please", "--request-nowait"]);
    let id = id_in(&asked.succeeded().stdout);
    cluster.tctl(&["requests", "deny", &id, "--reason=not today"]).succeeded();
    let denied = ann.tsh(&["login", &format!("--request-id={id}")]).refused();
    assert!(denied.stderr.contains("denied") && denied.stderr.contains("not today"), "{denied}");
    let late = cluster.tctl(&["requests", "approve", &id]).refused();
    assert!(late.stderr.contains("already denied"), "{late}");
    let can = cluster.tctl(&["requests", "caps", "ann", "--format=json"]).json();
    assert_eq!(can["requestable_roles"], json!(["operator"]));
}

#[test]
fn a_session_asks_for_the_role_that_gives_access_to_its_host() {
    let (cluster, _nodes) = cluster("role.test");
    let mut ann = cluster.user("ann", &["asks"]);
    let ann = cluster.login(&mut ann);
    let target = format!("{}@web", account());
    let ask = ["ssh", "--request-mode=role", "--request-reason=look", &target, "echo in-$((6*7))"];
    let mut asking = ann.terminal(&ask);
    let id = asking.expect("Created request ([0-9a-f-]{36})");
    let listed = cluster.tctl(&["get", &format!("access_request/{id}"), "--format=json"]).json();
    let spec = &listed[0]["spec"];
    assert_eq!((&spec["roles"], &spec["request_reason"]), (&json!(["operator"]), &json!("look")), "{listed}");
    assert!(spec["requested_resource_ids"].as_array().is_none_or(Vec::is_empty), "{listed}");
    cluster.tctl(&["requests", "approve", &id]).succeeded();
    asking.expect("in-42");
    assert_eq!(asking.finish().0, 0);
    // Nothing is asked for where no role would help.
    let refused = ann.tsh(&["ssh", "--request-mode=role", "--request-reason=x", "nobody-such@db", "true"]).refused();
    assert!(!refused.stderr.contains("Created request"), "{refused}");
}
