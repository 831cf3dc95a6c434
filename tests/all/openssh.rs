//! OpenSSH's own client, configured by `tsh config`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use e2e::{AgentSetup, Client, Cluster, account};

/// Writes what `tsh config` prints to a file.
fn configuration(client: &Client) -> PathBuf {
    let file = client.home().join("ssh_config");
    fs::write(&file, client.tsh(&["config"]).succeeded().stdout).unwrap();
    file
}

#[test]
fn ssh_reaches_a_server_behind_a_tunnel_and_knows_its_host_key() {
    let cluster = Cluster::start("openssh.test");
    let _node = cluster.agent(&AgentSetup::node("node1"));
    let mut alice = cluster.user("alice", &["access"]);
    let client = cluster.login(&mut alice);
    let file = configuration(&client);

    let target = format!("{}@node1.openssh.test", account());
    let ssh = |arguments: &[&str]| {
        let options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"];
        client.run(Command::new("ssh").arg("-F").arg(&file).args(options).args(arguments))
    };
    let ran = ssh(&[&target, "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "out\n"), "{ran}");
    assert!(ran.stderr.lines().any(|line| line == "err"), "{ran}");

    let stranger = format!("{}@nowhere.openssh.test", account());
    assert_eq!(ssh(&[&stranger, "true"]).code, 255);
    let nobody = ssh(&["nobody-such@node1.openssh.test", "true"]);
    assert_eq!(nobody.code, 255, "{nobody}");
}
