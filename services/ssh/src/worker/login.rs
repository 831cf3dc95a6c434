//! The worker that stands between the daemon and one process of a user where the node uses PAM.
//!
//! It keeps the daemon's rights, because modules need them at the end of a session as at its beginning: it opens the
//! session, starts the user's process, waits for it, and closes the session. What modules change about their process
//! goes to the user's, and to nobody else's.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::rc::Rc;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Gid, Uid};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::os::account::Account;
use crate::os::pam::{Answer, Conversation, PamError, Transaction};
use crate::os::process::{Becoming, arrange};
use crate::worker::Kind;

/// The longest request. A kernel takes no more than 2 MiB of arguments and environment; numbers of bytes take four times
/// as much.
pub(crate) const MAX_REQUEST: usize = 8 * 1024 * 1024;
/// What the daemon says when PAM has let the user in and the process is still wanted; the end of the input says that it is
/// not.
pub(crate) const GO: u8 = b'!';
/// Argument with which a worker only says whether the host has PAM.
pub(crate) const PROBE: &str = "probe";
/// The longest answer of a user.
const MAX_ANSWER: u64 = 512;
/// What Ctrl-C sends.
const INTERRUPT: u8 = 3;
/// The most that modules may say to somebody who has no terminal; it goes into the reason of a refusal.
const MAX_SAID: usize = 4096;

/// How a node uses PAM, for one user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rules {
    /// File below `/etc/pam.d`.
    pub service: String,
    /// Whether the user is asked to prove who they are, beyond their certificate.
    pub authenticate: bool,
    /// Variables for modules and the session.
    pub variables: Vec<(String, String)>,
    /// Where the user is.
    pub remote_host: String,
}

/// What the daemon asks for. Three descriptors come with it: the standard streams of the process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub rules: Rules,
    /// Path of the terminal, where the streams are one.
    pub terminal: Option<String>,
    pub account: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: OsString,
    /// The program and what it is called.
    pub program: OsString,
    pub name: OsString,
    pub arguments: Vec<OsString>,
    pub environment: BTreeMap<String, String>,
    /// Set where the program is a worker, which becomes the user by itself. Others are started as the user.
    pub worker: Option<Kind>,
}

#[cfg(test)]
impl Request {
    /// That of a test: a shell of an account that need not exist.
    pub fn of_test() -> Self {
        let (service, remote_host) = ("e2e".into(), "127.0.0.1".into());
        Self {
            rules: Rules { service, authenticate: false, variables: Vec::new(), remote_host },
            terminal: None,
            account: "dev".into(),
            uid: 1000,
            gid: 1001,
            groups: vec![1001],
            home: "/home/dev".into(),
            program: "/bin/sh".into(),
            name: "sh".into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            worker: None,
        }
    }
}

/// What the daemon is told, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The user is let in; the process starts when the daemon says [`GO`].
    Admitted,
    /// The process runs; its id.
    Started(u32),
    /// It does not, and why.
    Refused(String),
    /// How it ended, as wait(2) says it.
    Ended(i32),
}

/// Serves the one request on the standard input.
pub(super) fn serve_standard_input() -> io::Result<()> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let (request, streams) = receive(&control)?;
    let mut control = UnixStream::from(control);
    let terminal = request.terminal.is_some().then(|| streams[0].try_clone()).transpose()?;
    let user = User(Rc::new(RefCell::new(Reached { terminal: terminal.map(File::from), said: String::new() })));
    if let Err(reason) = run(request, streams, &user, &mut control) {
        if let Some(terminal) = &mut user.0.borrow_mut().terminal {
            let _ = terminal.write_all(format!("Failed to launch: {reason}.\n").as_bytes()); // it may be gone
        }
        tell(&mut control, &Report::Refused(reason));
    }
    Ok(())
}

/// Says something to the daemon. One that is gone needs no word: the session is ended all the same.
fn tell(control: &mut UnixStream, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = control.write_all(&line);
    }
}

/// Reads the request: its length with the descriptors, then its text.
fn receive(control: &OwnedFd) -> io::Result<(Request, [OwnedFd; 3])> {
    let mut head = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let slices = &mut [IoSliceMut::new(&mut head)];
    let received = recvmsg(control, slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL)?;
    let mut streams = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            streams.extend(descriptors);
        }
    }
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "started by the daemon only");
    let streams: [OwnedFd; 3] = streams.try_into().map_err(|_| wrong())?;
    let length = u32::from_be_bytes(head) as usize;
    if received.bytes != head.len() || length > MAX_REQUEST {
        return Err(wrong());
    }
    let mut text = vec![0; length];
    File::from(control.try_clone()?).read_exact(&mut text)?;
    Ok((serde_json::from_slice(&text)?, streams))
}

/// Lets the user in, runs the process, and closes the session.
///
/// # Errors
/// In words, when there was no process.
fn run(request: Request, streams: [OwnedFd; 3], user: &User, control: &mut UnixStream) -> Result<(), String> {
    let mut groups: Vec<Gid> = request.groups.iter().copied().map(Gid::from_raw).collect();
    if Uid::effective().is_root() {
        // Modules may add groups to those of the account, and to no others.
        nix::unistd::setgroups(&groups).map_err(|e| format!("setting groups: {e}"))?;
    }
    let mut login = let_in(&request, user).map_err(|error| match user.0.borrow().said.trim() {
        "" => error.to_string(),
        words => format!("{error} ({words})"),
    })?;
    if Uid::effective().is_root() {
        groups = nix::unistd::getgroups().map_err(|e| format!("looking up groups: {e}"))?;
    }
    let mut command = command(&request, login.environment(), groups).map_err(|e| e.to_string())?;
    let [input, output, errors] = streams;
    command.stdin(input).stdout(output).stderr(errors);
    tell(control, &Report::Admitted);
    wait_to_go(control)?;
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    // From here on the terminal is the user's alone: its end is seen when nobody else has it.
    drop(command);
    user.0.borrow_mut().terminal = None;
    tell(control, &Report::Started(child.id()));
    // Whoever wants the user's process to end says so to that one; this one stays to close the session.
    let waits: SigSet = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT].into_iter().collect();
    let _ = waits.thread_block(); // fails for no valid signals
    match child.wait() {
        Ok(status) => tell(control, &Report::Ended(status.into_raw())),
        Err(_) => tell(control, &Report::Ended(255 << 8)),
    }
    drop(login);
    Ok(())
}

fn let_in(request: &Request, user: &User) -> Result<Transaction, PamError> {
    let rules = &request.rules;
    let mut login = Transaction::start(&rules.service, &request.account, Box::new(user.clone()))?;
    let terminal = request.terminal.as_deref().map(|path| path.trim_start_matches("/dev/"));
    login.place(terminal.unwrap_or("ssh"), &rules.remote_host)?;
    for (name, value) in &rules.variables {
        login.set_variable(name, value)?;
    }
    if rules.authenticate {
        login.authenticate()?;
    }
    login.check_account()?;
    login.open_session()?;
    Ok(login)
}

/// Waits to hear that the process is wanted. Letting somebody in takes time, and a daemon that gave up meanwhile would know
/// nothing of a process that started after that.
///
/// # Errors
/// In words, when it is not.
fn wait_to_go(control: &mut UnixStream) -> Result<(), String> {
    let mut told = [0];
    match control.read_exact(&mut told) {
        Ok(()) if told == [GO] => Ok(()),
        _ => Err("nobody waits for the session any more".to_owned()),
    }
}

/// The user's process. `environment` and `groups` are those that modules made.
fn command(request: &Request, environment: Vec<(String, String)>, groups: Vec<Gid>) -> io::Result<Command> {
    let account = Account {
        name: request.account.clone(),
        uid: Uid::from_raw(request.uid),
        gid: Gid::from_raw(request.gid),
        groups,
        home: request.home.clone().into(),
        shell: request.program.clone().into(),
    };
    let mut command = Command::new(&request.program);
    command.arg0(&request.name).args(&request.arguments).env_clear().envs(&request.environment);
    if let Some(kind) = &request.worker {
        command.args(super::arguments(kind, &account)).current_dir("/").process_group(0);
        return Ok(command);
    }
    command.envs(environment);
    // The limits are those that modules set. Without this process nobody would watch the user's.
    let becoming = Becoming { terminal: request.terminal.is_some(), limits: None, ends_with_parent: true };
    arrange(&mut command, &account, becoming)?;
    Ok(command)
}

/// How modules reach the user. Clones are the same user.
#[derive(Clone)]
struct User(Rc<RefCell<Reached>>);

struct Reached {
    /// The user's terminal, until their process has it.
    terminal: Option<File>,
    /// What was said to somebody who has none: it may explain a refusal.
    said: String,
}

impl Conversation for User {
    fn tell(&mut self, message: &str) {
        let Reached { terminal, said } = &mut *self.0.borrow_mut();
        match terminal {
            Some(terminal) => drop(terminal.write_all(format!("{message}\n").as_bytes())), // the user may be gone
            None if said.len() + message.len() < MAX_SAID => {
                said.push_str(message.trim());
                said.push(' ');
            }
            None => {}
        }
    }

    fn ask(&mut self, prompt: &str, shown: bool) -> Option<Answer> {
        let mut reached = self.0.borrow_mut();
        let Some(terminal) = &mut reached.terminal else {
            reached.said.push_str("a question could not be put, because the session has no terminal ");
            return None;
        };
        // What was typed before the question is no answer to it.
        let before = tcgetattr(&*terminal).ok()?;
        tcsetattr(&*terminal, SetArg::TCSAFLUSH, &asking(before.clone(), shown)).ok()?;
        let asked = terminal.write_all(prompt.as_bytes()).ok();
        let line = asked.and_then(|()| read_line(terminal));
        let _ = tcsetattr(&*terminal, SetArg::TCSANOW, &before); // the terminal may be gone
        let _ = terminal.write_all(b"\n");
        line
    }
}

/// How a terminal is set while something is asked: nobody is there yet to be signalled by Ctrl-C, which ends the line
/// instead.
fn asking(mut modes: Termios, shown: bool) -> Termios {
    modes.local_flags.remove(LocalFlags::ISIG | LocalFlags::ECHO | LocalFlags::ECHONL);
    modes.local_flags.insert(LocalFlags::ICANON);
    modes.local_flags.set(LocalFlags::ECHO, shown);
    if let Some(end) = modes.control_chars.get_mut(SpecialCharacterIndices::VEOL as usize) {
        *end = INTERRUPT;
    }
    modes
}

/// A line that the user typed; none when they gave up.
fn read_line(mut terminal: &File) -> Option<Answer> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_ANSWER as usize));
    let mut piece = Zeroizing::new([0; 64]);
    while (line.len() as u64) < MAX_ANSWER {
        let read = terminal.read(&mut *piece).ok().filter(|n| *n > 0)?;
        line.extend_from_slice(piece.get(..read)?);
        match line.last() {
            Some(b'\n') => {
                let end = line.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
                return Answer::new(line.get(..end)?);
            }
            Some(&INTERRUPT) => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_process_waits_to_be_wanted() {
        let (mut control, mut daemon) = UnixStream::pair().unwrap();
        daemon.write_all(&[GO]).unwrap();
        assert_eq!(wait_to_go(&mut control), Ok(()));
        drop(daemon);
        assert_eq!(wait_to_go(&mut control).unwrap_err(), "nobody waits for the session any more");
    }

    #[test]
    fn workers_have_the_groups_that_modules_gave_the_user() {
        let (program, name, arguments) = ("/bin/teleport".into(), "teleport".into(), vec!["worker".into()]);
        let request = Request { program, name, arguments, worker: Some(Kind::Sockets), ..Request::of_test() };
        let command = command(&request, Vec::new(), vec![Gid::from_raw(1001), Gid::from_raw(20)]).unwrap();
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["worker", "sockets", "1000", "1001", "1001,20", "/home/dev"]);
    }
}
