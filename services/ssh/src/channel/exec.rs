//! A command without a terminal.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Duration;

use audit::codes;
use bytes::{Bytes, BytesMut};
use chrono::Utc;
use nix::sys::signal::Signal;
use russh::server::Msg;
use russh::{ChannelMsg, ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;
use wire::events::{OneOf, SessionEnd};

use super::copies::{self, Scp};
use super::{Inbox, Prepared, Refusal, STDERR, finish};
use crate::audit::NodeAudit;
use crate::connection::Connection;
use crate::enhanced_recording::{Followed, Watch};
use crate::monitor::Activity;
use crate::os::environment;
use crate::os::process::{Ended, Program, REMOTE_COMMAND_FAILURE, Running, Streams, start};
use crate::record::Trail;

/// One read of the command's output: whole packets, as many as a connection writes at once.
const READ_SIZE: usize = 4 * tunnel::ssh::CHANNEL_PACKET as usize;
/// Input chunks that may wait for the command to read them.
const INPUT_QUEUE: usize = 16;
/// How long a background process may go on writing after its command ended.
const LINGERING_OUTPUT: Duration = Duration::from_secs(1);
/// How long the last words may wait for a client that does not read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs a command and relays its streams until it has ended.
pub(super) async fn run(
    inbox: &mut Inbox,
    write: &ChannelWriteHalf<Msg>,
    connection: Arc<Connection>,
    prepared: Prepared,
    line: Vec<u8>,
) -> Result<(), Refusal> {
    let session: Arc<str> = uuid::Uuid::new_v4().to_string().into();
    let command = String::from_utf8_lossy(&line).into_owned();
    let copy = Scp::parse(&command);
    if let Some((copy, reason)) = copy.as_ref().and_then(|copy| Some((copy, copies::forbidden(&connection)?))) {
        connection.audit.scp_refused(&connection, &session, &command, copy, reason).await;
        return Err(Refusal::failed(reason)); // programs that copy show what an accepted command says
    }
    connection.unattended_allowed()?;
    let account = connection.account().await?;
    let extras = prepared.extras(inbox, &connection).await?;
    let env = environment::build(&account, &connection.facts(Some(&session), None), &extras, &prepared.environment);
    let program = Program::Command(OsString::from_vec(line));
    let (mut log, entrance) = Log::of(&connection, &session).await.map_err(Refusal::new)?;
    let started = Utc::now();
    let begun = async {
        let gate = connection.gate();
        let child = start(&account, &program, &env, Streams::Pipes, gate.as_ref(), entrance);
        let child = child.map_err(|error| error.to_string())?;
        connection.let_in(inbox, &child).await?;
        Ok::<_, String>(child)
    };
    let mut child = match begun.await {
        Ok(child) => child,
        Err(reason) => {
            let failed = connection.audit.exec(&connection, Some(&session), &command, Err(reason.clone()));
            if matches!(log, Log::Trail(_)) {
                // What was begun is a whole recording.
                log.start(connection.audit.command_started(&connection, &session, &command), &connection).await;
                log.emit(failed).await;
                log.end(connection.audit.command_ended(&connection, &session, &command, started)).await;
            } else {
                log.emit(failed).await;
            }
            return Err(Refusal::not_launched(reason));
        }
    };
    log.start(connection.audit.command_started(&connection, &session, &command), &connection).await;
    let _ = write.reply(true).await;
    let ended = relay(inbox, write, &connection, &mut child, Errors::ToClient).await;
    match &copy {
        Some(copy) => connection.audit.scp(&connection, &session, &command, copy, ended.code()).await,
        None => log.emit(connection.audit.exec(&connection, Some(&session), &command, Ok(ended.code()))).await,
    }
    log.end(connection.audit.command_ended(&connection, &session, &command, started)).await;
    finish(write, &connection, write.id(), ended).await;
    Ok(())
}

/// Where the events of a command's session go.
enum Log {
    /// To the audit log.
    Audit(NodeAudit),
    /// To a recording as well, because what its processes do is recorded.
    Trail(Box<Watching>),
}

/// A session whose processes are watched.
struct Watching {
    trail: Trail,
    /// What has not been told yet, until the session's first event is.
    watch: Option<Watch>,
    followed: Option<Followed>,
}

impl Log {
    /// Where those of a session go that is about to begin, and how its process comes to be watched.
    async fn of(connection: &Connection, session: &Arc<str>) -> Result<(Self, Option<File>), String> {
        let Some(mut watch) = Watch::begin(connection, session)? else {
            return Ok((Self::Audit(connection.audit.clone()), None));
        };
        let entrance = watch.take_entrance();
        let trail = connection.node.recorder.trail(connection, session).await?;
        Ok((Self::Trail(Box::new(Watching { trail, watch: Some(watch), followed: None })), entrance))
    }

    /// The first event, before everything that the command's processes do.
    async fn start(&mut self, event: OneOf, connection: &Connection) {
        self.emit(event).await;
        if let Self::Trail(watching) = self {
            let Watching { trail, watch, followed } = watching.as_mut();
            *followed = watch.take().map(|watch| watch.follow(trail.clone(), &connection.node.tasks));
        }
    }

    async fn emit(&self, event: OneOf) {
        match self {
            Self::Audit(audit) => audit.emit(event).await,
            Self::Trail(watching) => watching.trail.record(event).await,
        }
    }

    /// The last event, after everything that the command's processes did.
    async fn end(self, event: SessionEnd) {
        match self {
            Self::Audit(audit) => audit.emit(codes::SESSION_END.event(event)).await,
            Self::Trail(watching) => {
                let Watching { trail, followed, .. } = *watching;
                if let Some(followed) = followed {
                    followed.end().await;
                }
                trail.record(codes::SESSION_END.event(SessionEnd { enhanced_recording: true, ..event })).await;
                trail.finish().await;
            }
        }
    }
}

/// What happens to a process's error stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errors {
    /// The client reads it.
    ToClient,
    /// Somebody else has taken it.
    Elsewhere,
}

/// Copies input, output and errors until the command ended and its output was delivered.
pub(super) async fn relay(
    inbox: &mut Inbox,
    write: &ChannelWriteHalf<Msg>,
    connection: &Connection,
    child: &mut Running,
    errors: Errors,
) -> Ended {
    let mut input = child.stdin.take().map(|stdin| feed(stdin, &connection.node.tasks));
    let stdout = child.stdout.take();
    let stderr = child.stderr.take().filter(|_| errors == Errors::ToClient);
    let activity = &connection.activity;
    let output = async {
        tokio::join!(pump(stdout, write, None, activity), pump(stderr, write, Some(STDERR), activity));
    };
    tokio::pin!(output);
    let ending = connection.ending();
    tokio::pin!(ending);
    let (mut exited, mut drained, mut deadline) = (None, false, None);
    // Input that the command's queue has no room for: nothing more is read then, and output goes on.
    let mut waiting: Option<Bytes> = None;
    loop {
        tokio::select! {
            words = &mut ending => {
                // A client that reads nothing does not keep the command from being ended.
                let said = write.extended_data_bytes(STDERR, Bytes::from(format!("{words}\r\n")));
                let (_, ()) = tokio::join!(timeout(LAST_WORDS, said), abandon(child));
                return Ended::Exited(REMOTE_COMMAND_FAILURE);
            }
            room = has_room(input.clone()), if waiting.is_some() => match (room, waiting.take()) {
                (Some(room), Some(data)) => drop(room.send(data)),
                _ => input = None, // the command closed its input
            },
            status = child.wait(), if exited.is_none() => {
                exited = Some(status);
                input = None;
                deadline = Some(Instant::now() + LINGERING_OUTPUT);
            }
            () = &mut output, if !drained => drained = true,
            () = wait_until(deadline), if deadline.is_some() => drained = true,
            message = inbox.next(), if waiting.is_none() => match message {
                Some(ChannelMsg::Data { data }) => {
                    activity.touch();
                    waiting = input.is_some().then_some(data);
                }
                Some(ChannelMsg::Eof) => input = None,
                Some(ChannelMsg::Signal { signal }) => forward_signal(child, &signal),
                Some(ChannelMsg::Request { want_reply: true, .. }) => {
                    let _ = write.reply(false).await;
                }
                Some(ChannelMsg::Close) | None => {
                    abandon(child).await;
                    return exited.unwrap_or(Ended::Exited(REMOTE_COMMAND_FAILURE));
                }
                Some(_) => {}
            },
        }
        if let (Some(ended), true) = (exited, drained) {
            return ended;
        }
    }
}

/// Waits for room in the command's queue; `None` when it takes no more input.
async fn has_room(input: Option<mpsc::Sender<Bytes>>) -> Option<mpsc::OwnedPermit<Bytes>> {
    input?.reserve_owned().await.ok()
}

/// A task of its own for the command's input, so that a command that does not read cannot stop its output.
fn feed(mut stdin: pipe::Sender, tasks: &TaskTracker) -> mpsc::Sender<Bytes> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(INPUT_QUEUE);
    tasks.spawn(async move {
        while let Some(data) = receiver.recv().await {
            if stdin.write_all(&data).await.is_err() {
                break;
            }
        }
    });
    sender
}

/// Copies one output stream to the channel.
async fn pump(
    stream: Option<impl AsyncRead + Unpin>,
    write: &ChannelWriteHalf<Msg>,
    extended: Option<u32>,
    activity: &Activity,
) {
    let Some(mut stream) = stream else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_SIZE);
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => activity.touch(),
        }
        let data = buffer.split().freeze();
        let sent = match extended {
            None => write.data_bytes(data).await,
            Some(kind) => write.extended_data_bytes(kind, data).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The client went away: the command is told, and ended when it does not listen.
async fn abandon(child: &mut Running) {
    child.signal(Signal::SIGHUP);
    if tokio::time::timeout(Duration::from_secs(3), child.wait()).await.is_err() {
        child.signal(Signal::SIGKILL);
        let _ = child.wait().await;
    }
}

/// Hands a signal named as in RFC 4254 §6.9 to the command.
fn forward_signal(child: &Running, signal: &Sig) {
    if let Ok(signal) = format!("SIG{}", signal_name(signal)).parse::<Signal>() {
        child.signal(signal);
    }
}

fn signal_name(signal: &Sig) -> &str {
    match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
