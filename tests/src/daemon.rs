//! A `teleport start` process.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::browser::Browser;
use crate::command::{clean_environment, end_of, program};
use crate::waiting::wait_for;

/// How long a process may take to become ready on a busy machine.
pub(crate) const READY: Duration = Duration::from_secs(60);
/// How long a process may take to end after `SIGTERM`.
const DRAIN: Duration = Duration::from_secs(30);
/// Bytes of log shown when a test failed.
const SHOWN: usize = 6000;

/// A `teleport start` process with its configuration file and log; ended by its id when dropped.
pub struct Daemon {
    name: String,
    config: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    diagnostics: Option<u16>,
    variables: Vec<(String, String)>,
    child: Option<Child>,
}

impl Daemon {
    /// Writes the configuration into `folder` and starts the process without waiting for it.
    pub fn start(folder: &Path, name: &str, config: &Value, arguments: &[&str], diagnostics: Option<u16>) -> Self {
        Self::start_in(folder, name, config, arguments, diagnostics, &[])
    }

    /// The same, with more variables in the environment.
    pub(crate) fn start_in(
        folder: &Path,
        name: &str,
        config: &Value,
        arguments: &[&str],
        diagnostics: Option<u16>,
        variables: &[(String, String)],
    ) -> Self {
        let yaml = serde_saphyr::to_string(config).expect("write a configuration as YAML");
        let mut daemon = Self::prepare(folder, name, &yaml, arguments, diagnostics);
        daemon.variables = variables.to_vec();
        daemon.launch();
        daemon
    }

    /// As [`Daemon::start`], with the text of the configuration file.
    pub fn start_with_file(
        folder: &Path,
        name: &str,
        yaml: &str,
        arguments: &[&str],
        diagnostics: Option<u16>,
    ) -> Self {
        let mut daemon = Self::prepare(folder, name, yaml, arguments, diagnostics);
        daemon.launch();
        daemon
    }

    fn prepare(folder: &Path, name: &str, yaml: &str, arguments: &[&str], diagnostics: Option<u16>) -> Self {
        let config = folder.join(format!("{name}.yaml"));
        fs::write(&config, yaml).expect("write a configuration file");
        let mut arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
        arguments.extend(diagnostics.map(|port| format!("--diag-addr=127.0.0.1:{port}")));
        let log = folder.join(format!("{name}.log"));
        Self { name: name.to_owned(), config, log, arguments, diagnostics, variables: Vec::new(), child: None }
    }

    /// Starts it again with the same files, after [`Daemon::stop`].
    pub fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("open a log file");
        let child = Command::new(program("teleport"))
            .args(["start", "-c"])
            .arg(&self.config)
            .args(&self.arguments)
            .env_clear()
            .envs(clean_environment())
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle on a log file"))
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap_or_else(|e| panic!("start {}: {e}", self.name)));
    }

    /// Waits until `/readyz` of the diagnostics address says yes.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let what = format!("{} to be ready", self.name);
        wait_for(&what, READY, || {
            assert!(self.exit_code().is_none(), "{} ended: {}", self.name, self.log());
            self.ready()
        });
    }

    /// Asks `/readyz` of the diagnostics address once.
    pub fn ready(&self) -> Result<(), String> {
        let port = self.diagnostics_port();
        let answer = Browser::new(&format!("http://127.0.0.1:{port}")).try_get("/readyz")?;
        if answer.status == 200 { Ok(()) } else { Err(format!("/readyz: {} {}", answer.status, answer.body)) }
    }

    /// The port of its diagnostics address.
    pub fn diagnostics_port(&self) -> u16 {
        self.diagnostics.expect("a process with a diagnostics address")
    }

    /// Its configuration file, which `tctl -c` takes.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running process").id()
    }

    /// How it ended, if it did.
    pub fn exit_code(&mut self) -> Option<i32> {
        end_of(self.child.as_mut()?, Duration::ZERO)
    }

    /// Waits until it ends by itself; its exit code.
    #[track_caller]
    pub fn wait_end(&mut self, limit: Duration) -> i32 {
        let child = self.child.as_mut().expect("a running process");
        end_of(child, limit).unwrap_or_else(|| panic!("{} still runs after {limit:?}", self.name))
    }

    /// Ends it with `SIGTERM` and checks that it obeys.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.wait_end(DRAIN);
        self.child = None;
    }

    /// Asks it with `SIGQUIT` to end when its sessions have.
    pub fn quit(&self) {
        self.signal(Signal::SIGQUIT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal)
            .unwrap_or_else(|e| panic!("send {signal} to {}: {e}", self.name));
    }

    /// Ends it and starts it again with the same files.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    /// Replaces the first such piece of its configuration file.
    #[track_caller]
    pub fn edit(&self, piece: &str, replacement: &str) {
        let text = fs::read_to_string(&self.config).expect("read a configuration file");
        assert!(text.contains(piece), "expected {piece:?} in {text}");
        fs::write(&self.config, text.replacen(piece, replacement, 1)).expect("write a configuration file");
    }

    /// The same, and has it read the file again.
    #[track_caller]
    pub fn reload_with(&self, piece: &str, replacement: &str) {
        self.edit(piece, replacement);
        kill(Pid::from_raw(self.pid() as i32), Signal::SIGHUP).expect("send SIGHUP");
    }

    /// The TCP ports it listens on, from the tables of the kernel.
    pub fn listening_ports(&self) -> BTreeSet<u16> {
        let process = PathBuf::from(format!("/proc/{}", self.pid()));
        let own = sockets(&process.join("fd"));
        let tables = ["net/tcp", "net/tcp6"].map(|t| fs::read_to_string(process.join(t)).unwrap_or_default());
        tables.iter().flat_map(|t| t.lines().skip(1)).filter_map(|line| listening(line, &own)).collect()
    }

    /// Ends it with `SIGKILL`: it gets no chance to do anything.
    pub fn kill(&mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let log = self.log();
            let mut from = log.len().saturating_sub(SHOWN);
            while !log.is_char_boundary(from) {
                from += 1;
            }
            eprintln!("--- log of {}\n{}", self.name, &log[from..]);
        }
    }
}

/// Inodes of the sockets in a process's folder of file descriptors.
fn sockets(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("list the file descriptors of a process");
    let targets = entries.filter_map(|e| fs::read_link(e.ok()?.path()).ok());
    targets.filter_map(|t| Some(t.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect()
}

/// The local port of a row of `/proc/net/tcp`, see proc_net_tcp in the kernel's documentation, if it is in
/// state LISTEN and among `own`.
fn listening(row: &str, own: &BTreeSet<String>) -> Option<u16> {
    let fields: Vec<_> = row.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != "0A" || !own.contains(*inode) {
        return None;
    }
    u16::from_str_radix(local.rsplit(':').next()?, 16).ok()
}
