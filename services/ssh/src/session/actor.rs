//! The task of one interactive session.

mod transfers;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use nix::sys::signal::Signal;
use rbac::JoinMode;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::moderation::{Moderation, Verdict};
use super::party::{Notice, Party};
use super::transfer::Transfer;
use super::{By, Command, Typed};
use crate::os::process::{Ended, REMOTE_COMMAND_FAILURE, Running};
use crate::os::pty::{Pty, TerminalSize};
use crate::record::Observer;

/// Typed bytes that may wait for the process to read them; more are left in the parties' connections.
const INPUT_LIMIT: usize = 64 * 1024;
/// Output a new party sees first.
const REPLAY: usize = 1000;
/// Output kept while a session is paused; the process waits when there is more.
const HELD: usize = 10_000;
/// How long a session without parties waits for somebody to come back.
const LINGER: Duration = Duration::from_secs(20);
/// How long the last output may take to arrive after the process ended.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// How long a process may ignore SIGHUP.
const HANG_UP_GRACE: Duration = Duration::from_secs(3);
/// How long one party may hold up the others before it is dropped.
const SLOW_PARTY: Duration = Duration::from_secs(5);
/// How many commands may wait until the only party takes its output.
const POSTPONED: usize = 16;
/// What those at the terminal of a session with moderators can do.
const CONTROLS: &str =
    "Controls\r\n  - CTRL-C: Leave the session\r\n  - t: Forcefully terminate the session (moderators only)";
/// Ctrl-C, with which somebody who waits gives up.
const INTERRUPT: u8 = 3;

/// How a session ended, as every party is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its process ended.
    Process(Ended),
    /// It was ended from outside.
    Terminated,
}

/// Starts a process on a terminal.
pub type Starter = Box<dyn FnOnce(&mut Pty) -> io::Result<Running> + Send>;

/// A terminal and what runs on it.
pub struct Launch {
    /// The terminal.
    pub pty: Pty,
    /// The process, or how to start it once those who have to be present are.
    pub process: Process,
}

/// What runs on a session's terminal.
pub enum Process {
    /// It runs, or has ended.
    Started(Box<Running>),
    /// It waits to be started.
    Waiting(Starter),
    /// It could not be started.
    Failed,
}

/// Whether those at the terminal are heard and served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The process has not been started.
    Pending,
    /// It runs.
    Running,
    /// It runs, but nobody types and nothing is shown.
    Paused,
}

/// What a session is made of.
pub struct Setup<O> {
    /// Its id, as those at the terminal read it.
    pub id: String,
    /// Name of the host.
    pub hostname: String,
    /// Home folder of the account, from which paths of files begin.
    pub home: PathBuf,
    /// The terminal and the process.
    pub launch: Launch,
    /// Who started it.
    pub creator: Party,
    /// What is asked of it.
    pub commands: mpsc::Receiver<Command>,
    /// What is typed.
    pub typed: mpsc::Receiver<Typed>,
    /// The terminal's size, for others to read.
    pub size: watch::Sender<TerminalSize>,
    /// What the owner's roles demand.
    pub moderation: Option<Moderation>,
    /// What watches it.
    pub observer: O,
}

/// One session. [`SessionActor::run`] lives as long as it.
pub struct SessionActor<O> {
    id: String,
    hostname: String,
    home: PathBuf,
    pty: Pty,
    process: Process,
    /// Number of the party that started it.
    owner: u64,
    /// What the user who started it is called in this cluster.
    owner_name: String,
    parties: Vec<Party>,
    commands: mpsc::Receiver<Command>,
    /// Commands that came while the session waited for its only party, oldest first.
    postponed: VecDeque<Command>,
    typed: mpsc::Receiver<Typed>,
    size: watch::Sender<TerminalSize>,
    moderation: Option<Moderation>,
    /// A copy that a party asked for.
    transfer: Option<Transfer>,
    observer: O,
    stage: Stage,
    tail: VecDeque<u8>,
    /// Output that waits for the session to go on.
    held: BytesMut,
    /// Typed, but not yet taken by the terminal.
    input: BytesMut,
    /// When the session gives up waiting: for a party, or, after the process, for the last output.
    deadline: Option<Instant>,
    /// How the process ended, once it has.
    exited: Option<Ended>,
    /// Whether the last thing shown was a word of the session's own.
    spoke_last: bool,
    terminated: bool,
}

impl<O: Observer> SessionActor<O> {
    /// A session with its first party.
    pub fn new(setup: Setup<O>) -> Self {
        let stage = if matches!(setup.launch.process, Process::Waiting(_)) { Stage::Pending } else { Stage::Running };
        Self {
            id: setup.id,
            hostname: setup.hostname,
            home: setup.home,
            pty: setup.launch.pty,
            process: setup.launch.process,
            owner: setup.creator.id,
            owner_name: setup.creator.who.local_name.clone(),
            parties: vec![setup.creator],
            commands: setup.commands,
            postponed: VecDeque::new(),
            typed: setup.typed,
            size: setup.size,
            moderation: setup.moderation,
            transfer: None,
            observer: setup.observer,
            stage,
            tail: VecDeque::new(),
            held: BytesMut::new(),
            input: BytesMut::new(),
            deadline: None,
            exited: None,
            spoke_last: false,
            terminated: false,
        }
    }

    /// Runs until the process has ended and its output was delivered; gives back what watched it.
    pub async fn run(mut self) -> (O, Outcome) {
        if let Some(moderation) = &self.moderation {
            let waiting = moderation.waiting();
            self.say(&format!("Creating session with ID: {}", self.id)).await;
            self.say(CONTROLS).await;
            if self.stage == Stage::Pending {
                self.say(&waiting).await;
            }
        }
        let ended = self.relay().await;
        let outcome = if self.terminated { Outcome::Terminated } else { Outcome::Process(ended) };
        let parties = std::mem::take(&mut self.parties);
        for Party { id, who, end, .. } in parties {
            let _ = end.send(outcome); // its connection may be gone
            self.observer.left(id, &who).await;
        }
        (self.observer, outcome)
    }

    async fn relay(&mut self) -> Ended {
        let mut buffer = BytesMut::new();
        loop {
            let deadline = self.deadline;
            let shows = self.stage != Stage::Paused || self.held.len() < HELD;
            tokio::select! {
                biased;
                status = wait_for(&mut self.process), if self.exited.is_none() => {
                    self.exited = Some(status);
                    self.deadline = Some(Instant::now() + LAST_OUTPUT);
                }
                // In this order, what was typed while the session waited is not heard after it went on.
                Some(typed) = self.typed.recv(), if self.input.len() < INPUT_LIMIT => {
                    self.take(typed).await;
                    if self.terminated && self.stage == Stage::Pending {
                        return Ended::Exited(REMOTE_COMMAND_FAILURE);
                    }
                }
                Some(command) = next(&mut self.postponed, &mut self.commands) => {
                    self.obey(command).await;
                    if matches!(self.process, Process::Failed) || (self.terminated && self.stage == Stage::Pending) {
                        return Ended::Exited(REMOTE_COMMAND_FAILURE);
                    }
                }
                written = self.pty.write(&self.input), if !self.input.is_empty() => match written {
                    Ok(n) => self.input.advance(n),
                    Err(error) => {
                        debug!(%error, "terminal input lost: the process is gone");
                        self.input.clear();
                    }
                },
                read = self.pty.read(&mut buffer), if shows => match read {
                    Ok(0) | Err(_) => break,
                    Ok(_) => self.show(buffer.split().freeze()).await,
                },
                () = wait_until(deadline), if deadline.is_some() => {
                    if self.exited.is_some() {
                        // A process it left behind still holds the terminal: the session itself is over.
                        break;
                    }
                    if self.stage == Stage::Pending {
                        return Ended::Exited(REMOTE_COMMAND_FAILURE);
                    }
                    self.end_process().await;
                }
            }
        }
        match self.exited {
            Some(ended) => ended,
            None => self.reap().await,
        }
    }

    /// The process closed its terminal: it ends soon, or is made to.
    async fn reap(&mut self) -> Ended {
        match timeout(HANG_UP_GRACE, wait_for(&mut self.process)).await {
            Ok(ended) => ended,
            Err(_) => {
                self.signal(Signal::SIGKILL);
                wait_for(&mut self.process).await
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Join(party) => self.admit(*party).await,
            Command::Leave { party } => self.remove(party).await,
            Command::Resize { party, size } => self.resize(party, size).await,
            Command::WantTransfer { by, request, answer } => {
                let party = by.clone();
                let taken = self.want_transfer(by, request).await;
                match answer {
                    Some(answer) => drop(answer.send(taken)),
                    None => self.explain(party, taken),
                }
            }
            Command::DecideTransfer { party, id, approved } => {
                let taken = self.decide_transfer(party, &id, approved).await;
                self.explain(By::Party(party), taken);
            }
            Command::UseTransfer(copier) => self.use_transfer(copier),
            Command::Terminate { by: Some(by), .. } if self.mode_of(by) != Some(JoinMode::Moderator) => {}
            Command::Terminate { by: Some(_), reason } => {
                self.say(&reason).await;
                self.terminate().await;
            }
            Command::Terminate { by: None, reason } => {
                for party in &self.parties {
                    let _ = party.notices.try_send(Notice::Message(reason.clone())); // it may be gone, or stuck
                }
                self.terminate().await;
            }
        }
    }

    fn mode_of(&self, party: u64) -> Option<JoinMode> {
        self.parties.iter().find(|p| p.id == party).map(Party::mode)
    }

    /// Takes what somebody typed; only peers are heard.
    async fn take(&mut self, Typed { party, data }: Typed) {
        if self.mode_of(party) != Some(JoinMode::Peer) {
            return;
        }
        match self.stage {
            Stage::Running => self.input.extend_from_slice(&data),
            // Who waits can give up, and nothing else.
            Stage::Pending | Stage::Paused if data.contains(&INTERRUPT) => {
                self.say("Stopping session...").await;
                self.terminate().await;
            }
            Stage::Pending | Stage::Paused => {}
        }
    }

    /// Sets when to give up waiting for a party. Once the process has ended, nobody's coming or going puts off the end.
    fn wait_for_parties(&mut self, deadline: Option<Instant>) {
        if self.exited.is_none() {
            self.deadline = deadline;
        }
    }

    async fn admit(&mut self, party: Party) {
        self.wait_for_parties(None);
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if !tail.is_empty() {
            let _ = party.notices.try_send(Notice::Output(Bytes::from(tail)));
        }
        self.observer.joined(&party).await;
        let word = format!("User {} joined the session with participant mode: {}.", party.user(), party.mode().name());
        self.parties.push(party);
        if self.moderation.is_some() {
            self.say(&word).await;
            self.review().await;
        }
    }

    async fn remove(&mut self, id: u64) {
        let Some(index) = self.parties.iter().position(|p| p.id == id) else { return };
        let party = self.parties.remove(index);
        self.observer.left(party.id, &party.who).await;
        self.forget_transfer(&party.who.local_name);
        if self.parties.is_empty() {
            self.wait_for_parties(Some(Instant::now() + LINGER));
        }
        if self.moderation.is_some() {
            self.say(&format!("User {} left the session.", party.user())).await;
            self.review().await;
        }
    }

    /// Looks whether those who have to be present are, and goes on, waits or ends.
    async fn review(&mut self) {
        let Some(moderation) = &self.moderation else { return };
        let present: Vec<_> = self.parties.iter().map(|party| party.who.participant.clone()).collect();
        match (self.stage, moderation.judge(&present)) {
            (Stage::Pending, Verdict::Run) => self.begin().await,
            (Stage::Running, Verdict::Wait) => {
                self.stage = Stage::Paused;
                self.say("Session paused, Waiting for required participants...").await;
            }
            (Stage::Running | Stage::Paused, Verdict::End) => {
                self.say("Forcefully terminating session...").await;
                self.terminate().await;
            }
            (Stage::Paused, Verdict::Run) => {
                self.stage = Stage::Running;
                self.say("Resuming session...").await;
                let held = self.held.split().freeze();
                self.deliver(held).await;
            }
            _ => {}
        }
    }

    /// Starts the process that waited.
    async fn begin(&mut self) {
        let hostname = &self.hostname;
        self.say(&format!("Connecting to {hostname} over SSH")).await;
        let Process::Waiting(start) = std::mem::replace(&mut self.process, Process::Failed) else { return };
        match start(&mut self.pty) {
            Ok(child) => {
                self.pty.release_slave();
                self.process = Process::Started(Box::new(child));
                self.stage = Stage::Running;
                self.observer.started().await;
            }
            Err(error) => self.say(&format!("Failed to launch: {error}.")).await,
        }
    }

    /// The owner's window decides; others do when the owner is gone. Two windows that both decided would never agree.
    async fn resize(&mut self, by: u64, size: TerminalSize) {
        let deciding = if self.mode_of(self.owner).is_some() { Some(self.owner) } else { self.first_peer() };
        if deciding != Some(by) || *self.size.borrow() == size || self.pty.resize(size).is_err() {
            return;
        }
        self.size.send_replace(size);
        self.observer.resized(size).await;
        for party in self.parties.iter().filter(|p| p.id != by) {
            let _ = party.notices.try_send(Notice::Resized(size));
        }
    }

    fn first_peer(&self) -> Option<u64> {
        self.parties.iter().find(|p| p.mode() == JoinMode::Peer).map(|p| p.id)
    }

    /// A word of the session's own, for everybody and for the recording.
    async fn say(&mut self, word: &str) {
        let gap = if self.spoke_last { "\r\n" } else { "" };
        let text = format!("{gap}Teleport > {word}\r\n");
        self.deliver(Bytes::from(text)).await;
        self.spoke_last = true;
    }

    /// Output of the process: shown, or held while the session is paused.
    async fn show(&mut self, data: Bytes) {
        if self.stage == Stage::Paused {
            self.held.extend_from_slice(&data);
        } else {
            self.deliver(data).await;
        }
    }

    /// Records output and hands it to every party.
    async fn deliver(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        self.spoke_last = false;
        self.observer.output(data.clone()).await;
        self.tail.extend(data.iter().skip(data.len().saturating_sub(REPLAY)));
        let surplus = self.tail.len().saturating_sub(REPLAY);
        self.tail.drain(..surplus);

        let alone = self.parties.len() == 1;
        let mut gone = Vec::new();
        for party in &self.parties {
            let notice = Notice::Output(data.clone());
            let delivered = if self.terminated {
                // A party that takes nothing does not keep a session from ending.
                !matches!(party.notices.try_send(notice), Err(TrySendError::Closed(_)))
            } else if alone {
                // One party alone sets the pace, as a terminal does.
                tokio::select! {
                    sent = party.notices.send(notice) => sent.is_ok(),
                    () = end_asked(&mut self.postponed, &mut self.commands) => true,
                }
            } else {
                // One of several may not hold up the others.
                matches!(timeout(SLOW_PARTY, party.notices.send(notice)).await, Ok(Ok(())))
            };
            if !delivered {
                gone.push(party.id);
            }
        }
        for id in gone {
            Box::pin(self.remove(id)).await;
        }
    }

    async fn terminate(&mut self) {
        self.terminated = true;
        // What is held is shown after all: the recording has it, and the process must be able to end.
        if self.stage == Stage::Paused {
            self.stage = Stage::Running;
            let held = self.held.split().freeze();
            self.observer.output(held).await;
        }
        self.end_process().await;
    }

    async fn end_process(&mut self) {
        self.wait_for_parties(None);
        if self.exited.is_some() || !matches!(self.process, Process::Started(_)) {
            return;
        }
        self.signal(Signal::SIGHUP);
        if timeout(HANG_UP_GRACE, wait_for(&mut self.process)).await.is_err() {
            self.signal(Signal::SIGKILL);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Process::Started(child) = &self.process {
            child.signal(signal);
        }
    }
}

/// How the process ended; never returns before it was started.
async fn wait_for(process: &mut Process) -> Ended {
    match process {
        Process::Started(child) => child.wait().await,
        Process::Waiting(_) | Process::Failed => std::future::pending().await,
    }
}

/// The next command, beginning with those that had to wait.
async fn next(postponed: &mut VecDeque<Command>, commands: &mut mpsc::Receiver<Command>) -> Option<Command> {
    match postponed.pop_front() {
        Some(command) => Some(command),
        None => commands.recv().await,
    }
}

/// Waits until somebody outside wants the session to end. What is asked of it meanwhile is postponed.
async fn end_asked(postponed: &mut VecDeque<Command>, commands: &mut mpsc::Receiver<Command>) {
    let ends = |command: &Command| matches!(command, Command::Terminate { by: None, .. });
    if postponed.iter().any(ends) {
        return;
    }
    while postponed.len() < POSTPONED {
        let Some(command) = commands.recv().await else { break };
        let end = ends(&command);
        postponed.push_back(command);
        if end {
            return;
        }
    }
    std::future::pending().await
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
