//! What is measured under load: bulk data both ways, and many sessions at once, with what they cost.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Client, Cluster, Daemon};

use crate::openssh::OpenSsh;
use crate::usage::{cpu, memory};
use crate::{line, middle, seconds};

/// Bytes of one transfer, in MiB.
const MEBIBYTES: u64 = 1024;
/// Transfers of each kind, in turn.
const TRANSFERS: usize = 3;
/// Sessions opened at once.
const AT_ONCE: [usize; 2] = [30, 200];

/// Who carries a session.
pub struct Parties<'a> {
    /// The client.
    pub client: &'a Client,
    /// `login@host`.
    pub target: &'a str,
    /// Auth and Proxy.
    pub cluster: &'a Cluster,
    /// The node.
    pub node: &'a Daemon,
    /// OpenSSH on the same machine, if it is there.
    pub openssh: Option<&'a OpenSsh>,
}

impl Parties<'_> {
    /// A gibibyte from the host and to it.
    pub fn bulk(&self) {
        let down = format!("head -c {MEBIBYTES}M /dev/zero");
        let (mut ours, mut theirs, mut up) = (Vec::new(), Vec::new(), Vec::new());
        let (mut proxy, mut node, mut grown) = (Vec::new(), Vec::new(), 0);
        for _ in 0..TRANSFERS {
            let processes = [self.cluster.auth.pid(), self.node.pid()];
            let (before, held) = (processes.map(cpu), memory(processes[1]));
            ours.push(timed(self.client.command(&["ssh", self.target, &down]).stdin(Stdio::null())));
            let after = processes.map(cpu);
            grown = memory(processes[1]).saturating_sub(held);
            proxy.push(after[0] - before[0]);
            node.push(after[1] - before[1]);
            if let Some(openssh) = self.openssh {
                theirs.push(timed(&mut openssh.run(&down)));
            }
            let mut source = Command::new("head")
                .args(["-c", &format!("{MEBIBYTES}M"), "/dev/zero"])
                .stdout(Stdio::piped())
                .spawn()
                .expect("start head");
            let data = source.stdout.take().expect("its output");
            up.push(timed(self.client.command(&["ssh", self.target, "cat >/dev/null"]).stdin(data)));
            source.wait().expect("head ends");
        }
        let rate = |time: Duration| MEBIBYTES as f64 * 1.048_576 / time.as_secs_f64();
        let (ours, up) = (rate(middle(ours)), rate(middle(up)));
        let theirs = (!theirs.is_empty()).then(|| middle(theirs));
        let ratio = theirs.map(|theirs| {
            let theirs = rate(theirs);
            format!("{:.2} × ssh through a jump host ({theirs:.0} MB/s)", ours / theirs)
        });
        let ratio = ratio.unwrap_or_default();
        line("bulk from the host", &format!("{ours:.0} MB/s"), &ratio);
        line("bulk to the host", &format!("{up:.0} MB/s"), "");
        let cost = |name: &str, times: Vec<f64>| {
            let used = middle(times.into_iter().map(Duration::from_secs_f64).collect());
            // Seconds of CPU say as much of the machine as of the program. What the time of the others says is the machine's.
            let ratio = theirs.map(|theirs| {
                let ratio = used.as_secs_f64() / theirs.as_secs_f64();
                format!("{ratio:.2} × the time of ssh through a jump host ({})", seconds(theirs))
            });
            line(name, &format!("{:.2} s", used.as_secs_f64() * 1024.0 / MEBIBYTES as f64), &ratio.unwrap_or_default());
        };
        cost("CPU of Auth and Proxy for a GiB", proxy);
        cost("CPU of the node for a GiB", node);
        line("memory of the node after a transfer", &format!("+{:.1} MB", grown as f64 / 1024.0), "");
    }

    /// Many sessions at once.
    pub fn fan_out(&self) {
        for count in AT_ONCE {
            let ours = all_at_once(count, || quiet(self.client.command(&["ssh", self.target, "true"])));
            let ratio = self.openssh.map(|openssh| {
                let (theirs, refused) = all_at_once(count, || quiet(openssh.run("true")));
                let refused = if refused > 0 { format!(", which refused {refused}") } else { String::new() };
                let ratio = ours.0.as_secs_f64() / theirs.as_secs_f64();
                format!("{ratio:.2} × ssh through a jump host ({}{refused})", seconds(theirs))
            });
            assert_eq!(ours.1, 0, "sessions that failed of {count} at once");
            line(&format!("{count} sessions at once"), &seconds(ours.0), &ratio.unwrap_or_default());
        }
    }
}

/// How long a transfer takes.
fn timed(command: &mut Command) -> Duration {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("start a transfer");
    assert!(status.success(), "{command:?}: {status}");
    start.elapsed()
}

fn quiet(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start a session")
}

/// How long so many processes take together, and how many of them fail.
fn all_at_once(count: usize, start: impl Fn() -> Child) -> (Duration, usize) {
    let begin = Instant::now();
    let children: Vec<Child> = (0..count).map(|_| start()).collect();
    let failed = children.into_iter().filter_map(|mut child| child.wait().ok()).filter(|status| !status.success());
    let failed = failed.count();
    (begin.elapsed(), failed)
}
