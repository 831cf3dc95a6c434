//! Authorities whose keys are replaced while everybody goes on working, and clusters that trust each other.

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

/// Runs a command on the leaf's node until that succeeds.
#[track_caller]
fn reaches_leaf(client: &Client) {
    let target = format!("{}@leaf-node", account());
    wait_for("a session in the leaf", LIMIT, || {
        let ran = client.tsh(&["ssh", "--cluster=leaf.test", &target, "echo reached"]);
        if ran.code == 0 && ran.stdout == "reached\n" { Ok(()) } else { Err(ran) }
    });
}

#[test]
fn a_leaf_behind_a_firewall_is_reached_through_the_root() {
    let (root, leaf) = (Cluster::start("root.test"), Cluster::start("leaf.test"));
    let _node = leaf.agent(&AgentSetup::node("leaf-node"));
    root.user("alice", &["access"]);
    leaf.trust(&root, true);
    let client = root.client_with(&root.sign_identity("alice", "1h"));
    reaches_leaf(&client);
    let listed = client.tsh(&["clusters", "--format=json"]).json();
    assert_eq!(listed[1]["cluster_name"], "leaf.test", "{listed}");

    leaf.trust(&root, false);
    let refused = || {
        let ran = client.tsh(&["ssh", "--cluster=leaf.test", &format!("{}@leaf-node", account()), "true"]);
        if ran.code == 0 { Err("a session") } else { Ok(()) }
    };
    wait_for("no more sessions", LIMIT, refused);
    leaf.trust(&root, true);
    reaches_leaf(&client);
    leaf.tctl(&["rm", "trusted_cluster/root.test"]).succeeded();
    wait_for("no more sessions", LIMIT, refused);
    root.tctl(&["rm", "rc/leaf.test"]).succeeded();
    assert_eq!(client.tsh(&["clusters", "--format=json"]).json().as_array().map(Vec::len), Some(1));
}

/// Waits until a cluster believes this many certificates of an authority.
#[track_caller]
fn believes(cluster: &Cluster, authority: &str, count: usize) {
    wait_for(&format!("{} to believe {count} certificates of {authority}", cluster.name()), LIMIT, || {
        let shown = cluster.tctl(&["get", &format!("cert_authority/{authority}"), "--format=json"]).json();
        let spec = &shown[0]["spec"];
        let of = |set: &str| spec[set]["tls"].as_array().map_or(0, Vec::len);
        let found = of("active_keys") + of("additional_trusted_keys");
        if found == count { Ok(()) } else { Err(format!("{found}: {shown}")) }
    });
}

#[test]
fn each_side_follows_the_rotation_of_the_other() {
    let (root, leaf) = (Cluster::start("root.test"), Cluster::start("leaf.test"));
    let node = leaf.agent(&AgentSetup::node("leaf-node"));
    root.user("alice", &["access"]);
    leaf.trust(&root, true);
    let client = || root.client_with(&root.sign_identity("alice", "1h"));
    reaches_leaf(&client());
    for (rotating, other, authorities) in [(&leaf, &root, &["host"][..]), (&root, &leaf, &["host", "user"])] {
        for authority in authorities {
            let name = format!("{authority}/{}", rotating.name());
            for (phase, certificates) in [("init", 2), ("update_clients", 2), ("update_servers", 2), ("standby", 1)] {
                step(rotating, authority, phase);
                believes(other, &name, certificates);
                if (rotating.name(), phase) == ("leaf.test", "update_servers") {
                    said(&node, "clients are shown the renewed identity", 1);
                }
                reaches_leaf(&client());
            }
        }
    }
}
