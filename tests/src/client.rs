//! `tsh` with a home folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::command::{Finished, clean_environment, program, run};
use crate::person::Person;
use crate::terminal::Terminal;

/// How long a command may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Somebody's `tsh`.
pub struct Client {
    proxy: String,
    home: PathBuf,
    identity: Option<PathBuf>,
    variables: Vec<(String, String)>,
}

impl Client {
    /// A `tsh` that has never been used, for the proxy at `proxy`.
    pub fn new(proxy: &str, home: &Path) -> Self {
        fs::create_dir_all(home).expect("make a home folder");
        Self { proxy: proxy.to_owned(), home: home.to_owned(), identity: None, variables: Vec::new() }
    }

    /// A `tsh` that uses an identity file.
    pub fn with_identity(proxy: &str, home: &Path, identity: &Path) -> Self {
        Self { identity: Some(identity.to_owned()), ..Self::new(proxy, home) }
    }

    /// The same with another variable in the environment of its programs.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The home folder.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The environment its programs run in.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut all = clean_environment();
        let home = self.home.display();
        all.push(("HOME".into(), home.to_string()));
        all.push(("TELEPORT_HOME".into(), format!("{home}/.tsh")));
        all.extend(self.variables.iter().cloned());
        all
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let mut all = vec!["--insecure".to_owned(), format!("--proxy={}", self.proxy)];
        all.extend(self.identity.iter().flat_map(|file| ["-i".to_owned(), file.display().to_string()]));
        all.extend(arguments.iter().map(|&a| a.to_owned()));
        all
    }

    /// Runs a command of `tsh` without a terminal.
    #[track_caller]
    pub fn tsh(&self, arguments: &[&str]) -> Finished {
        self.run(Command::new(program("tsh")).args(self.arguments(arguments)))
    }

    /// Starts a command of `tsh` whose standard input and output are pipes; what it complains about is lost.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start tsh")
    }

    /// A command of `tsh` that is yet to be started, for who wants to do so differently.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("tsh"));
        command.args(self.arguments(arguments)).env_clear().envs(self.environment());
        command
    }

    /// Runs another program in the same environment, such as `ssh`.
    #[track_caller]
    pub fn run(&self, command: &mut Command) -> Finished {
        run(command.env_clear().envs(self.environment()), b"", LIMIT)
    }

    /// Starts a command of `tsh` at a terminal.
    #[track_caller]
    pub fn terminal(&self, arguments: &[&str]) -> Terminal {
        Terminal::start(&program("tsh"), &self.arguments(arguments), &self.environment())
    }

    /// Answers the questions of `tsh login`; its exit code and all it showed.
    #[track_caller]
    pub fn try_login(&self, user: &str, password: &str, code: &str) -> (i32, String) {
        let mut terminal = self.terminal(&["login", &format!("--user={user}"), "--auth=local"]);
        while let Some((question, _)) = terminal.expect_any(&[r"(?i)password[^\n]*:\s*$", r"(?i)(otp|code)[^\n]*:\s*$"])
        {
            terminal.type_line(if question == 0 { password } else { code });
        }
        terminal.finish()
    }

    /// Logs in with password and a fresh one-time code.
    #[track_caller]
    pub fn login(&self, person: &mut Person) {
        let code = person.code();
        let (exit, shown) = self.try_login(&person.name, &person.password, &code);
        assert!(exit == 0, "login of {}: exit {exit}\n{shown}", person.name);
    }

    /// Names of the servers this user sees.
    #[track_caller]
    pub fn servers(&self) -> Vec<String> {
        let listed = self.tsh(&["ls", "--format=json"]).json();
        let all = listed.as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter_map(|s| s["spec"]["hostname"].as_str().map(str::to_owned)).collect()
    }

    /// What `tsh status` knows of the active login.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.tsh(&["status", "--format=json"]).json()["active"].clone()
    }
}
