//! Starting a session's process as the requested account.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Pid, Uid};
use tokio::process::{Child, Command};

use super::account::Account;
use crate::worker::Kind;

/// Exit status reported for anything that is not an exit of the process.
pub const REMOTE_COMMAND_FAILURE: u32 = 255;

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The account's login shell.
    Shell,
    /// A command line, given to the account's shell.
    Command(OsString),
}

/// Where the process's standard streams go.
#[derive(Debug)]
pub enum Streams {
    /// All three are this terminal, which becomes the controlling one.
    Terminal(OwnedFd),
    /// Pipes to the server.
    Pipes,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(u32),
    /// A signal ended it.
    Signalled {
        /// Name without `SIG`, as in RFC 4254 §6.10.
        signal: Signal,
        /// Whether it left a core file.
        core_dumped: bool,
    },
}

impl Ended {
    /// What became of a process.
    pub fn from_status(status: ExitStatus) -> Self {
        match (status.code(), status.signal().and_then(|s| Signal::try_from(s).ok())) {
            (Some(code), _) => Self::Exited(u32::try_from(code).unwrap_or(REMOTE_COMMAND_FAILURE)),
            (None, Some(signal)) => Self::Signalled { signal, core_dumped: status.core_dumped() },
            (None, None) => Self::Exited(REMOTE_COMMAND_FAILURE),
        }
    }

    /// The exit status that stands for this end in the audit log.
    pub fn code(self) -> u32 {
        match self {
            Self::Exited(code) => code,
            Self::Signalled { .. } => REMOTE_COMMAND_FAILURE,
        }
    }
}

/// Starts a process of `account` in its home directory, in a session of its own.
///
/// The child's group is its own, so [`hang_up`] reaches everything it started.
pub fn start(
    account: &Account,
    program: &Program,
    environment: &BTreeMap<String, String>,
    streams: Streams,
) -> io::Result<Child> {
    require_rights_of(account)?;
    let mut command = Command::new(&account.shell);
    let shell_name = account.shell.file_name().unwrap_or_default();
    match program {
        Program::Shell => {
            let mut login_name = OsString::from("-");
            login_name.push(shell_name);
            command.arg0(login_name);
        }
        Program::Command(line) => {
            command.arg0(shell_name).arg("-c").arg(line);
        }
    }
    command.env_clear().envs(environment).kill_on_drop(false);
    let terminal = match streams {
        Streams::Terminal(slave) => {
            command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
            true
        }
        Streams::Pipes => {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            false
        }
    };
    become_account(&mut command, account, terminal)?;
    command.spawn()
}

/// Starts a worker that becomes `account` by itself; `streams` says what its standard streams are.
///
/// `program` is the program of this process with the arguments that make it a worker. It starts with the daemon's
/// rights, because the account need not be able to read it, and gives them up first of all.
pub(crate) fn start_worker(
    account: &Account,
    program: &[OsString],
    kind: Kind,
    streams: impl FnOnce(&mut Command),
) -> io::Result<Child> {
    require_rights_of(account)?;
    let (path, arguments) = program.split_first().ok_or(io::ErrorKind::NotFound)?;
    let mut command = Command::new(path);
    command.args(arguments).args(crate::worker::arguments(kind, account));
    command.env_clear().current_dir("/").process_group(0).kill_on_drop(true);
    streams(&mut command);
    command.spawn()
}

/// A daemon that is not root has only its own account to offer.
fn require_rights_of(account: &Account) -> io::Result<()> {
    if Uid::effective().is_root() || account.is_current() {
        return Ok(());
    }
    let name = &account.name;
    let text = format!("the node does not run as root, so it cannot become {name}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Sends SIGHUP, then SIGKILL, to a process group. Errors mean that it is gone.
pub fn hang_up(process_id: u32, signal: Signal) {
    if let Ok(group) = i32::try_from(process_id) {
        let _ = killpg(Pid::from_raw(group), signal);
    }
}

/// Arranges what the child does between fork and exec.
#[allow(unsafe_code)] // the only way to run code between fork and exec
fn become_account(command: &mut Command, account: &Account, terminal: bool) -> io::Result<()> {
    let (uid, gid, groups) = (account.uid, account.gid, account.groups.clone());
    let privileged = Uid::effective().is_root();
    let home = CString::new(account.home.as_os_str().as_bytes())?;
    let line_end = if terminal { "\r\n" } else { "\n" };
    let no_home = format!(
        "Could not set shell's cwd to home directory {:?}, defaulting to \"/\"{line_end}",
        account.home.display().to_string()
    );
    // SAFETY: the closure only makes system calls on values computed before the fork; it does not allocate or lock.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            if terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            if privileged {
                set_credentials(uid, gid, &groups)?;
            }
            // With the account's own rights: a folder it may not enter is none of its home.
            if libc::chdir(home.as_ptr()) != 0 {
                libc::write(2, no_home.as_ptr().cast(), no_home.len());
                if libc::chdir(c"/".as_ptr()) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    Ok(())
}

/// Groups first, then the group, then the user: after the last step nothing can be changed any more.
fn set_credentials(uid: Uid, gid: Gid, groups: &[Gid]) -> io::Result<()> {
    nix::unistd::setgroups(groups)?;
    nix::unistd::setgid(gid)?;
    nix::unistd::setuid(uid)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::channel::TerminalRequest;
    use crate::os::pty::{Pty, TerminalSize};

    fn me() -> Account {
        let user = nix::unistd::User::from_uid(Uid::current()).unwrap().unwrap();
        Account::find(&user.name).unwrap()
    }

    fn environment() -> BTreeMap<String, String> {
        BTreeMap::from([("PATH".to_owned(), "/bin:/usr/bin".to_owned()), ("MARK".to_owned(), "here".to_owned())])
    }

    #[tokio::test]
    async fn a_command_runs_with_exactly_the_given_environment_and_keeps_its_status() {
        let line = Program::Command("echo $MARK; echo err >&2; exit 7".into());
        let child = start(&me(), &line, &environment(), Streams::Pipes).unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"here\n"[..], &b"err\n"[..]));
        assert_eq!(Ended::from_status(output.status), Ended::Exited(7));
    }

    #[tokio::test]
    async fn a_signal_is_told_apart_from_an_exit() {
        let mut child =
            start(&me(), &Program::Command("kill -TERM $$".into()), &environment(), Streams::Pipes).unwrap();
        let ended = Ended::from_status(child.wait().await.unwrap());
        assert_eq!(ended, Ended::Signalled { signal: Signal::SIGTERM, core_dumped: false });
    }

    #[tokio::test]
    async fn a_process_on_a_terminal_sees_its_size_and_ends_the_output() {
        let account = me();
        let asked = TerminalRequest {
            term: "xterm".into(),
            size: TerminalSize { columns: 99, rows: 33 },
            modes: vec![(russh::Pty::VINTR, 7), (russh::Pty::ECHO, 0)],
        };
        let mut pty = Pty::open(&asked, &account).unwrap();
        let streams = Streams::Terminal(pty.slave().unwrap());
        let mut child = start(
            &account,
            &Program::Command("stty size; tty; stty -a | grep -c -e 'intr = ^G' -e ' -echo '".into()),
            &environment(),
            streams,
        )
        .unwrap();
        let path = pty.path().display().to_string();
        pty.release_slave();
        let mut output = bytes::BytesMut::new();
        while pty.read(&mut output).await.unwrap() > 0 {}
        assert_eq!(output, format!("33 99\r\n{path}\r\n2\r\n").as_bytes());
        assert!(child.wait().await.unwrap().success());
    }

    #[tokio::test]
    async fn a_missing_home_directory_becomes_the_root_directory_and_is_named() {
        let account = Account { home: "/no/such/home".into(), ..me() };
        let child = start(&account, &Program::Command("pwd".into()), &environment(), Streams::Pipes).unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.stdout, b"/\n");
        assert!(String::from_utf8_lossy(&output.stderr).contains("home directory \"/no/such/home\""));
    }
}
