//! Several processes, and processes that come and go.

use std::fs;
use std::process::Command;
use std::time::Duration;

use e2e::{AgentSetup, Browser, Client, Cluster, account, run, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command on a node until that succeeds.
#[track_caller]
fn wait_reachable(client: &Client, node: &str) {
    let target = format!("{}@{node}", account());
    wait_for(&format!("a session on {node}"), LIMIT, || {
        let ran = client.tsh(&["ssh", &target, "echo reached"]);
        if ran.code == 0 && ran.stdout == "reached\n" { Ok(()) } else { Err(ran) }
    });
}

#[test]
fn a_node_comes_back_after_the_process_of_auth_and_proxy_is_restarted() {
    let mut cluster = Cluster::start("restart.test");
    let mut node = cluster.agent(&AgentSetup::node("node1"));
    let mut alice = cluster.user("alice", &["access"]);
    let client = cluster.login(&mut alice);
    wait_reachable(&client, "node1");

    cluster.auth.restart();
    cluster.wait_ready();
    wait_reachable(&client, "node1");
    assert_eq!(client.status()["username"], "alice", "the login outlives the restart");
    assert_eq!(node.exit_code(), None, "the node is the same process");
}

#[test]
fn a_node_that_is_restarted_joins_again_with_what_it_has_on_disk() {
    let cluster = Cluster::start("again.test");
    let token = cluster.tctl(&["tokens", "add", "--type=node", "--format=text"]).succeeded().stdout.trim().to_owned();
    let mut node = cluster.agent(&AgentSetup::node("node1").token(&token));
    cluster.user("alice", &["access"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    wait_reachable(&client, "node1");

    cluster.tctl(&["tokens", "rm", &token]).succeeded();
    node.restart();
    wait_reachable(&client, "node1");
}

#[test]
fn net_01_net_03_net_04_net_05_net_06_net_11_net_38_net_42_net_43_net_44_net_45_hosts_of_a_cluster_on_separate_machines()
 {
    let cluster = Cluster::start_apart("apart.test");
    let _direct = cluster.agent(&AgentSetup::node("direct").at_auth_with_pin(&cluster.pin()));
    let tunnelled = cluster.agent(&AgentSetup::node("tunnelled"));
    assert!(tunnelled.listening_ports().is_empty());
    let mut alice = cluster.user("alice", &["access"]);
    let client = cluster.login(&mut alice);
    let mut servers = client.servers();
    servers.sort();
    assert_eq!(servers, ["direct", "tunnelled"]);
    wait_reachable(&client, "tunnelled");
    wait_reachable(&client, "direct");
}

#[test]
fn an_identity_file_signed_on_the_auth_host_works_without_logging_in() {
    let cluster = Cluster::start("identity.test");
    let _node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("robot", &["access"]);
    let client = cluster.client_with(&cluster.sign_identity("robot", "1h"));
    assert_eq!(client.servers(), ["node1"]);
    let ran = client.tsh(&["ssh", &format!("{}@node1", account()), "exit 7"]);
    assert_eq!(ran.code, 7, "{ran}");
    cluster.wait_event("exec", &[("user", "robot"), ("command", "exit 7")]);
}

#[test]
fn a_proxy_that_leaves_lets_sessions_end_and_takes_no_new_ones() {
    let mut cluster = Cluster::start_apart("leaving.test");
    let _node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    wait_reachable(&client, "node1");
    let mut shell = client.terminal(&["ssh", &format!("{}@node1", account())]);
    shell.expect(r"[$#%>] ?");

    let address = cluster.address();
    let proxy = cluster.proxy.as_mut().expect("a proxy of its own");
    proxy.quit();
    wait_for("the port to be closed", LIMIT, || match std::net::TcpStream::connect(&address) {
        Ok(_) => Err("open"),
        Err(_) => Ok(()),
    });
    shell.type_line("echo still-$((40+2))-here");
    shell.expect("still-42-here");
    assert_eq!(proxy.exit_code(), None, "it waits for the session");
    shell.type_line("exit");
    assert_eq!(shell.finish().0, 0);
    assert_eq!(proxy.wait_end(LIMIT), 0);
}

#[test]
fn a_stop_during_the_start_ends_the_process() {
    let cluster = Cluster::start("stopped.test");
    let mut node = cluster.start_agent(&AgentSetup::node("node1").at_proxy("127.0.0.1:1"));
    wait_for("the start", LIMIT, || if node.log().contains("trying again") { Ok(()) } else { Err(node.log()) });
    node.stop();
}

#[test]
fn a_process_reads_its_file_again_on_sighup_and_goes_on() {
    let cluster = Cluster::start("reload.test");
    let mut node = cluster.agent(&AgentSetup::node("node1").label("stage", "before").with_diagnostics());
    cluster.user("alice", &["access"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    wait_reachable(&client, "node1");
    let stage = || cluster.tctl(&["get", "nodes", "--format=json"]).json()[0]["metadata"]["labels"]["stage"].clone();

    node.reload_with("stage: before", "stage: after");
    wait_for("the new label", LIMIT, || if stage() == "after" { Ok(()) } else { Err(stage()) });
    wait_reachable(&client, "node1");

    // What is wrong is named in the log and changes nothing.
    node.reload_with("stage: after", "stage: [wrong]");
    wait_for("the reason in the log", LIMIT, || {
        let log = node.log();
        if log.contains("nothing has changed") && log.contains("stage") { Ok(()) } else { Err(log) }
    });
    assert_eq!((stage(), node.exit_code()), ("after".into(), None));

    // Settings of the cluster follow the file of the Auth Service.
    let set = |key: &str| cluster.tctl(&["get", "cap", "--format=json"]).json()[0]["spec"][key].clone();
    cluster.auth.reload_with("second_factor", "locking_mode: strict\n    second_factor");
    wait_for("the new mode", LIMIT, || {
        let mode = set("locking_mode");
        if mode == "strict" { Ok(()) } else { Err(mode) }
    });
}

#[test]
fn a_process_says_what_it_counts() {
    let cluster = Cluster::start("metrics.test");
    let _node = cluster.agent(&AgentSetup::node("web"));
    let mut alice = cluster.user("alice", &["access"]);
    cluster.login(&mut alice);
    let address = format!("http://127.0.0.1:{}", cluster.auth.diagnostics_port());
    let shown = Browser::new(&address).get("/metrics").body;
    let value = |name: &str| {
        let found = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{name} in {shown}")).parse::<f64>().unwrap()
    };
    for name in [
        "user_login_total",
        "auth_generate_requests_total",
        "auth_generate_seconds_count",
        "teleport_user_certificates_generated{private_key_policy=\"none\"}",
        "teleport_audit_emit_events",
        "backend_requests{component=\"backend\",req=\"/web\",range=\"false\"}",
        "backend_write_requests_total{component=\"backend\"}",
        "backend_read_seconds_count{component=\"backend\"}",
        "backend_watchers_total",
        "teleport_connected_resources{type=\"node\"}",
        "heartbeat_connections_received_total",
        "watcher_event_sizes_count",
        "watcher_events_count{resource=\"node\"}",
        "teleport_cache_events",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "teleport_services{service_name=\"auth_service\"}",
        "teleport_services{service_name=\"proxy_service\"}",
    ] {
        assert!(value(name) > 0.0, "{name} in {shown}");
    }
    for name in ["failed_login_attempts_total", "audit_failed_emit_events", "heartbeats_missed_total"] {
        assert_eq!(value(name), 0.0, "{name}");
    }
    for name in ["user_login_total", "process_cpu_seconds_total", "teleport_cache_events"] {
        assert!(shown.contains(&format!("# TYPE {name} counter\n")), "{name} in {shown}");
    }
    let calls = "grpc_server_started_total{grpc_service=\"proto.AuthService\",grpc_method=\"";
    assert!(shown.contains(calls), "{shown}");
    let top = cluster.tctl(&["top", &address]).succeeded();
    assert!(top.stdout.contains("memory") && top.stdout.contains("CPU time"), "{top}");
}

#[test]
fn databases_and_desktops_get_credentials_in_the_form_that_their_tools_read() {
    let cluster = Cluster::start("forms.test");
    let out = cluster.path("server");
    let sign = |more: &[&str]| {
        let out = format!("--out={}", out.display());
        cluster.tctl(&[&["auth", "sign", &out, "--ttl=1h"], more].concat()).succeeded().stdout
    };
    let file = |suffix: &str| format!("{}{suffix}", out.display());
    let openssl = |arguments: &[&str]| run(Command::new("openssl").args(arguments), b"", LIMIT).succeeded().stdout;

    let said = sign(&["--format=cassandra", "--host=db.example.test,10.1.2.3"]);
    let password =
        said.split("keystore_password: \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a password");
    let pass = format!("pass:{password}");
    let read = openssl(&["pkcs12", "-in", &file(".keystore"), "-nodes", "-passin", &pass]);
    assert!(read.contains("friendlyName: cassandra") && read.contains("PRIVATE KEY"), "{read}");
    for store in [".keystore", ".truststore"] {
        let arguments = ["-list", "-v", "-storetype", "JKS", "-storepass", password, "-keystore", &file(store)];
        // What of Java is here; the formats are tested without it as well.
        if let Ok(listed) = Command::new("keytool").args(arguments).output() {
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            assert!(listed.status.success() && text.contains("Alias name: cassandra"), "{text}");
        }
    }

    let said = sign(&["--format=oracle", "--host=db.example.test"]);
    let password =
        said.split("-pkcs12pwd ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a password");
    let read = openssl(&["pkcs12", "-in", &file(".p12"), "-nodes", "-passin", &format!("pass:{password}")]);
    assert!(read.contains("PRIVATE KEY") && read.contains("db.example.test"), "{read}");
    assert!(openssl(&["x509", "-noout", "-subject", "-in", &file(".ca-client.crt")]).contains("forms.test"));

    sign(&[
        "--format=windows",
        "--windows-user=ann",
        "--windows-domain=corp.example",
        "--windows-sid=S-1-5-21-1-2-3-500",
    ]);
    let authorities = cluster.path("user-ca.pem");
    fs::write(&authorities, cluster.tctl(&["auth", "export", "--type=tls-user"]).succeeded().stdout).expect("write");
    let pem = file(".ann.pem");
    openssl(&["x509", "-inform", "DER", "-in", &file(".ann.der"), "-out", &pem]);
    openssl(&["verify", "-CAfile", &authorities.display().to_string(), &pem]);
    let read = openssl(&["x509", "-noout", "-text", "-in", &pem]);
    for expected in ["Microsoft Smartcard Login", "CN=Teleport,CN=CDP", "DC=corp,DC=example", "S-1-5-21-1-2-3-500"] {
        assert!(read.contains(expected), "{expected}: {read}");
    }
    let of_key = openssl(&["pkey", "-in", &file(".ann.key"), "-pubout"]);
    assert_eq!(openssl(&["x509", "-noout", "-pubkey", "-in", &pem]), of_key);
}
