//! Enhanced recording: what sessions' processes do, as the kernel tells it.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use e2e::{AgentSetup, Client, Cluster, Daemon, account, in_own_folder, wait_for};
use serde_json::{Value, json};

use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Where this machine has control groups of the second version; the default of the settings where it has none yet.
fn groups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.find(|fields| fields[2] == "cgroup2").map_or_else(|| "/cgroup2".into(), |fields| fields[1].into())
}

/// A node with enhanced recording. `None`, and said aloud, where the machine or the build does not allow it.
fn watching_node(cluster: &Cluster, root: &str) -> Option<Daemon> {
    watching_node_with(cluster, root, json!({}))
}

/// The same, with more settings of `ssh_service`.
fn watching_node_with(cluster: &Cluster, root: &str, mut settings: Value) -> Option<Daemon> {
    settings["enhanced_recording"] = json!({ "enabled": true, "cgroup_path": groups(), "root_path": root });
    let setup = AgentSetup::node("watched").ssh(&settings);
    let mut node = cluster.start_agent(&setup);
    let outcome = wait_for("the node to be in the list, or to say why it does not start", LIMIT, || {
        if node.exit_code().is_some() {
            return Ok(None);
        }
        if cluster.nodes().iter().any(|name| name == "watched") { Ok(Some(())) } else { Err("neither") }
    });
    if outcome.is_none() {
        let log = node.log();
        let said = log.lines().find(|line| line.contains("enhanced_recording")).expect("the reason names the setting");
        assert!(said.contains("cannot work here: "), "{said}");
        let built = !said.contains("built without it");
        assert!(built || std::env::var_os("TESTS_COMPLETE").is_none(), "{said}");
        // Not hidden with the output of tests that pass: this one has not run.
        let _ = writeln!(std::io::stderr(), "SKIPPED: enhanced recording does not work on this machine: {said}");
        return None;
    }
    Some(node)
}

fn role(cluster: &Cluster, name: &str, kinds: &[&str]) {
    cluster.create(&json!({
        "kind": "role", "version": "v7", "metadata": { "name": name },
        "spec": {
            "options": { "enhanced_recording": kinds },
            "allow": { "logins": [account()], "node_labels": { "*": "*" } },
        },
    }));
}

/// Events of a kind in a session, oldest first.
fn of_session(cluster: &Cluster, kind: &str, session: &Value) -> Vec<Value> {
    let mut events = cluster.events(kind);
    events.retain(|event| event["sid"] == *session);
    events
}

/// Runs a command and waits for the end of its session; its event.
fn ran(cluster: &Cluster, client: &Client, user: &str, node: &str, line: &str) -> Value {
    client.tsh(&["ssh", &format!("{}@{node}", account()), line]).succeeded();
    cluster.wait_event("session.end", &[("user", user), ("server_hostname", node)])
}

#[test]
fn what_sessions_run_open_and_connect_to_is_in_the_audit_log_and_in_the_recording() {
    let cluster = Cluster::start("watched.test");
    let root = format!("teleport-e2e-{}", std::process::id());
    let Some(mut node) = watching_node(&cluster, &root) else { return };
    role(&cluster, "all-of-it", &["command", "disk", "network"]);
    let mut alice = cluster.user("alice", &["all-of-it", "auditor"]);
    let client = cluster.login(&mut alice);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();

    // The first program is over before anybody could have looked for it.
    let line = format!("/bin/true 1 '2 3'; cat /etc/hostname /no/such; exec bash -c ': <>/dev/tcp/127.0.0.1/{port}'");
    let end = ran(&cluster, &client, "alice", "watched", &line);
    assert_eq!((&end["enhanced_recording"], &end["interactive"]), (&json!(true), &json!(false)));
    let session = &end["sid"];

    let commands = of_session(&cluster, "session.command", session);
    let find =
        |path: &str| commands.iter().find(|event| event["path"] == path).unwrap_or_else(|| panic!("{commands:?}"));
    let first = find("/bin/true");
    for (key, expected) in [
        ("code", json!("T4000I")),
        ("argv", json!(["1", "2 3"])),
        ("program", json!("true")),
        ("return_code", json!(0)),
        ("user", json!("alice")),
        ("login", json!(account())),
        ("namespace", json!("default")),
        ("server_hostname", json!("watched")),
        ("cluster_name", json!("watched.test")),
    ] {
        assert_eq!(first[key], expected, "{key} of {first}");
    }
    assert!(["pid", "ppid", "cgroup_id"].iter().all(|key| first[key].as_u64().unwrap() > 0), "{first}");
    let shell = &commands[0];
    assert_eq!(shell["argv"], json!(["-c", line]), "the user's shell is the first program: {shell}");
    assert_eq!(first["ppid"], shell["pid"]);

    let opened = of_session(&cluster, "session.disk", session);
    let read = |path: &str| opened.iter().find(|e| e["path"] == path && e["program"] == "cat").unwrap().clone();
    let hostname = read("/etc/hostname");
    assert_eq!((&hostname["code"], &hostname["flags"]), (&json!("T4001I"), &json!(0)));
    assert!(hostname["return_code"].as_i64().unwrap() > 2, "a descriptor: {hostname}");
    assert_eq!(read("/no/such")["return_code"], json!(-2));

    let connected = of_session(&cluster, "session.network", session);
    let [connection] = connected.as_slice() else { panic!("{connected:?}") };
    for (key, expected) in [
        ("code", json!("T4002I")),
        ("src_addr", json!("127.0.0.1")),
        ("dst_addr", json!("127.0.0.1")),
        ("dst_port", json!(port)),
        ("version", json!(4)),
        ("operation", json!(0)),
        ("action", json!(0)),
        ("program", json!("bash")),
        ("cgroup_id", first["cgroup_id"].clone()),
        ("pid", shell["pid"].clone()),
    ] {
        assert_eq!(connection[key], expected, "{key} of {connection}");
    }

    // A command without a terminal has a recording because of all this.
    let kinds = recorded(&cluster, &client, session.as_str().unwrap());
    let position = |kind: &str| kinds.iter().position(|k| k == kind).unwrap_or_else(|| panic!("{kind} in {kinds:?}"));
    assert_eq!((position("session.start"), position("session.end")), (0, kinds.len() - 1), "{kinds:?}");
    for kind in ["session.command", "session.disk", "session.network"] {
        assert!(position(kind) > 0);
    }

    // So has a shell on a terminal; what hides from the terminal does not hide from this.
    let mut shell = client.terminal(&["ssh", &format!("{}@watched", account())]);
    shell.expect(r"[$#%>] ?");
    shell.type_line("echo L2Jpbi9lY2hvIGhpZGRlbiA+L2Rldi9udWxsCg== | base64 -d | sh; echo sid=$SSH_SESSION_ID=");
    let session = shell.expect("sid=([0-9a-f-]{36})=");
    shell.type_line("exit");
    shell.finish();
    let end = cluster.wait_event("session.end", &[("sid", &session)]);
    assert_eq!((&end["enhanced_recording"], &end["interactive"]), (&json!(true), &json!(true)));
    let hidden = of_session(&cluster, "session.command", &json!(session));
    assert!(hidden.iter().any(|e| e["path"] == "/bin/echo" && e["argv"] == json!(["hidden"])), "{hidden:?}");

    // The role decides what is told.
    role(&cluster, "disk-only", &["disk"]);
    let mut bob = cluster.user("bob", &["disk-only"]);
    let client = cluster.login(&mut bob);
    let end = ran(&cluster, &client, "bob", "watched", "cat /etc/hostname");
    let count = |kind| of_session(&cluster, kind, &end["sid"]).len();
    assert!(count("session.disk") > 0);
    assert_eq!((count("session.command"), count("session.network")), (0, 0));

    // Nothing is left of sessions, nor of the node.
    // Beside groups, such a folder has the kernel's own files.
    let is_group = |entry: &fs::DirEntry| entry.file_type().unwrap().is_dir();
    let run = fs::read_dir(groups().join(&root)).unwrap().flatten().find(is_group).unwrap().path();
    wait_for("the groups of sessions to be gone", LIMIT, || {
        let left: Vec<_> = fs::read_dir(&run).unwrap().flatten().filter(is_group).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    node.stop();
    assert!(!run.exists());
    fs::remove_dir(groups().join(&root)).unwrap();
}

/// The kinds of events in a recording, in its order.
fn recorded(cluster: &Cluster, client: &Client, session: &str) -> Vec<String> {
    cluster.wait_event("session.upload", &[("sid", session)]);
    let events = wait_for("the recording", LIMIT, || {
        let played = client.tsh(&["play", "--format=json", session]);
        if played.code == 0 { Ok(played.json()) } else { Err(played.said()) }
    });
    events.as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_command_that_pam_refuses_has_a_whole_recording() {
    let folder = Path::new("/etc/pam.d");
    in_own_folder("enhanced::a_command_that_pam_refuses_has_a_whole_recording", folder, || {
        fs::write(folder.join("e2e"), "account required pam_deny.so\nsession required pam_permit.so\n").unwrap();
        let cluster = Cluster::start("refused.test");
        let root = format!("teleport-e2e-{}", std::process::id());
        let pam = json!({ "pam": { "enabled": true, "service_name": "e2e" } });
        let Some(mut node) = watching_node_with(&cluster, &root, pam) else { return };
        role(&cluster, "all-of-it", &["command"]);
        let mut alice = cluster.user("alice", &["all-of-it", "auditor"]);
        let client = cluster.login(&mut alice);
        let refused = client.tsh(&["ssh", &format!("{}@watched", account()), "true"]).refused();
        assert!(refused.stderr.contains("Failed to launch: PAM service \"e2e\": account"), "{refused}");
        let end = cluster.wait_event("session.end", &[("user", "alice"), ("server_hostname", "watched")]);
        let kinds = recorded(&cluster, &client, end["sid"].as_str().unwrap());
        let is = |kind: Option<&String>, expected: &str| kind.is_some_and(|kind| kind == expected);
        assert!(is(kinds.first(), "session.start") && is(kinds.last(), "session.end"), "{kinds:?}");
        assert!(kinds.iter().any(|kind| kind == "exec"), "{kinds:?}");
        node.stop();
        fs::remove_dir(groups().join(&root)).unwrap();
    });
}

#[test]
fn a_node_without_enhanced_recording_tells_nothing_whatever_roles_say() {
    let cluster = Cluster::start("unwatched.test");
    let _node = cluster.agent(&AgentSetup::node("plain"));
    role(&cluster, "all-of-it", &["command", "disk", "network"]);
    let mut alice = cluster.user("alice", &["all-of-it"]);
    let client = cluster.login(&mut alice);
    let end = ran(&cluster, &client, "alice", "plain", "cat /etc/hostname");
    assert_eq!(end["enhanced_recording"], json!(false));
    for kind in ["session.command", "session.disk", "session.network"] {
        assert_eq!(of_session(&cluster, kind, &end["sid"]), [] as [Value; 0]);
    }
}

#[test]
fn a_node_that_cannot_watch_says_why_and_does_not_start() {
    let cluster = Cluster::start("unable.test");
    let folder = cluster.new_path("not-groups");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), "").unwrap();
    let recording = json!({ "enabled": true, "cgroup_path": folder });
    let mut node = cluster.start_agent(&AgentSetup::node("unable").ssh(&json!({ "enhanced_recording": recording })));
    assert_ne!(node.wait_end(LIMIT), 0);
    let log = node.log();
    assert!(log.contains("ssh_service.enhanced_recording is enabled, but cannot work here: "), "{log}");
}
