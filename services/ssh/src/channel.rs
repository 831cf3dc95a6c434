//! One `session` channel of a connection: what a client prepares, then what runs on it.

mod copies;
mod exec;
mod inbox;
mod interactive;
mod transfers;

pub(crate) use copies::Scp;
pub(crate) use inbox::Inbox;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelWriteHalf};
use tokio::time::timeout;
use tracing::debug;

use crate::connection::Connection;
use crate::forward::{Display, DisplayRequest};
use crate::os::account::{Account, AccountError, NO_LOGIN};
use crate::os::environment::{ClientEnvironment, Extras};
use crate::os::process::{Ended, REMOTE_COMMAND_FAILURE};
use crate::os::pty::TerminalSize;

/// How long a client may take between opening a channel and saying what to run on it.
const PREPARATION: Duration = Duration::from_secs(60);
/// How long the host may take to look up an account, which may be in a directory elsewhere.
const LOOKING_UP: Duration = Duration::from_secs(30);
/// The longest terminal name, command or environment value taken from a client.
const MAX_TEXT: usize = 128 * 1024;
/// Extended data type of the error stream, RFC 4254 §5.2.
const STDERR: u32 = 1;

/// Request that tells a client the id of the session it is in.
pub(crate) const SESSION_ID_REQUEST: &str = "current-session-id@goteleport.com";
/// Request that carries several environment entries at once.
const ENVIRONMENT_REQUEST: &str = "envs@goteleport.com";
/// Request that ends a session for all its parties.
pub(crate) const FORCE_TERMINATE_REQUEST: &str = "x-teleport-force-terminate";

/// A terminal a client asked for.
#[derive(Clone, Debug)]
pub(crate) struct TerminalRequest {
    /// Terminal type, such as `xterm`.
    pub term: String,
    /// Columns and rows.
    pub size: TerminalSize,
    /// What its keys do, and more.
    pub modes: Vec<(russh::Pty, u32)>,
}

/// What a client prepared on a channel.
#[derive(Default)]
pub(crate) struct Prepared {
    pub environment: ClientEnvironment,
    pub terminal: Option<TerminalRequest>,
    /// Socket of the client's agent.
    pub agent: Option<String>,
    /// A display for graphical programs; ends with the session.
    pub display: Option<Display>,
}

impl Prepared {
    /// What a process is told beyond what is known of every session.
    async fn extras(&self, inbox: &mut Inbox, connection: &Arc<Connection>) -> Result<Extras, Refusal> {
        let file = inbox.meanwhile(connection, connection.user_environment()).await.map_err(Refusal::failed)?;
        let display = self.display.as_ref().map(|d| d.name.clone());
        Ok(Extras { agent: self.agent.clone(), display, file })
    }
}

/// What a client wants to run.
#[derive(Debug)]
enum Wanted {
    Shell,
    Command(Vec<u8>),
    Subsystem(String),
}

/// Serves a channel to its end.
pub(crate) async fn serve(channel: Channel<Msg>, connection: Arc<Connection>) {
    mux::memory::keep();
    let (read, write) = channel.split();
    let mut inbox = Inbox::new(read);
    let mut prepared = Prepared::default();
    let wanted = match timeout(PREPARATION, prepare(&mut inbox, &write, &mut prepared, &connection)).await {
        Ok(Some(wanted)) => wanted,
        Ok(None) => return,
        Err(_) => {
            debug!("channel closed: nothing was asked of it for 60 s");
            let _ = write.close().await;
            return;
        }
    };
    let result = match wanted {
        Wanted::Shell => interactive::run(&mut inbox, &write, connection, prepared, None).await,
        Wanted::Command(line) if prepared.terminal.is_some() => {
            interactive::run(&mut inbox, &write, connection, prepared, Some(line)).await
        }
        Wanted::Command(line) => exec::run(&mut inbox, &write, connection, prepared, line).await,
        Wanted::Subsystem(name) if name == "sftp" => copies::sftp(&mut inbox, &write, connection, &prepared).await,
        Wanted::Subsystem(name) => Err(Refusal::new(format!("unrecognized subsystem: {name}"))),
    };
    if let Err(refusal) = result {
        refuse(&write, &refusal).await;
    }
}

/// Serves a channel on which nothing may run: whatever is wanted of it is refused in words.
pub(crate) async fn turn_away(channel: Channel<Msg>, message: String) {
    let (mut read, write) = channel.split();
    let wanted = async {
        loop {
            let want_reply = match read.wait().await? {
                ChannelMsg::RequestShell { .. } | ChannelMsg::Exec { .. } | ChannelMsg::RequestSubsystem { .. } => {
                    return Some(());
                }
                ChannelMsg::RequestPty { want_reply, .. }
                | ChannelMsg::SetEnv { want_reply, .. }
                | ChannelMsg::RequestX11 { want_reply, .. }
                | ChannelMsg::Request { want_reply, .. } => want_reply,
                ChannelMsg::Close => return None,
                _ => false,
            };
            if want_reply {
                write.reply(true).await.ok()?;
            }
        }
    };
    if let Ok(Some(())) = timeout(PREPARATION, wanted).await {
        refuse(&write, &Refusal::failed(message)).await;
    } else {
        let _ = write.close().await;
    }
}

/// Why nothing was run; the client reads it on its error stream.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    /// Whether the request itself was in order. Clients report the exit status of such a request, and of a refused
    /// one only that it was refused.
    in_order: bool,
    /// Whether the account does not exist.
    unknown: bool,
}

impl Refusal {
    /// Something that is not allowed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), in_order: false, unknown: false }
    }

    /// Something that is allowed and did not work.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), in_order: true, unknown: false }
    }

    /// A process that did not come to run.
    pub(crate) fn not_launched(reason: impl std::fmt::Display) -> Self {
        Self::failed(format!("Failed to launch: {reason}."))
    }

    /// Whether it is because the account does not exist.
    pub(crate) fn is_of_unknown_account(&self) -> bool {
        self.unknown
    }
}

impl From<AccountError> for Refusal {
    fn from(error: AccountError) -> Self {
        Self { unknown: matches!(error, AccountError::Unknown(_)), ..Self::failed(error.to_string()) }
    }
}

/// Answers requests until one of them says what to run; `None` when the client went away.
async fn prepare(
    inbox: &mut Inbox,
    write: &ChannelWriteHalf<Msg>,
    prepared: &mut Prepared,
    connection: &Arc<Connection>,
) -> Option<Wanted> {
    loop {
        let (want_reply, accepted) = match inbox.next().await? {
            ChannelMsg::RequestPty { want_reply, term, col_width, row_height, terminal_modes: modes, .. } => {
                let permitted = term.len() <= MAX_TEXT && !term.contains('\0');
                if permitted {
                    let size = TerminalSize::requested(col_width, row_height);
                    prepared.terminal = Some(TerminalRequest { term, size, modes });
                }
                (want_reply, permitted)
            }
            ChannelMsg::WindowChange { col_width, row_height, .. } => {
                if let Some(terminal) = &mut prepared.terminal {
                    terminal.size = TerminalSize::requested(col_width, row_height);
                }
                (false, true)
            }
            ChannelMsg::SetEnv { want_reply, variable_name, variable_value } => {
                let kept = variable_value.len() <= MAX_TEXT && prepared.environment.set(variable_name, variable_value);
                (want_reply, kept)
            }
            ChannelMsg::Request { name, want_reply, data } if name == ENVIRONMENT_REQUEST => {
                (want_reply, set_environment(&mut prepared.environment, &data))
            }
            ChannelMsg::Request { name, want_reply, data } if name == transfers::REQUEST => {
                let taken = transfers::want(connection, &prepared.environment, &data).await;
                if let Err(reason) = &taken {
                    let _ = write.extended_data_bytes(STDERR, Bytes::from(format!("{reason}\n"))).await;
                }
                (want_reply, taken.is_ok())
            }
            ChannelMsg::RequestShell { .. } => return Some(Wanted::Shell),
            ChannelMsg::Exec { command, .. } if command.len() <= MAX_TEXT => return Some(Wanted::Command(command)),
            ChannelMsg::RequestSubsystem { name, .. } => return Some(Wanted::Subsystem(name)),
            ChannelMsg::AgentForward { .. } => {
                match connection.agent_socket().await {
                    Ok(path) => prepared.agent = Some(path),
                    Err(reason) => debug!(reason, user = %connection.access.user, "agent not forwarded"),
                }
                (false, true) // answered by the connection's handler: it never fails on the wire
            }
            ChannelMsg::RequestX11 {
                want_reply,
                single_connection: single,
                x11_authentication_protocol: protocol,
                x11_authentication_cookie: cookie,
                x11_screen_number: screen,
            } => {
                let made = connection.make_display(DisplayRequest { single, protocol, cookie, screen }).await;
                if let Err(reason) = &made {
                    let _ = write.extended_data_bytes(STDERR, Bytes::from(format!("{reason}\n"))).await;
                }
                prepared.display = made.ok();
                (want_reply, prepared.display.is_some())
            }
            ChannelMsg::Request { want_reply, .. } => (want_reply, false),
            ChannelMsg::Exec { want_reply, .. } => (want_reply, false),
            ChannelMsg::Close => return None,
            _ => (false, true),
        };
        if want_reply && write.reply(accepted).await.is_err() {
            return None;
        }
        if connection.is_closed() {
            return None;
        }
    }
}

/// Reads the payload of [`ENVIRONMENT_REQUEST`]: one SSH string holding a JSON object of texts.
fn set_environment(environment: &mut ClientEnvironment, data: &[u8]) -> bool {
    let Some(object) = ssh_string(data)
        .and_then(|json| serde_json::from_slice::<std::collections::BTreeMap<String, String>>(json).ok())
    else {
        return false;
    };
    object.into_iter().all(|(name, value)| value.len() <= MAX_TEXT && environment.set(name, value))
}

/// The contents of an RFC 4251 §5 string that fills `data`.
fn ssh_string(data: &[u8]) -> Option<&[u8]> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*length) as usize == rest.len()).then_some(rest)
}

/// Refuses a request in words and closes the channel.
async fn refuse(write: &ChannelWriteHalf<Msg>, refusal: &Refusal) {
    let text = format!("{}\n", refusal.message);
    let _ = write.extended_data_bytes(STDERR, Bytes::from(text)).await;
    let _ = write.reply(refusal.in_order).await;
    let _ = write.exit_status(REMOTE_COMMAND_FAILURE).await;
    let _ = write.eof().await;
    let _ = write.close().await;
}

/// Tells the client how its process ended, and closes the channel.
async fn finish(write: &ChannelWriteHalf<Msg>, connection: &Connection, id: russh::ChannelId, ended: Ended) {
    match ended {
        Ended::Exited(code) => {
            let _ = write.exit_status(code).await;
        }
        Ended::Signalled { signal, core_dumped } => {
            let name = signal.as_str().trim_start_matches("SIG").to_owned();
            let sent = connection.handle.exit_signal_request(
                id,
                russh::Sig::Custom(name),
                core_dumped,
                String::new(),
                String::new(),
            );
            let _ = sent.await;
        }
    }
    let _ = write.eof().await;
    let _ = write.close().await;
}

/// Looks the login's account up without blocking the runtime.
pub(crate) async fn find_account(login: &str) -> Result<Account, Refusal> {
    let name = login.to_owned();
    let find = move || {
        let account = Account::find(&name)?;
        account.check_host_is_open(&NO_LOGIN)?;
        Ok::<_, AccountError>(account)
    };
    match timeout(LOOKING_UP, tokio::task::spawn_blocking(find)).await {
        Ok(Ok(found)) => Ok(found?),
        Ok(Err(_)) => Err(Refusal::new("looking up the user failed")),
        Err(_) => Err(Refusal::failed("waited 30 s for the host to look up the user")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_environment_entries_come_in_one_request() {
        let mut environment = ClientEnvironment::default();
        let json = br#"{"LANG":"C.UTF-8","TELEPORT_SESSION":"x"}"#;
        let length = u32::try_from(json.len()).unwrap_or_default();
        let mut payload = length.to_be_bytes().to_vec();
        payload.extend_from_slice(json);
        assert!(set_environment(&mut environment, &payload));
        assert_eq!(environment.get("LANG"), Some("C.UTF-8"));
    }

    #[test]
    fn a_malformed_environment_request_is_refused() {
        let mut environment = ClientEnvironment::default();
        for payload in [&b""[..], b"{}", b"\0\0\0\x05{}", b"\0\0\0\x02[]"] {
            assert!(!set_environment(&mut environment, payload));
        }
    }
}
