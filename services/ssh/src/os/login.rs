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
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::process::{Ended, REMOTE_COMMAND_FAILURE, hang_up};
use crate::worker::Kind;
use crate::worker::login::{MAX_REQUEST, PROBE, Report, Request, Rules};

/// How long modules may take to let somebody in, who may have to answer questions.
const LETTING_IN: Duration = Duration::from_secs(120);
/// How long a worker may take to say whether the host has PAM.
const PROBING: Duration = Duration::from_secs(10);
/// How long modules may take to close a session.
const CLOSING: Duration = Duration::from_secs(60);
/// The longest report.
const MAX_REPORT: u64 = 16 * 1024;

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
        self.tasks.spawn(follow(child, stream, text, states, give_up.clone()));
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

/// Follows a worker to its end.
async fn follow(
    mut child: Child,
    stream: UnixStream,
    request: Vec<u8>,
    states: watch::Sender<State>,
    give_up: CancellationToken,
) {
    let (reports, mut requests) = stream.into_split();
    let mut reports = BufReader::new(reports);
    let beginning = async {
        requests.write_all(&request).await.ok()?;
        next(&mut reports).await
    };
    let begun = tokio::select! {
        begun = timeout(LETTING_IN, beginning) => begun.map_err(|_| "PAM let nobody in for 2 minutes"),
        () = give_up.cancelled() => Err("the session ended before PAM let it begin"),
    };
    let refused = match begun {
        Ok(Some(Report::Started(process))) => {
            states.send_replace(State::Runs(process));
            let ended = match next(&mut reports).await {
                Some(Report::Ended(status)) => Ended::from_status(ExitStatus::from_raw(status)),
                // The worker is gone, so nobody knows; its process must not be left alone.
                _ => {
                    hang_up(process, Signal::SIGKILL);
                    Ended::Exited(REMOTE_COMMAND_FAILURE)
                }
            };
            states.send_replace(State::Ended(ended));
            if timeout(CLOSING, child.wait()).await.is_err() {
                let _ = child.kill().await; // it has ended by itself then
            }
            return;
        }
        Ok(Some(Report::Refused(reason))) => reason,
        Ok(_) => "the node's worker for PAM ended".to_owned(),
        Err(reason) => reason.to_owned(),
    };
    states.send_replace(State::Refused(refused));
    let _ = child.kill().await; // it may have ended
}

/// The next report of a worker; none when it has ended.
async fn next(reports: &mut BufReader<tokio::net::unix::OwnedReadHalf>) -> Option<Report> {
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
