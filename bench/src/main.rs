//! Measures the main job beside OpenSSH with a jump host, on this machine and in one run.
//!
//! `cargo build --release -p teleport -p tsh -p tctl && TELEPORT_BIN_DIR=target/release cargo run --release -p bench`
//!
//! Needs `/usr/sbin/sshd` and an account that may log in. Times are medians of [`RUNS`] runs taken in turn, so that a busy
//! machine is as busy for one as for the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod copies;
mod load;
mod openssh;
mod usage;

use std::process::Command;
use std::time::{Duration, Instant};

use e2e::{AgentSetup, Cluster, account, program};
use load::Parties;
use openssh::OpenSsh;

/// Runs of what is timed.
const RUNS: usize = 21;
/// Sessions held open while memory is measured.
const HELD: usize = 10;
/// Time for allocators and caches to settle before memory is read.
const SETTLE: Duration = Duration::from_secs(5);

fn main() {
    for name in ["teleport", "tsh", "tctl"] {
        let size = std::fs::metadata(program(name)).expect("the size of a program").len();
        line(&format!("{name}, size"), &format!("{:.1} MB", size as f64 / 1e6), "");
    }

    let start = Instant::now();
    let mut cluster = Cluster::start("bench.test");
    line("auth and proxy, first start to ready", &seconds(start.elapsed()), "");
    let again = median(5, || {
        cluster.auth.stop();
        let start = Instant::now();
        cluster.auth.launch();
        cluster.wait_ready();
        start.elapsed()
    });
    line("auth and proxy, later start to ready", &seconds(again), "");
    let node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));
    std::thread::sleep(SETTLE);
    line("auth and proxy, idle memory", &megabytes(usage::memory(cluster.auth.pid())), "");
    line("node, idle memory", &megabytes(usage::memory(node.pid())), "");

    let target = format!("{}@node1", account());
    let ours = || {
        let start = Instant::now();
        client.tsh(&["ssh", &target, "true"]).succeeded();
        start.elapsed()
    };
    let openssh = OpenSsh::start();
    match &openssh {
        Ok(openssh) => {
            let (ours, theirs) = medians(RUNS, ours, || openssh.session());
            let ratio = format!(
                "{:.2} × ssh through a jump host ({})",
                ours.as_secs_f64() / theirs.as_secs_f64(),
                seconds(theirs)
            );
            line("tsh ssh node true", &seconds(ours), &ratio);
        }
        Err(reason) => {
            line("tsh ssh node true", &seconds(median(RUNS, ours)), &format!("no OpenSSH beside it: {reason}"))
        }
    }

    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into());
    // As a shell sees that it runs for a connection, which makes some read more at start.
    let alone =
        || timed(Command::new(&shell).args(["-c", "true"]).env("SSH_CLIENT", "127.0.0.1 1 1").env("SHLVL", "0"));
    line("the account's shell alone", &seconds(median(RUNS, alone)), "part of both times above");

    let before = usage::memory(node.pid());
    let mut held: Vec<_> = (0..HELD).map(|_| client.terminal(&["ssh", &target])).collect();
    for terminal in &mut held {
        terminal.expect(r"[$#%>] ?");
    }
    std::thread::sleep(SETTLE);
    let each = usage::memory(node.pid()).saturating_sub(before) / HELD as u64;
    line("node, memory for each held session", &megabytes(each), "without the user's own processes");
    drop(held);

    let parties =
        Parties { client: &client, target: &target, cluster: &cluster, node: &node, openssh: openssh.as_ref().ok() };
    parties.bulk();
    parties.fan_out();
    parties.copies();
}

/// Runs a command that has to succeed and says how long it took.
fn timed(command: &mut Command) -> Duration {
    let start = Instant::now();
    let output = command.output().expect("start a command");
    let took = start.elapsed();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    took
}

fn median(runs: usize, mut work: impl FnMut() -> Duration) -> Duration {
    middle((0..runs).map(|_| work()).collect())
}

/// Medians of two works that take turns.
fn medians(runs: usize, first: impl Fn() -> Duration, second: impl Fn() -> Duration) -> (Duration, Duration) {
    let (a, b) = (0..runs).map(|_| (first(), second())).unzip();
    (middle(a), middle(b))
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

fn megabytes(kilobytes: u64) -> String {
    format!("{:.1} MB", kilobytes as f64 / 1024.0)
}

fn line(what: &str, value: &str, note: &str) {
    println!("{what:<40} {value:>10}  {note}");
}
