//! Programs that run and end.

use std::env;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::unistd::{User, geteuid};
use serde_json::Value;

use crate::waiting::try_for;

/// How a program ended and what it said.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// The same, having checked that the program succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.code == 0, "expected success of {self}");
        self
    }

    /// The same, having checked that the program failed.
    #[track_caller]
    pub fn refused(self) -> Self {
        assert!(self.code != 0, "expected failure of {self}");
        self
    }

    /// Standard output as JSON, of a program that succeeded.
    #[track_caller]
    pub fn json(self) -> Value {
        let this = self.succeeded();
        serde_json::from_str(&this.stdout).unwrap_or_else(|e| panic!("expected JSON ({e}) from {this}"))
    }

    /// All that was said, output first.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: exit {}\n--- stdout\n{}--- stderr\n{}", self.line, self.code, self.stdout, self.stderr)
    }
}

/// Where a program of the product is.
pub fn program(name: &str) -> PathBuf {
    if let (Ok(tsh), "tsh") = (env::var("TELEPORT_TSH"), name) {
        return PathBuf::from(tsh);
    }
    let folder = match env::var_os("TELEPORT_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug"),
    };
    let path = folder.join(name);
    assert!(path.exists(), "{} does not exist; build the programs, or set TELEPORT_BIN_DIR", path.display());
    path
}

/// Where a scanner is.
pub fn scanner(name: &str) -> PathBuf {
    let folder = match env::var_os("E2E_SCANNERS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/scanners/bin"),
    };
    let path = folder.join(name);
    assert!(path.exists(), "{} does not exist: run tests/setup --all", path.display());
    path
}

/// The Unix account sessions run as: the one the tests run as, so that they need no privilege.
pub fn account() -> String {
    let user = User::from_uid(geteuid()).expect("look up the current account");
    user.expect("the current account has a name").name
}

/// The environment of this process without what would change how the programs behave.
pub fn clean_environment() -> Vec<(String, String)> {
    let unwanted = |name: &str| {
        let lower = name.to_lowercase();
        lower.ends_with("_proxy") || name.starts_with("TELEPORT_") || name.starts_with("SSH_")
    };
    let mut kept: Vec<_> = env::vars().filter(|(name, _)| !unwanted(name)).collect();
    kept.push(("TERM".into(), "xterm".into()));
    kept.push(("LANG".into(), "C.UTF-8".into()));
    kept
}

/// Runs a command with `input` on standard input; ends it and fails the test after `limit`.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Finished {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("start {line}: {e}"));
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // The program may end without reading; that is its business.
        thread::spawn(move || stdin.write_all(&input).ok());
    }
    let ended = end_of(&mut child, limit);
    if ended.is_none() {
        child.kill().ok();
        child.wait().ok();
    }
    let text = |reader: JoinHandle<Vec<u8>>| String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned();
    let finished = Finished { line, code: ended.unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) };
    assert!(ended.is_some(), "still running after {limit:?}: {finished}");
    finished
}

/// The exit code (-1 after a signal), or nothing when it still runs after `limit`.
pub(crate) fn end_of(child: &mut Child, limit: Duration) -> Option<i32> {
    let ended = try_for(limit, || match child.try_wait() {
        Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
        _ => Err(()),
    });
    ended.ok()
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut all).ok();
        }
        all
    })
}
