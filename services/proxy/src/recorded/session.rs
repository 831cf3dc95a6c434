//! One session channel: what the client asks is asked of the node, and what the node shows is recorded on its way back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use recording::SessionId;
use russh::server::{self, ChannelOpenHandle};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::copies::{Copies, Done};
use super::door::{Visit, opened};
use super::operations::Operations;
use super::trail::{Kind, NOT_RECORDED, SFTP, Trail, copy_refused, file_operation, subsystem};

/// Request in which a node tells the id of a session.
const SESSION_ID_REQUEST: &str = "current-session-id@goteleport.com";
/// Environment entry that names a session to join, which is not possible here.
const JOIN_SESSION: &str = "TELEPORT_SESSION";
/// How long a node may take to tell the id of a session before it gets one from here.
const NAMING: Duration = Duration::from_secs(1);
/// How long a side may take to hear the other's last words.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Requests of a client that may wait for the node's answer.
const MOST_PENDING: usize = 256;
/// Most requests after one of them that are answered here.
const MOST_ANSWERS: usize = 1024;
/// Exit status of what is refused.
const REFUSED: u32 = 255;
/// The stream of extended data for errors.
const STDERR: u32 = 1;

/// What both directions know.
struct Shared {
    visit: Arc<Visit>,
    state: Mutex<State>,
    /// A session was accepted by the node.
    accepted: Notify,
    /// Whether what is typed may go to the node.
    input: watch::Sender<Input>,
    received: AtomicU64,
    /// What is done to files, where that is told here, with the id under which it is.
    operations: OnceLock<(Operations, String)>,
}

/// Where what is typed goes. One thing runs on a channel at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// Nowhere: nothing runs. It is thrown away, as servers do.
    Nothing,
    /// Nowhere yet: the node has not said whether it runs what was asked, or the session is not recorded yet.
    Waits,
    /// To the node.
    Open,
}

#[derive(Default)]
struct State {
    /// Requests that the node has not answered, oldest first.
    pending: VecDeque<Pending>,
    /// Columns and rows, once a terminal was asked for.
    size: Option<String>,
    /// What the node has accepted to run, until it is recorded.
    begins: Option<Kind>,
    trail: Option<Arc<Trail>>,
    /// How what ran has ended.
    exit: Option<u32>,
}

/// A request that the node has not answered.
struct Pending {
    /// Whether the client wants to know.
    want_reply: bool,
    what: What,
    /// The answers to requests that came right after it and do not go to the node: clients hear of each in its turn.
    after: VecDeque<bool>,
}

impl Pending {
    fn new(want_reply: bool, what: What) -> Self {
        Self { want_reply, what, after: VecDeque::new() }
    }
}

enum What {
    /// A terminal of this size.
    Terminal(String),
    /// Something to run.
    Run(Kind),
    Other,
}

/// Serves a channel to its end.
pub(super) async fn serve(channel: Channel<server::Msg>, reply: ChannelOpenHandle, visit: Arc<Visit>) {
    let target = match opened(visit.target.handle.channel_open_session()).await {
        Ok(target) => target,
        Err((failure, reason)) => return reply.reject_with(failure, reason).await,
    };
    reply.accept().await;
    let shared = Shared {
        visit,
        state: Mutex::default(),
        accepted: Notify::new(),
        input: watch::Sender::new(Input::Nothing),
        received: AtomicU64::new(0),
        operations: OnceLock::new(),
    };
    let (mut from_client, to_client) = channel.split();
    let (mut from_node, to_node) = target.split();
    {
        let up = upward(&shared, &mut from_client, &to_node, &to_client);
        let down = downward(&shared, &mut from_node, &to_client, &to_node);
        tokio::pin!(up, down);
        tokio::select! {
            () = &mut down => {}
            words = last_words(&shared.visit) => say(&to_client, &words).await,
            () = &mut up => {
                let _ = timeout(LAST_WORDS, to_node.close()).await;
                // What the node still says belongs into the recording.
                let _ = timeout(LAST_WORDS, down).await; // a node that says nothing is left to itself
            }
        }
    }
    // Whoever ended it, nothing may go on at the node unseen. A second end does no harm.
    let _ = timeout(LAST_WORDS, to_node.close()).await;
    // What ended without a word is a session as well.
    shared.begin(None, &to_client).await;
    shared.told(Copies::rest).await;
    let _ = timeout(LAST_WORDS, to_client.close()).await; // the client may be gone
    let (trail, exit) = {
        let mut state = shared.state.lock();
        (state.trail.take(), state.exit)
    };
    if let Some(trail) = trail {
        trail.finish(shared.received.load(Ordering::Relaxed), exit).await;
    }
}

/// Passes on what the client sends, until it closes the channel.
async fn upward(
    shared: &Shared,
    client: &mut ChannelReadHalf,
    node: &ChannelWriteHalf<client::Msg>,
    answers: &ChannelWriteHalf<server::Msg>,
) {
    while let Some(message) = client.wait().await {
        let passed = match message {
            ChannelMsg::Data { data } => match shared.typed(&data).await {
                true => {
                    shared.told(|copies| copies.request(&data)).await;
                    node.data_bytes(data).await
                }
                false => Ok(()),
            },
            ChannelMsg::ExtendedData { data, ext } => match shared.typed(&data).await {
                true => node.extended_data_bytes(ext, data).await,
                false => Ok(()),
            },
            ChannelMsg::Eof => node.eof().await,
            ChannelMsg::Close => return,
            ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                shared.resized(col_width, row_height);
                node.window_change(col_width, row_height, pix_width, pix_height).await
            }
            ChannelMsg::Signal { signal } => node.signal(signal).await,
            ChannelMsg::AgentForward { want_reply } => agent(shared, want_reply, node, answers).await,
            message => request(shared, message, node, answers).await,
        };
        if passed.is_err() {
            return;
        }
    }
}

/// Passes on that the client's agent may be used. It never fails on the wire: the node decides whether it is used.
async fn agent(
    shared: &Shared,
    want_reply: bool,
    node: &ChannelWriteHalf<client::Msg>,
    answers: &ChannelWriteHalf<server::Msg>,
) -> Result<(), russh::Error> {
    node.agent_forward(false).await?;
    if want_reply { shared.answer(true, answers).await } else { Ok(()) }
}

/// Passes on a request whose answer matters.
async fn request(
    shared: &Shared,
    message: ChannelMsg,
    node: &ChannelWriteHalf<client::Msg>,
    answers: &ChannelWriteHalf<server::Msg>,
) -> Result<(), russh::Error> {
    let (want_reply, what) = match &message {
        ChannelMsg::RequestPty { want_reply, col_width, row_height, .. } => {
            (*want_reply, What::Terminal(size(*col_width, *row_height)))
        }
        ChannelMsg::RequestShell { want_reply } => (*want_reply, What::Run(shared.kind(None))),
        ChannelMsg::Exec { want_reply, command } => {
            (*want_reply, What::Run(shared.kind(Some(String::from_utf8_lossy(command).into_owned()))))
        }
        ChannelMsg::RequestSubsystem { want_reply, name } => (*want_reply, What::Run(Kind::Subsystem(name.clone()))),
        ChannelMsg::SetEnv { want_reply, variable_name, .. } if variable_name == JOIN_SESSION => {
            return if *want_reply { shared.answer(false, answers).await } else { Ok(()) };
        }
        ChannelMsg::SetEnv { want_reply, .. }
        | ChannelMsg::RequestX11 { want_reply, .. }
        | ChannelMsg::Request { want_reply, .. } => (*want_reply, What::Other),
        _ => return Ok(()),
    };
    if let (What::Run(kind), Some(reason)) = (&what, shared.visit.limits.copies_forbidden())
        && kind.copies()
    {
        copy_refused(&shared.visit, kind, reason).await;
        // OpenSSH's programs show what is said after a request was accepted; others, before one is refused.
        say(answers, reason).await;
        if want_reply {
            let is_openssh = shared.visit.is_openssh.get().copied().unwrap_or(false);
            let accepted = is_openssh || !matches!(kind, Kind::Subsystem(_));
            answers.reply(accepted).await?;
        }
        // The channel ends with it, and with the channel whatever else was asked for.
        answers.exit_status(REFUSED).await?;
        return answers.close().await;
    }
    // What decides about the recording is always answered by the node; the rest only if the client wants to know.
    let asks = want_reply || !matches!(what, What::Other);
    // The recording is of one thing: a second one would run without.
    let runs = matches!(what, What::Run(_));
    let is_second = runs && *shared.input.borrow() != Input::Nothing;
    if is_second || (asks && !shared.expect(Pending::new(want_reply, what))) {
        return if want_reply { shared.answer(false, answers).await } else { Ok(()) };
    }
    if runs {
        shared.input.send_replace(Input::Waits);
    }
    match message {
        ChannelMsg::RequestPty { term, col_width, row_height, pix_width, pix_height, terminal_modes, .. } => {
            node.request_pty(true, &term, col_width, row_height, pix_width, pix_height, &terminal_modes).await
        }
        ChannelMsg::RequestShell { .. } => node.request_shell(true).await,
        ChannelMsg::Exec { command, .. } => node.exec(true, command).await,
        ChannelMsg::RequestSubsystem { name, .. } => node.request_subsystem(true, name).await,
        ChannelMsg::SetEnv { variable_name, variable_value, .. } => {
            node.set_env(asks, variable_name, variable_value).await
        }
        ChannelMsg::RequestX11 {
            single_connection,
            x11_authentication_protocol: protocol,
            x11_authentication_cookie: cookie,
            x11_screen_number: screen,
            ..
        } => node.request_x11(asks, single_connection, protocol, cookie, screen).await,
        ChannelMsg::Request { name, data, .. } => node.request(name, asks, data).await,
        _ => Ok(()),
    }
}

/// Passes on what the node sends, until it closes the channel.
async fn downward(
    shared: &Shared,
    node: &mut ChannelReadHalf,
    client: &ChannelWriteHalf<server::Msg>,
    answers: &ChannelWriteHalf<client::Msg>,
) {
    loop {
        let message = tokio::select! {
            biased;
            message = node.wait() => message,
            () = shared.unnamed() => {
                if !shared.begin(None, client).await {
                    return;
                }
                continue;
            }
        };
        let Some(message) = message else { return };
        let passed = match message {
            ChannelMsg::Data { data } => {
                if !shared.shown(&data, client).await {
                    return;
                }
                shared.told(|copies| copies.answer(&data)).await;
                client.data_bytes(data).await
            }
            ChannelMsg::ExtendedData { data, ext } => {
                if !shared.shown(&data, client).await {
                    return;
                }
                client.extended_data_bytes(ext, data).await
            }
            ChannelMsg::Success => shared.answered(true, client).await,
            ChannelMsg::Failure => shared.answered(false, client).await,
            ChannelMsg::Request { name, data, .. } if name == SESSION_ID_REQUEST => {
                let id = std::str::from_utf8(&data).ok().and_then(|id| id.parse().ok());
                let begins = shared.state.lock().begins.is_some();
                let id = match id {
                    Some(id) if begins && shared.visit.has_registered(id).await => Some(id),
                    _ => None,
                };
                if !shared.begin(id, client).await {
                    return;
                }
                let id = shared.state.lock().trail.as_ref().map(|trail| trail.id());
                match id {
                    Some(id) => client.request(name, false, id.to_string()).await,
                    None => Ok(()),
                }
            }
            ChannelMsg::Request { name, want_reply, data } => {
                let told = client.request(name, false, data).await;
                if want_reply { answers.reply(false).await } else { told }
            }
            ChannelMsg::ExitStatus { exit_status } => {
                shared.state.lock().exit = Some(exit_status);
                client.exit_status(exit_status).await
            }
            ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, lang_tag } => {
                shared.signalled(client.id(), signal_name, core_dumped, (error_message, lang_tag)).await;
                Ok(())
            }
            ChannelMsg::Eof => client.eof().await,
            ChannelMsg::Close => return,
            _ => Ok(()),
        };
        if passed.is_err() {
            return;
        }
    }
}

impl State {
    /// What the oldest request is about, and whether the client wants to hear of it.
    fn oldest(&mut self) -> Option<(bool, What)> {
        let oldest = self.pending.front_mut()?;
        Some((oldest.want_reply, std::mem::replace(&mut oldest.what, What::Other)))
    }

    /// The next answer to a request that came after the oldest one, which is done with when there is none.
    fn next_answer(&mut self) -> Option<bool> {
        let next = self.pending.front_mut()?.after.pop_front();
        if next.is_none() {
            self.pending.pop_front();
        }
        next
    }
}

impl Shared {
    /// What a shell or command would be, given what was prepared.
    fn kind(&self, command: Option<String>) -> Kind {
        let state = self.state.lock();
        let asked = state.pending.iter().rev().find_map(|pending| match &pending.what {
            What::Terminal(size) => Some(size.clone()),
            _ => None,
        });
        match (asked.or_else(|| state.size.clone()), command) {
            (Some(size), command) => Kind::Terminal { size, command },
            (None, Some(command)) => Kind::Command(command),
            // A shell without a terminal reads commands like one.
            (None, None) => Kind::Command(String::new()),
        }
    }

    /// Remembers a request; false when too many are waiting.
    fn expect(&self, pending: Pending) -> bool {
        let mut state = self.state.lock();
        let room = state.pending.len() < MOST_PENDING;
        if room {
            state.pending.push_back(pending);
        }
        room
    }

    /// Answers a request that the client wants to hear of: RFC 4254 §5.4 has it hear of those before first. A client
    /// that asks for more than it waits to hear of has to go.
    async fn answer(&self, accepted: bool, client: &ChannelWriteHalf<server::Msg>) -> Result<(), russh::Error> {
        if let Some(before) = self.state.lock().pending.back_mut() {
            if before.after.len() == MOST_ANSWERS {
                return Err(russh::Error::Disconnect);
            }
            before.after.push_back(accepted);
            return Ok(());
        }
        client.reply(accepted).await
    }

    /// The node has answered the oldest request.
    async fn answered(&self, accepted: bool, client: &ChannelWriteHalf<server::Msg>) -> Result<(), russh::Error> {
        // It stays the oldest until the client has heard of it: what is answered here meanwhile waits behind it.
        let Some((want_reply, what)) = self.state.lock().oldest() else { return Ok(()) };
        self.decided(what, accepted, client).await;
        if want_reply {
            client.reply(accepted).await?;
        }
        while let Some(accepted) = self.next_answer() {
            client.reply(accepted).await?;
        }
        Ok(())
    }

    fn next_answer(&self) -> Option<bool> {
        self.state.lock().next_answer()
    }

    /// Does what follows from the node's answer to a request.
    async fn decided(&self, what: What, accepted: bool, client: &ChannelWriteHalf<server::Msg>) {
        match what {
            What::Terminal(size) if accepted => self.state.lock().size = Some(size),
            What::Run(Kind::Subsystem(name)) => {
                let refused = (!accepted).then_some("the node refused the subsystem");
                subsystem(&self.visit, &name, refused).await;
                if accepted && name == SFTP && self.visit.meeting.agentless {
                    let operations = Operations::new(&self.visit.shared.tasks);
                    let _ = self.operations.set((operations, SessionId::random().to_string())); // one thing runs at most
                }
                self.input.send_replace(if accepted { Input::Open } else { Input::Nothing });
            }
            What::Run(_) if !accepted => drop(self.input.send_replace(Input::Nothing)),
            What::Run(kind) => {
                let named_by_node = matches!(kind, Kind::Terminal { .. });
                {
                    let mut state = self.state.lock();
                    if state.trail.is_none() {
                        state.begins = Some(kind);
                    }
                }
                if named_by_node {
                    self.accepted.notify_one();
                } else {
                    self.begin(None, client).await; // never fails without a terminal
                }
            }
            _ => {}
        }
    }

    /// Returns when a session has been accepted for a while and the node has not told its id.
    async fn unnamed(&self) {
        loop {
            let accepted = self.accepted.notified();
            if self.state.lock().begins.is_some() {
                return sleep(NAMING).await;
            }
            accepted.await;
        }
    }

    /// Begins the recording of what the node has accepted; false when it has to end at once.
    async fn begin(&self, id: Option<SessionId>, client: &ChannelWriteHalf<server::Msg>) -> bool {
        let Some(kind) = self.state.lock().begins.take() else { return true };
        match Trail::begin(&self.visit, id.unwrap_or_else(SessionId::random), kind).await {
            Ok(trail) => {
                self.state.lock().trail = Some(Arc::new(trail));
                self.input.send_replace(Input::Open);
                true
            }
            Err(reason) => {
                say(client, &reason).await;
                false
            }
        }
    }

    /// Takes what the client types; whether it goes to the node.
    async fn typed(&self, data: &Bytes) -> bool {
        self.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.visit.limits.touch();
        let mut input = self.input.subscribe();
        let decided = input.wait_for(|input| *input != Input::Waits).await;
        decided.is_ok_and(|input| *input == Input::Open)
    }

    /// Records output, whichever stream it is of; false when the session has to end.
    async fn shown(&self, data: &Bytes, client: &ChannelWriteHalf<server::Msg>) -> bool {
        self.visit.limits.touch();
        if !self.begin(None, client).await {
            return false;
        }
        let Some(trail) = self.state.lock().trail.clone() else { return true };
        let goes_on = trail.output(data).await;
        if !goes_on {
            say(client, NOT_RECORDED).await;
        }
        goes_on
    }

    /// Says in the audit log what was done to files, where that is to be told.
    async fn told(&self, read: impl FnOnce(&mut Copies) -> Vec<Done>) {
        let Some((operations, id)) = self.operations.get() else { return };
        let (visit, id) = (self.visit.clone(), id.clone());
        let tell = move |done, home: String| {
            let (visit, id) = (visit.clone(), id.clone());
            async move { file_operation(&visit, &id, &home, done).await }
        };
        operations.tell(read, tell).await;
    }

    fn resized(&self, columns: u32, rows: u32) {
        let size = size(columns, rows);
        let mut state = self.state.lock();
        if let Some(trail) = &state.trail {
            trail.resized(&size);
        }
        state.size = state.size.is_some().then_some(size);
    }

    async fn signalled(
        &self,
        id: russh::ChannelId,
        signal: russh::Sig,
        core: bool,
        (text, language): (String, String),
    ) {
        if let Some(client) = self.visit.target.client.get() {
            let _ = client.exit_signal_request(id, signal, core, text, language).await; // the client may be gone
        }
    }
}

/// Returns the last words to the user once the connection is about to be ended.
async fn last_words(visit: &Visit) -> String {
    let mut words = visit.last_words.subscribe();
    match words.wait_for(Option::is_some).await.ok().and_then(|words| words.clone()) {
        Some(words) => words,
        None => std::future::pending().await, // unreachable while `visit` lives
    }
}

/// Sizes as events have them.
fn size(columns: u32, rows: u32) -> String {
    format!("{columns}:{rows}")
}

/// The session's last word to its user.
async fn say(client: &ChannelWriteHalf<server::Msg>, text: &str) {
    let said = client.extended_data_bytes(STDERR, Bytes::from(format!("{text}\r\n")));
    let _ = timeout(LAST_WORDS, said).await;
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
