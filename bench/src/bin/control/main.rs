//! The control plane under load: certificates, nodes that register, lists, watches, memory, restarts and decisions.
//!
//! `cargo build --release -p teleport -p tsh -p tctl && TELEPORT_BIN_DIR=target/release cargo run --release -p bench --bin control`
//!
//! Auth and Proxy are a process each, with their storage in the system's temporary folder: set `TMPDIR` to a real disk,
//! because every write is acknowledged when it is there. Callers run in this process, on the same cores.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls;
mod decisions;
#[path = "../../usage.rs"]
mod usage;
mod watchers;

use std::time::{Duration, Instant};

use calls::Caller;
use e2e::{Client, Cluster, ClusterSetup, Daemon, account, wait_for};
use serde_json::json;
use tokio::runtime::Runtime;

/// Callers at the same time: few, as many as a small test has, and many.
const CALLERS: [usize; 2] = [8, 64];
/// Certificates and nodes of one measurement.
const CERTIFICATES: usize = 8_000;
const NODES: usize = 10_000;
/// All nodes at the end.
const MANY_NODES: usize = 50_000;
const WATCHERS: usize = 1_000;
/// Changes that all watchers see, one after the other.
const CHANGES: usize = 21;
/// Runs of a command, of which the median counts.
const RUNS: usize = 11;
/// Time for allocators and caches to settle before memory is read.
const SETTLE: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    for suite in ["balanced-v1", "legacy"] {
        certificates(&runtime, suite);
    }
    let mut cluster = start("balanced-v1");
    let identity = cluster.sign_identity("loader", "8h");
    let caller = Caller::new(&cluster, &identity);
    let client = cluster.client_with(&identity);
    std::thread::sleep(SETTLE);
    memory(&cluster, 0);

    let mut made = 0;
    for callers in CALLERS {
        let took = runtime.block_on(caller.upsert_nodes(made..made + NODES, callers));
        line(
            &format!("nodes registered, {callers} callers"),
            &rate(NODES, took),
            "each acknowledged when it is on disk",
        );
        made += if callers == CALLERS[0] { 0 } else { NODES };
    }
    lists(&cluster, &client, made);
    memory(&cluster, made);
    runtime.block_on(caller.upsert_nodes(made..MANY_NODES, CALLERS[1]));
    lists(&cluster, &client, MANY_NODES);
    memory(&cluster, MANY_NODES);

    let (first, all) = runtime.block_on(watchers::changes(&cluster, &identity, WATCHERS, CHANGES));
    line(&format!("a change, seen by all of {WATCHERS} watchers"), &milliseconds(middle(all)), "since it was sent");
    line("  by the first of them", &milliseconds(middle(first)), "");

    for (what, end) in [("stopped", Daemon::stop as fn(&mut Daemon)), ("killed", Daemon::kill)] {
        end(&mut cluster.auth);
        let start = Instant::now();
        cluster.auth.launch();
        cluster.auth.wait_ready();
        line(&format!("Auth {what}, started to ready"), &seconds(start.elapsed()), &format!("{MANY_NODES} nodes"));
    }
    decisions::measure();
}

/// A cluster with a user who may see and make nodes.
fn start(suite: &str) -> Cluster {
    let authentication = json!({ "type": "local", "second_factor": "otp", "signature_algorithm_suite": suite });
    let cluster = ClusterSetup::new("control.bench").auth(&json!({ "authentication": authentication })).apart().start();
    cluster.create(&json!({
        "kind": "role", "version": "v7", "metadata": { "name": "loader" },
        "spec": { "allow": {
            "node_labels": { "*": "*" }, "logins": [account()],
            "rules": [{ "resources": ["node"], "verbs": ["*"] }],
        } },
    }));
    cluster.user("loader", &["loader"]);
    cluster
}

fn certificates(runtime: &Runtime, suite: &str) {
    let cluster = start(suite);
    let caller = Caller::new(&cluster, &cluster.sign_identity("loader", "8h"));
    for callers in CALLERS {
        let before = usage::cpu(cluster.auth.pid());
        let took = runtime.block_on(caller.certificates("loader", CERTIFICATES, callers));
        let used = (usage::cpu(cluster.auth.pid()) - before) / CERTIFICATES as f64;
        let note = format!("{:.0} µs of CPU for each, SSH and TLS", used * 1e6);
        line(&format!("user certificates, {suite}, {callers} callers"), &rate(CERTIFICATES, took), &note);
    }
}

/// Times `tsh ls` with so many nodes, when the Proxy knows them all.
fn lists(cluster: &Cluster, client: &Client, nodes: usize) {
    let last = calls::host_name(nodes - 1);
    wait_for("the proxy to know all nodes", LIMIT, || {
        let listed = client.tsh(&["ls", "--format=names"]);
        if listed.stdout.lines().filter(|name| **name == last).count() == 1 { Ok(()) } else { Err(listed.code) }
    });
    let time = |arguments: &[&str]| {
        let run = || {
            let mut command = client.command(arguments);
            let start = Instant::now();
            assert!(command.output().expect("start tsh").status.success(), "{command:?}");
            start.elapsed()
        };
        middle((0..RUNS).map(|_| run()).collect())
    };
    let some = format!("--search={}", calls::host_name(7));
    for arguments in [&["ls"][..], &["ls", "--format=names"], &["ls", &some]] {
        line(&format!("tsh {}, {nodes} nodes", arguments.join(" ")), &seconds(time(arguments)), "");
    }
    let proxy = cluster.proxy.as_ref().expect("a proxy of its own");
    line("proxy, memory", &megabytes(usage::memory(proxy.pid())), &format!("{nodes} nodes"));
}

fn memory(cluster: &Cluster, nodes: usize) {
    std::thread::sleep(SETTLE);
    line("auth, memory", &megabytes(usage::memory(cluster.auth.pid())), &format!("{nodes} nodes"));
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn rate(count: usize, took: Duration) -> String {
    format!("{:.0}/s", count as f64 / took.as_secs_f64())
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn megabytes(kilobytes: u64) -> String {
    format!("{:.1} MB", kilobytes as f64 / 1024.0)
}

fn line(what: &str, value: &str, note: &str) {
    println!("{what:<48} {value:>12}  {note}");
}
