//! A cluster whose processes are killed at random while sessions run, and a count of what was lost: nothing may be.
//!
//! `TELEPORT_BIN_DIR=target/release cargo run --release -p bench --bin soak`; `SOAK_SECONDS` (120) and `SOAK_SEED` say how
//! long and which story, `SOAK_MODE` how sessions are recorded (`node`). With `SOAK_OBJECTS=1` recordings are kept in an
//! object store (`moto_server`), which is away at times. It ends with 1 when something was lost.
//!
//! What counts: for each session the event of its start and of its end, exactly one of each; its recording with
//! everything that was on the screen a second before something was killed; every event of a command; every user that
//! was reported as made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use e2e::{AgentSetup, Client, Cluster, ClusterSetup, Daemon, ObjectServer, account, try_for};
use serde_json::json;

/// What a killed process may lose of a running session, with some room: see docs/reliability.md.
const FLUSHED: Duration = Duration::from_millis(1500);
/// How long a whole cluster may take to be itself again.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long everything may take to arrive after the last kill.
const ARRIVAL: Duration = Duration::from_secs(120);

/// What is killed in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Nobody,
    Auth,
    Proxy,
    Node,
    AuthAndNode,
    /// The object store answers nobody for a while.
    Objects,
}

/// What has to be found in the end.
struct Promised {
    session: String,
    /// What was on the screen long enough.
    marks: Vec<String>,
    victim: Victim,
}

/// A small generator (SplitMix64): the story is the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn victim(&mut self, objects: bool) -> Victim {
        let all = [Victim::Nobody, Victim::Auth, Victim::Proxy, Victim::Node, Victim::AuthAndNode, Victim::Objects];
        all[self.roll(if objects { 6 } else { 5 }) as usize]
    }
}

struct Soak {
    cluster: Cluster,
    node: Daemon,
    client: Client,
    dice: Dice,
    promised: Vec<Promised>,
    commands: Vec<String>,
    users: Vec<String>,
    kills: usize,
    objects: Option<ObjectServer>,
}

fn main() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (seconds, seed) = (number("SOAK_SECONDS", 120), number("SOAK_SEED", u64::from(std::process::id())));
    println!("seed {seed}, {seconds} s");
    let mode = std::env::var("SOAK_MODE").unwrap_or_else(|_| "node".to_owned());
    let objects = (number("SOAK_OBJECTS", 0) > 0).then(|| ObjectServer::start().expect("moto_server is missing"));
    let mut setup = ClusterSetup::new("soak.test").apart().auth(&json!({ "session_recording": mode }));
    if let Some(objects) = &objects {
        setup = setup.teleport(&json!({ "storage": objects.storage() })).variables(&ObjectServer::CREDENTIALS);
    }
    let cluster = setup.start();
    let node = cluster.agent(&AgentSetup::node("node1"));
    cluster.user("alice", &["access", "auditor"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "10h"));
    let mut soak = Soak {
        cluster,
        node,
        client,
        dice: Dice(seed),
        promised: Vec::new(),
        commands: Vec::new(),
        users: Vec::new(),
        kills: 0,
        objects,
    };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        soak.round();
    }
    let lost = soak.count();
    println!(
        "{} sessions, {} commands, {} users, {} kills: {} lost",
        soak.promised.len(),
        soak.commands.len(),
        soak.users.len(),
        soak.kills,
        lost.len()
    );
    for what in &lost {
        println!("lost: {what}");
    }
    std::process::exit(i32::from(!lost.is_empty()));
}

impl Soak {
    /// A session, something that is killed while it runs, and the cluster made whole again.
    fn round(&mut self) {
        let (round, victim) = (self.promised.len(), self.dice.victim(self.objects.is_some()));
        self.command(round);
        self.user(round);
        let mut shell = self.client.terminal(&["ssh", &format!("{}@node1", account())]);
        shell.expect(r"[$#%>] ?");
        shell.type_line("echo sid=$SSH_SESSION_ID=");
        let session = shell.expect("sid=([0-9a-f-]{36})=");
        let mut marks = Vec::new();
        for step in 0..1 + self.dice.roll(3) {
            shell.type_line(&format!("seq 1 {} ; echo mark-$(({round}*100+{step}))-mark", 50 * self.dice.roll(40)));
            let mark = format!("mark-{}-mark", round as u64 * 100 + step);
            shell.expect(&mark);
            marks.push(mark);
        }
        std::thread::sleep(FLUSHED);
        self.kill(victim);
        if matches!(victim, Victim::Nobody | Victim::Auth | Victim::Proxy | Victim::Objects) {
            // The session lives on, whoever else does not.
            self.revive(victim);
            shell.type_line("echo over-$((40+2))-over; exit 3");
            if shell.expect_any(&["over-42-over"]).is_some() {
                marks.push("over-42-over".to_owned());
            }
            drop(shell);
            if let (Victim::Objects, Some(objects)) = (victim, &self.objects) {
                // The recording has been on its way for a while.
                std::thread::sleep(2 * FLUSHED);
                objects.resume();
            }
        } else {
            drop(shell);
            self.revive(victim);
        }
        println!("round {round}: {victim:?}, session {session}");
        self.promised.push(Promised { session, marks, victim });
    }

    fn command(&mut self, round: usize) {
        let command = format!("echo command-{round}");
        if self.client.tsh(&["ssh", &format!("{}@node1", account()), &command]).code == 0 {
            self.commands.push(command);
        }
    }

    fn user(&mut self, round: usize) {
        let name = format!("user-{round}");
        if self.cluster.tctl(&["users", "add", &name, "--roles=access"]).code == 0 {
            self.users.push(name);
        }
    }

    fn kill(&mut self, victim: Victim) {
        if matches!(victim, Victim::Auth | Victim::AuthAndNode) {
            self.cluster.auth.kill();
            self.kills += 1;
        }
        if victim == Victim::Proxy {
            self.cluster.proxy.as_mut().unwrap().kill();
            self.kills += 1;
        }
        if matches!(victim, Victim::Node | Victim::AuthAndNode) {
            self.node.kill();
            self.kills += 1;
        }
        if let (Victim::Objects, Some(objects)) = (victim, &self.objects) {
            objects.pause();
        }
    }

    fn revive(&mut self, victim: Victim) {
        if matches!(victim, Victim::Auth | Victim::AuthAndNode) {
            self.cluster.auth.launch();
        }
        if victim == Victim::Proxy {
            self.cluster.proxy.as_mut().unwrap().launch();
        }
        self.cluster.wait_ready();
        if matches!(victim, Victim::Node | Victim::AuthAndNode) {
            self.node.launch();
        }
        let target = format!("{}@node1", account());
        let whole =
            try_for(RECOVERY, || if self.client.tsh(&["ssh", &target, "true"]).code == 0 { Ok(()) } else { Err(()) });
        assert!(whole.is_ok(), "the cluster has not recovered from the death of {victim:?}");
    }

    /// What is not there although it was promised.
    fn count(&self) -> Vec<String> {
        let look = || {
            let lost = self.missing();
            if lost.is_empty() { Ok(()) } else { Err(()) }
        };
        if try_for(ARRIVAL, look).is_ok() { Vec::new() } else { self.missing() }
    }

    fn missing(&self) -> Vec<String> {
        let mut lost = Vec::new();
        let (starts, ends) = (self.cluster.events("session.start"), self.cluster.events("session.end"));
        let (uploads, execs) = (self.cluster.events("session.upload"), self.cluster.events("exec"));
        for Promised { session, marks, victim } in &self.promised {
            let of = |events: &[serde_json::Value]| events.iter().filter(|e| e["sid"] == session.as_str()).count();
            for (name, found) in [("session.start", of(&starts)), ("session.end", of(&ends))] {
                if found != 1 {
                    lost.push(format!("{found} × {name} of {session} ({victim:?})"));
                }
            }
            if of(&uploads) == 0 {
                lost.push(format!("the recording of {session} ({victim:?})"));
                continue;
            }
            let played = self.client.tsh(&["play", "--format=text", session]);
            for mark in marks.iter().filter(|mark| !played.stdout.contains(mark.as_str())) {
                lost.push(format!("{mark} in the recording of {session} ({victim:?})"));
            }
        }
        for command in &self.commands {
            if !execs.iter().any(|e| e["command"] == command.as_str()) {
                lost.push(format!("the event of {command:?}"));
            }
        }
        let users = self.cluster.tctl(&["get", "users", "--format=json"]).stdout;
        lost.extend(self.users.iter().filter(|u| !users.contains(&format!("\"{u}\""))).map(|u| format!("user {u}")));
        lost
    }
}
