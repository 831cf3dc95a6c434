//! What users get without being given it by name: by access lists, and by roles that ask at every login.

use e2e::{AgentSetup, Cluster, account};
use serde_json::{Value, json};

fn role(name: &str, spec: &Value) -> Value {
    json!({ "kind": "role", "version": "v7", "metadata": { "name": name }, "spec": spec })
}

#[test]
fn a_member_of_a_list_reaches_what_it_grants_until_the_membership_ends() {
    let cluster = Cluster::start("lists.test");
    let _node = cluster.agent(&AgentSetup::node("web"));
    cluster.create(&role(
        "operator",
        &json!({ "allow": { "node_labels": { "*": "*" }, "logins": ["{{external.team}}"] } }),
    ));
    cluster.create(&role("nothing", &json!({})));
    let list = |name: &str, grants: Value| {
        json!({ "kind": "access_list", "version": "v1", "metadata": { "name": name },
            "spec": { "title": name, "owners": [{ "name": "olga" }], "grants": grants } })
    };
    cluster.create(&list("operators", json!({ "roles": ["operator"], "traits": { "team": [account()] } })));
    cluster.create(&list("on-call", json!({ "roles": ["nothing"] })));
    let mut ann = cluster.user("ann", &["nothing"]);
    let client = cluster.login(&mut ann);
    assert!(client.servers().is_empty());

    // A list of lists: whoever is on call is an operator.
    cluster.tctl(&["acl", "users", "add", "--kind=list", "operators", "on-call"]).succeeded();
    cluster.tctl(&["acl", "users", "add", "on-call", "ann", "", "this week"]).succeeded();
    cluster.wait_event("access_list.member.create", &[("access_list_name", "on-call"), ("name", "ann")]);
    let why = cluster.tctl(&["access", "explain", "ann", "node/web", &account()]).succeeded();
    assert!(why.stdout.starts_with("ALLOWED"), "{why}");
    // A member sees the list and not its members: what lists give to others stays unsaid.
    let read = json!({ "resources": ["user", "role"], "verbs": ["list", "read"] });
    cluster.create(&role("looks", &json!({ "allow": { "node_labels": { "*": "*" }, "rules": [read] } })));
    cluster.user("lou", &["looks"]);
    cluster.tctl(&["acl", "users", "add", "on-call", "lou"]).succeeded();
    let identity = cluster.sign_identity("lou", "10m");
    let seen = cluster.tctl_with(&identity, &["access", "explain", "ann", "node/web", &account()]).succeeded();
    assert!(seen.stdout.starts_with("DENIED") && seen.stdout.contains("Access lists were not looked at"), "{seen}");
    client.tsh(&["logout"]).succeeded();
    client.login(&mut ann);
    let status = client.status();
    assert!(status["roles"].as_array().unwrap().contains(&json!("operator")), "{status}");
    client.tsh(&["ssh", &format!("{}@web", account()), "true"]).succeeded();
    let state = cluster.tctl(&["get", "user_login_state/ann", "--format=json"]).json();
    assert_eq!(state[0]["spec"]["original_roles"], json!(["nothing"]));

    cluster.tctl(&["acl", "users", "rm", "on-call", "ann"]).succeeded();
    client.tsh(&["logout"]).succeeded();
    client.login(&mut ann);
    assert!(client.servers().is_empty());
    let listed = cluster.tctl(&["acl", "users", "ls", "operators"]).succeeded();
    assert!(listed.stdout.contains("on-call") && listed.stdout.contains("list"), "{listed}");
}

#[test]
fn a_login_asks_for_more_where_the_roles_say_so_and_is_none_when_it_is_denied() {
    let cluster = Cluster::start("always.test");
    cluster.create(&role("operator", &json!({})));
    let ask = json!({ "options": { "request_access": "always", "request_prompt": "Which ticket?" },
        "allow": { "request": { "roles": ["operator"] } } });
    cluster.create(&role("asks", &ask));
    let mut ann = cluster.user("ann", &["asks"]);
    let client = cluster.client();
    for decision in ["deny", "approve"] {
        let mut terminal = client.terminal(&["login", "--user=ann", "--auth=local"]);
        terminal.expect("(?i)password");
        terminal.type_line(&ann.password);
        terminal.expect("(?i)(otp|code)");
        terminal.type_line(&ann.code());
        terminal.expect("Which ticket\\?");
        terminal.type_line("T-1");
        terminal.expect("Waiting for request approval");
        let waiting = cluster.tctl(&["requests", "ls", "--format=json"]).json();
        let pending = waiting.as_array().unwrap().iter().find(|one| one["spec"]["state"] == 1).unwrap().clone();
        assert_eq!(
            (&pending["spec"]["request_reason"], &pending["spec"]["roles"]),
            (&json!("T-1"), &json!(["operator"]))
        );
        cluster.tctl(&["requests", decision, pending["metadata"]["name"].as_str().unwrap()]).succeeded();
        let (code, text) = terminal.finish();
        assert_eq!(code == 0, decision == "approve", "{text}");
        assert_eq!(client.tsh(&["status"]).code == 0, decision == "approve");
    }
    assert!(client.status()["roles"].as_array().unwrap().contains(&json!("operator")));
    client.tsh(&["logout"]).succeeded();
}

#[test]
fn rates_of_the_file_bound_what_one_address_asks_for() {
    let rates = json!([{ "period": "10m", "average": 100, "burst": 100 }]);
    let cluster =
        e2e::ClusterSetup::new("rates.test").teleport(&json!({ "connection_limits": { "rates": rates } })).start();
    let mut browser = cluster.browser();
    let answers: Vec<u16> = (0..150).map(|_| browser.get("/webapi/ping").status).collect();
    assert_eq!(answers.first(), Some(&200), "{answers:?}");
    assert_eq!(answers.last(), Some(&429), "{answers:?}");
    // The administrator on the machine gets in all the same.
    cluster.tctl(&["status"]).succeeded();
}
