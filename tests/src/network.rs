//! Networks of a test's own, and programs on the way between clients and a cluster.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::geteuid;

use crate::command::{clean_environment, run};

/// Where the cluster is in a network of a test's own. It is an address like any other: loopback's are special to programs
/// that look for HTTP proxies.
pub const HERE: &str = "203.0.113.1";
/// Where things on the way to it are.
pub const ON_THE_WAY: &str = "203.0.113.9";

/// Set where a test runs in a network of its own.
const MARK: &str = "E2E_OWN_NETWORK";
/// How long a test may take there.
const LIMIT: Duration = Duration::from_secs(300);

/// Loopback with two more addresses, and a way out on which everything is lost.
const PREPARE: &str = r#"
set -e
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up
ip address add 203.0.113.1/32 dev lo
ip address add 203.0.113.9/32 dev lo
ip link add out type veth peer name lost
ip link set lost up
ip link set out up
ip address add 192.0.2.2/24 dev out
ip neighbour add 192.0.2.1 lladdr 02:00:00:00:00:01 dev out
ip route add default via 192.0.2.1 dev out
exec "$0" "$@"
"#;

/// Runs the body of the test with this full name, such as `network::net_02_…`, in a network of its own, where every cluster is
/// at [`HERE`] and every port is free.
///
/// The test's process starts itself once more for that, because a process with threads cannot change its network.
#[track_caller]
pub fn in_own_network(test: &str, body: impl FnOnce()) {
    if std::env::var(MARK).is_ok_and(|mark| mark == test) {
        return body();
    }
    let ran = run(this_program(test).args(["--exact", test, "--nocapture"]), b"", LIMIT);
    assert!(ran.code == 0 && ran.stdout.contains("1 passed"), "in a network of its own: {ran}");
}

/// Runs what remains of a program in a network of its own; returns there and nowhere else.
pub fn go_to_own_network() {
    if !is_own() {
        let ended = this_program("main").status().expect("start this program in a network of its own");
        std::process::exit(ended.code().unwrap_or(1));
    }
}

/// This program in a network of its own.
fn this_program(mark: &str) -> Command {
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        // Without privileges of its own the program gets those over its network alone, and stays who it is.
        command.args(["--map-current-user", "--keep-caps"]);
    }
    let own = std::env::current_exe().expect("the path of this program");
    command.args(["--net", "bash", "-c", PREPARE]).arg(own).env(MARK, mark);
    command
}

/// Whether this is a network of a test's own.
pub(crate) fn is_own() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Packets that were sent out of the network so far, all of which were lost.
pub fn packets_lost() -> u64 {
    let table = fs::read_to_string("/proc/self/net/dev").expect("read the counters of the network");
    let row = table.lines().find_map(|line| line.trim().strip_prefix("out:")).expect("a network of the test's own");
    // Eight counters of what came in, then packets after bytes of what went out; see `proc_pid_net`(5).
    row.split_whitespace().nth(9).and_then(|count| count.parse().ok()).expect("a counter")
}

/// A program on the way, such as a balancer; ended by its id when dropped.
pub struct Tool {
    child: Child,
    log: PathBuf,
}

impl Tool {
    /// Starts a program that stays in the foreground; what it says goes to a file in `folder`.
    #[track_caller]
    pub fn start(program: &str, arguments: &[&str], folder: &Path) -> Self {
        let log = folder.join(format!("{program}.log"));
        let said = File::create(&log).expect("make a log file");
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .envs(clean_environment())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a second handle on a log file"))
            .stderr(said)
            .spawn();
        Self { child: child.unwrap_or_else(|e| panic!("start {program}: {e}; run tests/setup --all")), log }
    }

    /// All it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}
