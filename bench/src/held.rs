//! Sessions that are held open.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use e2e::{Client, account};

/// How long a session may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// A session whose command repeats what it is told.
pub struct Held {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Held {
    /// Opens a session on a node, with more options of `tsh ssh`.
    pub fn open(client: &Client, options: &[&str], node: &str) -> Self {
        let target = format!("{}@{node}", account());
        let mut child = client.spawn(&[&["ssh"], options, &[target.as_str(), "cat"]].concat());
        let mut input = child.stdin.take().expect("standard input");
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("standard output"));
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        writeln!(input, "hello").expect("write");
        Self { child, input, lines }
    }

    /// Whether what was said comes back.
    pub fn answers(&mut self) -> bool {
        while self.lines.try_recv().is_ok() {}
        writeln!(self.input, "still there?").is_ok()
            && self.lines.recv_timeout(ANSWER).is_ok()
            && self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
