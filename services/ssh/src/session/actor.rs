//! The task of one interactive session.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::Command;
use super::party::{Notice, Party, PartyMode};
use crate::os::process::{Ended, REMOTE_COMMAND_FAILURE, hang_up};
use crate::os::pty::{Pty, TerminalSize};
use crate::record::{Observer, PartyChange};

/// Typed bytes that may wait for the process to read them; more are left in the parties' connections.
const INPUT_LIMIT: usize = 64 * 1024;
/// Output a new party sees first.
const REPLAY: usize = 1000;
/// How long a session without parties waits for somebody to come back.
const LINGER: Duration = Duration::from_secs(20);
/// How long the last output may take to arrive after the process ended.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// How long a process may ignore SIGHUP.
const HANG_UP_GRACE: Duration = Duration::from_secs(3);
/// How long one party may hold up the others before it is dropped.
const SLOW_PARTY: Duration = Duration::from_secs(5);

/// How a session ended, as every party is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its process ended.
    Process(Ended),
    /// It was ended from outside.
    Terminated,
}

/// A process that was started on a terminal.
#[derive(Debug)]
pub struct Launch {
    /// The terminal, without its process's end.
    pub pty: Pty,
    /// The process.
    pub child: Child,
}

/// One session. [`SessionActor::run`] lives as long as it.
pub struct SessionActor<O> {
    launch: Launch,
    parties: Vec<Party>,
    commands: mpsc::Receiver<Command>,
    size: watch::Sender<TerminalSize>,
    observer: O,
    tail: VecDeque<u8>,
    /// Typed, but not yet taken by the terminal.
    input: BytesMut,
    /// When the session gives up waiting for a party.
    deadline: Option<Instant>,
    terminated: bool,
}

impl<O: Observer> SessionActor<O> {
    /// A session with its first party.
    pub fn new(
        launch: Launch,
        creator: Party,
        commands: mpsc::Receiver<Command>,
        size: watch::Sender<TerminalSize>,
        observer: O,
    ) -> Self {
        Self {
            launch,
            parties: vec![creator],
            commands,
            size,
            observer,
            tail: VecDeque::new(),
            input: BytesMut::new(),
            deadline: None,
            terminated: false,
        }
    }

    /// Runs until the process has ended and its output was delivered; gives back what watched it.
    pub async fn run(mut self) -> (O, Outcome) {
        let ended = self.relay().await;
        let outcome = if self.terminated { Outcome::Terminated } else { Outcome::Process(ended) };
        for party in self.parties.drain(..) {
            let _ = party.end.send(outcome); // its connection may be gone
        }
        (self.observer, outcome)
    }

    async fn relay(&mut self) -> Ended {
        let mut buffer = BytesMut::new();
        let mut exited = None;
        loop {
            let deadline = self.deadline;
            tokio::select! {
                biased;
                status = self.launch.child.wait(), if exited.is_none() => {
                    let ended = status.map_or(Ended::Exited(REMOTE_COMMAND_FAILURE), Ended::from_status);
                    exited = Some(ended);
                    self.deadline = Some(Instant::now() + LAST_OUTPUT);
                }
                Some(command) = self.commands.recv(), if self.input.len() < INPUT_LIMIT => self.obey(command).await,
                written = self.launch.pty.write(&self.input), if !self.input.is_empty() => match written {
                    Ok(n) => self.input.advance(n),
                    Err(error) => {
                        debug!(%error, "terminal input lost: the process is gone");
                        self.input.clear();
                    }
                },
                read = self.launch.pty.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(_) => self.show(buffer.split().freeze()).await,
                },
                () = wait_until(deadline), if deadline.is_some() => {
                    if exited.is_some() {
                        // A process it left behind still holds the terminal: the session itself is over.
                        break;
                    }
                    self.end_process().await;
                }
            }
        }
        match exited {
            Some(ended) => ended,
            None => self.reap().await,
        }
    }

    /// The process closed its terminal: it ends soon, or is made to.
    async fn reap(&mut self) -> Ended {
        match timeout(HANG_UP_GRACE, self.launch.child.wait()).await {
            Ok(Ok(status)) => Ended::from_status(status),
            _ => {
                self.signal(Signal::SIGKILL);
                let status = self.launch.child.wait().await;
                status.map_or(Ended::Exited(REMOTE_COMMAND_FAILURE), Ended::from_status)
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Join(party) => self.admit(party).await,
            Command::Leave { party } => self.remove(party).await,
            Command::Input { party, data } => {
                let peer = self.parties.iter().any(|p| p.id == party && p.mode == PartyMode::Peer);
                if peer {
                    self.input.extend_from_slice(&data);
                }
            }
            Command::Resize { party, size } => self.resize(party, size).await,
            Command::Terminate { by: Some(by), .. }
                if !self.parties.iter().any(|p| p.id == by && p.mode == PartyMode::Moderator) => {}
            Command::Terminate { reason, .. } => {
                self.terminated = true;
                for party in &self.parties {
                    let _ = party.notices.try_send(Notice::Message(reason.clone()));
                }
                self.end_process().await;
            }
        }
    }

    async fn admit(&mut self, party: Party) {
        self.deadline = None;
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if !tail.is_empty() {
            let _ = party.notices.try_send(Notice::Output(Bytes::from(tail)));
        }
        self.observer.party(PartyChange::Joined { user: party.user.clone(), mode: party.mode }).await;
        self.parties.push(party);
    }

    async fn remove(&mut self, id: u64) {
        let Some(index) = self.parties.iter().position(|p| p.id == id) else { return };
        let party = self.parties.swap_remove(index);
        self.observer.left(&party.user).await;
        if self.parties.is_empty() {
            self.deadline = Some(Instant::now() + LINGER);
        }
    }

    async fn resize(&mut self, by: u64, size: TerminalSize) {
        if *self.size.borrow() == size || self.launch.pty.resize(size).is_err() {
            return;
        }
        self.size.send_replace(size);
        self.observer.resized(size).await;
        for party in self.parties.iter().filter(|p| p.id != by) {
            let _ = party.notices.try_send(Notice::Resized(size));
        }
    }

    /// Records output and hands it to every party.
    async fn show(&mut self, data: Bytes) {
        self.observer.output(data.clone()).await;
        self.tail.extend(data.iter().skip(data.len().saturating_sub(REPLAY)));
        let surplus = self.tail.len().saturating_sub(REPLAY);
        self.tail.drain(..surplus);

        let alone = self.parties.len() == 1;
        let mut gone = Vec::new();
        for party in &self.parties {
            let send = party.notices.send(Notice::Output(data.clone()));
            // One party alone sets the pace, as a terminal does; one of several may not hold up the others.
            let delivered =
                if alone { send.await.is_ok() } else { matches!(timeout(SLOW_PARTY, send).await, Ok(Ok(()))) };
            if !delivered {
                gone.push(party.id);
            }
        }
        for id in gone {
            self.remove(id).await;
        }
    }

    async fn end_process(&mut self) {
        self.deadline = None;
        self.signal(Signal::SIGHUP);
        if timeout(HANG_UP_GRACE, self.launch.child.wait()).await.is_err() {
            self.signal(Signal::SIGKILL);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.launch.child.id() {
            hang_up(id, signal);
        }
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::os::account::Account;
    use crate::os::process::{Program, Streams, start};
    use crate::session::PartyHandle;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<String>>>);

    impl Observer for Seen {
        async fn output(&mut self, data: Bytes) {
            self.0.lock().unwrap().push(String::from_utf8_lossy(&data).into_owned());
        }
        async fn resized(&mut self, size: TerminalSize) {
            self.0.lock().unwrap().push(format!("size {size}"));
        }
        async fn party(&mut self, change: PartyChange) {
            self.0.lock().unwrap().push(format!("{change:?}"));
        }
        async fn left(&mut self, user: &str) {
            self.0.lock().unwrap().push(format!("{user} left"));
        }
    }

    fn launch(line: &str) -> Launch {
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap().unwrap();
        let account = Account::find(&user.name).unwrap();
        let size = TerminalSize { columns: 80, rows: 24 };
        let mut pty = Pty::open(size, &account).unwrap();
        let streams = Streams::Terminal(pty.slave().unwrap());
        let env = BTreeMap::from([("PATH".to_owned(), "/bin:/usr/bin".to_owned())]);
        let child = start(&account, &Program::Command(line.into()), &env, streams).unwrap();
        pty.release_slave();
        Launch { pty, child }
    }

    struct Fixture {
        commands: mpsc::Sender<Command>,
        creator: PartyHandle,
        seen: Seen,
        run: tokio::task::JoinHandle<(Seen, Outcome)>,
    }

    fn session(line: &str) -> Fixture {
        let (commands, rx) = mpsc::channel(8);
        let (size, _) = watch::channel(TerminalSize { columns: 80, rows: 24 });
        let (party, creator) = Party::new(0, "alice".into(), PartyMode::Peer);
        let seen = Seen::default();
        let actor = SessionActor::new(launch(line), party, rx, size, seen.clone());
        Fixture { commands, creator, seen, run: tokio::spawn(actor.run()) }
    }

    async fn output_until(party: &mut PartyHandle, mark: &str) -> String {
        let mut text = String::new();
        while !text.contains(mark) {
            match timeout(Duration::from_secs(10), party.notices.recv()).await.unwrap() {
                Some(Notice::Output(data)) => text.push_str(&String::from_utf8_lossy(&data)),
                Some(_) => {}
                None => break,
            }
        }
        text
    }

    #[tokio::test]
    async fn what_is_typed_reaches_the_process_and_its_output_everybody() {
        let mut f = session("read line; echo got-$line; exit 3");
        f.commands.send(Command::Input { party: 0, data: "word\n".into() }).await.unwrap();
        assert!(output_until(&mut f.creator, "got-word").await.contains("got-word"));
        assert_eq!(f.creator.end.await.unwrap(), Outcome::Process(Ended::Exited(3)));
        f.run.await.unwrap();
        assert!(f.seen.0.lock().unwrap().concat().contains("got-word"));
    }

    #[tokio::test]
    async fn an_observer_sees_the_past_and_cannot_type() {
        let mut f = session("echo begun; read line; echo got-$line");
        output_until(&mut f.creator, "begun").await;
        let (party, mut observer) = Party::new(1, "bob".into(), PartyMode::Observer);
        f.commands.send(Command::Join(party)).await.unwrap();
        assert!(output_until(&mut observer, "begun").await.contains("begun"));
        f.commands.send(Command::Input { party: 1, data: "evil\n".into() }).await.unwrap();
        f.commands.send(Command::Input { party: 0, data: "good\n".into() }).await.unwrap();
        assert!(output_until(&mut observer, "got-good").await.contains("got-good"));
        f.run.await.unwrap();
        assert!(!f.seen.0.lock().unwrap().concat().contains("got-evil"));
    }

    #[tokio::test]
    async fn a_terminated_session_says_why_and_ends() {
        let mut f = session("sleep 600");
        f.commands.send(Command::Terminate { by: None, reason: "locked".into() }).await.unwrap();
        let message = loop {
            match timeout(Duration::from_secs(10), f.creator.notices.recv()).await.unwrap() {
                Some(Notice::Message(text)) => break text,
                Some(_) => {}
                None => panic!("no message"),
            }
        };
        assert_eq!(message, "locked");
        assert_eq!(f.creator.end.await.unwrap(), Outcome::Terminated);
    }

    #[tokio::test]
    async fn a_new_window_size_reaches_the_process_and_the_recorder() {
        let mut f = session("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done");
        output_until(&mut f.creator, "ready").await;
        f.commands.send(Command::Resize { party: 0, size: TerminalSize { columns: 100, rows: 40 } }).await.unwrap();
        assert!(output_until(&mut f.creator, "40 100").await.contains("40 100"));
        f.run.await.unwrap();
        assert!(f.seen.0.lock().unwrap().contains(&"size 100:40".to_owned()));
    }

    #[tokio::test]
    async fn a_flood_of_output_while_typing_does_not_block_the_session() {
        let mut f = session("cat >/dev/null & head -c 200000 /dev/zero | tr '\\0' x; echo; echo done; kill %1");
        let typed = Bytes::from(vec![b'a'; 3000]);
        for _ in 0..20 {
            f.commands.send(Command::Input { party: 0, data: typed.clone() }).await.unwrap();
        }
        assert!(output_until(&mut f.creator, "done").await.contains("done"));
    }
}
