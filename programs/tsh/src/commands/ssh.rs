//! `tsh ssh`, `tsh join`.

use std::io::{self, IsTerminal};

use client::cluster::ClusterClient;
use client::nodes::{self, NodeFilter};
use client::ssh::fan_out::FanOut;
use client::ssh::join::{self as joining, Mode};
use client::ssh::session::{Exit, Run, SessionRequest, Streams, Typing, environment, run};
use client::ssh::{Destination, Host, SshConnection, SshError, SshOptions, Target};
use client::{Error, Result, text};

use crate::args::{JoinArgs, SshArgs};
use crate::ask::Terminal;
use crate::context::Context;
use crate::output::print;

/// Exit code when the command failed on one of several hosts.
const SOME_FAILED: i32 = 1;

/// Runs a command or a shell on one host, or a command on many.
pub async fn ssh(context: &Context, args: &SshArgs) -> Result<i32> {
    let options = SshOptions::parse(&args.options).map_err(|error| Error::other(error.to_string()))?;
    not_yet(args)?;
    for ignored in &options.ignored {
        eprintln!("WARNING: option {ignored} has no effect here");
    }
    let (destination, words) = args.destination.split_first().ok_or_else(|| Error::other("the host is missing"))?;
    let destination = Destination::parse(destination)?;
    // OpenSSH's client takes a command after `--` as well.
    let words = words.strip_prefix(&["--".to_owned()][..]).unwrap_or(words);
    let command = (!words.is_empty()).then(|| words.join(" "));
    let login = destination.login.clone().map_or_else(|| context.host_login(), Ok)?;
    let client = context.client(args.cluster.as_deref()).await?;
    let hosts = find_hosts(&client, destination.target, args.port).await?;
    let tty = options.request_tty.unwrap_or(args.tty);
    let escapes = !context.global.no_enable_escape_sequences;
    let session = Session { client: &client, login: &login, tty, escapes, args };
    match (hosts.as_slice(), command) {
        ([host], command) => session.on_host(host, command).await,
        ([], _) => Err(Error::other("no matching host")),
        (hosts, Some(command)) => session.on_many(hosts, &command).await,
        ([first, ..], None) => {
            eprintln!("WARNING: {} hosts match, the shell is opened on {}", hosts.len(), text::line(&first.name));
            session.on_host(first, None).await
        }
    }
}

/// Joins a session.
pub async fn join(context: &Context, args: &JoinArgs) -> Result<i32> {
    let mode: Mode = args.mode.parse()?;
    let client = context.client(args.cluster.as_deref()).await?;
    eprintln!("Joining session with participant mode: {mode}.");
    let terminal = io::stdin().is_terminal();
    let exit = joining::join(&client, &args.session, mode, terminal, &mut Terminal::default()).await?;
    if exit == Exit::Left {
        eprintln!("Left session");
    }
    Ok(exit.code().into())
}

/// Refuses what this build cannot do, rather than leaving it out silently.
fn not_yet(args: &SshArgs) -> Result<()> {
    let asked = [
        (!args.local_forward.is_empty(), "-L"),
        (!args.remote_forward.is_empty(), "-R"),
        (!args.dynamic_forward.is_empty(), "-D"),
        (args.forward_agent, "-A"),
        (args.x11_trusted, "-Y"),
        (args.x11_untrusted, "-X"),
        (args.no_remote_exec, "-N"),
        (args.background, "-f"),
        (args.local, "--local"),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, name)) => Err(Error::other(format!("'tsh ssh {name}' is not part of this build yet"))),
        None => Ok(()),
    }
}

async fn find_hosts(client: &ClusterClient, target: Target, port: Option<u16>) -> Result<Vec<Host>> {
    match target {
        Target::Host { host, port: typed } => Ok(vec![Host::new(&host, port.or(typed))]),
        Target::Labels(labels) => {
            let shown: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let filter = NodeFilter { labels, ..Default::default() };
            let hosts = nodes::matching_hosts(client, &filter).await?;
            if hosts.is_empty() {
                return Err(SshError::NoMatch(format!("none has {}", shown.join(", "))).into());
            }
            Ok(hosts)
        }
    }
}

/// What a session is opened with, wherever that is.
struct Session<'a> {
    client: &'a ClusterClient,
    login: &'a str,
    /// Whether a command gets a terminal.
    tty: bool,
    /// Whether `~` sequences are recognised.
    escapes: bool,
    args: &'a SshArgs,
}

impl Session<'_> {
    async fn on_host(&self, host: &Host, command: Option<String>) -> Result<i32> {
        let connection = match SshConnection::open(self.client, host, self.login, &mut Terminal::default()).await {
            Err(Error::Ssh(error)) if error.is_ambiguous() => {
                return Err(nodes::explain_ambiguous(self.client, host).await);
            }
            other => other?,
        };
        if let Some(problem) = connection.unverified() {
            eprintln!("WARNING: host {} is not verified (--insecure): {problem}", text::line(&host.name));
        }
        eprint!("{}", connection.banner());
        let id = uuid::Uuid::new_v4().to_string();
        let mut variables = environment(&self.client.account().profile.web_proxy_addr, &id);
        if command.is_none() {
            variables.extend(session_variables(self.args));
        }
        let request = SessionRequest {
            terminal: io::stdin().is_terminal() && (self.tty || command.is_none()),
            run: command.map_or(Run::Shell, Run::Command),
            environment: variables,
            typing: Typing::Free { escapes: self.escapes },
        };
        let exit = run(&connection, &request, Streams::standard()).await?;
        Ok(exit.code().into())
    }

    async fn on_many(&self, hosts: &[Host], command: &str) -> Result<i32> {
        eprintln!("WARNING: {} hosts match: the command runs on each", hosts.len());
        let fan_out = FanOut { hosts, login: self.login, command, log_folder: self.args.log_dir.as_deref() };
        let outcomes = fan_out.run(self.client, &mut Terminal::default()).await?;
        let succeeded = outcomes.iter().filter(|outcome| outcome.succeeded()).count();
        let failed = outcomes.len() - succeeded;
        let lines: String = outcomes.iter().map(|outcome| outcome.summary() + "\n").collect();
        print(&format!("\n{lines}{succeeded} host(s) succeeded; {failed} host(s) failed\n"))?;
        Ok(if failed == 0 { 0 } else { SOME_FAILED })
    }
}

/// What others who join a session are told about it.
fn session_variables(args: &SshArgs) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
    if let Some(reason) = &args.reason {
        set("TELEPORT_SESSION_REASON", reason.clone());
    }
    if args.participant_req {
        set("TELEPORT_SESSION_PARTICIPANT_REQUIREMENTS", "true".to_owned());
    }
    if !args.invite.is_empty() {
        set("TELEPORT_SESSION_INVITED_USERS", serde_json::Value::from(args.invite.clone()).to_string());
    }
    variables
}
