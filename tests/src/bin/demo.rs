//! The main job in one go, said in plain words: a cluster, a user, a server behind a tunnel, a session, its replay.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use e2e::{AgentSetup, Cluster, account, wait_for};

fn main() {
    let mut story = Story { step: 0, start: Instant::now() };

    story.tell("Start a cluster: an Auth Service and a Proxy Service in one process, state in a temporary folder.");
    let cluster = Cluster::start("demo.test");
    story.show(&format!("the proxy's one public port is {}", cluster.address()));

    story.tell("Let a server join, through the public port alone. It opens no port: it dials out and keeps a tunnel.");
    let node = cluster.agent(&AgentSetup::node("web-1").label("env", "demo"));
    assert!(node.listening_ports().is_empty(), "the node listens on {:?}", node.listening_ports());
    story.show("ports on which web-1 listens: none");

    story.tell("Make a user. Alice opens the invite link, sets a password, and scans the code with her phone.");
    let mut alice = cluster.user("alice", &["access", "auditor"]);

    story.tell("Log in with the password and a one-time code. Alice gets certificates for twelve hours.");
    let client = cluster.login(&mut alice);
    story.run("tsh status", &client.tsh(&["status"]).succeeded().stdout);
    story.run("tsh ls", &client.tsh(&["ls"]).succeeded().stdout);

    story.tell("Run a command on the server, through proxy and tunnel. Its exit code comes back.");
    let target = format!("{}@web-1", account());
    let ran = client.tsh(&["ssh", &target, "echo hello from $(uname -s), behind a tunnel; exit 7"]);
    assert_eq!(ran.code, 7, "{ran}");
    story.run(&format!("tsh ssh {target} 'echo hello …; exit 7'"), &ran.stdout);
    story.show("exit code: 7");

    story.tell("Work in a terminal on the server. The session is recorded.");
    let mut shell = client.terminal(&["ssh", &target]);
    shell.expect(r"[$#%>] ?");
    shell.type_line("echo session=$SSH_SESSION_ID=");
    let session = shell.expect("session=([0-9a-f-]{36})=");
    shell.type_line("echo what a day: $((6 * 7))");
    shell.expect("what a day: 42");
    shell.type_line("exit");
    shell.finish();
    story.show(&format!("session {session}"));

    story.tell("Replay it, as it looked.");
    cluster.wait_event("session.upload", &[("sid", &session)]);
    let replay = wait_for("the recording", Duration::from_secs(30), || {
        let shown = client.tsh(&["play", "--speed=8x", "--skip-idle-time", &session]);
        if shown.stdout.contains("what a day: 42") { Ok(shown.stdout) } else { Err(shown.said()) }
    });
    story.run(&format!("tsh play {session}"), &replay);

    story.tell("Ask the audit log what happened.");
    for event in ["user.login", "session.start", "session.end", "session.upload"] {
        let found = cluster.wait_event(event, &[]);
        story.show(&format!("{:<20} {}", event, found["time"].as_str().unwrap_or_default()));
    }

    story.tell("Somebody without the right login is refused, and told why.");
    let refused = client.tsh(&["ssh", "nobody@web-1", "true"]).refused();
    story.run("tsh ssh nobody@web-1", &refused.said());
    println!(
        "\nAll of it worked, in {:.1} s. The cluster is gone; nothing is left behind.",
        story.start.elapsed().as_secs_f32()
    );
}

/// Says what happens.
struct Story {
    step: u32,
    start: Instant,
}

impl Story {
    fn tell(&mut self, text: &str) {
        self.step += 1;
        println!("\n{}. {text}", self.step);
    }

    fn show(&self, text: &str) {
        println!("   {text}");
    }

    fn run(&self, command: &str, output: &str) {
        self.show(&format!("$ {command}"));
        output.lines().filter(|line| !line.trim().is_empty()).for_each(|line| self.show(line));
    }
}
