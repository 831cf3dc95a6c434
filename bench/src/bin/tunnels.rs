//! Many agents behind one public port, many sessions through it, and a restart of each component.
//!
//! `cargo build --release -p teleport -p tsh -p tctl && TELEPORT_BIN_DIR=target/release cargo run --release -p bench --bin tunnels`
//!
//! `TUNNELS` (1000) agents are real processes, which take some 4 MB of memory each; `SESSIONS` (500) are real `tsh`. The proxy
//! is killed and started `ROUNDS` (3) times, with keys of `SUITE` (balanced-v1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../held.rs"]
mod held;
#[path = "../usage.rs"]
mod usage;

use std::thread;
use std::time::{Duration, Instant};

use e2e::{AgentSetup, Browser, Cluster, ClusterSetup, Daemon, try_for};
use held::Held;
use serde_json::json;

/// Agents that may be joining at the same time.
const JOINING: usize = 16;
/// Sessions that may be opening at the same time.
const OPENING: usize = 16;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(900);
/// Time for allocators and caches to settle before memory is read.
const SETTLE: Duration = Duration::from_secs(5);
/// Time between two restarts: agents connect to Auth some seconds after their tunnels are back.
const PAUSE: Duration = Duration::from_secs(12);

fn main() {
    let number = |name: &str, default| std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"));
    let (tunnels, sessions) = (number("TUNNELS", 1000), number("SESSIONS", 500));
    let suite = std::env::var("SUITE").unwrap_or_else(|_| "balanced-v1".to_owned());
    line("keys of all members", &suite, "");
    let authentication = json!({ "type": "local", "second_factor": "otp", "signature_algorithm_suite": suite });
    let setup = ClusterSetup::new("tunnels.bench").auth(&json!({ "authentication": authentication }));
    let mut cluster = setup.apart().start();
    cluster.user("alice", &["access"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "8h"));
    thread::sleep(SETTLE);
    let before = usage::private_memory(proxy(&cluster).pid());

    let start = Instant::now();
    let mut agents = Vec::new();
    for number in 0..tunnels {
        agents.push(cluster.start_agent(&AgentSetup::node(&format!("node-{number}"))));
        wait_connected(proxy(&cluster), agents.len().saturating_sub(JOINING));
    }
    wait_connected(proxy(&cluster), tunnels);
    line("agents joined and connected", &tunnels.to_string(), &format!("in {}", seconds(start.elapsed())));
    thread::sleep(SETTLE);
    let idle = usage::private_memory(proxy(&cluster).pid());
    let each = idle.saturating_sub(before) as f64 / tunnels as f64;
    line("proxy, memory for each idle tunnel", &format!("{each:.0} KiB"), "");

    let start = Instant::now();
    let mut held: Vec<Held> = Vec::new();
    for number in 0..sessions {
        held.push(Held::open(&client, &[], &format!("node-{}", number % tunnels)));
        if let Some(earlier) = held.len().checked_sub(OPENING) {
            assert!(held[earlier].answers(), "session {earlier} did not open");
        }
    }
    assert_eq!(lost(&mut held), 0, "all sessions open");
    line("sessions opened", &sessions.to_string(), &format!("in {}", seconds(start.elapsed())));
    thread::sleep(SETTLE);
    let busy = usage::private_memory(proxy(&cluster).pid());
    let each = busy.saturating_sub(idle) as f64 / sessions.max(1) as f64;
    line("proxy, memory for each session", &format!("{each:.0} KiB"), "");

    cluster.auth.kill();
    cluster.auth.launch();
    cluster.wait_ready();
    line("auth killed and started: sessions lost", &lost(&mut held).to_string(), "none are on it");

    let first = agents.first_mut().expect("an agent");
    first.kill();
    first.launch();
    let gone = lost(&mut held);
    line("an agent killed and started: sessions lost", &gone.to_string(), "its own");
    wait_connected(proxy(&cluster), tunnels);

    let used = |cluster: &Cluster| {
        let agents: f64 = agents.iter().map(|agent| usage::cpu(agent.pid())).sum();
        [usage::cpu(proxy(cluster).pid()), usage::cpu(cluster.auth.pid()), agents]
    };
    let mut back = Vec::new();
    for _ in 0..number("ROUNDS", 3) {
        thread::sleep(PAUSE);
        let [_, auth, agents] = used(&cluster);
        let old = cluster.proxy.as_mut().expect("a proxy of its own");
        old.kill();
        old.launch();
        old.wait_ready();
        let ready = Instant::now();
        wait_connected(proxy(&cluster), tunnels);
        back.push(ready.elapsed());
        line("proxy killed and started: all agents back", &seconds(ready.elapsed()), "after it was ready");
        let after = used(&cluster);
        let cost = format!("proxy, {:.2} s Auth, {:.2} s all agents", after[1] - auth, after[2] - agents);
        line("  CPU for that", &format!("{:.2} s", after[0]), &cost);
    }
    back.sort();
    if let Some(median) = back.get(back.len() / 2) {
        line("all agents back, median", &seconds(*median), "after the proxy was ready");
    }
    line("sessions lost", &lost(&mut held).to_string(), "all went through it");
    thread::sleep(SETTLE);
    let after = usage::private_memory(proxy(&cluster).pid());
    line("proxy, memory with all of it before and after", &megabytes(busy), &format!("and {}", megabytes(after)));
    drop(held);
    thread::sleep(SETTLE);
    let over = usage::private_memory(proxy(&cluster).pid());
    line("proxy, memory before and after the sessions", &megabytes(idle), &format!("and {}", megabytes(over)));
}

fn proxy(cluster: &Cluster) -> &Daemon {
    cluster.proxy.as_ref().expect("a proxy of its own")
}

/// Waits until so many tunnels end at a proxy.
#[track_caller]
fn wait_connected(proxy: &Daemon, wanted: usize) {
    let mut metrics = Browser::new(&format!("http://127.0.0.1:{}", proxy.diagnostics_port()));
    let connected = try_for(LIMIT, || {
        let text = metrics.try_get("/metrics").map(|answer| answer.body).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix("teleport_reverse_tunnels_connected "));
        let count = value.and_then(|value| value.parse().ok()).unwrap_or(0_usize);
        if count >= wanted { Ok(()) } else { Err(count) }
    });
    if let Err(count) = connected {
        panic!("{count} of {wanted} agents are connected");
    }
}

/// How many sessions do not answer any more; they are forgotten.
fn lost(held: &mut Vec<Held>) -> usize {
    let before = held.len();
    held.retain_mut(Held::answers);
    before - held.len()
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn megabytes(kilobytes: u64) -> String {
    format!("{:.1} MB", kilobytes as f64 / 1024.0)
}

fn line(what: &str, value: &str, note: &str) {
    println!("{what:<44} {value:>10}  {note}");
}
