//! A shell or command on a terminal: a session that may be joined, and that is recorded.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rbac::JoinMode;
use russh::server::Msg;
use russh::{ChannelMsg, ChannelWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::transfers;
use super::{FORCE_TERMINATE_REQUEST, Inbox, Prepared, Refusal, SESSION_ID_REQUEST, STDERR, TerminalRequest, finish};
use crate::audit::connection_metadata;
use crate::connection::{Connection, JOIN_LOGIN};
use crate::enhanced_recording::Watch;
use crate::os::account::Account;
use crate::os::accounting::LoggedIn;
use crate::os::environment;
use crate::os::process::{Ended, Program, REMOTE_COMMAND_FAILURE, Streams, start};
use crate::os::pty::{Pty, TerminalSize};
use crate::record::{Beginning, SessionObserver};
use crate::session::{
    By, Command, Launch, Moderation, Notice, Outcome, Party, PartyHandle, Process, SessionActor, SessionHandle, Setup,
    Starter, Typed,
};

/// Environment entry in which a client names the session it wants to join.
const JOIN_SESSION: &str = "TELEPORT_SESSION";
/// Environment entry in which a client says how it wants to join.
const JOIN_MODE: &str = "TELEPORT_SSH_JOIN_MODE";
/// Environment entry in which a client says why it holds a session.
const REASON: &str = "TELEPORT_SESSION_REASON";
/// Environment entry in which a client asks to be shown who has to be present.
const SHOW_REQUIREMENTS: &str = "TELEPORT_SESSION_PARTICIPANT_REQUIREMENTS";
/// Environment entry in which a client names whom it invites.
const INVITED: &str = "TELEPORT_SESSION_INVITED_USERS";
/// The most that are invited.
const MAX_INVITED: usize = 100;
/// How long a session may take to let somebody in.
const JOINING: Duration = Duration::from_secs(30);
/// Requests that may wait for a session to take them.
const COMMAND_QUEUE: usize = 64;

/// Starts a session, or joins the one the client named, and relays it to this channel.
pub(super) async fn run(
    inbox: &mut Inbox,
    write: &ChannelWriteHalf<Msg>,
    connection: Arc<Connection>,
    prepared: Prepared,
    line: Option<Vec<u8>>,
) -> Result<(), Refusal> {
    let named = prepared.environment.get(JOIN_SESSION).unwrap_or_default();
    if !named.is_empty() && Uuid::parse_str(named).is_err() {
        return Err(Refusal::new("unable to update context: invalid session ID"));
    }
    let (session, party) = match connection.node.sessions.find(named) {
        Some(session) => join(inbox, &connection, &prepared, session).await?,
        None if connection.access.login == JOIN_LOGIN => {
            return Err(Refusal::new(
                "join-only mode was used to create this connection but attempted to create a new session.",
            ));
        }
        None => launch(inbox, &connection, &prepared, line).await?,
    };
    let _ = write.reply(true).await;
    let id = Bytes::copy_from_slice(session.id.as_bytes());
    let _ = write.request(SESSION_ID_REQUEST, false, id).await;
    relay(inbox, write, &connection, &session, party).await;
    Ok(())
}

/// Becomes a party of a live session.
async fn join(
    inbox: &mut Inbox,
    connection: &Connection,
    prepared: &Prepared,
    session: SessionHandle,
) -> Result<(SessionHandle, PartyHandle), Refusal> {
    if connection.node.records_at_proxy() {
        return Err(Refusal::new("session joining is not supported in proxy recording mode"));
    }
    let mode_name = prepared.environment.get(JOIN_MODE).filter(|m| !m.is_empty()).unwrap_or("peer");
    let mode = JoinMode::from_name(mode_name)
        .ok_or_else(|| Refusal::new(format!("unknown participant mode {mode_name:?}")))?;
    let access = &connection.access;
    if access.login != JOIN_LOGIN && access.login.as_str() != &*session.login {
        let message =
            format!("can't switch users from {} to {} for session {}", session.login, access.login, session.id);
        return Err(Refusal::new(message));
    }
    if !access.may_join(&session, mode) {
        return Err(Refusal::new(format!("insufficient permissions to join session {}", session.id)));
    }
    let who = access.who(mode, &session.login, connection_metadata(connection.client, connection.server));
    let (party, handle) = Party::new(connection.node.sessions.next_party(), who);
    let joined = timeout(JOINING, session.commands.send(Command::Join(Box::new(party))));
    match inbox.meanwhile(connection, joined).await.map_err(Refusal::failed)? {
        Ok(Ok(())) => Ok((session, handle)),
        Ok(Err(_)) => Err(Refusal::new(format!("session {} has ended", session.id))),
        Err(_) => Err(Refusal::failed(format!("session {} lets nobody in at the moment", session.id))),
    }
}

/// Starts a session of its own.
async fn launch(
    inbox: &mut Inbox,
    connection: &Arc<Connection>,
    prepared: &Prepared,
    line: Option<Vec<u8>>,
) -> Result<(SessionHandle, PartyHandle), Refusal> {
    let node = &connection.node;
    let access = &connection.access;
    let moderation = access.moderation(prepared.environment.get(SHOW_REQUIREMENTS) == Some("true"));
    if moderation.is_some() && node.records_at_proxy() {
        return Err(Refusal::new("session requires additional moderation but is in proxy-record mode"));
    }
    let account = connection.account().await?;
    let home = account.home.clone();
    let id: Arc<str> = Uuid::new_v4().to_string().into();
    let default = TerminalRequest { term: "xterm".into(), size: TerminalSize::requested(80, 25), modes: Vec::new() };
    let terminal = prepared.terminal.as_ref().unwrap_or(&default);
    let mut pty = Pty::open(terminal, &account).map_err(|e| Refusal::new(format!("opening a terminal: {e}")))?;
    let facts = connection.facts(Some(&id), Some((&terminal.term, pty.path())));
    let extras = prepared.extras(inbox, connection).await?;
    let env = environment::build(&account, &facts, &extras, &prepared.environment);
    let command = line.as_ref().map(|l| String::from_utf8_lossy(l).into_owned()).unwrap_or_default();
    let program = line.map_or(Program::Shell, |l| Program::Command(OsString::from_vec(l)));

    // Nothing runs before its recording can be kept.
    let number = node.sessions.next_party();
    let mut watch = Watch::begin(connection, &id).map_err(Refusal::new)?;
    let entrance = watch.as_mut().and_then(Watch::take_entrance);
    let beginning = Beginning {
        id: &id,
        terminal,
        command: &command,
        party: number,
        pending: moderation.is_some(),
        reason: prepared.environment.get(REASON).unwrap_or_default(),
        invited: invited(prepared),
        watch,
    };
    let observer = node.recorder.begin(connection, beginning).await.map_err(Refusal::new)?;
    let entering = Entering::default();
    let start = starter(connection, ToRun { account, program, env, entrance }, entering.clone());
    let process = if moderation.is_some() {
        Process::Waiting(start)
    } else {
        match start(&mut pty) {
            Ok(child) => Process::Started(Box::new(child)),
            Err(error) => {
                observer.finish(Outcome::Terminated).await;
                return Err(Refusal::not_launched(error));
            }
        }
    };
    if matches!(process, Process::Started(_)) {
        pty.release_slave();
    }
    let launch = Launch { pty, process };
    Ok(hold(connection, Begun { id, number, size: terminal.size, home, launch, moderation, observer, entering }))
}

/// What runs at a session's terminal.
struct ToRun {
    account: Account,
    program: Program,
    env: BTreeMap<String, String>,
    entrance: Option<File>,
}

/// Who enters a session into the host's records, once its process is to start.
type Entering = Arc<Mutex<Option<JoinHandle<Option<LoggedIn>>>>>;

/// How a session's process is started.
fn starter(connection: &Arc<Connection>, to_run: ToRun, entering: Entering) -> Starter {
    let connection = connection.clone();
    Box::new(move |pty| {
        let ToRun { account, program, env, entrance } = to_run;
        let gate = connection.gate();
        let child = start(&account, &program, &env, Streams::Terminal(pty.slave()?), gate.as_ref(), entrance)?;
        let (begun, path) = (child.begun(), pty.path().to_owned());
        let tasks = connection.node.tasks.clone();
        *entering.lock() = Some(tasks.spawn(async move {
            let process = connection.let_in_when(begun).await.ok().flatten()?;
            LoggedIn::begin(&account.name, &path, process, connection.client)
        }));
        Ok(child)
    })
}

/// A session that is about to be held.
struct Begun {
    id: Arc<str>,
    /// Number of its first party.
    number: u64,
    size: TerminalSize,
    home: PathBuf,
    launch: Launch,
    moderation: Option<Moderation>,
    observer: SessionObserver,
    entering: Entering,
}

/// Holds a session, which others find from now on, in a task of its own.
fn hold(connection: &Connection, begun: Begun) -> (SessionHandle, PartyHandle) {
    let Begun { id, number, size, home, launch, moderation, mut observer, entering } = begun;
    let (node, access) = (&connection.node, &connection.access);
    let (commands, commands_rx) = mpsc::channel(COMMAND_QUEUE);
    let (typed, typed_rx) = mpsc::channel(COMMAND_QUEUE);
    if access.permit.options.ssh_recording == rbac::Strictness::Strict {
        observer.on_failure(commands.clone());
    }
    let (size, size_rx) = watch::channel(size);
    let who = access.who(JoinMode::Peer, &access.login, connection_metadata(connection.client, connection.server));
    let (creator, party_handle) = Party::new(number, who);
    let session = SessionHandle {
        id: id.clone(),
        connection: connection.id,
        login: access.login.as_str().into(),
        owner: access.local_name.as_str().into(),
        policies: access.roles.session_policies().into(),
        commands,
        typed,
        size: size_rx,
    };
    let registration = node.sessions.register(session.clone());
    if let Some(words) = connection.last_words() {
        // The connection was ended while this was prepared: nobody else tells the session.
        let _ = session.commands.try_send(Command::Terminate { by: None, reason: words.to_string() }); // there is room
    }
    let actor = SessionActor::new(Setup {
        id: id.to_string(),
        hostname: node.config.hostname.clone(),
        home,
        launch,
        creator,
        commands: commands_rx,
        typed: typed_rx,
        size,
        moderation,
        observer,
    });
    node.tasks.spawn(async move {
        let (observer, outcome) = actor.run().await;
        drop(registration);
        observer.finish(outcome).await;
        let entering = entering.lock().take();
        if let Some(entering) = entering
            && let Ok(Some(logged_in)) = entering.await
        {
            logged_in.end().await;
        }
    });
    (session, party_handle)
}

/// Whom the owner of a session invites: a JSON list of names, bounded.
fn invited(prepared: &Prepared) -> Vec<String> {
    let text = prepared.environment.get(INVITED).unwrap_or_default();
    let mut names: Vec<String> = serde_json::from_str(text).unwrap_or_default();
    names.truncate(MAX_INVITED);
    names
}

/// Copies between the channel and the session until either ends.
async fn relay(
    inbox: &mut Inbox,
    write: &ChannelWriteHalf<Msg>,
    connection: &Connection,
    session: &SessionHandle,
    mut party: PartyHandle,
) {
    let id = party.id;
    let ending = connection.ending();
    tokio::pin!(ending);
    // Typed text that the session has no room for: nothing more is read then, and its output goes on.
    let mut waiting: Option<Bytes> = None;
    let outcome = loop {
        tokio::select! {
            biased;
            // Sessions that began here are told by the session itself.
            words = &mut ending, if session.connection != connection.id => {
                let _ = write.extended_data_bytes(STDERR, Bytes::from(format!("{words}\r\n"))).await;
                break None;
            }
            notice = party.notices.recv() => match notice {
                Some(notice) => {
                    if !tell(write, connection, session, notice).await {
                        break None;
                    }
                }
                // The session dropped its end: what remains is how it ended.
                None => break (&mut party.end).await.ok(),
            },
            room = session.typed.reserve(), if waiting.is_some() => match (room, waiting.take()) {
                (Ok(room), Some(data)) => room.send(Typed { party: id, data }),
                _ => break (&mut party.end).await.ok(),
            },
            message = inbox.next(), if waiting.is_none() => match message {
                None | Some(ChannelMsg::Close) => break None,
                Some(ChannelMsg::Data { data }) => {
                    connection.activity.touch();
                    waiting = Some(data);
                }
                Some(message) => {
                    connection.activity.touch();
                    obey(write, session, id, message).await;
                }
            },
        }
    };
    match outcome {
        Some(Outcome::Process(ended)) => finish(write, connection, write.id(), ended).await,
        Some(Outcome::Terminated) => {
            finish(write, connection, write.id(), Ended::Exited(REMOTE_COMMAND_FAILURE)).await;
        }
        None => {
            drop(party); // the session must not wait for this party to read
            let _ = session.commands.send(Command::Leave { party: id }).await; // a session that has ended needs no word
            let _ = write.close().await;
        }
    }
}

/// Passes on what the session says; false when the channel is gone.
async fn tell(write: &ChannelWriteHalf<Msg>, connection: &Connection, session: &SessionHandle, notice: Notice) -> bool {
    match notice {
        Notice::Output(data) => {
            connection.activity.touch();
            write.data_bytes(data).await.is_ok()
        }
        Notice::Message(text) => write.extended_data_bytes(STDERR, Bytes::from(text + "\r\n")).await.is_ok(),
        Notice::Event(event) => {
            connection.announce(&event).await;
            true
        }
        Notice::Resized(size) => {
            connection.announce_size(&session.id, size).await;
            true
        }
    }
}

/// Passes on what the client asks. A session that is behind misses a change of size, and sees the next.
async fn obey(write: &ChannelWriteHalf<Msg>, session: &SessionHandle, party: u64, message: ChannelMsg) {
    let command = match message {
        ChannelMsg::WindowChange { col_width, row_height, .. } => {
            Command::Resize { party, size: TerminalSize::requested(col_width, row_height) }
        }
        ChannelMsg::Request { name, want_reply, data } => {
            let command = match name.as_str() {
                FORCE_TERMINATE_REQUEST => {
                    let reason = "Forcefully terminating session...".into();
                    Some(Command::Terminate { by: Some(party), reason })
                }
                transfers::REQUEST => transfers::wanted(&data).map(|request| Command::WantTransfer {
                    by: By::Party(party),
                    request,
                    answer: None,
                }),
                transfers::DECISION => {
                    transfers::decided(&data).map(|(id, approved)| Command::DecideTransfer { party, id, approved })
                }
                _ => None,
            };
            if want_reply {
                let _ = write.reply(command.is_some()).await;
            }
            let Some(command) = command else { return };
            command
        }
        _ => return,
    };
    let _ = session.commands.try_send(command);
}
