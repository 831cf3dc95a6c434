//! Authorities whose private keys are in a security module.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use e2e::{AgentSetup, Client, Cluster, ClusterSetup, Daemon, Database, SoftHsm, account, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);
/// Kinds of key of all types of authority together.
const KEYS: usize = 12;

fn cluster(name: &str, hsm: &SoftHsm) -> ClusterSetup {
    let variables = hsm.variables();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    ClusterSetup::new(name).auth(&hsm.settings()).variables(&variables)
}

#[track_caller]
fn step(cluster: &Cluster, auth: &Daemon, authority: &str, phase: &str) {
    let (authority, phase) = (format!("--type={authority}"), format!("--phase={phase}"));
    cluster.tctl_at(auth, &["auth", "rotate", "--manual", &authority, &phase]).succeeded();
}

#[track_caller]
fn has_pairs(hsm: &SoftHsm, count: usize) {
    wait_for(&format!("{count} keys in the module"), LIMIT, || {
        let found = hsm.pairs();
        if found == count { Ok(()) } else { Err(format!("found {found}")) }
    });
}

#[track_caller]
fn works(client: &Client) {
    let ran = client.tsh(&["ssh", &format!("{}@node1", account()), "echo works"]).succeeded();
    assert_eq!(ran.stdout, "works\n");
}

fn fresh(cluster: &Cluster) -> Client {
    cluster.client_with(&cluster.sign_identity("alice", "1h"))
}

/// All bytes of the files in a folder.
fn contents(folder: &Path) -> Vec<u8> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let of =
        |path: std::path::PathBuf| if path.is_dir() { contents(&path) } else { fs::read(&path).unwrap_or_default() };
    entries.flat_map(of).collect()
}

fn occurs(text: &[u8], piece: &str) -> usize {
    text.windows(piece.len()).filter(|window| *window == piece.as_bytes()).count()
}

/// The beginning of what a text becomes in base64.
fn encoded(beginning: &str) -> String {
    STANDARD.encode(&beginning.as_bytes()[..beginning.len() / 3 * 3])
}

/// The state names keys in the module and holds none.
fn keeps_references_only(cluster: &Cluster) {
    let state = contents(&cluster.path("auth").join("backend"));
    assert!(occurs(&state, &encoded("pkcs11:{\"host_id\":\"")) >= KEYS / 2, "authorities name keys in the module");
    for label in ["-----BEGIN PRIVATE KEY", "-----BEGIN RSA PRIVATE KEY", "-----BEGIN EC PRIVATE KEY"] {
        assert_eq!(occurs(&state, &encoded(label)), 0, "{label} of an authority");
    }
    assert_eq!(occurs(&state, SoftHsm::PIN), 0);
}

#[test]
fn a_cluster_with_its_keys_in_a_module_works_rotates_and_restarts() {
    let Some(hsm) = SoftHsm::make() else { return };
    let mut cluster = cluster("hsm.test", &hsm).start();
    has_pairs(&hsm, KEYS);
    // Sessions of browsers, of which there are none yet, have keys of their own.
    keeps_references_only(&cluster);
    let node = cluster.agent(&AgentSetup::node("node1"));
    let mut alice = cluster.user("alice", &["access"]);
    let logged_in = cluster.login(&mut alice);
    works(&logged_in);
    let status = cluster.tctl(&["status"]).succeeded().stdout;
    assert_eq!(status.matches("never updated, PKCS#11 HSM keys").count(), 9, "{status}");
    let shown = cluster.tctl(&["get", "cap"]).succeeded().stdout;
    assert!(shown.contains("hsm-v1"), "{shown}");
    let refused = cluster.tctl(&["auth", "export", "--type=tls-user", "--keys"]).refused();
    assert!(refused.stderr.contains("in a security module and cannot be exported"), "{refused}");
    cluster.tctl(&["auth", "export", "--type=tls-user"]).succeeded();
    cluster.tctl(&["auth", "crl", "--type=user"]).succeeded();

    let pin = cluster.pin();
    cluster.auth.restart();
    cluster.wait_ready();
    wait_for("a session with what was signed before", LIMIT, || {
        let ran = logged_in.tsh(&["ssh", &format!("{}@node1", account()), "true"]);
        if ran.code == 0 { Ok(()) } else { Err(ran) }
    });
    assert_eq!((cluster.pin(), hsm.pairs()), (pin.clone(), KEYS), "the same keys after a restart");
    works(&fresh(&cluster));

    for (phase, member) in [
        ("init", "host authorities learnt"),
        ("update_clients", "identity renewed"),
        ("update_servers", "clients are shown the renewed identity"),
        ("standby", ""),
    ] {
        step(&cluster, &cluster.auth, "host", phase);
        // What members do in the last phase is not logged.
        if !member.is_empty() {
            wait_for(&format!("the node and the proxy in {phase}"), LIMIT, || {
                let told = |log: &str, role: &str| log.lines().any(|line| line.contains(member) && line.contains(role));
                if told(&node.log(), "Node") && told(&cluster.auth.log(), "Proxy") { Ok(()) } else { Err("not yet") }
            });
        }
        has_pairs(&hsm, if phase == "standby" { KEYS } else { KEYS + 2 });
    }
    assert_ne!(cluster.pin(), pin);
    for phase in ["init", "update_clients", "update_servers", "standby"] {
        step(&cluster, &cluster.auth, "user", phase);
        works(&fresh(&cluster));
    }
    has_pairs(&hsm, KEYS);
    logged_in.tsh(&["ssh", &format!("{}@node1", account()), "true"]).refused();
}

#[test]
fn a_module_that_cannot_be_used_is_named_at_the_start() {
    let Some(hsm) = SoftHsm::make() else { return };
    let mut cluster = cluster("refused.test", &hsm).start();
    let fails = |cluster: &mut Cluster, reason: &str| {
        cluster.auth.stop();
        let before = cluster.auth.log().len();
        cluster.auth.launch();
        assert_ne!(cluster.auth.wait_end(LIMIT), 0);
        let said = cluster.auth.log()[before..].to_owned();
        assert!(said.contains(reason), "expected {reason:?} in {said}");
        assert!(!said.contains("wrong-13579") && !said.contains(SoftHsm::PIN), "{said}");
        cluster.auth.launch();
    };
    hsm.set_pin("wrong-13579");
    fails(&mut cluster, "token \"e2e\": the PIN was refused");
    hsm.set_pin(SoftHsm::PIN);
    hsm.expose_pin();
    fails(&mut cluster, "pkcs11.pin_path: everybody may read");
    hsm.set_pin(SoftHsm::PIN);
    cluster.auth.edit("second_factor", "signature_algorithm_suite: balanced-v1\n    second_factor");
    fails(&mut cluster, "use hsm-v1, fips-v1 or legacy");
}

#[test]
fn a_module_keeps_its_keys_when_the_storage_is_another() {
    let Some(hsm) = SoftHsm::make() else { return };
    let mut cluster = cluster("moved.test", &hsm).start();
    has_pairs(&hsm, KEYS);
    cluster.auth.stop();
    let (storage, aside) = (cluster.path("auth").join("backend"), cluster.new_path("backend"));
    fs::rename(&storage, &aside).expect("put the storage aside");
    // As after a restart by the system.
    for _ in 0..2 {
        let before = cluster.auth.log().len();
        cluster.auth.launch();
        assert_ne!(cluster.auth.wait_end(LIMIT), 0);
        let said = cluster.auth.log()[before..].to_owned();
        let reason = format!("the module holds {KEYS} keys of this host that the storage does not name");
        assert!(said.contains(&reason), "expected {reason:?} in {said}");
    }
    fs::remove_dir_all(&storage).expect("remove the empty storage");
    fs::rename(&aside, &storage).expect("put the storage back");
    cluster.auth.launch();
    cluster.wait_ready();
    assert_eq!(hsm.pairs(), KEYS);
    cluster.tctl(&["auth", "crl", "--type=user"]).succeeded();
}

#[test]
fn a_second_auth_service_with_a_module_of_its_own_signs_after_a_rotation() {
    let (Some(first), Some(second)) = (SoftHsm::make(), SoftHsm::make()) else { return };
    let Some(database) = Database::etcd() else { return };
    let cluster = cluster("hsms.test", &first).teleport(&json!({ "storage": database.storage() })).start();
    has_pairs(&first, KEYS);
    let mut other = cluster.another_auth_with("auth2", database.storage(), &second.settings(), &second.variables());
    other.wait_ready();
    has_pairs(&second, KEYS);
    cluster.user("alice", &["access"]);
    let sign = || {
        let out = format!("--out={}", cluster.new_path("identity").display());
        cluster.tctl_at(&other, &["auth", "sign", "--user=alice", &out])
    };
    sign().refused();
    let status = cluster.tctl_at(&other, &["status"]).succeeded().stdout;
    assert!(status.contains("PKCS#11 HSM keys; other keys are trusted and wait for a rotation"), "{status}");
    assert!(status.matches("sha256:").count() == 2, "{status}");
    let alerts = cluster.tctl(&["alerts", "list"]).succeeded().stdout;
    assert!(alerts.contains("cannot sign for the authorities"), "{alerts}");
    for phase in ["init", "update_clients", "update_servers", "standby"] {
        step(&cluster, &cluster.auth, "user", phase);
    }
    wait_for("the second to sign", LIMIT, || {
        let signed = sign();
        if signed.code == 0 { Ok(()) } else { Err(signed) }
    });
    let exported = cluster.tctl(&["auth", "export", "--type=tls-user"]).succeeded().stdout;
    assert_eq!(exported.matches("-----BEGIN CERTIFICATE").count(), 2, "one of each module: {exported}");
    let refused = cluster.tctl(&["auth", "export", "--type=windows"]).refused();
    assert!(refused.stderr.contains("expected one TLS key pair, got 2"), "{refused}");
}
