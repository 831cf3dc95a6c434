//! A shell or command on a terminal: a session that may be joined, and that is recorded.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use bytes::Bytes;
use russh::server::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::{
    FORCE_TERMINATE_REQUEST, Prepared, Refusal, SESSION_ID_REQUEST, STDERR, TerminalRequest, find_account, finish,
};
use crate::connection::{Connection, JOIN_LOGIN};
use crate::os::environment;
use crate::os::process::{Ended, Program, REMOTE_COMMAND_FAILURE, Streams, start};
use crate::os::pty::{Pty, TerminalSize};
use crate::session::{Command, Launch, Notice, Outcome, Party, PartyHandle, PartyMode, SessionActor, SessionHandle};

/// Environment entry in which a client names the session it wants to join.
const JOIN_SESSION: &str = "TELEPORT_SESSION";
/// Environment entry in which a client says how it wants to join.
const JOIN_MODE: &str = "TELEPORT_SSH_JOIN_MODE";
/// Requests that may wait for a session to take them.
const COMMAND_QUEUE: usize = 64;

/// Starts a session, or joins the one the client named, and relays it to this channel.
pub(super) async fn run(
    read: &mut ChannelReadHalf,
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
        Some(session) => join(&connection, &prepared, session).await?,
        None if connection.access.login == JOIN_LOGIN => {
            return Err(Refusal::new(
                "join-only mode was used to create this connection but attempted to create a new session.",
            ));
        }
        None => launch(&connection, &prepared, line).await?,
    };
    let _ = write.reply(true).await;
    let id = Bytes::copy_from_slice(session.id.as_bytes());
    let _ = write.request(SESSION_ID_REQUEST, false, id).await;
    relay(read, write, &connection, &session, party).await;
    Ok(())
}

/// Becomes a party of a live session.
async fn join(
    connection: &Connection,
    prepared: &Prepared,
    session: SessionHandle,
) -> Result<(SessionHandle, PartyHandle), Refusal> {
    let mode_name = prepared.environment.get(JOIN_MODE).unwrap_or("peer");
    let mode =
        PartyMode::parse(mode_name).ok_or_else(|| Refusal::new(format!("unknown participant mode {mode_name:?}")))?;
    let access = &connection.access;
    if access.login != JOIN_LOGIN && access.login.as_str() != &*session.login {
        let message =
            format!("can't switch users from {} to {} for session {}", session.login, access.login, session.id);
        return Err(Refusal::new(message));
    }
    if !access.may_join(&session, mode) {
        return Err(Refusal::new(format!("insufficient permissions to join session {}", session.id)));
    }
    let (party, handle) = Party::new(connection.node.sessions.next_party(), access.user.clone(), mode);
    let gone = || Refusal::new(format!("session {} has ended", session.id));
    session.commands.send(Command::Join(party)).await.map_err(|_| gone())?;
    Ok((session, handle))
}

/// Starts a session of its own.
async fn launch(
    connection: &Arc<Connection>,
    prepared: &Prepared,
    line: Option<Vec<u8>>,
) -> Result<(SessionHandle, PartyHandle), Refusal> {
    connection.unattended_allowed()?;
    let node = &connection.node;
    let account = find_account(&connection.access.login).await?;
    let id: Arc<str> = Uuid::new_v4().to_string().into();
    let default = TerminalRequest { term: "xterm".into(), size: TerminalSize::requested(80, 25) };
    let terminal = prepared.terminal.as_ref().unwrap_or(&default);
    let mut pty = Pty::open(terminal.size, &account).map_err(|e| Refusal::new(format!("opening a terminal: {e}")))?;
    let facts = connection.facts(Some(&id), Some((&terminal.term, pty.path())));
    let env = environment::build(&account, &facts, &prepared.environment);
    let command = line.as_ref().map(|l| String::from_utf8_lossy(l).into_owned()).unwrap_or_default();
    let program = line.map_or(Program::Shell, |l| Program::Command(OsString::from_vec(l)));

    // Nothing runs before its recording can be kept.
    let mut observer = node.recorder.begin(connection, &id, terminal, &command).await.map_err(Refusal::new)?;
    let slave = pty.slave().map_err(|e| Refusal::new(format!("opening a terminal: {e}")))?;
    let child = match start(&account, &program, &env, Streams::Terminal(slave)) {
        Ok(child) => child,
        Err(error) => {
            observer.finish(Outcome::Terminated).await;
            return Err(Refusal::new(format!("Failed to launch: {error}.")));
        }
    };
    pty.release_slave();

    let (commands, commands_rx) = mpsc::channel(COMMAND_QUEUE);
    if connection.access.permit.options.ssh_recording == rbac::Strictness::Strict {
        observer.on_failure(commands.clone());
    }
    let (size, size_rx) = watch::channel(terminal.size);
    let access = &connection.access;
    let (party, party_handle) = Party::new(node.sessions.next_party(), access.user.clone(), PartyMode::Peer);
    let session = SessionHandle {
        id,
        login: access.login.as_str().into(),
        owner: access.user.as_str().into(),
        policies: access.roles.session_policies().into(),
        commands,
        size: size_rx,
    };
    let registration = node.sessions.register(session.clone());
    let actor = SessionActor::new(Launch { pty, child }, party, commands_rx, size, observer);
    node.tasks.spawn(async move {
        let (observer, outcome) = actor.run().await;
        drop(registration);
        observer.finish(outcome).await;
    });
    Ok((session, party_handle))
}

/// Copies between the channel and the session until either ends.
async fn relay(
    read: &mut ChannelReadHalf,
    write: &ChannelWriteHalf<Msg>,
    connection: &Connection,
    session: &SessionHandle,
    mut party: PartyHandle,
) {
    let id = party.id;
    let outcome = loop {
        tokio::select! {
            biased;
            notice = party.notices.recv() => match notice {
                Some(notice) => {
                    if !tell(write, connection, session, notice).await {
                        break None;
                    }
                }
                // The session dropped its end: what remains is how it ended.
                None => break (&mut party.end).await.ok(),
            },
            message = read.wait() => match message {
                None | Some(ChannelMsg::Close) => break None,
                Some(message) => {
                    if !obey(write, session, id, message).await {
                        break None;
                    }
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
            let _ = session.commands.send(Command::Leave { party: id }).await; // a session that has ended needs no word
            let _ = write.close().await;
        }
    }
}

/// Passes on what the session says; false when the channel is gone.
async fn tell(write: &ChannelWriteHalf<Msg>, connection: &Connection, session: &SessionHandle, notice: Notice) -> bool {
    match notice {
        Notice::Output(data) => write.data_bytes(data).await.is_ok(),
        Notice::Message(text) => write.extended_data_bytes(STDERR, Bytes::from(text + "\r\n")).await.is_ok(),
        Notice::Resized(size) => {
            connection.announce_size(&session.id, size).await;
            true
        }
    }
}

/// Passes on what the client asks; false when the session is gone.
async fn obey(write: &ChannelWriteHalf<Msg>, session: &SessionHandle, party: u64, message: ChannelMsg) -> bool {
    let command = match message {
        ChannelMsg::Data { data } => Command::Input { party, data },
        ChannelMsg::WindowChange { col_width, row_height, .. } => {
            Command::Resize { party, size: TerminalSize::requested(col_width, row_height) }
        }
        ChannelMsg::Request { name, want_reply, .. } => {
            let terminate = name == FORCE_TERMINATE_REQUEST;
            if want_reply {
                let _ = write.reply(terminate).await;
            }
            if !terminate {
                return true;
            }
            Command::Terminate { by: Some(party), reason: "Forcefully terminating session...".into() }
        }
        _ => return true,
    };
    session.commands.send(command).await.is_ok()
}
