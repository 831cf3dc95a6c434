//! Authorities whose keys are replaced while everybody goes on working.

use std::time::Duration;

use e2e::{AgentSetup, Client, Cluster, Daemon, account, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// Takes a step of a rotation.
#[track_caller]
fn step(cluster: &Cluster, authority: &str, phase: &str) {
    let (authority, phase) = (format!("--type={authority}"), format!("--phase={phase}"));
    cluster.tctl(&["auth", "rotate", "--manual", &authority, &phase]).succeeded();
}

/// Waits until a process has said something this often.
#[track_caller]
fn said(daemon: &Daemon, words: &str, times: usize) {
    wait_for(&format!("{words:?}, {times} times"), LIMIT, || {
        let count = daemon.log().matches(words).count();
        if count >= times { Ok(()) } else { Err(format!("said {count} times")) }
    });
}

#[track_caller]
fn works(client: &Client, node: &str) {
    let ran = client.tsh(&["ssh", &format!("{}@{node}", account()), "echo works"]).succeeded();
    assert_eq!(ran.stdout, "works\n");
}

/// Signs a new identity for a user that exists.
fn fresh(cluster: &Cluster) -> Client {
    cluster.client_with(&cluster.sign_identity("alice", "1h"))
}

#[test]
fn members_and_sessions_live_through_rotations_of_the_host_and_user_authorities() {
    let mut cluster = Cluster::start_apart("rotate.test");
    let mut node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access"]);
    let pin = cluster.pin();
    let client = fresh(&cluster);
    let mut shell = client.terminal(&["ssh", &format!("{}@node1", account())]);
    shell.expect(r"[$#%>] ?");

    step(&cluster, "host", "init");
    for daemon in [&node, cluster.proxy.as_ref().unwrap()] {
        said(daemon, "host authorities learnt", 1);
    }
    works(&client, "node1");
    step(&cluster, "host", "update_clients");
    for daemon in [&node, cluster.proxy.as_ref().unwrap()] {
        said(daemon, "identity renewed", 1);
    }
    works(&fresh(&cluster), "node1");
    step(&cluster, "host", "update_servers");
    for daemon in [&node, cluster.proxy.as_ref().unwrap()] {
        said(daemon, "clients are shown the renewed identity", 1);
    }
    works(&fresh(&cluster), "node1");
    cluster.tctl(&["auth", "rotate", "--manual", "--type=host", "--phase=init"]).refused();
    step(&cluster, "host", "standby");
    for daemon in [&node, cluster.proxy.as_ref().unwrap()] {
        said(daemon, "host authorities learnt", 2);
    }
    works(&fresh(&cluster), "node1");
    assert_ne!(cluster.pin(), pin, "the pin is of the new authority");

    for phase in ["init", "update_clients", "update_servers", "standby"] {
        step(&cluster, "user", phase);
        works(&fresh(&cluster), "node1");
    }
    client.tsh(&["ssh", &format!("{}@node1", account()), "true"]).refused();

    shell.type_line("echo still-$((40+2))-here");
    shell.expect("still-42-here");
    shell.type_line("exit");
    assert_eq!(shell.finish().0, 0);

    // What is on disk is good as well.
    node.restart();
    cluster.proxy.as_mut().unwrap().restart();
    cluster.auth.restart();
    cluster.wait_ready();
    let client = fresh(&cluster);
    wait_for("a session after the restart", LIMIT, || {
        let ran = client.tsh(&["ssh", &format!("{}@node1", account()), "echo works"]);
        if ran.code == 0 { Ok(()) } else { Err(ran) }
    });
}

#[test]
fn a_rotation_can_be_taken_back() {
    let cluster = Cluster::start("rollback.test");
    let node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access"]);
    let pin = cluster.pin();
    step(&cluster, "host", "init");
    said(&node, "host authorities learnt", 1);
    step(&cluster, "host", "update_clients");
    said(&node, "identity renewed", 1);
    step(&cluster, "host", "rollback");
    said(&node, "identity renewed", 2);
    works(&fresh(&cluster), "node1");
    step(&cluster, "host", "standby");
    said(&node, "host authorities learnt", 2);
    works(&fresh(&cluster), "node1");
    assert_eq!(cluster.pin(), pin);
    assert!(cluster.tctl(&["status"]).succeeded().stdout.contains("rotated "));
}
