//! Sessions whose network connection is lost.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use e2e::{AgentSetup, Client, Cluster, Daemon, HttpProxy, Manner, ON_THE_WAY, account, in_own_network, wait_for};

const LIMIT: Duration = Duration::from_secs(30);

/// Somebody who reaches a node through a network that can be cut.
struct Road {
    _cluster: Cluster,
    _node: Daemon,
    network: HttpProxy,
    client: Client,
    target: String,
}

impl Road {
    fn start(name: &str) -> Self {
        let cluster = Cluster::start(name);
        let node = cluster.agent(&AgentSetup::node("node1"));
        let mut alice = cluster.user("alice", &["access"]);
        let network = HttpProxy::start(ON_THE_WAY, Manner::Serves);
        let client = cluster.login(&mut alice).with_variable("HTTPS_PROXY", &format!("http://{}", network.address()));
        Self { _cluster: cluster, _node: node, network, client, target: format!("{}@node1", account()) }
    }
}

#[test]
fn nothing_typed_or_printed_is_lost_when_the_network_is_cut() {
    in_own_network("resume::nothing_typed_or_printed_is_lost_when_the_network_is_cut", || {
        let road = Road::start("cut.test");
        let mut terminal = road.client.terminal(&["ssh", &road.target]);
        terminal.type_line("echo before-$((6*7))");
        terminal.expect("before-42");
        for round in 1..=3 {
            wait_for("a connection to cut", LIMIT, || if road.network.cut() > 0 { Ok(()) } else { Err("none") });
            terminal.type_line(&format!("echo after-$(({round}+41))"));
            terminal.expect(&format!("after-{}", round + 41));
        }
        terminal.type_line("exit 7");
        assert_eq!(terminal.finish().0, 7);

        // What a command prints, and what it reads, arrives whole and once.
        let lines = 400_000;
        let line = format!("seq 1 {lines}; exit 5");
        let mut command = road.client.command(&["ssh", &road.target, &line]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let (mut all, mut piece, mut next_cut) = (Vec::new(), vec![0; 64 << 10], 100_000);
        while let Ok(length @ 1..) = output.read(&mut piece) {
            all.extend_from_slice(&piece[..length]);
            if all.len() > next_cut {
                road.network.cut();
                next_cut += 1_000_000;
            }
        }
        let expected: String = (1..=lines).map(|n| format!("{n}\n")).collect();
        assert!(all == expected.as_bytes(), "{} bytes arrived of {}", all.len(), expected.len());
        assert_eq!(child.wait().unwrap().code(), Some(5));

        let mut command = road.client.command(&["ssh", &road.target, "sha256sum"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        for piece in expected.as_bytes().chunks(expected.len() / 3 + 1) {
            input.write_all(piece).unwrap();
            road.network.cut();
        }
        drop(input);
        let sum = child.wait_with_output().unwrap();
        let own = std::process::Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut own = own.unwrap();
        own.stdin.take().unwrap().write_all(expected.as_bytes()).unwrap();
        assert_eq!(sum.stdout, own.wait_with_output().unwrap().stdout);
    });
}

#[test]
fn without_resumption_a_session_ends_with_its_connection() {
    in_own_network("resume::without_resumption_a_session_ends_with_its_connection", || {
        let road = Road::start("uncut.test");
        let mut command = road.client.command(&["ssh", "--no-resume", &road.target, "echo begun; sleep 600"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut begun = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
        assert!(road.network.cut() > 0);
        let ended = child.wait_with_output().unwrap();
        assert!(!ended.status.success() && !ended.stderr.is_empty());
    });
}
