//! What survives when processes are killed, and what is noticed when the log is changed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use e2e::{AgentSetup, Client, Cluster, ClusterSetup, Loss, Power, Valve, account, free_port, listen, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn events_of_a_node_outlive_the_death_of_auth_and_node() {
    let mut cluster = Cluster::start_apart("killed.test");
    let mut node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    let mut shell = client.terminal(&["ssh", &format!("{}@node1", account())]);
    shell.expect(r"[$#%>] ?");
    shell.type_line("echo mark-$((40+2))-mark sid=$SSH_SESSION_ID=");
    let session = shell.expect("mark-42-mark sid=([0-9a-f-]{36})=");
    cluster.wait_event("session.start", &[("sid", &session)]);

    cluster.auth.kill();
    shell.type_line("exit 4");
    assert_eq!(shell.finish().0, 4, "sessions go on while the Auth Service is away");
    let spool = cluster.path("node1").join("log/events.spool");
    wait_for("the events to be on the node's disk", LIMIT, || {
        let bytes = fs::read(&spool).unwrap_or_default();
        let kept = String::from_utf8_lossy(&bytes).matches("session.end").count();
        if kept > 0 { Ok(()) } else { Err(format!("{} bytes", bytes.len())) }
    });
    node.kill();

    cluster.auth.launch();
    cluster.wait_ready();
    node.launch();
    let end = cluster.wait_event("session.end", &[("sid", &session)]);
    assert_eq!(end["user"], "alice", "{end}");
    assert_eq!(cluster.events("session.end").iter().filter(|e| e["sid"] == session.as_str()).count(), 1);
}

/// Power fails while the Auth Service works, and while the node keeps what it cannot deliver.
#[test]
fn what_was_acknowledged_outlives_a_failure_of_power() {
    let mut cluster = Cluster::start_apart("power.test");
    let mut node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access", "auditor"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    let (login, folder) = (format!("{}@node1", account()), cluster.path("auth"));
    let mut users = Vec::new();
    for (round, loss) in [Loss::Cut, Loss::Zeros].into_iter().enumerate() {
        let trace = cluster.new_path("trace");
        let Some(power) = Power::watch(&cluster.auth, &folder, &trace) else { return };
        let mut shell = client.terminal(&["ssh", &login]);
        shell.expect(r"[$#%>] ?");
        shell.type_line("echo mark-$((40+2))-mark sid=$SSH_SESSION_ID=");
        let session = shell.expect("mark-42-mark sid=([0-9a-f-]{36})=");
        shell.type_line("exit 0");
        assert_eq!(shell.finish().0, 0);
        cluster.wait_event("session.upload", &[("sid", &session)]);
        let command = format!("echo round-{round}");
        client.tsh(&["ssh", &login, &command]).succeeded();
        cluster.wait_event("exec", &[("command", &command)]);
        for number in 0..5 {
            let name = format!("user-{round}-{number}");
            cluster.tctl(&["users", "add", &name, "--roles=access"]).succeeded();
            users.push(name);
        }
        cluster.auth.kill();
        let lost = power.fail(loss);
        cluster.auth.launch();
        cluster.wait_ready();
        let listed = cluster.tctl(&["get", "users", "--format=json"]).succeeded().stdout;
        let made: Vec<_> = cluster.events("user.create");
        for name in &users {
            assert!(listed.contains(&format!("\"{name}\"")), "{name} is gone; lost: {lost:#?}");
            assert!(made.iter().any(|e| e["name"] == name.as_str()), "no event of {name}; lost: {lost:#?}");
        }
        assert!(cluster.events("exec").iter().any(|e| e["command"] == command.as_str()), "lost: {lost:#?}");
        let played = client.tsh(&["play", "--format=text", &session]);
        assert!(played.stdout.contains("mark-42-mark"), "{played}; lost: {lost:#?}");
        let verified = cluster.tctl(&["audit", "verify"]);
        assert!(verified.code == 0, "{verified}; lost: {lost:#?}");
    }

    // The node: events that the Auth Service has not taken.
    let Some(power) = Power::watch(&node, &cluster.path("node1"), &cluster.new_path("trace")) else { return };
    let mut shell = client.terminal(&["ssh", &login]);
    shell.expect(r"[$#%>] ?");
    shell.type_line("echo mark-$((40+2))-mark sid=$SSH_SESSION_ID=");
    let session = shell.expect("mark-42-mark sid=([0-9a-f-]{36})=");
    cluster.wait_event("session.start", &[("sid", &session)]);
    cluster.auth.kill();
    shell.type_line("exit 4");
    assert_eq!(shell.finish().0, 4);
    let spool = cluster.path("node1").join("log/events.spool");
    wait_for("the events to be durable on the node", LIMIT, || {
        let kept = String::from_utf8_lossy(&fs::read(&spool).unwrap_or_default()).contains("session.end");
        if kept && power.is_durable(&spool) { Ok(()) } else { Err("not yet") }
    });
    node.kill();
    let lost = power.fail(Loss::Zeros);
    cluster.auth.launch();
    cluster.wait_ready();
    node.launch();
    let end = cluster.wait_event("session.end", &[("sid", &session)]);
    assert_eq!(end["user"], "alice", "lost: {lost:#?}");
}

/// A router on the way forgets every connection: both ends believe that they are connected.
#[test]
fn a_session_and_its_events_outlive_connections_that_the_network_forgot() {
    let (door, behind) = (free_port(), free_port());
    let keepalive = json!({ "keep_alive_interval": "1s", "keep_alive_count_max": 2 });
    let setup = ClusterSetup::new("forgotten.test").auth(&keepalive);
    let public = listen(door);
    let valve = Valve::start(door, &listen(behind));
    let cluster = setup.proxy(&json!({ "web_listen_addr": listen(behind), "public_addr": public })).start();
    let _node = cluster.agent(&AgentSetup::node("node1").at_proxy(&valve.address()));
    cluster.user("alice", &["access", "auditor"]);
    let identity = cluster.sign_identity("alice", "1h");
    let client = Client::with_identity(&valve.address(), &cluster.new_path("home"), &identity);
    let mut shell = client.terminal(&["ssh", &format!("{}@node1", account())]);
    shell.expect(r"[$#%>] ?");
    shell.type_line("echo mark-$((40+2))-mark sid=$SSH_SESSION_ID=");
    let session = shell.expect("mark-42-mark sid=([0-9a-f-]{36})=");
    valve.forget();
    shell.type_line("echo over-$((40+3))-over");
    shell.expect("over-43-over");
    // Once more, when nobody types anything.
    shell.type_line("echo begin-$((40+4))-begin; sleep 2; echo late-$((40+5))-late");
    shell.expect("begin-44-begin");
    valve.forget();
    shell.expect("late-45-late");
    shell.type_line("exit 5");
    assert_eq!(shell.finish().0, 5);
    cluster.wait_event("session.end", &[("sid", &session)]);
    cluster.wait_event("session.upload", &[("sid", &session)]);
    let played = client.tsh(&["play", "--format=text", &session]).succeeded();
    assert!(played.stdout.contains("mark-42-mark") && played.stdout.contains("late-45-late"), "{played}");
    assert_eq!(cluster.events("session.end").iter().filter(|e| e["sid"] == session.as_str()).count(), 1);
}

/// The newest daily file of the audit log.
fn today(cluster: &Cluster) -> PathBuf {
    fs::canonicalize(cluster.path("auth/log/events.log")).unwrap()
}

#[test]
fn who_changes_the_audit_log_is_found_out() {
    let mut cluster = Cluster::start("evidence.test");
    cluster.tctl(&["tokens", "add", "--type=node"]).succeeded();
    cluster.tctl(&["users", "add", "carol", "--roles=access"]).succeeded();
    let shown = cluster.tctl(&["audit", "verify"]).succeeded();
    assert!(shown.stdout.contains("nothing was changed"), "{shown}");
    let kept = cluster.tctl(&["audit", "checkpoint", "--format=json"]).json();
    let (key, checkpoint) = (kept["key"].as_str().unwrap(), &kept["hosts"][0]["checkpoint"]);
    assert!(key.contains("PUBLIC KEY"), "{kept}");

    cluster.auth.stop();
    let file = today(&cluster);
    let text = fs::read_to_string(&file).unwrap();
    let line = text.lines().position(|line| line.contains("\"carol\"")).unwrap() + 1;
    fs::write(&file, text.replace("\"carol\"", "\"mallory\"")).unwrap();

    // A copy is verified anywhere, with what was kept elsewhere.
    let key_file = cluster.path("checkpoints.pem");
    fs::write(&key_file, key).unwrap();
    let expected = format!("{}:{}", checkpoint["number"], checkpoint["digest"].as_str().unwrap());
    let folder = file.parent().unwrap().display().to_string();
    let key_file = key_file.display().to_string();
    let refused =
        cluster.tctl(&["audit", "verify", "--folder", &folder, "--key", &key_file, "--expect", &expected]).refused();
    assert!(refused.said().contains(&format!("line {line}: changed")), "{refused}");

    cluster.auth.launch();
    cluster.wait_ready();
    // Later checkpoints hide neither one that was there nor one that never was.
    let expects = |text: &str| cluster.tctl(&["audit", "verify", "--expect", text]).refused();
    cluster.tctl(&["tokens", "add", "--type=node"]).succeeded();
    assert!(!expects(&expected).said().contains("is not there"), "{expected}");
    let forged = format!("{}:{}", checkpoint["number"], "0".repeat(64));
    assert!(expects(&forged).said().contains("is not there"), "{forged}");
    let refused = cluster.tctl(&["audit", "verify"]).refused();
    assert!(refused.said().contains(&format!("line {line}: changed")), "{refused}");
}
