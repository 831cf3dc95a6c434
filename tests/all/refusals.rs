//! What the cluster refuses, and what it says about it.

use std::path::Path;
use std::time::Duration;

use e2e::{AgentSetup, Cluster, Daemon, account, tls_conversation, wait_for};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until an agent has been turned away and says why, in its log, with one of these words.
#[track_caller]
fn wait_turned_away(agent: &Daemon, words: &[&str]) {
    wait_for(&format!("one of {words:?} in the agent's log"), LIMIT, || {
        let log = agent.log().to_lowercase();
        if words.iter().any(|w| log.contains(w)) { Ok(()) } else { Err(log) }
    });
}

/// Whether the Auth Service talks to the holder of an identity file.
fn auth_talks_to(cluster: &Cluster, identity: &Path) -> Result<(), String> {
    let pem = std::fs::read(identity).unwrap();
    // The user's own certificate comes first; those after it are the authorities to trust.
    let chain = CertificateDer::pem_slice_iter(&pem).take(1).map(Result::unwrap).collect();
    let port = cluster.auth_address().rsplit(':').next().unwrap().parse().unwrap();
    tls_conversation(port, "h2", chain, PrivateKeyDer::from_pem_slice(&pem).unwrap())
}

/// The last line somebody at a terminal saw.
fn last_line(shown: &str) -> &str {
    shown.trim_end().lines().last().unwrap_or_default()
}

#[test]
fn a_node_does_not_join_an_auth_service_with_another_pin() {
    let cluster = Cluster::start("pin.test");
    let wrong = format!("sha256:{}", "5a".repeat(32));
    let agent = cluster.start_agent(&AgentSetup::node("node1").at_auth_with_pin(&wrong));
    wait_turned_away(&agent, &["pin"]);
    assert_eq!(cluster.nodes(), Vec::<String>::new());
}

#[test]
fn a_node_does_not_join_with_a_token_nobody_made() {
    let cluster = Cluster::start("token.test");
    let mut agent = cluster.start_agent(&AgentSetup::node("node1").token("0123456789abcdef").with_diagnostics());
    wait_turned_away(&agent, &["token", "denied"]);
    assert_eq!(cluster.nodes(), Vec::<String>::new());
    assert!(!cluster.auth.log().contains("0123456789abcdef"), "a token is not written to the log");
    assert!(agent.ready().is_err(), "a node that has not joined is not ready");

    // Nobody need restart it once somebody has made the token.
    cluster.tctl(&["tokens", "add", "--type=node", "--value=0123456789abcdef"]).succeeded();
    agent.wait_ready();
    assert_eq!(cluster.nodes(), ["node1"]);
}

#[test]
fn a_node_does_not_join_with_a_token_that_has_expired() {
    let cluster = Cluster::start("expiry.test");
    let add = ["tokens", "add", "--type=node", "--ttl=1s", "--format=text"];
    let token = cluster.tctl(&add).succeeded().stdout.trim().to_owned();
    wait_for("the token to expire", LIMIT, || {
        let listed = cluster.tctl(&["tokens", "ls", "--format=json"]).succeeded().stdout;
        if listed.contains(&token) { Err(listed) } else { Ok(()) }
    });
    let agent = cluster.start_agent(&AgentSetup::node("node1").token(&token));
    wait_turned_away(&agent, &["token", "denied"]);
    assert_eq!(cluster.nodes(), Vec::<String>::new());
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let cluster = Cluster::start("password.test");
    let mut bob = cluster.user("bob", &["access"]);
    let code = bob.code();
    let (client, wrong) = (cluster.client(), "not-the-password");
    let (code_bob, known) = client.try_login("bob", wrong, &code);
    let (code_nobody, unknown) = client.try_login("nobody", wrong, &code);
    assert!(code_bob != 0 && code_nobody != 0, "{known}\n{unknown}");
    assert_eq!(last_line(&known), last_line(&unknown));
    client.tsh(&["ls"]).refused();
    cluster.wait_event("user.login", &[("user", "bob"), ("code", "T1000W")]);
}

#[test]
fn a_one_time_code_works_once() {
    let cluster = Cluster::start("code.test");
    let mut bob = cluster.user("bob", &["access"]);
    cluster.login(&mut bob);
    let (exit, shown) = cluster.client().try_login("bob", &bob.password, &bob.last_code());
    assert!(exit != 0, "the code was used before: {shown}");
}

#[test]
fn an_invitation_works_once() {
    let cluster = Cluster::start("invitation.test");
    let invitation = cluster.invite("carol", &["access"]);
    let mut browser = cluster.browser();
    let address = browser.open_invitation(&invitation);
    let mut carol = e2e::Person::new("carol", "correct-horse-7", &address);
    let wrong = browser.accept_invitation(&invitation, "correct-horse-7", "000000");
    assert!(wrong.status >= 400, "{wrong:?}");
    assert_eq!(browser.accept_invitation(&invitation, "correct-horse-7", &carol.code()).status, 200);
    let again = browser.accept_invitation(&invitation, "another-horse-8", &carol.code());
    assert!(again.status >= 400, "{again:?}");
    cluster.login(&mut carol);
}

#[test]
fn a_certificate_that_has_expired_opens_nothing() {
    let cluster = Cluster::start("expired.test");
    let _node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("robot", &["access"]);
    let identity = cluster.sign_identity("robot", "1m");
    let talk = || auth_talks_to(&cluster, &identity);
    let client = cluster.client_with(&identity);
    let target = format!("{}@node1", account());
    client.tsh(&["ssh", &target, "true"]).succeeded();
    talk().unwrap();

    wait_for("the certificate to expire", Duration::from_secs(150), || talk().map_or(Ok(()), |()| Err("still good")));
    client.tsh(&["ssh", &target, "true"]).refused();
    client.tsh(&["ls"]).refused();
}

#[test]
fn an_identity_of_another_cluster_opens_nothing() {
    let (here, there) = (Cluster::start("here.test"), Cluster::start("there.test"));
    let _node = here.agent(&AgentSetup::node("node1"));
    here.user("alice", &["access", "editor"]);
    there.user("alice", &["access", "editor"]);
    let foreign = there.sign_identity("alice", "1h");
    let client = here.client_with(&foreign);
    client.tsh(&["ls"]).refused();
    client.tsh(&["ssh", &format!("{}@node1", account()), "true"]).refused();

    assert!(auth_talks_to(&there, &foreign).is_ok());
    assert!(auth_talks_to(&here, &foreign).is_err());

    let own = here.sign_identity("alice", "1h");
    here.tctl_with(&own, &["get", "users"]).succeeded();
    here.tctl_with(&foreign, &["get", "users"]).refused();
}

#[test]
fn a_login_the_roles_do_not_allow_is_refused_with_the_reason() {
    let cluster = Cluster::start("login.test");
    let _node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    let ran = client.tsh(&["ssh", "nobody-such@node1", "true"]).refused();
    assert!(ran.stderr.contains("nobody-such") && ran.stderr.contains("access denied"), "{ran}");
    cluster.wait_event("auth", &[("user", "alice"), ("login", "nobody-such"), ("code", "T3007W")]);
    client.tsh(&["ssh", &format!("{}@node1", account()), "true"]).succeeded();
}

#[test]
fn a_user_whose_roles_match_no_label_neither_sees_nor_reaches_the_node() {
    let cluster = Cluster::start("labels.test");
    let _ours = cluster.agent(&AgentSetup::node("ours").label("team", "web"));
    let _theirs = cluster.agent(&AgentSetup::node("theirs").label("team", "core"));
    cluster.create(&json!({
        "kind": "role",
        "version": "v7",
        "metadata": { "name": "web" },
        "spec": { "allow": { "logins": [account()], "node_labels": { "team": "web" } } },
    }));
    let mut dave = cluster.user("dave", &["web"]);
    let client = cluster.login(&mut dave);
    assert_eq!(client.servers(), ["ours"]);
    client.tsh(&["ssh", &format!("{}@ours", account()), "true"]).succeeded();
    client.tsh(&["ssh", &format!("{}@theirs", account()), "true"]).refused();
    // The id in place of the name leads to the same answer.
    let nodes = cluster.tctl(&["get", "nodes", "--format=json"]).json();
    let theirs = nodes.as_array().unwrap().iter().find(|n| n["spec"]["hostname"] == "theirs").unwrap();
    let id = theirs["metadata"]["name"].as_str().unwrap();
    client.tsh(&["ssh", &format!("{}@{id}", account()), "true"]).refused();
}

#[test]
fn a_key_nobody_knows_in_the_configuration_is_named_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "version: v3\nteleport:\n  nodename: here\n  data_dirr: /nowhere\nssh_service:\n  enabled: true\n";
    let mut daemon = Daemon::start_with_file(folder.path(), "wrong", yaml, &[], None);
    assert_ne!(daemon.wait_end(LIMIT), 0);
    let said = daemon.log();
    assert!(said.contains("wrong.yaml") && said.contains("data_dirr"), "{said}");
    assert!(said.contains("wrong.yaml:4") || said.contains("line 4"), "{said}");
}
