//! Sessions that others have to watch.

use std::fs;
use std::time::Duration;

use e2e::{AgentSetup, Client, Cluster, Terminal, account, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// A session of alice's on `node1`, and what bob moderates it with.
struct Watched {
    cluster: Cluster,
    _node: e2e::Daemon,
    alice: Client,
    session: String,
    owner: Terminal,
    moderator: Terminal,
}

/// Makes the role `guarded`, whose sessions need a moderator.
fn guard(cluster: &Cluster) {
    let watch = json!([{
        "name": "watched", "filter": "contains(user.roles, \"watching\")", "kinds": ["ssh"], "count": 1,
        "modes": ["moderator"], "on_leave": "pause",
    }]);
    let allow = json!({"logins": [account()], "node_labels": {"*": "*"}, "require_session_join": watch});
    cluster
        .create(&json!({"kind": "role", "version": "v7", "metadata": {"name": "guarded"}, "spec": {"allow": allow}}));
}

impl Watched {
    fn begin(name: &str) -> Self {
        let cluster = Cluster::start(name);
        let node = cluster.agent(&AgentSetup::node("node1"));
        guard(&cluster);
        let join =
            json!([{"name": "watch", "roles": ["guarded"], "kinds": ["ssh"], "modes": ["moderator", "observer"]}]);
        cluster.create(&json!({
            "kind": "role", "version": "v7", "metadata": {"name": "watching"}, "spec": {"allow": {"join_sessions": join}},
        }));
        let (mut alice, mut bob) = (cluster.user("alice", &["guarded"]), cluster.user("bob", &["watching"]));
        let (alice, bob) = (cluster.login(&mut alice), cluster.login(&mut bob));
        let mut owner = alice.terminal(&["ssh", &format!("{}@node1", account())]);
        let session = owner.expect("Creating session with ID: ([0-9a-f-]{36})");
        wait_for("the session on the list", LIMIT, || {
            let listed = bob.tsh(&["sessions", "ls"]);
            if listed.stdout.contains(&session) { Ok(()) } else { Err(listed) }
        });
        let mut moderator = bob.terminal(&["join", "-m", "moderator", &session]);
        moderator.expect("joined the session with participant mode: moderator");
        owner.expect("Connecting to node1 over SSH");
        Self { cluster, _node: node, alice, session, owner, moderator }
    }
}

#[test]
fn a_file_is_copied_beside_a_watched_session_once_it_is_approved() {
    let mut watched = Watched::begin("transfers.test");
    let (cluster, me) = (&watched.cluster, account());
    let session = watched.session.clone();
    let (here, there, other) = (cluster.new_path("here"), cluster.new_path("there"), cluster.new_path("other"));
    fs::write(&here, vec![7; 300_000]).unwrap();
    fs::create_dir(&there).unwrap();
    fs::write(&other, "not for you").unwrap();
    let at_node = |path: &std::path::Path| format!("{me}@node1:{}", path.display());
    let named = format!("--moderated-session-id={session}");

    // Without approval nothing is copied.
    let target = at_node(&there);
    let alone = watched.alice.tsh(&["scp", "-q", here.to_str().unwrap(), &target]).refused();
    assert!(alone.stderr.contains("lacking privileges to start unattended session"), "{alone}");

    let copy = |from: &str, to: &str| {
        let mut command = watched.alice.command(&["scp", "-q", &named, from, to]);
        command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let upload = copy(here.to_str().unwrap(), &target);
    let name = here.file_name().unwrap().to_str().unwrap();
    let words = format!("User alice would like to upload {name} to: {}", there.display());
    watched.owner.expect(&regex::escape(&words));
    watched.moderator.expect("Press y to approve");
    watched.moderator.press("y");
    watched.owner.expect("bob approved file transfer request [0-9a-f-]{36}");
    let ended = upload.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(fs::read(there.join(name)).unwrap(), vec![7; 300_000]);
    cluster.wait_event("sftp", &[("code", "TS001I"), ("path", there.join(name).to_str().unwrap())]);

    // A denial ends the wait.
    let download = copy(&at_node(&other), here.to_str().unwrap());
    watched.moderator.expect("Press y to approve");
    watched.moderator.press("n");
    watched.owner.expect("bob denied file transfer request");
    let ended = download.wait_with_output().unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("bob denied the file transfer"), "{said}");
    assert_eq!(fs::read(&here).unwrap().len(), 300_000);

    // A download, and its event.
    let copied = cluster.new_path("copied");
    let download = copy(&at_node(&other), copied.to_str().unwrap());
    watched.owner.expect(&regex::escape(&format!("User alice would like to download: {}", other.display())));
    watched.moderator.expect("Press y to approve");
    watched.moderator.press("y");
    let ended = download.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(fs::read_to_string(&copied).unwrap(), "not for you");

    // One approval is good for one copy, and somebody who is not in the session asks for none.
    watched.owner.type_line("exit");
    watched.owner.finish();
    let late = watched.alice.tsh(&["scp", "-q", &named, &at_node(&other), copied.to_str().unwrap()]).refused();
    assert!(late.stderr.contains("does not run on this host"), "{late}");
}

#[test]
fn somebody_who_has_to_be_watched_copies_no_file_by_a_session_of_somebody_else() {
    let mut watched = Watched::begin("borrowed.test");
    let cluster = &watched.cluster;
    // Mallory moderates sessions such as Alice's, and has to be watched in her own.
    let mut mallory = cluster.user("mallory", &["guarded", "watching"]);
    let mallory = cluster.login(&mut mallory);
    let (secret, copied) = (cluster.new_path("secret"), cluster.new_path("copied"));
    fs::write(&secret, "not for you").unwrap();
    let mut joined = mallory.terminal(&["join", "-m", "moderator", &watched.session]);
    joined.expect("User mallory joined the session");
    let (named, from) =
        (format!("--moderated-session-id={}", watched.session), format!("{}@node1:{}", account(), secret.display()));
    let refused = mallory.tsh(&["scp", "-q", &named, &from, copied.to_str().unwrap()]).refused();
    assert!(refused.stderr.contains("is not yours"), "{refused}");
    assert!(!copied.exists());
    watched.owner.type_line("exit");
    let (_, shown) = watched.owner.finish();
    assert!(!shown.contains("would like to download"), "{shown}");
}

#[test]
fn a_session_that_needs_moderators_is_refused_where_the_proxy_records_and_nothing_typed_ahead_is_run() {
    let cluster = Cluster::start("ahead.test");
    let _node = cluster.agent(&AgentSetup::node("node1"));
    guard(&cluster);
    cluster.create(&json!({
        "kind": "session_recording_config", "version": "v2",
        "metadata": {"name": "session-recording-config"}, "spec": {"mode": "proxy"},
    }));
    cluster.user("alice", &["guarded"]);
    cluster.user("bob", &["access"]);
    let [alice, bob] = ["alice", "bob"].map(|user| cluster.client_with(&cluster.sign_identity(user, "1h")));
    let target = format!("{}@node1", account());
    wait_for("sessions to be recorded by the proxy", LIMIT, || {
        bob.tsh(&["ssh", &target, "true"]).succeeded();
        let proxied = cluster.events("session.start").iter().any(|start| start["session_recording"] == "proxy");
        if proxied { Ok(()) } else { Err("recorded by the node") }
    });
    let mut refused = alice.terminal(&["ssh", &target]);
    let made = cluster.new_path("made");
    refused.type_line(&format!("touch {}", made.display()));
    let (code, shown) = refused.finish();
    assert!(code != 0 && shown.contains("requires additional moderation"), "{shown}");
    assert!(!made.exists());
}
