//! The network side of a cluster; the names carry the requirements of the networking reference.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use e2e::{
    AgentSetup, Client, Cluster, ClusterSetup, HERE, account, free_port, in_own_network, listen, packets_lost, program,
    run, wait_for,
};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// A connection that gives up.
fn dial(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set a time limit");
    stream
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
    let cluster = ClusterSetup::new("ports.test").separate(ssh, tunnel).start();
    let _node = cluster.agent(&AgentSetup::node("node1"));
    let port = free_port();
    let dialled = AgentSetup::node("node2").at_auth_with_pin(&cluster.pin());
    let _dialled = cluster.agent(&dialled.ssh(&json!({ "listen_addr": listen(port) })));
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
        client.run(command.args(["-p", &port.to_string(), &format!("{}@{node}", account()), "echo reached"]))
    };
    for node in ["node1", "node2"] {
        wait_for(&format!("a session on {node}"), LIMIT, || {
            let ran = reached(node);
            if ran.stdout == "reached\n" { Ok(()) } else { Err(ran) }
        });
    }
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
    let cluster = ClusterSetup::new("peers.test").apart().peering(peer).start();
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
fn net_30_proxies_reach_agents_through_each_other_with_a_port_per_service() {
    let setup = ClusterSetup::new("peerports.test").apart().peering(free_port()).separate(free_port(), free_port());
    let cluster = setup.start();
    let more = json!({
        "peer_listen_addr": listen(free_port()), "listen_addr": listen(free_port()),
        "tunnel_listen_addr": listen(free_port()),
    });
    let (mut second, address) = cluster.another_proxy("second", &more);
    second.wait_ready();
    let _node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access"]);
    let identity = cluster.sign_identity("alice", "1h");
    wait_session(&Client::with_identity(&address, &cluster.new_path("home"), &identity), &[], "node1");
}

#[test]
fn net_02_with_no_way_out_everything_works_and_nobody_is_called() {
    in_own_network("network::net_02_with_no_way_out_everything_works_and_nobody_is_called", || {
        let before = packets_lost();
        let cluster = Cluster::start_apart("airgap.test");
        let _node = cluster.agent(&AgentSetup::node("node1"));
        let mut alice = cluster.user("alice", &["access"]);
        let client = cluster.login(&mut alice);
        assert_eq!(client.servers(), ["node1"]);
        let mut shell = client.terminal(&["ssh", &format!("{}@node1", account())]);
        shell.type_line("echo said-$((40+2)); exit");
        shell.expect("said-42");
        assert_eq!(shell.finish().0, 0);
        let session = cluster.wait_event("session.upload", &[]);
        let played = client.tsh(&["play", session["sid"].as_str().expect("an id"), "--format=text"]);
        assert!(played.stdout.contains("said-42"), "{played}");
        cluster.tctl(&["status"]).succeeded();
        assert_eq!(packets_lost(), before, "packets were sent to where nobody is");
    });
}

#[test]
fn net_07_net_08_net_10_public_addresses_are_advertised_and_certified() {
    let proxy = json!({
        "public_addr": ["first.test:443", "second.test:8443"], "ssh_public_addr": "ssh.test:3023",
        "tunnel_public_addr": ["tunnel.test", "198.51.100.7:3024"],
    });
    let cluster = ClusterSetup::new("names.test").proxy(&proxy).start();
    let port = free_port();
    let names = json!({ "listen_addr": listen(port), "public_addr": ["node.example.test", "198.51.100.8:3022"] });
    let _node = cluster.agent(&AgentSetup::node("node1").at_auth_with_pin(&cluster.pin()).ssh(&names));

    let ping = cluster.browser().try_get("/webapi/ping").expect("ping").json();
    assert_eq!(ping["proxy"]["ssh"]["public_addr"], "first.test:443");
    assert_eq!(ping["proxy"]["ssh"]["ssh_public_addr"], "ssh.test:3023");
    assert_eq!(ping["proxy"]["ssh"]["ssh_tunnel_public_addr"], "tunnel.test:3024");

    let mut shown = Command::new("openssl");
    shown.args(["s_client", "-connect", &cluster.address(), "-alpn", "teleport-proxy-ssh"]);
    let shown = run(&mut shown, b"", LIMIT);
    let mut read = Command::new("openssl");
    let text = run(read.args(["x509", "-noout", "-text"]), shown.stdout.as_bytes(), LIMIT).succeeded().stdout;
    for name in ["first.test", "second.test", "ssh.test", "tunnel.test", "198.51.100.7"] {
        assert!(text.contains(name), "{name} in {text}");
    }

    let mut scan = Command::new("ssh-keyscan");
    let keys = run(scan.args(["-c", "-p", &port.to_string(), "127.0.0.1"]), b"", LIMIT).stdout;
    let line = keys.lines().find(|line| line.contains("-cert-")).unwrap_or_else(|| panic!("no certificate: {keys}"));
    let file = cluster.new_path("host-cert.pub");
    fs::write(&file, &line[line.find("ssh-").expect("a kind of key")..]).expect("write a file");
    let mut read = Command::new("ssh-keygen");
    let text = run(read.arg("-L").arg("-f").arg(&file), b"", LIMIT).succeeded().stdout;
    for name in ["node1", "node.example.test", "198.51.100.8"] {
        assert!(text.lines().any(|line| line.trim() == name), "{name} in {text}");
    }
}

#[test]
fn net_24_net_26_net_33_net_39_net_40_net_41_ping_says_where_and_tsh_needs_no_port() {
    in_own_network("network::net_24_net_26_net_33_net_39_net_40_net_41_ping_says_where_and_tsh_needs_no_port", || {
        for port in [443, 3080] {
            let web = format!("{HERE}:{port}");
            let cluster = ClusterSetup::new("ping.test").proxy(&json!({ "web_listen_addr": web })).start();
            let ping = cluster.browser().try_get("/webapi/ping").expect("ping").json();
            let proxy = &ping["proxy"];
            assert_eq!(proxy["tls_routing_enabled"], true);
            for (section, key, value) in [
                ("ssh", "listen_addr", json!(web)),
                ("ssh", "tunnel_listen_addr", json!(web)),
                ("ssh", "web_listen_addr", json!(web)),
                ("ssh", "public_addr", json!(web)),
                ("ssh", "dial_timeout", json!(30_000_000_000_i64)),
                ("db", "postgres_listen_addr", json!(web)),
                ("db", "mysql_listen_addr", json!(web)),
                ("kube", "enabled", json!(true)),
                ("kube", "listen_addr", json!(web)),
            ] {
                assert_eq!(proxy[section][key], value, "{section}.{key} in {ping}");
            }
            let _node = cluster.agent(&AgentSetup::node("node1"));
            let mut alice = cluster.user("alice", &["access"]);
            let client = Client::new(HERE, &cluster.new_path("home"));
            client.login(&mut alice);
            wait_session(&client, &[], "node1");
        }
    });
}

#[test]
fn net_25_net_27_one_port_serves_everything() {
    let mut cluster = Cluster::start("oneport.test");
    let node = cluster.agent(&AgentSetup::node("node1"));
    let of = |address: &str| cluster_port(address);
    let mut expected = vec![of(&cluster.address()), of(&cluster.auth_address()), cluster.auth.diagnostics_port()];
    expected.sort_unstable();
    let ports: Vec<u16> = cluster.auth.listening_ports().into_iter().collect();
    assert_eq!(ports, expected);
    assert!(node.listening_ports().is_empty(), "an agent listens on nothing");
    assert_eq!(cluster.auth.exit_code(), None);
    for name in [
        "h2",
        "http/1.1",
        "teleport-proxy-ssh",
        "teleport-proxy-ssh-grpc",
        "teleport-reversetunnel",
        "teleport-proxy-grpc",
        "teleport-postgres",
        "teleport-mysql",
        "teleport-mongodb",
        "teleport-redis",
        "teleport-tcp",
        "teleport-postgres-ping",
    ] {
        let mut connect = Command::new("openssl");
        connect.args(["s_client", "-connect", &cluster.address(), "-alpn", name]);
        let ran = run(&mut connect, b"", LIMIT);
        assert!(ran.stdout.contains(&format!("ALPN protocol: {name}")), "{name}: {ran}");
    }
}

#[test]
fn net_46_net_47_net_48_net_49_net_50_services_of_later_versions_are_refused_by_name() {
    let cluster = Cluster::start("later.test");
    for service in ["kubernetes_service", "windows_desktop_service", "app_service", "db_service", "discovery_service"] {
        let mut agent = cluster.start_agent(&AgentSetup::node(service).section(service, &json!({ "enabled": "yes" })));
        assert_ne!(agent.wait_end(LIMIT), 0);
        assert!(agent.log().contains(service), "{}", agent.log());
    }
    assert!(cluster.nodes().is_empty());
}

#[test]
fn whoever_names_others_in_a_header_that_nobody_configured_counts_as_who_they_are() {
    let rates = json!([{ "period": "10m", "average": 60, "burst": 60 }]);
    let (kubernetes, mysql) = (free_port(), free_port());
    let ports = json!({ "kube_listen_addr": listen(kubernetes), "mysql_listen_addr": listen(mysql) });
    let limits = json!({ "connection_limits": { "rates": rates } });
    let cluster = ClusterSetup::new("counted.test").teleport(&limits).proxy(&ports).start();
    let answered = |address: &str, says: &[u8]| {
        let mut stream = dial(address);
        let _ = stream.write_all(says); // it may be closed already
        stream.read(&mut [0]).unwrap_or(0) > 0
    };
    // A record of TLS that is no ClientHello is answered with an alert.
    let hello = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0];
    let (kubernetes, mysql) = (listen(kubernetes), listen(mysql));
    assert!(answered(&kubernetes, &hello) && answered(&mysql, b""));
    let greeted: Vec<bool> = (0..80)
        .map(|i| {
            let says = format!("PROXY TCP4 198.51.100.{i} 127.0.0.1 4000 443\r\nSSH-2.0-test\r\n");
            answered(&cluster.address(), says.as_bytes())
        })
        .collect();
    assert_eq!((greeted.first(), greeted.last()), (Some(&true), Some(&false)), "{greeted:?}");
    assert!(!answered(&kubernetes, &hello) && !answered(&mysql, b""), "these are counted as well");
    let shown = |name: &str| {
        let mut connect = Command::new("openssl");
        connect.args(["s_client", "-connect", &cluster.address(), "-alpn", name]);
        run(&mut connect, b"", LIMIT).stdout.contains("BEGIN CERTIFICATE")
    };
    // Web requests are counted one by one; for the rest no handshake is begun.
    assert!(shown("http/1.1") && (0..5).any(|_| !shown("teleport-reversetunnel")));
}
