//! The daemon's side of processes that PAM lets in: a worker each, which is the parent of the user's process.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::process::{Ended, REMOTE_COMMAND_FAILURE, hang_up};
use crate::worker::Kind;
use crate::worker::login::{GO, MAX_REQUEST, PROBE, Report, Request, Rules};

/// How long modules may take to let somebody in, who may have to answer questions.
const LETTING_IN: Duration = Duration::from_secs(120);
/// How long a worker may take to start a process that was let in.
const STARTING: Duration = Duration::from_secs(10);
/// How long a worker may take to say whether the host has PAM.
const PROBING: Duration = Duration::from_secs(10);
/// How long modules may take to close a session, and those that were given up to come to an end.
const CLOSING: Duration = Duration::from_secs(60);
/// The longest report.
const MAX_REPORT: u64 = 16 * 1024;
/// Why nothing runs where a worker said nothing more.
const GONE: &str = "the node's worker for PAM ended";

/// What lets processes of one user in.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    /// The program of this process with the arguments that make it a worker.
    pub worker: Vec<OsString>,
    pub rules: Rules,
    pub tasks: TaskTracker,
}

/// How far a process is.
#[derive(Clone, Debug)]
enum State {
    Waiting,
    Runs(u32),
    Refused(String),
    Ended(Ended),
}

/// A process whose session PAM opened, or is about to.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    state: watch::Receiver<State>,
    give_up: CancellationToken,
}

/// Finds out whether sessions can go through PAM on this host. `worker` is as in [`Gate`].
///
/// # Errors
/// In words, when they cannot.
pub(crate) async fn probe(worker: &[OsString]) -> Result<(), String> {
    let (program, arguments) = worker.split_first().ok_or("there is no program for workers")?;
    let mut command = Command::new(program);
    command.args(arguments).args([Kind::Login.name(), PROBE]).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    match timeout(PROBING, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("waited 10 s for the node's worker".to_owned()),
    }
}

impl Gate {
    /// Has a process let in and started; `streams` become its standard streams. The worker, and so the process, belongs to
    /// the control group of `entrance`.
    ///
    /// # Errors
    /// When the worker cannot be started, or the command and its environment are too long. A refusal comes later.
    pub fn start(&self, request: &Request, streams: [OwnedFd; 3], entrance: Option<File>) -> io::Result<Admitted> {
        let (program, arguments) = self.worker.split_first().ok_or(io::ErrorKind::NotFound)?;
        let text = serde_json::to_vec(request)?;
        let length = u32::try_from(text.len()).ok().filter(|_| text.len() <= MAX_REQUEST);
        let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::ArgumentListTooLong))?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let mut command = Command::new(program);
        command.args(arguments).arg(Kind::Login.name()).env_clear().current_dir("/").process_group(0);
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        super::process::with_limits(&mut command);
        super::process::enter(command.as_std_mut(), entrance);
        let child = command.spawn()?;
        drop(command);
        send_streams(ours.as_fd(), length, &streams)?;
        ours.set_nonblocking(true)?;
        let stream = UnixStream::from_std(ours)?;
        let (states, state) = watch::channel(State::Waiting);
        let give_up = CancellationToken::new();
        let (reports, requests) = stream.into_split();
        let worker = Worker { child, requests, reports: BufReader::new(reports) };
        self.tasks.spawn(follow(worker, text, states, give_up.clone()));
        Ok(Admitted { state, give_up })
    }
}

/// Sends the length of the request, and the streams with it.
fn send_streams(socket: BorrowedFd<'_>, length: u32, streams: &[OwnedFd; 3]) -> io::Result<()> {
    let descriptors = [streams[0].as_fd(), streams[1].as_fd(), streams[2].as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(&length.to_be_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A worker, and the way to it and back.
struct Worker {
    child: Child,
    requests: OwnedWriteHalf,
    reports: BufReader<OwnedReadHalf>,
}

/// Follows a worker, and what it starts, to the end of both.
async fn follow(mut worker: Worker, request: Vec<u8>, states: watch::Sender<State>, give_up: CancellationToken) {
    match worker.begin(&request, &give_up).await {
        Ok(process) => {
            states.send_replace(State::Runs(process));
            if give_up.is_cancelled() {
                // Whoever gave up could not know yet whom to end.
                hang_up(process, Signal::SIGKILL);
            }
            let ended = worker.watch(process).await;
            states.send_replace(State::Ended(ended));
        }
        Err(reason) => drop(states.send_replace(State::Refused(reason))),
    }
    worker.dismiss().await;
}

impl Worker {
    /// Has a process let in and started; gives its id.
    ///
    /// # Errors
    /// In words, when it was not, or nobody wants it any more. [`Worker::dismiss`] comes next then.
    async fn begin(&mut self, request: &[u8], give_up: &CancellationToken) -> Result<u32, String> {
        let admitted = tokio::select! {
            biased;
            () = give_up.cancelled() => return Err("the session ended before PAM let it begin".to_owned()),
            admitted = self.ask(request, LETTING_IN) => admitted,
        };
        let Report::Admitted = admitted? else { return Err(GONE.to_owned()) };
        // Nothing of the user's has run so far. From here on something may, and is heard of even if nobody wants it any more.
        match self.ask(&[GO], STARTING).await? {
            Report::Started(process) => Ok(process),
            _ => Err(GONE.to_owned()),
        }
    }

    /// Says something to the worker; gives its next report.
    ///
    /// # Errors
    /// In words, when it refuses, is gone, or takes longer than this.
    async fn ask(&mut self, words: &[u8], limit: Duration) -> Result<Report, String> {
        let answer = async {
            self.requests.write_all(words).await.ok()?;
            next(&mut self.reports).await
        };
        match timeout(limit, answer).await {
            Ok(Some(Report::Refused(reason))) => Err(reason),
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(GONE.to_owned()),
            Err(_) => Err(format!("waited {} s for PAM", limit.as_secs())),
        }
    }

    /// Waits for the end of the process.
    async fn watch(&mut self, process: u32) -> Ended {
        match next(&mut self.reports).await {
            Some(Report::Ended(status)) => Ended::from_status(ExitStatus::from_raw(status)),
            // The worker is gone, so nobody knows; its process must not be left alone.
            _ => {
                hang_up(process, Signal::SIGKILL);
                Ended::Exited(REMOTE_COMMAND_FAILURE)
            }
        }
    }

    /// Lets the worker close what PAM opened, and go. It starts nothing any more.
    async fn dismiss(self) {
        let Self { mut child, requests, mut reports } = self;
        drop(requests); // the end of its input tells a worker that nobody wants the process
        let left = async {
            while let Some(report) = next(&mut reports).await {
                // It had been told to start the process, and took too long.
                if let Report::Started(process) = report {
                    hang_up(process, Signal::SIGKILL);
                }
            }
            child.wait().await
        };
        if timeout(CLOSING, left).await.is_err() {
            // It has ended by itself if this fails. A process that it started ends with it; a worker that became the user, when
            // its streams are closed, as they are for whoever is refused.
            let _ = child.kill().await;
        }
    }
}

/// The next report of a worker; none when it has ended.
async fn next(reports: &mut BufReader<OwnedReadHalf>) -> Option<Report> {
    let mut line = Vec::new();
    (&mut *reports).take(MAX_REPORT).read_until(b'\n', &mut line).await.ok()?;
    serde_json::from_slice(&line).ok()
}

impl Admitted {
    /// The process, while it runs.
    pub fn id(&self) -> Option<u32> {
        match *self.state.borrow() {
            State::Runs(process) => Some(process),
            _ => None,
        }
    }

    /// Waits until the process runs.
    ///
    /// # Errors
    /// In words, when it was not let in.
    pub async fn begun(&mut self) -> Result<Option<u32>, String> {
        match self.state.wait_for(|state| !matches!(state, State::Waiting)).await.as_deref() {
            Ok(State::Runs(process)) => Ok(Some(*process)),
            Ok(State::Refused(reason)) => Err(reason.clone()),
            _ => Ok(None),
        }
    }

    /// Waits until the process has ended, or will never run.
    pub async fn wait(&mut self) -> Ended {
        let over = |state: &State| matches!(state, State::Refused(_) | State::Ended(_));
        match self.state.wait_for(over).await.as_deref() {
            Ok(State::Ended(ended)) => *ended,
            _ => Ended::Exited(REMOTE_COMMAND_FAILURE),
        }
    }

    /// Has it begin no more, if it has not.
    pub fn give_up(&self) {
        self.give_up.cancel();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    /// A worker that is this script, and has read the request.
    fn begin(folder: &Path, script: &str) -> (Admitted, TaskTracker) {
        let request = Request::of_test();
        let length = 4 + serde_json::to_vec(&request).unwrap().len();
        let tools = "PATH=/usr/bin:/bin; when() { while ! test -e $1; do sleep 0.02; done; }";
        let script = format!("{tools}; exec 3>&0; cd {}; head -c {length} >/dev/null; {script}", folder.display());
        let worker = ["/bin/sh", "-c", &script].map(OsString::from).to_vec();
        let nothing = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
        let gate = Gate { worker, rules: request.rules.clone(), tasks: TaskTracker::new() };
        let admitted = gate.start(&request, [nothing(), nothing(), nothing()], None).unwrap();
        gate.tasks.close();
        (admitted, gate.tasks)
    }

    async fn exists(file: &Path) {
        let made = async {
            while !file.exists() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), made).await.unwrap();
    }

    #[tokio::test]
    async fn a_process_that_nobody_wants_any_more_is_not_started_and_its_worker_may_close_the_session() {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"when given-up; echo '"Admitted"' >&3; head -c 1 | wc -c >told"#;
        let (mut admitted, tasks) = begin(folder.path(), script);
        admitted.give_up();
        assert_eq!(admitted.begun().await.unwrap_err(), "the session ended before PAM let it begin");
        assert_eq!(admitted.wait().await, Ended::Exited(REMOTE_COMMAND_FAILURE));
        std::fs::write(folder.path().join("given-up"), "").unwrap();
        timeout(Duration::from_secs(20), tasks.wait()).await.unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("told")).unwrap().trim(), "0");
    }

    #[tokio::test]
    async fn a_process_that_starts_although_nobody_wants_it_any_more_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"echo '"Admitted"' >&3; head -c 1 >/dev/null; >told; when given-up
            setsid sh -c 'echo "{\"Started\":$$}" >&3; exec sleep 600' &
            wait $!; echo "{\"Ended\":$(($? - 128))}" >&3"#;
        let (mut admitted, tasks) = begin(folder.path(), script);
        exists(&folder.path().join("told")).await;
        admitted.give_up();
        std::fs::write(folder.path().join("given-up"), "").unwrap();
        let ended = timeout(Duration::from_secs(20), admitted.wait()).await.unwrap();
        assert_eq!(ended, Ended::Signalled { signal: Signal::SIGKILL, core_dumped: false });
        timeout(Duration::from_secs(20), tasks.wait()).await.unwrap();
    }
}
