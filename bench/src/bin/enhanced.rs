//! What enhanced session recording costs: a short session with and without it, and system calls of everybody else while
//! a node watches.
//!
//! `cargo build --release -p teleport -p tsh -p tctl && TELEPORT_BIN_DIR=target/release cargo run --release -p bench --bin enhanced`
//! as root, on a machine where enhanced recording works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use e2e::{AgentSetup, Client, Cluster, account, wait_for};
use serde_json::json;

/// Sessions of which the median counts.
const SESSIONS: usize = 31;
/// Files opened, system calls made.
const CALLS: u32 = 300_000;
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let cluster = Cluster::start("watched.bench");
    let _plain = cluster.agent(&AgentSetup::node("plain"));
    cluster.create(&json!({
        "kind": "role", "version": "v7", "metadata": { "name": "watched" },
        "spec": {
            "options": { "enhanced_recording": ["command", "disk", "network"] },
            "allow": { "logins": [account()], "node_labels": { "*": "*" } },
        },
    }));
    cluster.user("alice", &["watched"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "8h"));

    println!("{:<52} {:>10}", "what", "median");
    let without = show("tsh ssh node true, without", session(&client, "plain"));
    let (open, call) = (opened(), called());
    let recording = json!({ "enabled": true, "cgroup_path": groups(), "root_path": "teleport-bench" });
    let mut watching = cluster.agent(&AgentSetup::node("watched").ssh(&json!({ "enhanced_recording": recording })));
    let with = show("tsh ssh node true, with all three kinds", session(&client, "watched"));
    println!("{:<52} {:>7.2} ms", "  adds", (with.as_secs_f64() - without.as_secs_f64()) * 1e3);
    let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(CALLS);
    for (what, before, after) in [("open(2) and close(2)", open, opened()), ("getppid(2)", call, called())] {
        println!("{what}, not in a session: {:.0} ns, while a node watches {:.0} ns", each(before), each(after));
    }
    let events = ["session.command", "session.disk", "session.network"].map(|kind| cluster.events(kind).len());
    println!("events of the sessions: {events:?}");
    watching.stop();
    fs::remove_dir(groups().join("teleport-bench")).unwrap();
}

/// Where this machine has control groups of the second version.
fn groups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.find(|fields| fields[2] == "cgroup2").map(|fields| fields[1].into()).expect("a mount of cgroup2")
}

fn session(client: &Client, node: &str) -> Duration {
    let target = format!("{}@{node}", account());
    let arguments = ["ssh", &target, "true"];
    wait_for("a session", LIMIT, || {
        let ran = client.tsh(&arguments);
        if ran.code == 0 { Ok(()) } else { Err(ran) }
    });
    let mut times: Vec<Duration> = (0..SESSIONS)
        .map(|_| {
            let start = Instant::now();
            client.tsh(&arguments).succeeded();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[SESSIONS / 2]
}

fn show(what: &str, time: Duration) -> Duration {
    println!("{what:<52} {:>7.2} ms", time.as_secs_f64() * 1e3);
    time
}

fn opened() -> Duration {
    let start = Instant::now();
    for _ in 0..CALLS {
        drop(fs::File::open("/etc/hostname").unwrap());
    }
    start.elapsed()
}

fn called() -> Duration {
    let start = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(std::os::unix::process::parent_id());
    }
    start.elapsed()
}
