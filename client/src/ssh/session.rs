//! Running a command or a shell on a host.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::escape::{self, Escape, Keys};
use super::forward::{Agent, X11, X11_PROTOCOL};
use super::guest::{Ear, Heard};
use super::stdio::{Input, Output};
use super::transfers::Transfers;
use super::{SshConnection, SshError};
use crate::error::{Error, Result};
use crate::terminal::{self, RawMode, Size};

/// Request for several variables at once, which servers of a cluster know.
pub(super) const ENVIRONMENT_REQUEST: &str = "envs@goteleport.com";
/// Request that ends a session for all participants.
const TERMINATE_REQUEST: &str = "x-teleport-force-terminate";
/// Request that approves or denies a file transfer.
const DECISION_REQUEST: &str = "file-transfer-decision@goteleport.com";
/// What is shown when the host does not forward X11.
const X11_REFUSED: &[u8] = b"X11 forwarding was refused by the host: it or your roles do not allow it\r\n";
/// Number of extended data that is standard error (RFC 4254 §5.2).
const STDERR: u32 = 1;
/// The exit code that shells give for a command ended by a signal is this plus the signal's number.
const SIGNALLED: u8 = 128;
/// The size of a terminal that does not know its own.
const DEFAULT_SIZE: Size = Size { columns: 80, rows: 25 };

/// What is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// A command line, for the account's shell.
    Command(String),
    /// The account's login shell.
    Shell,
}

/// A session to open.
#[derive(Clone, Debug)]
pub struct SessionRequest {
    /// What is to run.
    pub run: Run,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Variables for it.
    pub environment: Vec<(String, String)>,
    /// What becomes of what the user types, on a terminal.
    pub typing: Typing,
    /// The agent that it may use.
    pub agent: Option<Agent>,
    /// The display that it may use.
    pub x11: Option<Arc<X11>>,
}

impl SessionRequest {
    /// A command without a terminal, an agent or a display.
    pub fn command(command: String, environment: Vec<(String, String)>) -> Self {
        let typing = Typing::Free { escapes: false };
        Self { run: Run::Command(command), terminal: false, environment, typing, agent: None, x11: None }
    }
}

/// What becomes of what the user types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typing {
    /// It is for the session.
    Free {
        /// Whether `~` sequences are recognised in it.
        escapes: bool,
    },
    /// Nothing of it is for the session; Ctrl-C leaves.
    Observer,
    /// The same, and `t` ends the session for all, `y` and `n` approve and deny file transfers.
    Moderator,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With an exit status.
    Status(u32),
    /// By a signal with this number; 0 if the number is not known.
    Signal(u8),
    /// The user left.
    Left,
}

/// Where a session's streams lead.
pub struct Streams {
    /// For its standard input.
    pub input: Input,
    /// For its standard output.
    pub output: Output,
    /// For its standard error.
    pub errors: Output,
}

impl Exit {
    /// The exit code of a program that stands for the session.
    pub fn code(&self) -> u8 {
        match self {
            Self::Status(status) => u8::try_from(*status).unwrap_or(u8::MAX),
            Self::Signal(number) => SIGNALLED + number,
            Self::Left => 0,
        }
    }
}

impl Streams {
    /// The standard streams of this process.
    pub fn standard() -> Self {
        Self { input: Input::stdin(), output: Output::stdout(), errors: Output::stderr() }
    }
}

/// What a session needs to know about its environment: the proxy, a session's id, the user's language.
pub fn environment(web_proxy: &str, session: &str) -> Vec<(String, String)> {
    let language =
        ["LANG", "LANGUAGE"].into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
    let own = [("SSH_SESSION_WEBPROXY_ADDR", web_proxy), ("TELEPORT_SESSION", session)];
    language.chain(own.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

/// Runs a session with the given streams. With a terminal, the terminal of this process is put into raw mode
/// meanwhile.
pub async fn run(connection: &SshConnection, request: &SessionRequest, streams: Streams) -> Result<Exit> {
    let channel = connection.session().await?;
    let (reader, writer) = channel.split();
    let writer = Arc::new(writer);
    let lost = |error: russh::Error| SshError::Lost { host: connection.host().name.clone(), reason: error.to_string() };
    begin(connection, request, &writer).await.map_err(lost)?;
    let mut session = Session {
        host: connection.host().name.clone(),
        reader,
        writer,
        output: streams.output,
        errors: streams.errors,
        exit: None,
        refused: false,
        ear: connection.ear.clone(),
        transfers: Transfers::default(),
        answers: [request.x11.as_ref().map(|_| Asked::X11), Some(Asked::Start)].into_iter().flatten().collect(),
    };
    let ended = if request.terminal {
        session.interactive(streams.input, request).await
    } else {
        session.plain(streams.input).await
    };
    ended?;
    session.finish().await
}

/// Sends everything that leads up to the session, without waiting for answers in between.
async fn begin(
    connection: &SshConnection,
    request: &SessionRequest,
    writer: &ChannelWriteHalf<Msg>,
) -> Result<(), russh::Error> {
    if let Some(x11) = &request.x11 {
        connection.admitted.lock().x11 = Some(x11.clone());
        writer.request_x11(true, false, X11_PROTOCOL, x11.cookie(), x11.screen()).await?;
    }
    if connection.is_of_cluster() {
        writer.request(ENVIRONMENT_REQUEST, false, variables(&request.environment)).await?;
    } else {
        for (name, value) in &request.environment {
            writer.set_env(false, name.as_str(), value.as_str()).await?;
        }
    }
    if let Some(agent) = &request.agent {
        connection.admitted.lock().agent = Some(agent.clone());
        writer.agent_forward(false).await?;
    }
    if request.terminal {
        let Size { columns, rows } = current_size();
        let kind = std::env::var("TERM").ok().filter(|term| !term.is_empty());
        let kind = kind.as_deref().unwrap_or("xterm");
        let modes = tunnel::modes::of(io::stdin().as_fd());
        writer.request_pty(false, kind, columns.into(), rows.into(), 0, 0, &modes).await?;
    }
    match &request.run {
        Run::Command(command) => writer.exec(true, command.as_str()).await,
        Run::Shell => writer.request_shell(true).await,
    }
}

/// The payload of [`ENVIRONMENT_REQUEST`]: an SSH string that is a JSON object.
pub(super) fn variables(environment: &[(String, String)]) -> Bytes {
    let object: serde_json::Map<_, _> =
        environment.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    ssh_string(serde_json::Value::Object(object).to_string().as_bytes()).freeze()
}

/// A string of RFC 4251 §5, with room for a little more.
pub(super) fn ssh_string(text: &[u8]) -> BytesMut {
    let mut payload = BytesMut::with_capacity(text.len() + 8);
    payload.put_u32(u32::try_from(text.len()).unwrap_or_default());
    payload.put_slice(text);
    payload
}

/// The size of the terminal this process is on.
fn current_size() -> Size {
    terminal::size(io::stdout().as_fd()).or_else(|| terminal::size(io::stdin().as_fd())).unwrap_or(DEFAULT_SIZE)
}

/// A session that runs.
struct Session {
    host: String,
    reader: ChannelReadHalf,
    writer: Arc<ChannelWriteHalf<Msg>>,
    output: Output,
    errors: Output,
    exit: Option<Exit>,
    /// Whether the server did not begin what was asked.
    refused: bool,
    /// Requests that wait for their answers, in the order in which those come.
    answers: VecDeque<Asked>,
    ear: Ear,
    /// File transfers that others want in the session.
    transfers: Transfers,
}

/// Has a session hear what the server tells, as long as it lives.
struct Listening<'a>(&'a Ear);

impl<'a> Listening<'a> {
    fn begin(ear: &'a Ear, teller: mpsc::Sender<Heard>) -> Self {
        *ear.lock() = Some(teller);
        Self(ear)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// What the server is asked for with an answer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// To forward X11.
    X11,
    /// To begin the session.
    Start,
}

/// Whether a session goes on after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Continue,
    End,
}

impl Session {
    /// Without a terminal: input until it ends, output until the channel is closed.
    async fn plain(&mut self, mut input: Input) -> Result<()> {
        let writer = self.writer.clone();
        let _upload = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(bytes) = input.next().await {
                if writer.data_bytes(bytes).await.is_err() {
                    return;
                }
            }
            // The server may have closed the channel already.
            let _ = writer.eof().await;
        }));
        while let Some(message) = self.reader.wait().await {
            if self.take(message).await? == Then::End {
                break;
            }
        }
        Ok(())
    }

    /// With the user's terminal.
    async fn interactive(&mut self, input: Input, request: &SessionRequest) -> Result<()> {
        let mut signals = Signals::new()?;
        let _raw = io::stdin().is_terminal().then(|| RawMode::enter(io::stdin())).transpose();
        let _raw = _raw.map_err(Error::io("changing the terminal's mode"))?;
        let (wishes, mut wanted) = mpsc::channel(4);
        let keyboard = Keyboard { writer: self.writer.clone(), wishes, typing: request.typing };
        let _keyboard = AbortOnDropHandle::new(tokio::spawn(keyboard.run(input)));
        let (teller, mut news) = mpsc::channel(8);
        let ear = self.ear.clone();
        let _listening = Listening::begin(&ear, teller);
        loop {
            tokio::select! {
                message = self.reader.wait() => match message {
                    Some(message) => if self.take(message).await? == Then::End { return Ok(()) },
                    None => return Ok(()),
                },
                Some(wish) = wanted.recv() => match wish {
                    Escape::Disconnect => {
                        self.exit = Some(Exit::Left);
                        return Ok(());
                    }
                    Escape::Help => self.show(escape::HELP).await?,
                    Escape::Terminate => {
                        self.show("\r\nForcefully terminating session\r\n").await?;
                        let asked = self.writer.request(TERMINATE_REQUEST, false, Bytes::new()).await;
                        asked.map_err(|error| SshError::Lost { host: self.host.clone(), reason: error.to_string() })?;
                    }
                    Escape::Approve => self.decide(true).await?,
                    Escape::Deny => self.decide(false).await?,
                },
                Some(heard) = news.recv() => match heard {
                    Heard::TransferWanted(transfer) => {
                        if self.transfers.wanted(transfer) && request.typing == Typing::Moderator {
                            self.ask_moderator().await?;
                        }
                    }
                    Heard::TransferDecided(id) => {
                        if self.transfers.decided(&id, Instant::now()) && request.typing == Typing::Moderator {
                            self.ask_moderator().await?;
                        }
                    }
                    Heard::Presence => {}
                },
                notice = signals.next() => match notice {
                    Notice::Resized => {
                        let Size { columns, rows } = current_size();
                        // A connection that is gone says so to the reader.
                        let _ = self.writer.window_change(columns.into(), rows.into(), 0, 0).await;
                    }
                    Notice::End => {
                        self.exit = Some(Exit::Signal(signal_number(&Sig::TERM)));
                        return Ok(());
                    }
                },
            }
        }
    }

    /// Approves or denies the file transfer that was shown, if there is one; then the next is.
    async fn decide(&mut self, approved: bool) -> Result<()> {
        let Some(id) = self.transfers.take(Instant::now()) else { return Ok(()) };
        let mut payload = ssh_string(id.as_bytes());
        payload.put_u8(approved.into());
        // A connection that is gone says so to the reader.
        let _ = self.writer.request(DECISION_REQUEST, false, payload.freeze()).await;
        self.ask_moderator().await
    }

    /// Shows the file transfer that is to be decided about, if there is one.
    async fn ask_moderator(&mut self) -> Result<()> {
        match self.transfers.question() {
            Some(question) => self.show(question).await,
            None => Ok(()),
        }
    }

    /// Takes a message of the server.
    async fn take(&mut self, message: ChannelMsg) -> Result<Then> {
        let written = match message {
            ChannelMsg::Data { data } => self.output.write(data).await,
            ChannelMsg::ExtendedData { data, ext: STDERR } => self.errors.write(data).await,
            ChannelMsg::ExitStatus { exit_status } => {
                self.exit = Some(Exit::Status(exit_status));
                Ok(())
            }
            ChannelMsg::ExitSignal { signal_name, .. } => {
                self.exit = Some(Exit::Signal(signal_number(&signal_name)));
                Ok(())
            }
            ChannelMsg::Success => {
                self.answers.pop_front();
                Ok(())
            }
            ChannelMsg::Failure => match self.answers.pop_front() {
                // The session goes on without.
                Some(Asked::X11) => self.errors.write(Bytes::from_static(X11_REFUSED)).await,
                Some(Asked::Start) | None => {
                    self.refused = true;
                    Ok(())
                }
            },
            ChannelMsg::Close => return Ok(Then::End),
            _ => Ok(()),
        };
        match written {
            Ok(()) => Ok(Then::Continue),
            // Nobody reads what the session prints: it ends as a program would that writes into a closed pipe.
            Err(_) => {
                self.exit = Some(Exit::Signal(signal_number(&Sig::PIPE)));
                Ok(Then::End)
            }
        }
    }

    async fn show(&mut self, text: impl Into<Bytes>) -> Result<()> {
        self.errors.write(text.into()).await.map_err(Error::io("writing to the terminal"))
    }

    /// Waits for the output to be written, and says how the session ended.
    async fn finish(self) -> Result<Exit> {
        let (output, errors) = tokio::join!(self.output.finish(), self.errors.finish());
        for result in [output, errors] {
            match result {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(Error::io("writing what the session printed")(error));
                }
                _ => {}
            }
        }
        match self.exit {
            Some(exit) => Ok(exit),
            None if self.refused => {
                Err(SshError::Refused { host: self.host, reason: "it did not begin the session".to_owned() }.into())
            }
            None => {
                let reason = "the session ended without an exit status".to_owned();
                Err(SshError::Lost { host: self.host, reason }.into())
            }
        }
    }
}

/// Takes what the user types to the server.
struct Keyboard {
    writer: Arc<ChannelWriteHalf<Msg>>,
    wishes: mpsc::Sender<Escape>,
    typing: Typing,
}

impl Keyboard {
    async fn run(self, mut input: Input) {
        let mut keys = Keys::new(matches!(self.typing, Typing::Free { escapes: true }));
        while let Some(typed) = input.next().await {
            let leaves = || typed.contains(&3).then_some(Escape::Disconnect);
            let (sent, wish) = match self.typing {
                Typing::Free { .. } => keys.typed(&typed),
                // The answer of a terminal to a question that the session asked may have the letter in it.
                Typing::Moderator if typed.first().is_some_and(|key| typed.iter().all(|byte| byte == key)) => {
                    let wish = match typed.first() {
                        Some(b't') => Some(Escape::Terminate),
                        Some(b'y') => Some(Escape::Approve),
                        Some(b'n') => Some(Escape::Deny),
                        _ => leaves(),
                    };
                    (Vec::new(), wish)
                }
                Typing::Moderator | Typing::Observer => (Vec::new(), leaves()),
            };
            if !sent.is_empty() && self.writer.data_bytes(sent).await.is_err() {
                return;
            }
            if let Some(wish) = wish
                && self.wishes.send(wish).await.is_err()
            {
                return;
            }
        }
        if matches!(self.typing, Typing::Free { .. }) {
            let _ = self.writer.eof().await; // the channel may be closed already
        }
    }
}

/// Signals that concern a terminal session.
struct Signals {
    resize: Signal,
    hangup: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(Error::io("listening for signals"));
        Ok(Self {
            resize: listen(SignalKind::window_change())?,
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Notice {
        tokio::select! {
            _ = self.resize.recv() => Notice::Resized,
            _ = self.hangup.recv() => Notice::End,
            _ = self.terminate.recv() => Notice::End,
        }
    }
}

/// What a signal means for a terminal session.
enum Notice {
    /// The terminal has another size.
    Resized,
    /// This process is to end.
    End,
}

/// Numbers of the signals that RFC 4254 §6.10 names.
fn signal_number(signal: &Sig) -> u8 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(Exit::Status(7).code(), 7);
        assert_eq!(Exit::Status(u32::MAX).code(), 255);
        assert_eq!(Exit::Signal(9).code(), 137);
    }

    #[test]
    fn variables_travel_as_one_json_object() {
        let payload = variables(&[("A".to_owned(), "x \"y\"".to_owned())]);
        assert_eq!(&payload[..4], &[0, 0, 0, 15]);
        assert_eq!(&payload[4..], br#"{"A":"x \"y\""}"#);
    }
}
