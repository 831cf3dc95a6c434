//! What `tsh` does besides sessions: whom it recognises, names of hosts, second factors, the user's agent.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{AgentSetup, Client, Cluster, Person, account, clean_environment, wait_for};

/// Somebody's `ssh-agent`, which ends with the test.
struct Keychain {
    process: Child,
    socket: String,
}

impl Keychain {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("agent.sock").display().to_string();
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-a", &socket]).env_clear().envs(clean_environment()).stdout(Stdio::null());
        let process = command.spawn().unwrap();
        let made = || if Path::new(&socket).exists() { Ok(()) } else { Err("no socket") };
        wait_for("the agent", Duration::from_secs(10), made);
        Self { process, socket }
    }
}

impl Drop for Keychain {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn credentials_of_another_cluster_are_recognised() {
    let (near, far) = (Cluster::start("near.test"), Cluster::start("far.test"));
    near.tctl(&["users", "add", "alice", "--roles=access"]).succeeded();
    let identity = near.sign_identity("alice", "1h");
    near.client_with(&identity).tsh(&["ls"]).succeeded();
    let refused = far.client_with(&identity).tsh(&["ls"]).refused();
    assert!(refused.stderr.contains("is of cluster far.test") && refused.stderr.contains("near.test"), "{refused}");
    // A login is remembered by the proxy's host, so the port alone leads to another cluster here.
    let mut bob = near.user("bob", &["access"]);
    let client = near.login(&mut bob);
    let lost = Client::new(&far.address(), client.home()).tsh(&["ls"]).refused();
    assert!(lost.stderr.contains("is of cluster far.test") && lost.stderr.contains("tsh login"), "{lost}");
}

#[test]
fn a_proxy_that_is_not_there_is_named_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new("127.0.0.1:1", folder.path());
    let refused = client.tsh(&["version"]);
    assert!(refused.said().contains("127.0.0.1:1"), "{refused}");
    let (_, shown) = client.try_login("alice", "x", "000000");
    assert!(shown.contains("nothing listens there"), "{shown}");
}

#[test]
fn names_of_hosts_second_factors_and_the_agent() {
    let cluster = Cluster::start("day.test");
    let _node = cluster.agent(&AgentSetup::node("node1"));
    let mut alice = cluster.user("alice", &["access"]);
    let folder = tempfile::tempdir().unwrap();
    let keychain = Keychain::start(folder.path());
    let client = cluster.client().with_variable("SSH_AUTH_SOCK", &keychain.socket);
    let keys = || client.run(Command::new("ssh-add").arg("-l")).stdout;
    client.login(&mut alice);
    assert!(keys().contains("teleport:127.0.0.1:day.test:alice") && keys().contains("CERT"), "{}", keys());
    finds_hosts_by_rules(&client);
    let (jump, target) = (cluster.address(), format!("{}@node1", account()));
    assert_eq!(client.tsh(&["-J", &jump, "ssh", &target, "echo there"]).succeeded().stdout, "there\n");
    assert!(client.tsh(&["-J", "a,b", "ssh", &target, "true"]).refused().stderr.contains("only one jump host"));
    adds_and_removes_a_device(&client, &mut alice);
    client.tsh(&["logout"]).succeeded();
    client.tsh(&["ls"]).refused();
    assert!(!keys().contains("teleport:"), "{}", keys());
}

fn finds_hosts_by_rules(client: &Client) {
    let folder = client.home().join(".tsh/config");
    fs::create_dir_all(&folder).unwrap();
    let rules = "proxy_templates:\n- template: '^first:\\d+$'\n  host: node1\n- template: '^none:\\d+$'\n  query: name == \"nothing\"\n";
    fs::write(folder.join("config.yaml"), rules).unwrap();
    assert_eq!(client.tsh(&["resolve", "first", "--format=json"]).json()["spec"]["hostname"], "node1");
    client.tsh(&["resolve", "-q", "node1.day.test"]).succeeded();
    assert!(client.tsh(&["resolve", "nowhere"]).refused().stderr.contains("nowhere"));
    let target = format!("{}@first", account());
    assert_eq!(client.tsh(&["ssh", &target, "echo", "here"]).succeeded().stdout, "here\n");
    client.tsh(&["ssh", &format!("{}@none", account()), "true"]).refused();
    let measured = client.tsh(&["latency", "ssh", "--count=2", &target]).succeeded();
    assert!(measured.stdout.contains("host, through the proxy: last"), "{measured}");
}

fn adds_and_removes_a_device(client: &Client, alice: &mut Person) {
    let mut terminal = client.terminal(&["mfa", "add", "--name=second"]);
    terminal.expect(r"Enter one-time code: ");
    terminal.type_line(&alice.code());
    let secret = terminal.expect(r"secret: ([A-Z2-7]+)");
    let address =
        format!("otpauth://totp/day.test:alice?secret={secret}&issuer=day.test&algorithm=SHA1&digits=6&period=30");
    let mut second = Person::new("alice", &alice.password, &address);
    terminal.expect(r"of the new device: ");
    terminal.type_line(&second.code());
    let (code, shown) = terminal.finish();
    assert_eq!(code, 0, "{shown}");
    let names = || {
        let listed = client.tsh(&["mfa", "ls", "--format=json"]).json();
        listed.as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(names().len() == 2 && names().contains(&"second".to_owned()), "{:?}", names());
    let mut terminal = client.terminal(&["mfa", "rm", "second"]);
    terminal.expect(r"Enter one-time code: ");
    terminal.type_line(&second.code());
    let (code, shown) = terminal.finish();
    assert_eq!(code, 0, "{shown}");
    assert_eq!(names().len(), 1);
}
