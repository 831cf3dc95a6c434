//! What a node does beside commands: copies, forwards, limits.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use e2e::{AgentSetup, Client, Cluster, Finished, account, free_port, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster with a node, a person whose role has these options, and what OpenSSH's programs need to reach it.
struct Node {
    cluster: Cluster,
    node: e2e::Daemon,
    client: Client,
    configuration: PathBuf,
    target: String,
}

impl Node {
    fn start(name: &str, options: serde_json::Value) -> Self {
        let cluster = Cluster::start(name);
        let node = cluster.agent(&AgentSetup::node("node1"));
        cluster.create(&json!({
            "kind": "role", "version": "v7", "metadata": {"name": "limited"},
            "spec": {"allow": {"logins": [account()], "node_labels": {"*": "*"}}, "options": options},
        }));
        let mut alice = cluster.user("alice", &["limited"]);
        let client = cluster.login(&mut alice);
        let configuration = client.home().join("ssh_config");
        fs::write(&configuration, client.tsh(&["config"]).succeeded().stdout).unwrap();
        let target = format!("{}@node1.{name}", account());
        Self { cluster, node, client, configuration, target }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(&self.configuration).args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]);
        command
    }

    fn ssh(&self, arguments: &[&str]) -> Finished {
        self.client.run(self.command("ssh").args(arguments))
    }

    fn scp(&self, mode: &str, from: &str, to: &str) -> Finished {
        self.client.run(self.command("scp").args([mode, "-q", "-r", from, to]))
    }

    fn sftp(&self, batch: &str) -> Finished {
        let file = self.cluster.new_path("batch");
        fs::write(&file, batch).unwrap();
        self.client.run(self.command("sftp").arg("-b").arg(file).arg(&self.target))
    }
}

/// A server that sends back one message.
fn echo(mut stream: impl Read + Write) {
    let mut buffer = [0; 100];
    if let Ok(n) = stream.read(&mut buffer) {
        stream.write_all(&buffer[..n]).ok();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn files_are_copied_with_both_protocols_and_every_operation_is_in_the_audit_log() {
    let node = Node::start("copies.test", json!({}));
    let here = node.cluster.new_path("here");
    let there = node.cluster.new_path("there");
    fs::create_dir_all(here.join("sub")).unwrap();
    fs::create_dir(&there).unwrap();
    fs::write(here.join("sub/ünïcode & space"), vec![7; 300_000]).unwrap();
    for mode in ["-s", "-O"] {
        let to = there.join(mode);
        node.scp(mode, text(&here), &format!("{}:{}", node.target, text(&to))).succeeded();
        let back = node.cluster.new_path("back");
        node.scp(mode, &format!("{}:{}", node.target, text(&to)), text(&back)).succeeded();
        assert_eq!(fs::read(back.join("sub/ünïcode & space")).unwrap(), vec![7; 300_000]);
    }
    node.cluster.wait_event("scp", &[("code", "T3005I"), ("action", "upload"), ("user", "alice")]);
    node.cluster.wait_event("scp", &[("code", "T3004I"), ("action", "download")]);

    let (a, b) = (there.join("a"), there.join("b"));
    let batch = format!("mkdir {0}\nrename {0} {1}\nln -s target {1}/link\n-rmdir {0}\n", text(&a), text(&b));
    node.sftp(&batch).succeeded();
    assert_eq!(fs::read_link(b.join("link")).unwrap(), Path::new("target"));
    let renamed = node.cluster.wait_event("sftp", &[("code", "TS016I"), ("path", text(&a)), ("target_path", text(&b))]);
    assert!(renamed["sid"].is_string() && renamed["server_id"].is_string(), "{renamed}");
    let failed = node.cluster.wait_event("sftp", &[("code", "TS013E"), ("path", text(&a))]);
    assert_eq!(failed["error"], "No such file or directory");
}

#[test]
fn ports_and_sockets_are_forwarded_both_ways() {
    let node = Node::start("ports.test", json!({}));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().flatten().for_each(echo));
    let socket = node.cluster.new_path("socket");
    let unix = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || unix.incoming().flatten().for_each(echo));

    let (local, remote, to_socket) = (free_port(), free_port(), free_port());
    let mut forwarding = node.command("ssh");
    forwarding.args(["-N", "-o", "ExitOnForwardFailure=yes"]);
    forwarding.args(["-L", &format!("{local}:127.0.0.1:{port}"), "-R", &format!("{remote}:127.0.0.1:{port}")]);
    forwarding.args(["-L", &format!("{to_socket}:{}", text(&socket)), &node.target]);
    let mut running = forwarding.env_clear().envs(node.client.environment()).spawn().unwrap();
    for port in [local, remote, to_socket] {
        let mut stream = wait_for("the forward", LIMIT, || TcpStream::connect(("127.0.0.1", port)));
        stream.write_all(b"there and back").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "there and back");
    }
    running.kill().unwrap();
    running.wait().unwrap();
    wait_for("the listener to end", LIMIT, || match TcpStream::connect(("127.0.0.1", remote)) {
        Ok(_) => Err("still listening"),
        Err(_) => Ok(()),
    });
    node.cluster.wait_event("port", &[("code", "T3003I"), ("addr", &format!("127.0.0.1:{port}"))]);
    node.cluster.wait_event("port", &[("code", "T3003I"), ("addr", text(&socket))]);
}

#[test]
fn a_role_can_forbid_copies_and_forwards_and_the_refusals_say_so() {
    let node = Node::start("forbidden.test", json!({"port_forwarding": false, "ssh_file_copy": false}));
    let copied = node.cluster.new_path("copied");
    for mode in ["-s", "-O"] {
        let refused = node.scp(mode, "/etc/hostname", &format!("{}:{}", node.target, text(&copied))).refused();
        assert!(refused.stderr.contains("not permitted"), "{refused}");
        assert!(!copied.exists());
    }
    node.cluster.wait_event("sftp", &[("code", "TS020E"), ("user", "alice")]);
    node.cluster.wait_event("scp", &[("code", "T3010E"), ("user", "alice")]);
    let refused = node.ssh(&["-W", "127.0.0.1:1", &node.target]).refused();
    assert!(refused.stderr.contains("port forwarding not allowed"), "{refused}");
    let listen = format!("{}:127.0.0.1:1", free_port());
    node.ssh(&["-N", "-o", "ExitOnForwardFailure=yes", "-R", &listen, &node.target]).refused();
    node.cluster.wait_event("port", &[("code", "T3003E"), ("addr", "127.0.0.1:1")]);
}

#[test]
fn limits_refuse_end_and_give_places_back() {
    let options = json!({"max_connections": 1, "client_idle_timeout": "2s"});
    let mut node = Node::start("limits.test", options);
    let mut held = node.client.terminal(&["ssh", &format!("{}@node1", account())]);
    held.type_line("echo in-$((6*7))");
    held.expect("in-42");
    let refused = node.ssh(&[&node.target, "true"]).refused();
    assert!(refused.stderr.contains("too many concurrent ssh connections"), "{refused}");
    let rejected = node.cluster.wait_event("session.rejected", &[("code", "T1006W"), ("user", "alice")]);
    assert_eq!(rejected["max"], 1);

    held.expect("Client exceeded idle timeout of 2s");
    let (code, shown) = held.finish();
    assert_ne!(code, 0, "{shown}");
    node.cluster.wait_event("client.disconnect", &[("reason", "Client exceeded idle timeout of 2s")]);
    wait_for("the place to be free", LIMIT, || {
        let ran = node.ssh(&[&node.target, "true"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });

    assert_eq!(node.cluster.nodes(), ["node1"]);
    node.node.stop();
    assert_eq!(node.cluster.nodes(), Vec::<String>::new(), "a node that stops is gone at once");
}
