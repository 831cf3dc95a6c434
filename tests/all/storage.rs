//! Several Auth Services on one storage, and the way from one storage to another.

use std::process::Command;
use std::time::Duration;

use e2e::{AgentSetup, Cluster, ClusterSetup, Daemon, Database, account, program, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// Two Auth Services on one storage, the first beside the proxy.
fn two(name: &str, database: &Database) -> (Cluster, Daemon) {
    let cluster = ClusterSetup::new(name).teleport(&json!({ "storage": database.storage() })).start();
    let mut second = cluster.another_auth("auth2", database.storage());
    second.wait_ready();
    (cluster, second)
}

/// What both have to do, whatever the storage is.
fn serves_as_one(cluster: &Cluster, second: &Daemon) {
    let names: Vec<String> = (0..8).map(|n| format!("user{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let (writer, reader) = if n % 2 == 0 { (&cluster.auth, second) } else { (second, &cluster.auth) };
        cluster.tctl_at(writer, &["users", "add", name, "--roles=access", "--logins=root"]).succeeded();
        // What one has acknowledged, the other knows.
        let read = cluster.tctl_at(reader, &["get", &format!("user/{name}"), "--format=json"]).json();
        assert_eq!(read[0]["metadata"]["name"], name.as_str());
        cluster.tctl_at(reader, &["users", "add", name, "--roles=access"]).refused();
    }
    assert_eq!(cluster.tctl_at(&cluster.auth, &["status"]).stdout, cluster.tctl_at(second, &["status"]).stdout);

    // A session through the first obeys what the second says.
    let _node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    let run = || client.tsh(&["ssh", &format!("{}@node1", account()), "echo reached"]);
    wait_for("a session", LIMIT, || if run().stdout == "reached\n" { Ok(()) } else { Err(run()) });
    let made = cluster.tctl_at(second, &["lock", "--user=alice", "--message=Gone fishing"]).succeeded();
    wait_for("the lock to be in force", LIMIT, || if run().code != 0 { Ok(()) } else { Err("still in") });
    let id = made.stdout.split('"').nth(1).unwrap().to_owned();
    cluster.tctl_at(&cluster.auth, &["rm", &format!("lock/{id}")]).succeeded();
    wait_for("the user to be back", LIMIT, || if run().code == 0 { Ok(()) } else { Err(run()) });

    // Places are counted across both: the limit is one connection, whoever asks for it.
    let role = json!({
        "kind": "role", "version": "v7", "metadata": { "name": "single" },
        "spec": { "allow": { "logins": [account()], "node_labels": { "*": "*" } }, "options": { "max_connections": 1 } },
    });
    cluster.create(&role);
    cluster.user("bob", &["single"]);
    let bob = cluster.client_with(&cluster.sign_identity("bob", "1h"));
    let target = format!("{}@node1", account());
    let mut first = bob.terminal(&["ssh", &target, "echo in; sleep 600"]);
    first.expect("in");
    let refused = bob.tsh(&["ssh", &target, "true"]).refused();
    assert!(refused.stderr.contains("too many concurrent ssh connections"), "{refused}");
}

#[test]
fn two_auth_services_on_one_postgresql_serve_one_cluster() {
    let Some(database) = Database::postgres() else { return };
    let (cluster, second) = two("two-pg.test", &database);
    serves_as_one(&cluster, &second);
}

#[test]
fn two_auth_services_on_one_etcd_serve_one_cluster() {
    let Some(database) = Database::etcd() else { return };
    let (cluster, second) = two("two-etcd.test", &database);
    serves_as_one(&cluster, &second);
}

#[test]
fn a_cluster_moves_to_another_storage() {
    let Some(database) = Database::postgres() else { return };
    let mut cluster = Cluster::start("move.test");
    cluster.tctl(&["users", "add", "mover", "--roles=access", "--logins=root"]).succeeded();
    let pin = cluster.pin();
    cluster.auth.stop();

    let file = cluster.new_path("clone.yaml");
    let source = json!({ "type": "sqlite", "path": cluster.path("auth").join("backend") });
    let plan = json!({ "src": source, "dst": database.storage() });
    std::fs::write(&file, serde_json::to_string(&plan).unwrap()).unwrap();
    let clone = || Command::new(program("teleport")).args(["backend", "clone", "-c"]).arg(&file).output().unwrap();
    let done = clone();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let again = clone();
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("not empty"), "{again:?}");

    let storage = format!("teleport:\n  storage: {}", database.storage());
    cluster.auth.edit("teleport:", &storage);
    cluster.auth.launch();
    cluster.wait_ready();
    assert_eq!(cluster.pin(), pin);
    let users = cluster.tctl(&["get", "users", "--format=json"]).succeeded().stdout;
    assert!(users.contains("mover"), "{users}");
}
