//! Balancers between clients and the public port: HAProxy and nginx as Debian has them. The names carry the requirements of the
//! networking reference.

use std::fs;
use std::process::Command;
use std::time::Duration;

use e2e::{AgentSetup, Client, Cluster, ClusterSetup, Tool, account, free_port, listen, run, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// A certificate of its own making for a balancer: PEM files of the certificate, of the key, and of both.
fn certificate(cluster: &Cluster) -> [String; 3] {
    let path = |name: &str| cluster.path(name).display().to_string();
    let [certificate, key, both] = ["balancer.crt", "balancer.key", "balancer.pem"].map(path);
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    command.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", &certificate, "-keyout", &key]);
    run(&mut command, b"", LIMIT).succeeded();
    let content = [&certificate, &key].map(|file| fs::read_to_string(file).expect("read what openssl wrote")).concat();
    fs::write(&both, content).expect("write a file");
    [certificate, key, both]
}

/// Starts HAProxy with one frontend at a port.
fn haproxy(cluster: &Cluster, port: u16, sections: &str) -> Tool {
    let file = cluster.new_path("haproxy.cfg");
    let defaults = "global\n  maxconn 200\ndefaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
                    timeout tunnel 1h\n";
    fs::write(&file, format!("{defaults}{sections}")).expect("write a configuration");
    let tool = Tool::start("haproxy", &["-db", "-f", &file.display().to_string()], &cluster.path(""));
    wait_for("the balancer", LIMIT, || std::net::TcpStream::connect(listen(port)).map(drop));
    tool
}

/// An agent that joins through a balancer, a login and a session through it.
fn everything_works(cluster: &Cluster, balancer: &str) -> Client {
    let _node = cluster.agent(&AgentSetup::node("node1").at_proxy(balancer));
    let mut alice = cluster.user("alice", &["access"]);
    let client = Client::new(balancer, &cluster.new_path("home"));
    client.login(&mut alice);
    let target = format!("{}@node1", account());
    wait_for("a session", LIMIT, || {
        let ran = client.tsh(&["ssh", &target, "echo reached"]);
        if ran.stdout == "reached\n" { Ok(()) } else { Err(ran) }
    });
    let ran = client.tsh(&["ssh", &target, "head -c 3000000 /dev/zero | wc -c"]).succeeded();
    assert_eq!(ran.stdout.trim(), "3000000");
    client
}

#[test]
fn behind_a_tcp_balancer_with_proxy_headers_the_client_is_who_it_says() {
    let port = free_port();
    let balancer = listen(port);
    let cluster =
        ClusterSetup::new("tcp.test").proxy(&json!({ "proxy_protocol": "on", "public_addr": balancer })).start();
    let sections = format!(
        "frontend in\n  mode tcp\n  bind {balancer}\n  default_backend proxies\nbackend proxies\n  mode tcp\n  \
         source 127.0.0.7\n  server one {} send-proxy-v2\n",
        cluster.address()
    );
    let _haproxy = haproxy(&cluster, port, &sections);
    everything_works(&cluster, &balancer);
    let login = cluster.wait_event("user.login", &[("user", "alice")]);
    let address = login["addr.remote"].as_str().expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "the client's address, not the balancer's 127.0.0.7: {login}");
    let session = cluster.wait_event("session.start", &[("user", "alice")]);
    let address = session["addr.remote"].as_str().expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "{session}");
}

#[test]
fn net_09_two_proxies_behind_one_address_serve_every_node_and_either_may_stop() {
    let port = free_port();
    let balancer = listen(port);
    let shared = json!({ "public_addr": balancer });
    let cluster = ClusterSetup::new("balanced.test").apart().proxy(&shared).start();
    let (mut second, second_address) = cluster.another_proxy("second", &shared);
    second.wait_ready();
    let sections = format!(
        "frontend in\n  mode tcp\n  bind {balancer}\n  default_backend proxies\nbackend proxies\n  mode tcp\n  \
         balance roundrobin\n  retries 3\n  option redispatch 1\n  default-server check inter 200ms fall 1 rise 1\n  \
         server one {}\n  server two {second_address}\n",
        cluster.address()
    );
    let _haproxy = haproxy(&cluster, port, &sections);
    let _node = cluster.agent(&AgentSetup::node("node1").at_proxy(&balancer));
    let mut alice = cluster.user("alice", &["access"]);
    let client = Client::new(&balancer, &cluster.new_path("home"));
    client.login(&mut alice);
    let target = format!("{}@node1", account());
    // The balancer takes the proxies in turn, so that several sessions in a row have gone through both.
    let in_a_row = |what: &str| {
        wait_for(what, LIMIT, || {
            for _ in 0..6 {
                let ran = client.tsh(&["ssh", &target, "echo reached"]);
                if ran.stdout != "reached\n" {
                    return Err(ran);
                }
            }
            Ok(())
        });
    };
    in_a_row("sessions through both proxies");
    let proxies = || {
        let listed = cluster.tctl(&["get", "proxies", "--format=json"]).json();
        listed.as_array().expect("a list").len()
    };
    assert_eq!(proxies(), 2);
    second.stop();
    assert_eq!(proxies(), 1, "a proxy that stops takes its record back");
    in_a_row("sessions through the first proxy");
}

#[test]
fn behind_an_http_balancer_that_ends_tls_connections_are_upgraded() {
    let port = free_port();
    let balancer = listen(port);
    let proxy = json!({ "public_addr": balancer, "trust_x_forwarded_for": true });
    let cluster = ClusterSetup::new("http.test").proxy(&proxy).start();
    let [_, _, both] = certificate(&cluster);
    let sections = format!(
        "frontend in\n  mode http\n  bind {balancer} ssl crt {both} alpn http/1.1\n  option forwardfor\n  \
         default_backend proxies\nbackend proxies\n  mode http\n  server one {} ssl verify none alpn http/1.1\n",
        cluster.address()
    );
    let _haproxy = haproxy(&cluster, port, &sections);
    everything_works(&cluster, &balancer);
    let session = cluster.wait_event("session.start", &[("user", "alice")]);
    let address = session["addr.remote"].as_str().expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "{session}");
}

#[test]
fn behind_nginx_connections_are_upgraded() {
    let port = free_port();
    let balancer = listen(port);
    let cluster = ClusterSetup::new("nginx.test").proxy(&json!({ "public_addr": balancer })).start();
    let [certificate, key, _] = certificate(&cluster);
    let folder = cluster.new_path("nginx");
    fs::create_dir_all(folder.join("logs")).expect("make a folder");
    let text = format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{ worker_connections 512; }}
         http {{
           access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
           fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
           map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
           server {{
             listen {balancer} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};
             location / {{
               proxy_pass https://{upstream}; proxy_http_version 1.1; proxy_set_header Host $host;
               proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
               proxy_read_timeout 1h; proxy_send_timeout 1h; proxy_buffering off; client_max_body_size 0;
             }}
           }}
         }}",
        folder = folder.display(),
        upstream = cluster.address()
    );
    fs::write(folder.join("nginx.conf"), text).expect("write a configuration");
    let folder_name = folder.display().to_string();
    let file = folder.join("nginx.conf").display().to_string();
    let _nginx = Tool::start("nginx", &["-p", &folder_name, "-e", "stderr", "-c", &file], &folder);
    wait_for("the balancer", LIMIT, || std::net::TcpStream::connect(&balancer).map(drop));
    everything_works(&cluster, &balancer);
}
