//! What each layer between a client and a node adds: to the set-up of a session, and to a round trip in one.
//!
//! `cargo build --release -p teleport -p tsh -p tctl && TELEPORT_BIN_DIR=target/release cargo run --release -p bench --bin layers`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../held.rs"]
mod held;

use std::time::{Duration, Instant};

use e2e::{
    AgentSetup, Client, Cluster, ClusterSetup, HttpProxy, Manner, ON_THE_WAY, account, free_port, go_to_own_network,
    listen, wait_for,
};
use held::Held;
use serde_json::json;

/// Sessions and round trips, of which the median counts.
const SESSIONS: usize = 21;
const ROUND_TRIPS: usize = 501;
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    // Programs do not use HTTP proxies to reach loopback.
    go_to_own_network();
    let cluster = ClusterSetup::new("root.bench").apart().peering(free_port()).start();
    let peer = json!({ "peer_listen_addr": listen(free_port()) });
    let (mut second, second_address) = cluster.another_proxy("second", &peer);
    second.wait_ready();
    let _node = cluster.agent(&AgentSetup::node("node1"));
    let leaf = Cluster::start("leaf.bench");
    let _leaf_node = leaf.agent(&AgentSetup::node("leaf-node"));
    cluster.user("alice", &["access"]);
    leaf.trust(&cluster, true);
    let identity = cluster.sign_identity("alice", "8h");
    let client = || cluster.client_with(&identity);
    let http = HttpProxy::start(ON_THE_WAY, Manner::Serves);
    let through_second = Client::with_identity(&second_address, &cluster.new_path("home"), &identity);

    println!("{:<44} {:>12} {:>12}", "way to the node", "session", "round trip");
    let base = measure("the proxy that has its tunnel", &client(), &[], "node1", None);
    let by_http = client().with_variable("HTTPS_PROXY", &format!("http://{}", http.address()));
    measure("with an HTTP proxy (CONNECT) before it", &by_http, &[], "node1", Some(base));
    assert!(!http.asked().is_empty(), "the HTTP proxy was used");
    let upgraded = client().with_variable("TELEPORT_TLS_ROUTING_CONN_UPGRADE", "true");
    measure("with a connection upgrade", &upgraded, &[], "node1", Some(base));
    measure("through another proxy (peering)", &through_second, &[], "node1", Some(base));
    measure("in a leaf cluster", &client(), &["--cluster=leaf.bench"], "leaf-node", Some(base));
}

/// Prints the medians of one way, and what they are more than `base`.
fn measure(
    way: &str,
    client: &Client,
    options: &[&str],
    node: &str,
    base: Option<(Duration, Duration)>,
) -> (Duration, Duration) {
    let target = format!("{}@{node}", account());
    let arguments = [&["ssh"], options, &[target.as_str(), "true"]].concat();
    wait_for(&format!("a session, {way}"), LIMIT, || {
        let ran = client.tsh(&arguments);
        if ran.code == 0 { Ok(()) } else { Err(ran) }
    });
    let session = median(SESSIONS, || {
        let start = Instant::now();
        client.tsh(&arguments).succeeded();
        start.elapsed()
    });
    let mut held = Held::open(client, options, node);
    assert!(held.answers(), "{way}");
    let round_trip = median(ROUND_TRIPS, || {
        let start = Instant::now();
        assert!(held.answers(), "{way}");
        start.elapsed()
    });
    let shown = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    let more = base.map_or(String::new(), |(session_base, trip_base)| {
        let added = |time: Duration, base: Duration| (time.as_secs_f64() - base.as_secs_f64()) * 1e3;
        format!("  adds {:+.2} ms and {:+.3} ms", added(session, session_base), added(round_trip, trip_base))
    });
    println!("{way:<44} {:>12} {:>12}{more}", shown(session), shown(round_trip));
    (session, round_trip)
}

fn median(runs: usize, work: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = std::iter::repeat_with(work).take(runs).collect();
    times.sort();
    times[times.len() / 2]
}
