//! Who records sessions, and how recordings are kept.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{AgentSetup, Client, Cluster, ClusterSetup, ObjectServer, account, free_port, lacks, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

fn record(cluster: &Cluster, spec: &serde_json::Value) {
    cluster.create(&json!({
        "kind": "session_recording_config", "version": "v2",
        "metadata": { "name": "session-recording-config" }, "spec": spec,
    }));
}

/// Works in a shell on the node and leaves a mark; the id of the session.
fn session(client: &Client) -> String {
    let mut shell = client.terminal(&["ssh", &format!("{}@node1", account())]);
    shell.expect(r"[$#%>] ?");
    shell.type_line("echo mark-$((40+2))-mark sid=$SSH_SESSION_ID=; stty size");
    let session = shell.expect("mark-42-mark sid=([0-9a-f-]{36})=");
    shell.expect("24 80");
    shell.type_line("exit 3");
    let (code, shown) = shell.finish();
    assert_eq!(code, 3, "{shown}");
    session
}

fn replays(cluster: &Cluster, client: &Client, session: &str) {
    cluster.wait_event("session.upload", &[("sid", session)]);
    wait_for("the recording to replay", LIMIT, || {
        let (code, shown) = client.terminal(&["play", "--skip-idle-time", "--speed=8x", session]).finish();
        if code == 0 && shown.contains("mark-42-mark") { Ok(()) } else { Err(shown) }
    });
}

/// The file of a session's recording at the Auth Service.
fn file(cluster: &Cluster, session: &str) -> PathBuf {
    cluster.path("auth").join("log/records").join(format!("{session}.tar"))
}

#[test]
fn the_proxy_records_where_the_cluster_says_so_and_the_node_knows_the_user() {
    let cluster = Cluster::start("proxied.test");
    let _node = cluster.agent(&AgentSetup::node("node1"));
    let mut alice = cluster.user("alice", &["access", "auditor"]);
    let client = cluster.login(&mut alice);
    for mode in ["proxy", "proxy-sync"] {
        record(&cluster, &json!({ "mode": mode }));
        wait_for("sessions to be recorded by the proxy", LIMIT, || {
            client.tsh(&["ssh", &format!("{}@node1", account()), "true"]).succeeded();
            let starts = cluster.events("session.start");
            let proxied = starts.iter().any(|e| e["session_recording"] == mode && e["forwarded_by"].is_string());
            if proxied { Ok(()) } else { Err("recorded by the node") }
        });
        let session = session(&client);
        replays(&cluster, &client, &session);
        let start = cluster.wait_event("session.start", &[("sid", &session), ("session_recording", mode)]);
        assert_eq!((start["user"].as_str(), start["login"].as_str()), (Some("alice"), Some(account().as_str())));
        let listed = client.tsh(&["recordings", "ls", "--format=json"]).json();
        let same = listed.as_array().unwrap().iter().filter(|e| e["sid"] == session.as_str()).count();
        assert_eq!(same, 1, "{listed}");
    }

    let ran = client.tsh(&["ssh", &format!("{}@node1", account()), "cat; echo err >&2; exit 7"]);
    assert_eq!((ran.code, ran.stderr.lines().any(|line| line == "err")), (7, true), "{ran}");
    let denied = client.tsh(&["ssh", "nobody-such@node1", "true"]).refused();
    assert!(denied.said().contains("access denied"), "{denied}");

    // OpenSSH through a ProxyCommand, whose agent is tsh.
    let config = client.home().join("ssh_config");
    fs::write(&config, client.tsh(&["config"]).succeeded().stdout).unwrap();
    let options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"];
    let target = format!("{}@node1.proxied.test", account());
    let ran = client.run(Command::new("ssh").arg("-F").arg(&config).args(options).args([&target, "echo over; exit 5"]));
    assert_eq!((ran.code, ran.stdout.as_str()), (5, "over\n"), "{ran}");
}

/// An `ssh-agent` that ends with the test.
struct SshAgent {
    process: Child,
    socket: PathBuf,
}

impl SshAgent {
    fn start(cluster: &Cluster) -> Self {
        let socket = cluster.new_path("agent");
        let mut command = Command::new("ssh-agent");
        let process = command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        wait_for("ssh-agent", LIMIT, || if socket.exists() { Ok(()) } else { Err("no socket") });
        Self { process, socket }
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn a_jump_through_a_recording_proxy_needs_the_user_s_agent() {
    let (ssh, tunnel) = (free_port(), free_port());
    let cluster = ClusterSetup::new("jumped.test").separate(ssh, tunnel).start();
    let _node = cluster.agent(&AgentSetup::node("node1"));
    let mut alice = cluster.user("alice", &["access"]);
    let agent = SshAgent::start(&cluster);
    let client = cluster.client().with_variable("SSH_AUTH_SOCK", &agent.socket.display().to_string());
    client.login(&mut alice);
    record(&cluster, &json!({ "mode": "proxy" }));
    let config = client.home().join("ssh_config");
    fs::write(&config, client.tsh(&["config"]).succeeded().stdout).unwrap();
    let (login, target) = (account(), format!("{}@node1.jumped.test", account()));
    let through = |forward: &str| {
        let known = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null";
        let jump =
            format!("ProxyCommand=ssh {forward} {known} -p {ssh} {login}@127.0.0.1 -s proxy:node1:0@jumped.test");
        let options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", &jump];
        client.run(Command::new("ssh").arg("-F").arg(&config).args(options).args([&target, "echo over; exit 5"]))
    };
    wait_for("sessions to be recorded by the proxy", LIMIT, || {
        let ran = through("-A");
        assert_eq!((ran.code, ran.stdout.as_str()), (5, "over\n"), "{ran}");
        let proxied = cluster.events("session.start").iter().any(|e| e["forwarded_by"].is_string());
        if proxied { Ok(()) } else { Err("recorded by the node") }
    });
    let refused = through("-a");
    assert!(refused.code == 255 && refused.said().contains("agent"), "{refused}");
}

#[test]
fn a_running_session_is_watched_as_it_is_recorded() {
    let cluster = Cluster::start("watched.test");
    let _node = cluster.agent(&AgentSetup::node("node1"));
    record(&cluster, &json!({ "mode": "node-sync" }));
    cluster.user("alice", &["access", "auditor"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    let mut shell = client.terminal(&["ssh", &format!("{}@node1", account())]);
    shell.expect(r"[$#%>] ?");
    shell.type_line("echo first-$((40+2))-mark sid=$SSH_SESSION_ID=");
    let session = shell.expect("first-42-mark sid=([0-9a-f-]{36})=");
    wait_for("the recording to arrive", LIMIT, || {
        let shown = cluster.path("auth").join("log/records/multi");
        if fs::read_dir(&shown).is_ok_and(|mut found| found.next().is_some()) { Ok(()) } else { Err("no upload") }
    });
    let mut watcher = client.terminal(&["play", "--skip-idle-time", "--speed=8x", &session]);
    watcher.expect("first-42-mark");
    shell.type_line("echo second-$((40+3))-mark");
    shell.expect("second-43-mark");
    watcher.expect("second-43-mark");
    shell.type_line("exit 3");
    assert_eq!(shell.finish().0, 3);
    let (code, shown) = watcher.finish();
    assert_eq!(code, 0, "{shown}");
    cluster.wait_event("session.recording.access", &[("sid", &session), ("user", "alice")]);
}

#[test]
fn recordings_are_sealed_from_when_the_cluster_says_so_and_play_as_before() {
    let mut cluster = Cluster::start("sealed.test");
    let _node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access", "auditor"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    let plain = session(&client);
    replays(&cluster, &client, &plain);
    record(&cluster, &json!({ "mode": "node-sync", "encryption": { "enabled": true } }));
    let sealed = session(&client);
    replays(&cluster, &client, &sealed);
    assert!(!fs::read(file(&cluster, &plain)).unwrap().starts_with(b"tp-seal"));
    assert!(fs::read(file(&cluster, &sealed)).unwrap().starts_with(b"tp-seal"));
    let copy = cluster.new_path("copy");
    fs::create_dir(&copy).unwrap();
    let copy = copy.join(format!("{sealed}.tar"));
    fs::copy(file(&cluster, &sealed), &copy).unwrap();
    let refused = client.tsh(&["play", "--format=json", &copy.display().to_string()]).refused();
    assert!(refused.said().contains("sealed"), "{refused}");

    let keys = |command: &str| {
        let shown = cluster.tctl(&["recordings", "encryption", command, "--format=json"]).json();
        shown["keys"].as_array().unwrap().len()
    };
    assert_eq!((keys("status"), keys("rotate")), (1, 2));
    let after = session(&client);
    cluster.auth.stop();
    cluster.auth.launch();
    cluster.wait_ready();
    for recorded in [&plain, &sealed, &after] {
        replays(&cluster, &client, recorded);
    }
    let key = |session: &str| fs::read(file(&cluster, session)).unwrap()[24..32].to_vec();
    assert_ne!(key(&sealed), key(&after), "sealed to the new key");

    // Whoever takes a part away at the end is found out.
    let path = file(&cluster, &sealed);
    let whole = fs::read(&path).unwrap();
    let end = whole.windows(8).rposition(|bytes| bytes == b"tp-seal\x02").expect("a part that ends the recording");
    fs::write(&path, &whole[..end]).unwrap();
    let refused = client.tsh(&["play", "--format=text", &sealed]).refused();
    assert!(refused.said().contains("lost its end"), "{refused}");
}

#[test]
fn recordings_go_to_an_object_store_and_wait_while_it_is_away() {
    let Some(store) = ObjectServer::start() else {
        assert!(std::env::var_os("TESTS_COMPLETE").is_none(), "moto_server is missing");
        return;
    };
    let storage = json!({ "storage": store.storage() });
    let mut cluster =
        ClusterSetup::new("objects.test").teleport(&storage).variables(&ObjectServer::CREDENTIALS).start();
    let _node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access", "auditor"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    let first = session(&client);
    replays(&cluster, &client, &first);
    let upload = cluster.wait_event("session.upload", &[("sid", &first)]);
    assert!(upload["url"].as_str().is_some_and(|url| url.starts_with("s3://recordings/teleport/")), "{upload}");
    assert!(!file(&cluster, &first).exists());

    store.pause();
    let second = session(&client);
    wait_for("the recording to be with the Auth Service", LIMIT, || {
        if file(&cluster, &second).exists() { Ok(()) } else { Err("not yet") }
    });
    cluster.auth.kill();
    cluster.auth.launch();
    cluster.wait_ready();
    store.resume();
    replays(&cluster, &client, &second);
    wait_for("the recording to leave the folder", LIMIT, || {
        if file(&cluster, &second).exists() { Err("still there") } else { Ok(()) }
    });
    replays(&cluster, &client, &first);
}

/// Id of a server without an agent.
const LEGACY: &str = "0b3d4c2e-0000-4000-8000-00000000000a";

/// An OpenSSH server that ends with the test.
struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Sshd {
    /// A server with a certificate of the cluster, which trusts the authority for servers without an agent. `None` where
    /// OpenSSH's server is not installed.
    fn start(cluster: &Cluster, name: &str, port: u16) -> Option<Self> {
        let program = "/usr/sbin/sshd";
        if !Path::new(program).exists() || fs::create_dir_all("/run/sshd").is_err() {
            return lacks("OpenSSH's server, or the right to run it,");
        }
        let folder = cluster.new_path("sshd");
        fs::create_dir(&folder).unwrap();
        let path = |file: &str| folder.join(file).display().to_string();
        let key = path("host");
        cluster
            .tctl(&["auth", "sign", &format!("--host={name}"), "--format=openssh", &format!("--out={key}")])
            .succeeded();
        let authority = cluster.tctl(&["auth", "export", "--type=openssh"]).succeeded().stdout;
        // The export is in the form of known users' keys: options, key, comment.
        let line =
            authority.split_whitespace().skip_while(|word| !word.starts_with("ssh-") && !word.starts_with("ecdsa-"));
        fs::write(path("authority"), line.take(2).collect::<Vec<_>>().join(" ")).unwrap();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nHostCertificate {key}-cert.pub\nPidFile none\nUsePAM no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nTrustedUserCAKeys {}\nAuthorizedKeysFile none\n\
             Subsystem sftp internal-sftp\n",
            path("authority")
        );
        fs::write(path("config"), config).unwrap();
        let mut command = Command::new(program);
        command.args(["-D", "-E", &path("log"), "-f", &path("config")]).stdin(Stdio::null());
        let server = Self(command.spawn().unwrap());
        wait_for("sshd", LIMIT, || TcpStream::connect(("127.0.0.1", port)));
        Some(server)
    }
}

#[test]
fn a_server_without_an_agent_is_reached_by_role_and_recorded_by_the_proxy() {
    let cluster = Cluster::start("agentless.test");
    let port = free_port();
    let Some(_sshd) = Sshd::start(&cluster, "legacy,other", port) else { return };
    let server = |id: &str, name: &str| {
        cluster.create(&json!({
            "kind": "node", "sub_kind": "openssh", "version": "v2",
            "metadata": { "name": id, "labels": { "env": "old" } },
            "spec": { "addr": format!("127.0.0.1:{port}"), "hostname": name },
        }));
    };
    server(LEGACY, "legacy");
    cluster.create(&json!({
        "kind": "role", "version": "v7", "metadata": { "name": "elsewhere" },
        "spec": { "allow": { "logins": [account()], "node_labels": { "env": "new" } } },
    }));
    let reach = json!({ "logins": [account()], "node_labels": { "env": "old" } });
    let roles = [("operator", reach), ("asks", json!({ "request": { "search_as_roles": ["operator"] } }))];
    for (name, allow) in roles {
        let spec = json!({ "allow": allow });
        cluster.create(&json!({ "kind": "role", "version": "v7", "metadata": { "name": name }, "spec": spec }));
    }
    cluster.user("alice", &["access", "auditor"]);
    cluster.user("eve", &["elsewhere"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    let target = format!("{}@legacy", account());
    let ran = client.tsh(&["ssh", &target, "echo out; exit 7"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "out\n"), "{ran}");
    cluster.wait_event("session.connect", &[("server_hostname", "legacy"), ("proto", "ssh")]);
    let event = cluster.wait_event("exec", &[("user", "alice"), ("command", "echo out; exit 7")]);
    assert_eq!((event["exitCode"].as_str(), event["server_hostname"].as_str()), (Some("7"), Some("legacy")), "{event}");

    let mut shell = client.terminal(&["ssh", &target]);
    shell.expect(r"[$#%>] ?");
    shell.type_line("echo mark-$((40+2))-mark; exit 3");
    let (code, shown) = shell.finish();
    assert_eq!(code, 3, "{shown}");
    let start = wait_for("the session's start", LIMIT, || {
        let starts = cluster.events("session.start");
        starts.into_iter().find(|e| e["size"].is_string()).ok_or("no session at a terminal")
    });
    assert_eq!(start["session_recording"], "proxy", "{start}");
    replays(&cluster, &client, start["sid"].as_str().unwrap());

    let eve = cluster.client_with(&cluster.sign_identity("eve", "1h"));
    let denied = eve.tsh(&["ssh", &target, "true"]).refused();
    assert!(denied.said().contains("denied") || denied.said().contains("not authorized"), "{denied}");
    cluster.wait_event("auth", &[("user", "eve"), ("code", "T3007W")]);

    // Access that was granted for one server does not reach another of the same kind.
    server("0b3d4c2e-0000-4000-8000-00000000000b", "other");
    let mut ann = cluster.user("ann", &["asks"]);
    let ann = cluster.login(&mut ann);
    let asked = ann.tsh(&[
        "request",
        "create",
        "--nowait",
        "--reason=look",
        "--resource",
        &format!("/agentless.test/node/{LEGACY}"),
    ]);
    let asked = asked.succeeded().stdout;
    let id = asked.split_whitespace().find(|word| word.len() == 36).unwrap_or_else(|| panic!("no id in {asked}"));
    cluster.tctl(&["requests", "approve", id]).succeeded();
    ann.tsh(&["login", &format!("--request-id={id}")]).succeeded();
    ann.tsh(&["ssh", &target, "true"]).succeeded();
    ann.tsh(&["ssh", &format!("{}@other", account()), "true"]).refused();
    client.tsh(&["ssh", &format!("{}@other", account()), "true"]).succeeded();

    let mut shell = client.terminal(&["ssh", &target]);
    shell.expect(r"[$#%>] ?");
    cluster.tctl(&["lock", &format!("--login={}", account()), "--message=under-repair"]).succeeded();
    assert_ne!(shell.finish().0, 0, "a lock on the login ends the session");
    cluster.wait_event("client.disconnect", &[("user", "alice"), ("server_hostname", "legacy")]);
    let refused = client.tsh(&["ssh", &target, "true"]).refused();
    assert!(refused.said().contains("under-repair"), "{refused}");
}

#[test]
fn what_roles_limit_is_limited_at_a_server_without_an_agent_too() {
    let cluster = Cluster::start("limited.test");
    let port = free_port();
    let Some(_sshd) = Sshd::start(&cluster, "legacy", port) else { return };
    cluster.create(&json!({
        "kind": "node", "sub_kind": "openssh", "version": "v2",
        "metadata": { "name": "0b3d4c2e-0000-4000-8000-00000000000b" },
        "spec": { "addr": format!("127.0.0.1:{port}"), "hostname": "legacy" },
    }));
    for (name, options) in [
        ("short", json!({ "client_idle_timeout": "2s", "max_sessions": 1 })),
        ("copyless", json!({ "ssh_file_copy": false })),
        ("single", json!({ "max_connections": 1 })),
    ] {
        let allow = json!({ "logins": [account()], "node_labels": { "*": "*" } });
        let role = json!({ "kind": "role", "version": "v7", "metadata": { "name": name } });
        let mut role = role;
        role["spec"] = json!({ "allow": allow, "options": options });
        cluster.create(&role);
    }
    cluster.user("alice", &["short"]);
    cluster.user("bob", &["copyless"]);
    cluster.user("carol", &["single"]);
    let alice = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    let bob = cluster.client_with(&cluster.sign_identity("bob", "1h"));
    let target = format!("{}@legacy", account());

    // Operations on files are in the audit log, with their ends.
    let there = cluster.new_path("there");
    let copied = alice.tsh(&["scp", "-q", "/etc/hostname", &format!("{target}:{}", there.display())]);
    copied.succeeded();
    assert_eq!(fs::read(&there).unwrap(), fs::read("/etc/hostname").unwrap());
    let path = there.display().to_string();
    let opened = cluster.wait_event("sftp", &[("code", "TS001I"), ("path", &path), ("user", "alice")]);
    assert!(opened["sid"].is_string() && opened["server_hostname"] == "legacy", "{opened}");
    let missing = cluster.new_path("missing").join("x").display().to_string();
    alice.tsh(&["scp", "-q", "/etc/hostname", &format!("{target}:{missing}")]).refused();
    let failed = cluster.wait_event("sftp", &[("code", "TS001E"), ("path", &missing)]);
    assert!(failed["error"].as_str().is_some_and(|error| !error.is_empty()), "{failed}");

    // Copies are refused in words, with both protocols.
    let refused = bob.tsh(&["scp", "-q", "/etc/hostname", &format!("{target}:{path}")]).refused();
    assert!(refused.stderr.contains("not permitted"), "{refused}");
    cluster.wait_event("sftp", &[("code", "TS020E"), ("user", "bob")]);
    let refused = bob.tsh(&["ssh", &target, &format!("scp -t {path}")]).refused();
    assert!(refused.stderr.contains("not permitted"), "{refused}");
    cluster.wait_event("scp", &[("code", "T3010E"), ("user", "bob"), ("action", "upload")]);

    // Somebody idle is told so.
    let (code, shown) = {
        let mut shell = alice.terminal(&["ssh", &target]);
        shell.expect(r"[$#%>] ?");
        shell.finish()
    };
    assert!(code != 0 && shown.contains("Client exceeded idle timeout of 2s"), "{shown}");
    cluster.wait_event("client.disconnect", &[("user", "alice"), ("reason", "Client exceeded idle timeout of 2s")]);
    // Who gets output is not idle, whichever stream it comes on.
    let count = |to: &str| format!("for i in 1 2 3 4 5 6; do echo $i {to}; sleep 0.7; done");
    let busy = alice.tsh(&["ssh", &target, &count("")]).succeeded();
    assert_eq!(busy.stdout, "1\n2\n3\n4\n5\n6\n");
    let busy = alice.tsh(&["ssh", &target, &count(">&2")]).succeeded();
    assert!(busy.stderr.ends_with("1\n2\n3\n4\n5\n6\n"), "{busy}");

    // A second connection is above the limit, until the first has ended.
    let carol = cluster.client_with(&cluster.sign_identity("carol", "1h"));
    let mut held = carol.terminal(&["ssh", &target]);
    held.type_line("echo in-$((6*7))");
    held.expect("in-42");
    let refused = carol.tsh(&["ssh", &target, "true"]).refused();
    assert!(refused.stderr.contains("too many concurrent ssh connections for user \"carol\" (max=1)"), "{refused}");
    let rejected = cluster.wait_event("session.rejected", &[("code", "T1006W"), ("user", "carol")]);
    assert_eq!((rejected["max"].as_u64(), rejected["server_hostname"].as_str()), (Some(1), Some("legacy")));
    held.type_line("exit");
    held.finish();
    wait_for("the place to be free", LIMIT, || {
        let ran = carol.tsh(&["ssh", &target, "true"]);
        if ran.code == 0 { Ok(()) } else { Err(ran) }
    });

    // A second session on the same connection is above the limit.
    let configuration = alice.home().join("ssh_config");
    fs::write(&configuration, alice.tsh(&["config"]).succeeded().stdout).unwrap();
    let (socket, host) = (alice.home().join("control"), format!("{target}.limited.test"));
    let shared = |arguments: &[&str]| {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&configuration).args(["-p", &port.to_string(), "-o", "BatchMode=yes", "-S"]);
        command.arg(&socket).args(arguments);
        command
    };
    let mut first = shared(&["-M", &host, "while sleep 0.5; do echo on; done"]);
    let mut first = first.env_clear().envs(alice.environment()).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the shared connection", LIMIT, || if socket.exists() { Ok(()) } else { Err("no socket") });
    let second = alice.run(&mut shared(&["-o", "ControlMaster=no", &host, "true"]));
    cluster.wait_event("session.rejected", &[("user", "alice"), ("reason", "max_sessions limit reached")]);
    drop(second);
    first.kill().unwrap();
    first.wait().unwrap();

    // What comes through a forwarded port is no idleness either.
    let (listener, remote) = (TcpListener::bind("127.0.0.1:0").unwrap(), free_port());
    let forward = format!("127.0.0.1:{remote}:{}", listener.local_addr().unwrap());
    let mut command =
        shared(&["-o", "ControlMaster=no", "-o", "ExitOnForwardFailure=yes", "-N", "-R", &forward, &host]);
    let mut forwarding = command.env_clear().envs(alice.environment()).stdout(Stdio::null()).spawn().unwrap();
    let mut far = wait_for("the forwarded port", LIMIT, || TcpStream::connect(("127.0.0.1", remote)));
    let (mut near, _) = listener.accept().unwrap();
    for _ in 0..8 {
        far.write_all(b"x").unwrap();
        near.read_exact(&mut [0]).unwrap();
        std::thread::sleep(Duration::from_millis(500)); // together, more than the idle timeout
    }
    assert!(forwarding.try_wait().unwrap().is_none());
    drop((near, far));
    forwarding.wait().unwrap();
}

#[test]
fn a_server_without_an_agent_in_a_leaf_is_reached_through_the_root_and_the_leaf_decides() {
    let (root, leaf) = (Cluster::start("root.test"), Cluster::start("leaf.test"));
    let port = free_port();
    let Some(_sshd) = Sshd::start(&leaf, "legacy", port) else { return };
    leaf.create(&json!({
        "kind": "node", "sub_kind": "openssh", "version": "v2",
        "metadata": { "name": LEGACY, "labels": { "env": "old" } },
        "spec": { "addr": format!("127.0.0.1:{port}"), "hostname": "legacy" },
    }));
    root.user("alice", &["access", "auditor"]);
    leaf.trust(&root, true);
    let alice = root.client_with(&root.sign_identity("alice", "1h"));
    let target = format!("{}@legacy", account());
    let run = |command: &str| alice.tsh(&["ssh", "--cluster=leaf.test", &target, command]);
    wait_for("a session in the leaf", LIMIT, || {
        let ran = run("echo out; exit 7");
        if (ran.code, ran.stdout.as_str()) == (7, "out\n") { Ok(()) } else { Err(ran) }
    });
    // It is the leaf that knows of it, with its own name for the login's account.
    let ran = leaf.wait_event("exec", &[("user", "alice"), ("command", "echo out; exit 7")]);
    assert_eq!((ran["exitCode"].as_str(), ran["server_hostname"].as_str()), (Some("7"), Some("legacy")), "{ran}");
    let mut shell = alice.terminal(&["ssh", "--cluster=leaf.test", &target]);
    shell.expect(r"[$#%>] ?");
    shell.type_line("echo mark-$((40+2))-mark");
    shell.expect("mark-42-mark");

    // A lock of the leaf on what the user is called there ends the session.
    leaf.tctl(&["lock", "--user=remote-alice-root.test", "--message=not-from-there"]).succeeded();
    assert_ne!(shell.finish().0, 0, "a lock ends the session");
    let refused = run("true").refused();
    assert!(refused.said().contains("not-from-there"), "{refused}");
    let start = leaf.wait_event("session.start", &[("user", "alice"), ("size", "80:24")]);
    leaf.wait_event("session.upload", &[("sid", start["sid"].as_str().unwrap())]);

    // Whom the leaf maps to no role has none.
    root.user("eve", &["editor"]);
    let eve = root.client_with(&root.sign_identity("eve", "1h"));
    eve.tsh(&["ssh", "--cluster=leaf.test", &target, "true"]).refused();
}
