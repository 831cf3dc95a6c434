//! `tsh ssh`, `tsh join`.

mod access;
mod background;
mod extras;

use std::io::{self, IsTerminal};
use std::process::ExitStatus;
use std::sync::Arc;

use client::agent::{self, AddKeys};
use client::cluster::ClusterClient;
use client::nodes;
use client::ssh::fan_out::FanOut;
use client::ssh::forward::{Agent, Forwards, X11};
use client::ssh::join::{self as joining, Mode};
use client::ssh::session::{Exit, Run, SessionRequest, Streams, Typing, environment, run};
use client::ssh::stdio::{Input, Output};
use client::ssh::{Destination, Host, SshConnection, SshError, SshOptions, Target};
use client::{Error, Result, text};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{JoinArgs, SshArgs};
use crate::ask::Terminal;
use crate::context::Context;
use crate::output::print;
use extras::{Extras, say};

/// Exit code when the command failed on one of several hosts.
const SOME_FAILED: i32 = 1;
/// Exit code of a program that a signal has ended: this plus the signal's number.
const SIGNALLED: i32 = 128;

/// Runs a command or a shell on one host, or a command on many.
pub async fn ssh(context: &Context, args: &SshArgs) -> Result<i32> {
    let options = SshOptions::parse(&args.options).map_err(|error| Error::other(error.to_string()))?;
    for ignored in &options.ignored {
        eprintln!("WARNING: option {ignored} has no effect here");
    }
    let extras = Extras::read(args, &options)?;
    let (destination, words) = args.destination.split_first().ok_or_else(|| Error::other("the host is missing"))?;
    let destination = Destination::parse(destination)?;
    // OpenSSH's client takes a command after `--` as well.
    let words = words.strip_prefix(&["--".to_owned()][..]).unwrap_or(words);
    let work = work(args, words)?;
    let login = destination.login.clone().map_or_else(|| context.host_login(), Ok)?;
    if args.background && !background::is_child() {
        // Questions of a login are asked before.
        context.account(args.cluster.as_deref()).await?;
        return background::send().await;
    }
    let (client, target) =
        context.destination(with_port(destination.target, args.port), args.cluster.as_deref()).await?;
    if options.add_keys_to_agent == Some(true) {
        agent::add(client.account(), AddKeys::Yes).await?;
    }
    let hosts = find_hosts(&client, target).await?;
    let session = Session {
        client: &client,
        login: &login,
        tty: if args.no_tty { Some(false) } else { options.request_tty.or(args.tty.then_some(true)) },
        escapes: !context.global.no_enable_escape_sequences,
        args,
        extras: &extras,
    };
    match (hosts.as_slice(), work) {
        ([host], work) => match session.on_host(host, work.clone()).await {
            Err(Error::Ssh(denied @ SshError::Denied { .. })) => {
                let Some(client) = access::request(context, &client, host, &login, args).await? else {
                    return Err(denied.into());
                };
                Session { client: &client, ..session }.on_host(host, work).await
            }
            other => other,
        },
        ([], _) => Err(Error::other("no matching host")),
        (hosts, _) if extras.any() => {
            Err(Error::other(format!("forwards need one host, and {} match: name one of them", hosts.len())))
        }
        (hosts, Work::Command(command)) => session.on_many(hosts, &command).await,
        (hosts @ [first, ..], work) => {
            eprintln!("WARNING: {} hosts match, {} is used", hosts.len(), text::line(&first.name));
            session.on_host(first, work).await
        }
    }
}

/// What is to happen on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    Shell,
    Command(String),
    /// A command of this machine; nothing stands for the user's shell.
    Local(Vec<String>),
    /// Nothing but forwarding.
    Nothing,
}

fn work(args: &SshArgs, words: &[String]) -> Result<Work> {
    Ok(match (args.no_remote_exec, args.local, words) {
        (true, true, _) => {
            return Err(Error::other("-N runs nothing and --local runs something here: use one of them"));
        }
        (true, false, _) => Work::Nothing,
        (false, true, words) => Work::Local(words.to_vec()),
        (false, false, []) if args.background => {
            return Err(Error::other("a shell cannot run in the background: with -f, name a command or use -N"));
        }
        (false, false, []) => Work::Shell,
        (false, false, words) => Work::Command(words.join(" ")),
    })
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

/// A target with the port of the command line, which wins over one that was typed with the host.
pub(super) fn with_port(target: Target, port: Option<u16>) -> Target {
    match target {
        Target::Host { host, port: typed } => Target::Host { host, port: port.or(typed) },
        others => others,
    }
}

/// The hosts that a target stands for; at least one.
pub(super) async fn find_hosts(client: &ClusterClient, target: Target) -> Result<Vec<Host>> {
    let filter = match (&target, target.filter()) {
        (Target::Host { host, port }, _) => return Ok(vec![Host::new(host, *port)]),
        (_, filter) => filter.unwrap_or_default(),
    };
    let hosts = nodes::matching_hosts(client, &filter).await?;
    if hosts.is_empty() {
        return Err(SshError::NoMatch(format!("none has {}", text::line(&target.to_string()))).into());
    }
    Ok(hosts)
}

/// What a session is opened with, wherever that is.
struct Session<'a> {
    client: &'a ClusterClient,
    login: &'a str,
    /// Whether there is a terminal; `None` leaves it to what runs.
    tty: Option<bool>,
    /// Whether `~` sequences are recognised.
    escapes: bool,
    args: &'a SshArgs,
    extras: &'a Extras,
}

impl Session<'_> {
    async fn on_host(&self, host: &Host, work: Work) -> Result<i32> {
        // Before anything is dialled: a port in use, or no display, costs no session.
        let listeners = self.extras.forwards.bind().await?;
        let x11 = self.extras.x11().await?;
        let agent = self.extras.agent(self.client.account())?;
        let connection = connect(self.client, host, self.login).await?;
        let (_forwards, refused) = Forwards::start(&connection, &self.extras.forwards, listeners, say()).await;
        for error in refused {
            if self.extras.exit_on_failure {
                return Err(error.into());
            }
            eprintln!("WARNING: {error}");
        }
        if self.args.background {
            background::detach(matches!(work, Work::Nothing))?;
        }
        let request = match work {
            Work::Nothing => {
                let ended = until_ended(&connection).await;
                connection.close().await;
                return ended;
            }
            Work::Local(words) => {
                let code = run_here(&words, &connection).await?;
                connection.close().await;
                return Ok(code);
            }
            Work::Command(command) => self.request(Run::Command(command), agent, x11),
            Work::Shell => self.request(Run::Shell, agent, x11),
        };
        let input = if self.args.background { Input::none() } else { Input::stdin() };
        let streams = Streams { input, output: Output::stdout(), errors: Output::stderr() };
        let exit = run(&connection, &request, streams).await;
        connection.close().await;
        let exit = exit?;
        if request.terminal && request.run == Run::Shell && exit != Exit::Left {
            let now = chrono::Local::now().format("%d %b %y %H:%M %Z");
            eprintln!("the connection was closed on the remote side at  {now}");
        }
        Ok(exit.code().into())
    }

    fn request(&self, work: Run, agent: Option<Agent>, x11: Option<Arc<X11>>) -> SessionRequest {
        let id = uuid::Uuid::new_v4().to_string();
        let mut variables = environment(&self.client.account().profile.web_proxy_addr, &id);
        let shell = work == Run::Shell;
        if shell {
            variables.extend(session_variables(self.args));
        }
        SessionRequest {
            terminal: !self.args.background && io::stdin().is_terminal() && self.tty.unwrap_or(shell),
            run: work,
            environment: variables,
            typing: Typing::Free { escapes: self.escapes },
            agent,
            x11,
        }
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

/// Connects to a host, and shows what it wants to be shown.
pub(super) async fn connect(client: &ClusterClient, host: &Host, login: &str) -> Result<SshConnection> {
    let connection = match SshConnection::open(client, host, login, &mut Terminal::default()).await {
        Err(Error::Ssh(error)) if error.is_ambiguous() => return Err(nodes::explain_ambiguous(client, host).await),
        other => other?,
    };
    if let Some(problem) = connection.unverified() {
        eprintln!("WARNING: host {} is not verified (--insecure): {problem}", text::line(&host.name));
    }
    eprint!("{}", connection.banner());
    Ok(connection)
}

/// Waits while forwards run: until the connection ends, or the user ends this program.
async fn until_ended(connection: &SshConnection) -> Result<i32> {
    let listen = |kind| signal(kind).map_err(Error::io("listening for signals"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        lost = connection.ended() => Err(lost.into()),
        _ = interrupt.recv() => Ok(SIGNALLED + SignalKind::interrupt().as_raw_value()),
        _ = terminate.recv() => Ok(SIGNALLED + SignalKind::terminate().as_raw_value()),
    }
}

/// Runs a command of this machine, or the user's shell; it ends with the connection that it is for.
async fn run_here(words: &[String], connection: &SshConnection) -> Result<i32> {
    let shell = std::env::var("SHELL").ok().filter(|shell| !shell.is_empty());
    let shell = [shell.unwrap_or_else(|| "/bin/sh".to_owned())];
    let (program, arguments) = match words.split_first() {
        Some((program, arguments)) => (program, arguments),
        None => (&shell[0], &[][..]),
    };
    let mut command = tokio::process::Command::new(program);
    background::keep_apart(command.args(arguments));
    let mut child = command.spawn().map_err(Error::io(format!("running {program} on this machine")))?;
    tokio::select! {
        status = child.wait() => {
            Ok(exit_code(status.map_err(Error::io(format!("waiting for {program}")))?))
        }
        lost = connection.ended() => {
            // Without its forwards it has nothing to work with.
            child.kill().await.map_err(Error::io(format!("ending {program}")))?;
            Err(lost.into())
        }
    }
}

/// The exit code of a program that stands for another.
fn exit_code(status: ExitStatus) -> i32 {
    let signalled = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| SIGNALLED + signal);
    status.code().or(signalled).unwrap_or(SOME_FAILED)
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
