//! The main job: log in, reach a server behind a reverse tunnel, read the audit log, replay the session.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::{AgentSetup, Client, Cluster, account, wait_for};

/// The output of `tsh play` at a terminal.
fn replay(client: &Client, session: &str) -> Result<String, String> {
    let player = client.terminal(&["play", "--skip-idle-time", "--speed=8x", session]);
    let (code, shown) = player.finish();
    if code == 0 { Ok(shown) } else { Err(shown) }
}

#[test]
fn a_person_signs_up_logs_in_works_on_a_server_behind_a_tunnel_and_replays_the_session() {
    let cluster = Cluster::start("main.test");
    let node = cluster.agent(&AgentSetup::node("node1").label("team", "core"));
    assert_eq!(node.listening_ports(), BTreeSet::new(), "the node is reached through its tunnel alone");

    let mut alice = cluster.user("alice", &["access", "editor", "auditor"]);
    let client = cluster.login(&mut alice);
    cluster.wait_event("user.login", &[("user", "alice"), ("code", "T1000I")]);
    let status = client.status();
    assert_eq!((status["username"].as_str(), status["cluster"].as_str()), (Some("alice"), Some("main.test")));
    assert!(status["logins"].as_array().unwrap().contains(&account().into()), "{status}");
    assert_eq!(client.servers(), ["node1"]);
    assert!(client.tsh(&["ls", "team=core"]).succeeded().stdout.contains("node1"));
    assert!(client.tsh(&["clusters"]).succeeded().stdout.contains("main.test"));

    a_command_keeps_its_output_and_exit_code(&cluster, &client);
    let session = an_interactive_session_is_recorded(&cluster, &client);
    wait_for("the recording to replay", Duration::from_secs(60), || match replay(&client, &session) {
        Ok(shown) if shown.contains("mark-42-mark") => Ok(()),
        Ok(shown) | Err(shown) => Err(shown),
    });
    let recordings = client.tsh(&["recordings", "ls", "--format=json"]).json();
    assert!(recordings.as_array().unwrap().iter().any(|r| r["sid"] == session.as_str()), "{recordings}");

    client.tsh(&["logout", "--user=alice"]).succeeded();
    client.tsh(&["ls"]).refused();
    client.tsh(&["ssh", &format!("{}@node1", account()), "true"]).refused();
}

fn a_command_keeps_its_output_and_exit_code(cluster: &Cluster, client: &Client) {
    let ran = client.tsh(&["ssh", &format!("{}@node1", account()), "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "out\n"), "{ran}");
    assert!(ran.stderr.lines().any(|line| line == "err"), "{ran}");
    let event = cluster.wait_event("exec", &[("user", "alice"), ("login", &account())]);
    assert_eq!(event["exitCode"], "7", "{event}");
}

/// Works in a shell on the node, and waits until the audit log has it all; the id of the session.
fn an_interactive_session_is_recorded(cluster: &Cluster, client: &Client) -> String {
    let mut shell = client.terminal(&["ssh", &format!("{}@node1", account())]);
    shell.expect(r"[$#%>] ?");
    shell.type_line("echo mark-$((40+2))-mark sid=$SSH_SESSION_ID=; stty size");
    let session = shell.expect("mark-42-mark sid=([0-9a-f-]{36})=");
    shell.expect("24 80");
    shell.type_line("exit 3");
    let (code, shown) = shell.finish();
    assert_eq!(code, 3, "{shown}");

    let start = cluster.wait_event("session.start", &[("sid", &session), ("user", "alice"), ("code", "T2000I")]);
    assert_eq!(start["login"], account().as_str(), "{start}");
    cluster.wait_event("session.end", &[("sid", &session)]);
    cluster.wait_event("session.upload", &[("sid", &session)]);
    session
}
