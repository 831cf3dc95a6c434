//! What survives when processes are killed, and what is noticed when the log is changed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use e2e::{AgentSetup, Cluster, account, wait_for};

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
    let refused = cluster.tctl(&["audit", "verify"]).refused();
    assert!(refused.said().contains(&format!("line {line}: changed")), "{refused}");
}
