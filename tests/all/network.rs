//! The network side of a cluster; the names carry the requirements of the networking reference.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use e2e::{AgentSetup, Client, Cluster, account, free_port, program, run, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// A connection that gives up.
fn dial(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set a time limit");
    stream
}

fn listen(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Runs a command on a node until that succeeds.
#[track_caller]
fn wait_session(client: &Client, more: &[&str], node: &str) {
    let target = format!("{}@{node}", account());
    let mut arguments = vec!["ssh"];
    arguments.extend(more);
    arguments.extend([target.as_str(), "echo reached"]);
    wait_for(&format!("a session on {node}"), LIMIT, || {
        let ran = client.tsh(&arguments);
        if ran.code == 0 && ran.stdout == "reached\n" { Ok(()) } else { Err(ran) }
    });
}

#[test]
fn net_29_net_31_net_32_separate_ports_serve_openssh_and_agents() {
    let (ssh, tunnel) = (free_port(), free_port());
    let cluster = Cluster::start_with_ports("ports.test", ssh, tunnel);
    let _node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access"]);
    let ports = cluster.auth.listening_ports();
    assert!(ports.contains(&ssh) && ports.contains(&tunnel), "{ports:?}");
    let ping = cluster.browser().try_get("/webapi/ping").expect("ping").json();
    assert_eq!(ping["proxy"]["tls_routing_enabled"], false);
    assert_eq!(ping["proxy"]["ssh"]["tunnel_listen_addr"], format!("127.0.0.1:{tunnel}"));

    let key = cluster.path("openssh");
    let (user, out) = ("--user=alice".to_owned(), format!("--out={}", key.display()));
    cluster.tctl(&["auth", "sign", &user, "--format=openssh", &out, "--ttl=1h"]).succeeded();
    let exported = cluster.tctl(&["auth", "export", "--type=host"]).succeeded().stdout;
    let authority = exported.trim().split_once(' ').and_then(|(_, rest)| rest.split_once(' ')).expect("a line").1;
    let known = cluster.path("known_hosts");
    std::fs::write(&known, format!("@cert-authority * {authority}")).expect("write known hosts");
    let client = cluster.client();
    let options = format!(
        "-F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={} -i {key} -o \
         CertificateFile={key}-cert.pub",
        known.display(),
        key = key.display()
    );
    let proxy = format!("ssh {options} -p {ssh} {}@127.0.0.1 -s proxy:%h:%p", account());
    let reached = |node: &str| {
        let mut command = Command::new("ssh");
        command.args(options.split(' ')).arg("-o").arg(format!("ProxyCommand={proxy}"));
        client.run(command.arg(format!("{}@{node}", account())).arg("echo reached"))
    };
    let ran = reached("node1");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "reached\n"), "{ran}");
    let lost = reached("nowhere");
    assert!(lost.code != 0 && lost.stderr.contains("nowhere"), "{lost}");
    let mut alone = Command::new("ssh");
    alone.args(options.split(' ')).args(["-p", &ssh.to_string(), &format!("{}@127.0.0.1", account()), "id"]);
    let alone = client.run(&mut alone);
    assert!(alone.code != 0 && alone.stdout.is_empty() && alone.stderr.contains("runs no commands"), "{alone}");
}

#[test]
fn net_16_the_unit_reads_the_environment_file() {
    let mut command = Command::new(program("teleport"));
    let shown = run(command.args(["install", "systemd"]), b"", LIMIT).succeeded();
    assert!(shown.stdout.contains("EnvironmentFile=-/etc/default/teleport"), "{shown}");
    assert!(shown.stdout.lines().any(|l| l.starts_with("ExecStart=") && l.contains("teleport start ")), "{shown}");
}

#[test]
fn net_28_a_session_finds_its_way_through_another_proxy() {
    let peer = free_port();
    let cluster = Cluster::start_apart_peering("peers.test", peer);
    let (mut second, address) = cluster.another_proxy("second", &json!({"peer_listen_addr": listen(free_port())}));
    second.wait_ready();
    // The node dials the first proxy's address and wants one tunnel; the second has none and asks the first.
    let _node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access"]);
    let identity = cluster.sign_identity("alice", "1h");
    let through_second = Client::with_identity(&address, &cluster.new_path("home"), &identity);
    wait_session(&through_second, &[], "node1");
    let ran = through_second.tsh(&["ssh", &format!("{}@node1", account()), "head -c 3000000 /dev/zero | wc -c"]);
    assert_eq!(ran.stdout.trim(), "3000000", "{ran}");
}

#[test]
fn net_09_proxies_know_of_each_other() {
    let cluster = Cluster::start_apart("fleet.test");
    let (mut second, address) = cluster.another_proxy("second", &json!({}));
    second.wait_ready();
    let _node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access"]);
    let identity = cluster.sign_identity("alice", "1h");
    wait_session(&cluster.client_with(&identity), &[], "node1");
    // The node knows the first proxy's address only, so it cannot have a tunnel to the second; the second says so.
    let through_second = Client::with_identity(&address, &cluster.new_path("home"), &identity);
    let ran = through_second.tsh(&["ssh", &format!("{}@node1", account()), "true"]);
    assert!(ran.code != 0 && ran.stderr.contains("node1"), "{ran}");
    let listed = cluster.tctl(&["inventory", "ls"]).succeeded();
    assert!(listed.stdout.contains("second"), "{listed}");
}

#[test]
fn net_34_net_35_net_36_net_37_clients_of_absent_services_read_why() {
    let (mysql, postgres, mongo, redis) = (free_port(), free_port(), free_port(), free_port());
    let cluster = Cluster::start_apart("absent.test");
    let (mut proxy, address) = cluster.another_proxy(
        "databases",
        &json!({
            "mysql_listen_addr": listen(mysql), "postgres_listen_addr": listen(postgres),
            "mongo_listen_addr": listen(mongo), "redis_listen_addr": listen(redis),
        }),
    );
    proxy.wait_ready();
    let mut greeting = Vec::new();
    dial(&listen(mysql)).read_to_end(&mut greeting).expect("read the greeting");
    assert!(greeting.get(4) == Some(&0xff) && greeting.ends_with(b"not part of this build yet"), "{greeting:?}");
    for port in [postgres, cluster_port(&cluster.address())] {
        let mut stream = dial(&listen(port));
        stream.write_all(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]).expect("ask for TLS");
        let mut answer = [0];
        stream.read_exact(&mut answer).expect("read the answer");
        assert_eq!(&answer, b"S");
    }
    let ports = proxy.listening_ports();
    for port in [mysql, postgres, mongo, redis, cluster_port(&address)] {
        assert!(ports.contains(&port), "{port} in {ports:?}");
    }
}

fn cluster_port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("an address with a port")
}

#[test]
fn a_leaf_behind_a_firewall_is_reached_through_the_root() {
    let root = Cluster::start("root.test");
    let leaf = Cluster::start("leaf.test");
    let _node = leaf.agent(&AgentSetup::node("leaf-node"));
    root.user("alice", &["access"]);
    root.tctl(&["tokens", "add", "--type=trusted_cluster", "--ttl=1h", "--value=trust-me"]).succeeded();
    leaf.create(&json!({
        "kind": "role", "version": "v7", "metadata": {"name": "visitor"},
        "spec": {"allow": {"logins": [account()], "node_labels": {"*": "*"}}},
    }));
    let trust = |enabled: bool| {
        json!({
            "kind": "trusted_cluster", "version": "v2", "metadata": {"name": "root.test"},
            "spec": {
                "enabled": enabled, "token": "trust-me", "web_proxy_addr": root.address(),
                "tunnel_addr": root.address(), "role_map": [{"remote": "access", "local": ["visitor"]}],
            },
        })
    };
    leaf.create(&trust(true));
    wait_for("the leaf to be online", Duration::from_secs(10), || {
        let shown = root.tctl(&["get", "rc/leaf.test", "--format=json"]);
        if shown.code == 0 && shown.stdout.contains("\"online\"") { Ok(()) } else { Err(shown) }
    });
    let client = root.client_with(&root.sign_identity("alice", "1h"));
    wait_session(&client, &["--cluster=leaf.test"], "leaf-node");
    let listed = client.tsh(&["clusters", "--format=json"]).json();
    assert_eq!(listed[1]["cluster_name"], "leaf.test", "{listed}");

    leaf.create(&trust(false));
    let refused = || {
        let ran = client.tsh(&["ssh", "--cluster=leaf.test", &format!("{}@leaf-node", account()), "true"]);
        if ran.code == 0 { Err("a session") } else { Ok(()) }
    };
    wait_for("no more sessions", LIMIT, refused);
    leaf.create(&trust(true));
    wait_session(&client, &["--cluster=leaf.test"], "leaf-node");
    leaf.tctl(&["rm", "trusted_cluster/root.test"]).succeeded();
    wait_for("no more sessions", LIMIT, refused);
    root.tctl(&["rm", "rc/leaf.test"]).succeeded();
    assert_eq!(client.tsh(&["clusters", "--format=json"]).json().as_array().map(Vec::len), Some(1));
}
