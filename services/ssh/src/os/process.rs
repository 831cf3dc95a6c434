//! Starting a session's process as the requested account.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::ExitStatus;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Pid, Uid};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::account::Account;
use super::login::{Admitted, Gate};
use crate::worker::Kind;
use crate::worker::login::Request;

/// Room in the pipes of a process, in bytes: the kernel's 64 KiB are full or empty so often that waiting costs more than what
/// is carried.
const PIPE: i32 = 512 * 1024;

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
    /// The input is this socket; nothing else goes anywhere.
    Socket(OwnedFd),
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
/// The child's group is its own, so that signals reach everything it started. Behind a `gate` the process begins later,
/// or not at all: [`Running::begun`]. With `entrance`, a `cgroup.procs` open for writing, it belongs to that control group
/// before it is the account's.
pub(crate) fn start(
    account: &Account,
    program: &Program,
    environment: &BTreeMap<String, String>,
    streams: Streams,
    gate: Option<&Gate>,
    entrance: Option<File>,
) -> io::Result<Running> {
    require_rights_of(account)?;
    let terminal = matches!(streams, Streams::Terminal(_));
    let shell_name = account.shell.file_name().unwrap_or_default();
    let (name, arguments) = match program {
        Program::Shell => {
            let mut login_name = OsString::from("-");
            login_name.push(shell_name);
            (login_name, Vec::new())
        }
        Program::Command(line) => (shell_name.to_owned(), vec![OsString::from("-c"), line.clone()]),
    };
    let (theirs, ours) = streams.open()?;
    let Some(gate) = gate else {
        let mut command = Command::new(&account.shell);
        command.arg0(name).args(arguments).env_clear().envs(environment).kill_on_drop(false);
        enter(command.as_std_mut(), entrance);
        let becoming = Becoming { terminal, limits: LIMITS.get().copied(), ends_with_parent: false };
        arrange(command.as_std_mut(), account, becoming)?;
        return spawn(command, theirs, ours);
    };
    let path = terminal.then(|| nix::unistd::ttyname(&theirs[0])).transpose()?;
    let request = Request {
        terminal: path.map(|path| path.display().to_string()),
        environment: environment.clone(),
        ..request(gate, account, account.shell.as_os_str(), name, arguments)
    };
    Ok(ours.running(Leader::Admitted(gate.start(&request, theirs, entrance)?)))
}

/// Starts a worker that becomes `account` by itself.
///
/// `program` is the program of this process with the arguments that make it a worker. It starts with the daemon's
/// rights, because the account need not be able to read it, and gives them up first of all.
pub(crate) fn start_worker(
    account: &Account,
    program: &[OsString],
    kind: &Kind,
    streams: Streams,
    gate: Option<&Gate>,
) -> io::Result<Running> {
    require_rights_of(account)?;
    let (path, arguments) = program.split_first().ok_or(io::ErrorKind::NotFound)?;
    let (theirs, ours) = streams.open()?;
    let Some(gate) = gate else {
        let mut command = Command::new(path);
        command.args(arguments).args(crate::worker::arguments(kind, account)).env_clear().current_dir("/");
        command.process_group(0).kill_on_drop(true);
        with_limits(&mut command);
        return spawn(command, theirs, ours);
    };
    let request =
        Request { worker: Some(kind.clone()), ..request(gate, account, path, path.clone(), arguments.to_vec()) };
    Ok(ours.running(Leader::Admitted(gate.start(&request, theirs, None)?)))
}

fn request(gate: &Gate, account: &Account, program: &OsStr, name: OsString, arguments: Vec<OsString>) -> Request {
    Request {
        rules: gate.rules.clone(),
        terminal: None,
        account: account.name.clone(),
        uid: account.uid.as_raw(),
        gid: account.gid.as_raw(),
        groups: account.groups.iter().map(|group| group.as_raw()).collect(),
        home: account.home.clone().into_os_string(),
        program: program.to_owned(),
        name,
        arguments,
        environment: BTreeMap::new(),
        worker: None,
    }
}

fn spawn(mut command: Command, theirs: [OwnedFd; 3], ours: Ends) -> io::Result<Running> {
    let [input, output, errors] = theirs;
    command.stdin(input).stdout(output).stderr(errors);
    Ok(ours.running(Leader::Child(command.spawn()?)))
}

/// The server's ends of a process's streams.
#[derive(Default)]
struct Ends {
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

impl Ends {
    fn running(self, leader: Leader) -> Running {
        Running { stdin: self.stdin, stdout: self.stdout, stderr: self.stderr, leader }
    }
}

impl Streams {
    /// The process's ends, and the server's.
    fn open(self) -> io::Result<([OwnedFd; 3], Ends)> {
        match self {
            Self::Terminal(slave) => Ok(([slave.try_clone()?, slave.try_clone()?, slave], Ends::default())),
            Self::Socket(socket) => {
                let nothing = OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?);
                Ok(([socket, nothing.try_clone()?, nothing], Ends::default()))
            }
            Self::Pipes => {
                let (input, to_input) = io::pipe()?;
                let (from_output, output) = io::pipe()?;
                let (from_errors, errors) = io::pipe()?;
                for end in [input.as_fd(), output.as_fd()] {
                    let _ = fcntl(end, FcntlArg::F_SETPIPE_SZ(PIPE)); // a small pipe is still one
                }
                let ends = Ends {
                    stdin: Some(pipe::Sender::from_owned_fd(to_input.into())?),
                    stdout: Some(pipe::Receiver::from_owned_fd(from_output.into())?),
                    stderr: Some(pipe::Receiver::from_owned_fd(from_errors.into())?),
                };
                Ok(([input.into(), output.into(), errors.into()], ends))
            }
        }
    }
}

/// How a process came to run: its id while it does, or in words why PAM did not let it.
pub(crate) type Begun = Result<Option<u32>, String>;

/// A process that was started, or is about to be.
#[derive(Debug)]
pub struct Running {
    /// Its input, where that is a pipe.
    pub stdin: Option<pipe::Sender>,
    /// Its output, where that is a pipe.
    pub stdout: Option<pipe::Receiver>,
    /// Its errors, where those are a pipe.
    pub stderr: Option<pipe::Receiver>,
    leader: Leader,
}

/// Who started it.
#[derive(Debug)]
enum Leader {
    /// This process.
    Child(Child),
    /// A worker, which PAM asks first.
    Admitted(Admitted),
}

impl Running {
    /// Waits until the process runs; gives its id while it does.
    ///
    /// # Errors
    /// In words, when PAM did not let it run.
    pub(crate) fn begun(&self) -> impl Future<Output = Begun> + Send + use<> {
        let begins = match &self.leader {
            Leader::Child(child) => Err(child.id()),
            Leader::Admitted(admitted) => Ok(admitted.clone()),
        };
        async move {
            match begins {
                Ok(mut admitted) => admitted.begun().await,
                Err(id) => Ok(id),
            }
        }
    }

    /// Waits until the process has ended, or is refused. Cancel-safe.
    pub async fn wait(&mut self) -> Ended {
        match &mut self.leader {
            Leader::Child(child) => {
                child.wait().await.map_or(Ended::Exited(REMOTE_COMMAND_FAILURE), Ended::from_status)
            }
            Leader::Admitted(admitted) => admitted.wait().await,
        }
    }

    /// Has the process begin no more, if it has not.
    pub(crate) fn give_up(&self) {
        if let Leader::Admitted(admitted) = &self.leader {
            admitted.give_up();
        }
    }

    /// Sends a signal to the process and all that it started. One that has not begun never will.
    pub fn signal(&self, signal: Signal) {
        self.give_up();
        let id = match &self.leader {
            Leader::Child(child) => child.id(),
            Leader::Admitted(admitted) => admitted.id(),
        };
        if let Some(id) = id {
            hang_up(id, signal);
        }
    }
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

/// Sends a signal to a process group. Errors mean that it is gone.
pub(super) fn hang_up(process_id: u32, signal: Signal) {
    if let Ok(group) = i32::try_from(process_id) {
        let _ = killpg(Pid::from_raw(group), signal);
    }
}

/// Limits of open files as this process was given them: soft and hard.
static LIMITS: OnceLock<(rlim_t, rlim_t)> = OnceLock::new();

/// Lets this process open as many files as the system allows. Users' processes get the limits from before.
///
/// # Errors
/// When the system does not let it; the limits are as before then.
pub fn raise_file_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let (soft, hard) = *LIMITS.get_or_init(|| (soft, hard));
    if soft != hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

/// Gives a child the limits that this process had at first.
#[allow(unsafe_code)] // the only way to run code between fork and exec
pub(super) fn with_limits(command: &mut Command) {
    if let Some((soft, hard)) = LIMITS.get().copied() {
        // SAFETY: the closure makes one system call; it does not allocate or lock.
        unsafe {
            command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?));
        }
    }
}

/// Has a child belong to a control group, while it still has the rights to enter one. Call this before [`arrange`].
#[allow(unsafe_code)] // the only way to run code between fork and exec
pub(super) fn enter(command: &mut std::process::Command, entrance: Option<File>) {
    let Some(entrance) = entrance else { return };
    // SAFETY: the closure makes one system call; it does not allocate or lock.
    unsafe {
        command.pre_exec(move || match nix::unistd::write(&entrance, b"0") {
            Ok(1) => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) => Err(error.into()),
        });
    }
}

/// How a child becomes a process of its account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Becoming {
    /// Whether its standard streams are a terminal, to be the controlling one.
    pub terminal: bool,
    /// Its limits of open files, where they differ from this process's.
    pub limits: Option<(rlim_t, rlim_t)>,
    /// Whether it is ended when the thread that starts it ends.
    pub ends_with_parent: bool,
}

/// Arranges what the child does between fork and exec.
#[allow(unsafe_code)] // the only way to run code between fork and exec
pub(crate) fn arrange(command: &mut std::process::Command, account: &Account, becoming: Becoming) -> io::Result<()> {
    let Becoming { terminal, limits, ends_with_parent } = becoming;
    let parent = Pid::this();
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
            if let Some((soft, hard)) = limits {
                setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
            }
            if privileged {
                set_credentials(uid, gid, &groups)?;
            }
            if ends_with_parent {
                // A change of credentials would undo it; a parent that has ended before could not be seen to.
                set_pdeathsig(Signal::SIGKILL)?;
                if Pid::parent() != parent {
                    return Err(Errno::ESRCH.into());
                }
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

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::channel::TerminalRequest;
    use crate::os::pty::{Pty, TerminalSize};

    fn me() -> Account {
        let user = nix::unistd::User::from_uid(Uid::current()).unwrap().unwrap();
        Account::find(&user.name).unwrap()
    }

    async fn finished(mut child: Running) -> (String, String, Ended) {
        let (mut output, mut errors) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut output).await.unwrap();
        child.stderr.take().unwrap().read_to_string(&mut errors).await.unwrap();
        (output, errors, child.wait().await)
    }

    #[tokio::test]
    async fn pipes_have_room_for_what_is_read_at_once() {
        let (theirs, ours) = Streams::Pipes.open().unwrap();
        for end in &theirs[..2] {
            assert_eq!(fcntl(end, FcntlArg::F_GETPIPE_SZ).unwrap(), PIPE);
        }
        drop(ours);
    }

    fn environment() -> BTreeMap<String, String> {
        BTreeMap::from([("PATH".to_owned(), "/bin:/usr/bin".to_owned()), ("MARK".to_owned(), "here".to_owned())])
    }

    #[tokio::test]
    async fn a_command_runs_with_exactly_the_given_environment_and_keeps_its_status() {
        let line = Program::Command("echo $MARK; echo err >&2; exit 7".into());
        let child = start(&me(), &line, &environment(), Streams::Pipes, None, None).unwrap();
        assert_eq!(finished(child).await, ("here\n".to_owned(), "err\n".to_owned(), Ended::Exited(7)));
    }

    #[tokio::test]
    async fn a_signal_is_told_apart_from_an_exit() {
        let line = Program::Command("kill -TERM $$".into());
        let mut child = start(&me(), &line, &environment(), Streams::Pipes, None, None).unwrap();
        assert_eq!(child.wait().await, Ended::Signalled { signal: Signal::SIGTERM, core_dumped: false });
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
            None,
            None,
        )
        .unwrap();
        let path = pty.path().display().to_string();
        pty.release_slave();
        let mut output = bytes::BytesMut::new();
        while pty.read(&mut output).await.unwrap() > 0 {}
        assert_eq!(output, format!("33 99\r\n{path}\r\n2\r\n").as_bytes());
        assert_eq!(child.wait().await, Ended::Exited(0));
    }

    #[test]
    fn a_process_that_is_to_end_with_the_one_that_started_it_does() {
        let become_me = Becoming { terminal: false, limits: None, ends_with_parent: true };
        let started = std::thread::spawn(move || {
            let mut command = std::process::Command::new("/bin/sleep");
            command.arg("600");
            arrange(&mut command, &me(), become_me).unwrap();
            command.spawn().unwrap()
        });
        let status = started.join().unwrap().wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    }

    #[tokio::test]
    async fn a_missing_home_directory_becomes_the_root_directory_and_is_named() {
        let account = Account { home: "/no/such/home".into(), ..me() };
        let line = Program::Command("pwd".into());
        let child = start(&account, &line, &environment(), Streams::Pipes, None, None).unwrap();
        let (output, errors, _) = finished(child).await;
        assert_eq!(output, "/\n");
        assert!(errors.contains("home directory \"/no/such/home\""), "{errors}");
    }
}
