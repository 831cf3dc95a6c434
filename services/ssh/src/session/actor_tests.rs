#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rbac::{Participant, RoleSet, Traits};
use tokio::sync::oneshot;

use super::*;
use crate::channel::TerminalRequest;
use crate::os::account::Account;
use crate::os::process::{Program, Streams, start};
use crate::session::moderation::tests::{auditor, guarded, guarded_of};
use crate::session::{Copier, PartyHandle, TransferRequest, Who};
use crate::worker::sftp::Only;

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Observer for Seen {
    async fn output(&mut self, data: Bytes) {
        self.0.lock().unwrap().push(String::from_utf8_lossy(&data).into_owned());
    }
    async fn resized(&mut self, size: TerminalSize) {
        self.0.lock().unwrap().push(format!("size {size}"));
    }
    async fn started(&mut self) {
        self.0.lock().unwrap().push("started".to_owned());
    }
    async fn joined(&mut self, party: &Party) {
        self.0.lock().unwrap().push(format!("{} joined", party.user()));
    }
    async fn left(&mut self, _: u64, who: &Who) {
        self.0.lock().unwrap().push(format!("{} left", who.participant.user));
    }
}

fn starter(line: &str) -> (Pty, Starter) {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap().unwrap();
    let account = Account::find(&user.name).unwrap();
    let size = TerminalSize { columns: 80, rows: 24 };
    let asked = TerminalRequest { term: "xterm".into(), size, modes: Vec::new() };
    let pty = Pty::open(&asked, &account).unwrap();
    let line = line.to_owned();
    let start = move |pty: &mut Pty| {
        let env = BTreeMap::from([("PATH".to_owned(), "/bin:/usr/bin".to_owned())]);
        start(&account, &Program::Command(line.into()), &env, Streams::Terminal(pty.slave()?), None, None)
    };
    (pty, Box::new(start))
}

struct Fixture {
    commands: mpsc::Sender<Command>,
    typed: mpsc::Sender<Typed>,
    creator: PartyHandle,
    seen: Seen,
    run: tokio::task::JoinHandle<(Seen, Outcome)>,
}

fn party(id: u64, participant: Participant) -> (Party, PartyHandle) {
    Party::new(
        id,
        Who {
            local_name: participant.user.clone(),
            user: Default::default(),
            connection: Default::default(),
            participant,
        },
    )
}

fn participant(user: &str, mode: JoinMode) -> Participant {
    Participant::new(user, &(), RoleSet::compile([], Traits::default()), mode)
}

fn session(line: &str) -> Fixture {
    let (mut pty, start) = starter(line);
    let child = start(&mut pty).unwrap();
    pty.release_slave();
    run(Launch { pty, process: Process::Started(Box::new(child)) }, None)
}

fn run(launch: Launch, moderation: Option<Moderation>) -> Fixture {
    let (commands, commands_rx) = mpsc::channel(8);
    let (typed, typed_rx) = mpsc::channel(8);
    let (size, _) = watch::channel(TerminalSize { columns: 80, rows: 24 });
    let (creator, creator_handle) = party(0, participant("alice", JoinMode::Peer));
    let seen = Seen::default();
    let actor = SessionActor::new(Setup {
        id: "the-id".into(),
        hostname: "web-1".into(),
        home: "/home/dev".into(),
        launch,
        creator,
        commands: commands_rx,
        typed: typed_rx,
        size,
        moderation,
        observer: seen.clone(),
    });
    Fixture { commands, typed, creator: creator_handle, seen, run: tokio::spawn(actor.run()) }
}

async fn output_until(party: &mut PartyHandle, mark: &str) -> String {
    let mut text = String::new();
    while !text.contains(mark) {
        let notice = timeout(Duration::from_secs(10), party.notices.recv()).await;
        match notice.unwrap_or_else(|_| panic!("waited for {mark:?}, got {text:?}")) {
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
    f.typed.send(Typed { party: 0, data: "word\n".into() }).await.unwrap();
    assert!(output_until(&mut f.creator, "got-word").await.contains("got-word"));
    assert_eq!(f.creator.end.await.unwrap(), Outcome::Process(Ended::Exited(3)));
    f.run.await.unwrap();
    assert!(f.seen.0.lock().unwrap().concat().contains("got-word"));
}

#[tokio::test]
async fn an_observer_sees_the_past_and_cannot_type() {
    let mut f = session("echo begun; read line; echo got-$line");
    output_until(&mut f.creator, "begun").await;
    let (joiner, mut observer) = party(1, participant("bob", JoinMode::Observer));
    f.commands.send(Command::Join(Box::new(joiner))).await.unwrap();
    assert!(output_until(&mut observer, "begun").await.contains("begun"));
    f.typed.send(Typed { party: 1, data: "evil\n".into() }).await.unwrap();
    f.typed.send(Typed { party: 0, data: "good\n".into() }).await.unwrap();
    assert!(output_until(&mut observer, "got-good").await.contains("got-good"));
    f.run.await.unwrap();
    assert!(!f.seen.0.lock().unwrap().concat().contains("got-evil"));
}

#[tokio::test]
async fn a_terminated_session_says_why_and_ends() {
    let mut f = session("sleep 600");
    f.commands.send(Command::Terminate { by: None, reason: "locked".into() }).await.unwrap();
    assert_eq!(message(&mut f.creator).await, "locked");
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
        f.typed.send(Typed { party: 0, data: typed.clone() }).await.unwrap();
    }
    assert!(output_until(&mut f.creator, "done").await.contains("done"));
}

#[tokio::test]
async fn a_command_that_reads_nothing_does_not_keep_a_session_from_being_ended() {
    let mut f = session("exec sleep 600");
    for _ in 0..40 {
        let _ = f.typed.try_send(Typed { party: 0, data: Bytes::from(vec![b'a'; 32 * 1024]) });
        tokio::task::yield_now().await;
    }
    f.commands.send(Command::Terminate { by: None, reason: "locked".into() }).await.unwrap();
    assert_eq!(timeout(Duration::from_secs(10), &mut f.creator.end).await.unwrap().unwrap(), Outcome::Terminated);
}

#[tokio::test]
async fn a_party_that_takes_no_output_does_not_keep_a_session_from_being_ended() {
    let mut f = session("while :; do echo more and more; done");
    output_until(&mut f.creator, "more").await;
    while f.creator.notices.len() < f.creator.notices.max_capacity() {
        tokio::task::yield_now().await;
    }
    f.commands.send(Command::Terminate { by: None, reason: "locked".into() }).await.unwrap();
    assert_eq!(timeout(Duration::from_secs(10), &mut f.creator.end).await.unwrap().unwrap(), Outcome::Terminated);
}

#[tokio::test]
async fn only_the_owners_window_decides_while_the_owner_is_there() {
    let f = session("sleep 600");
    let (joiner, _handle) = party(1, participant("bob", JoinMode::Peer));
    f.commands.send(Command::Join(Box::new(joiner))).await.unwrap();
    let sizes = [(1, 100), (0, 90), (1, 110)];
    for (party, columns) in sizes {
        f.commands.send(Command::Resize { party, size: TerminalSize { columns, rows: 30 } }).await.unwrap();
    }
    f.commands.send(Command::Leave { party: 0 }).await.unwrap();
    f.commands.send(Command::Resize { party: 1, size: TerminalSize { columns: 120, rows: 30 } }).await.unwrap();
    f.commands.send(Command::Terminate { by: None, reason: "end".into() }).await.unwrap();
    f.run.await.unwrap();
    let seen = f.seen.0.lock().unwrap();
    let sizes: Vec<_> = seen.iter().filter(|s| s.starts_with("size")).collect();
    assert_eq!(sizes, ["size 90:30", "size 120:30"]);
}

#[tokio::test]
async fn a_session_waits_for_its_moderator_pauses_without_and_ends_when_told_to() {
    let (pty, start) = starter("echo begun; cat");
    let mut f = run(Launch { pty, process: Process::Waiting(start) }, Some(guarded("pause")));
    let text = output_until(&mut f.creator, "with mode moderator").await;
    assert!(text.starts_with("Teleport > Creating session with ID: the-id\r\n"), "{text}");
    f.typed.send(Typed { party: 0, data: "too early\n".into() }).await.unwrap();

    let (moderator, mut watching) = party(1, auditor(JoinMode::Moderator));
    f.commands.send(Command::Join(Box::new(moderator))).await.unwrap();
    let text = output_until(&mut f.creator, "begun").await;
    assert!(text.contains("User bob joined the session with participant mode: moderator."), "{text}");
    assert!(text.contains("Teleport > Connecting to web-1 over SSH"), "{text}");
    f.typed.send(Typed { party: 0, data: "first\n".into() }).await.unwrap();
    let text = output_until(&mut watching, "first\r\nfirst").await;
    assert!(text.contains("first\r\nfirst") && !text.contains("too early"), "{text}");

    f.commands.send(Command::Leave { party: 1 }).await.unwrap();
    output_until(&mut f.creator, "Session paused").await;
    f.typed.send(Typed { party: 0, data: "unheard\n".into() }).await.unwrap();
    let (moderator, _handle) = party(2, auditor(JoinMode::Moderator));
    f.commands.send(Command::Join(Box::new(moderator))).await.unwrap();
    output_until(&mut f.creator, "Resuming session...").await;

    f.commands.send(Command::Terminate { by: Some(0), reason: "not a moderator".into() }).await.unwrap();
    f.commands
        .send(Command::Terminate { by: Some(2), reason: "Forcefully terminating session...".into() })
        .await
        .unwrap();
    output_until(&mut f.creator, "Forcefully terminating session...").await;
    assert_eq!(f.creator.end.await.unwrap(), Outcome::Terminated);
    f.run.await.unwrap();
    assert!(!f.seen.0.lock().unwrap().concat().contains("unheard"));
}

#[tokio::test]
async fn a_session_ends_with_its_moderator_where_the_role_says_so_and_who_waits_can_give_up() {
    let (pty, start) = starter("sleep 600");
    let mut f = run(Launch { pty, process: Process::Waiting(start) }, Some(guarded("terminate")));
    let (moderator, _handle) = party(1, auditor(JoinMode::Moderator));
    f.commands.send(Command::Join(Box::new(moderator))).await.unwrap();
    output_until(&mut f.creator, "Connecting").await;
    f.commands.send(Command::Leave { party: 1 }).await.unwrap();
    assert_eq!(timeout(Duration::from_secs(10), &mut f.creator.end).await.unwrap().unwrap(), Outcome::Terminated);

    let (pty, start) = starter("sleep 600");
    let mut f = run(Launch { pty, process: Process::Waiting(start) }, Some(guarded("terminate")));
    f.typed.send(Typed { party: 0, data: "\x03".into() }).await.unwrap();
    assert_eq!(timeout(Duration::from_secs(10), &mut f.creator.end).await.unwrap().unwrap(), Outcome::Terminated);
    f.run.await.unwrap();
    assert!(!f.seen.0.lock().unwrap().contains(&"started".to_owned()));
}

#[tokio::test]
async fn somebody_who_comes_after_the_process_has_ended_does_not_keep_the_session() {
    // What is left behind holds the terminal, and would for longer than the test takes.
    let mut f = session("trap '' HUP; sleep 120 & echo left-$!; exit 3");
    let text = output_until(&mut f.creator, "left-").await;
    let (joiner, _observer) = party(1, participant("bob", JoinMode::Observer));
    f.commands.send(Command::Join(Box::new(joiner))).await.unwrap();
    f.commands.send(Command::Leave { party: 1 }).await.unwrap();
    f.commands.send(Command::Leave { party: 0 }).await.unwrap();
    let ended = timeout(Duration::from_secs(10), f.run).await;
    let digits: String =
        text.split("left-").nth(1).unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    if let Ok(id) = digits.parse() {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), Signal::SIGKILL);
    }
    assert_eq!(ended.unwrap().unwrap().1, Outcome::Process(Ended::Exited(3)));
}

/// A watched session of alice's that runs, with its moderator's end.
async fn watched() -> (Fixture, PartyHandle) {
    let (pty, start) = starter("sleep 600");
    let mut f = run(Launch { pty, process: Process::Waiting(start) }, Some(guarded("pause")));
    let (moderator, watching) = party(1, auditor(JoinMode::Moderator));
    f.commands.send(Command::Join(Box::new(moderator))).await.unwrap();
    output_until(&mut f.creator, "Connecting").await;
    (f, watching)
}

/// Asks for a file as a user on another connection.
async fn ask_for_a_file(f: &Fixture, user: &str) -> Result<(), String> {
    let request = TransferRequest { download: true, location: "a".into(), filename: String::new() };
    let (answer, answered) = oneshot::channel();
    let by = By::User(user.to_owned());
    f.commands.send(Command::WantTransfer { by, request, answer: Some(answer) }).await.unwrap();
    answered.await.unwrap()
}

/// Begins a copy as a user on another connection.
async fn copy(f: &Fixture, user: &str) -> oneshot::Receiver<Result<Only, String>> {
    let (answer, answered) = oneshot::channel();
    let copier = Copier { user: user.to_owned(), rules: guarded_of(user, "pause"), answer };
    f.commands.send(Command::UseTransfer(copier)).await.unwrap();
    answered
}

/// Id of the request that a party is told of next.
async fn id_of_request(party: &mut PartyHandle) -> String {
    loop {
        match timeout(Duration::from_secs(10), party.notices.recv()).await.unwrap() {
            Some(Notice::Event(text)) => {
                let event: serde_json::Value = serde_json::from_str(&text).unwrap();
                return event["requestID"].as_str().unwrap().to_owned();
            }
            Some(_) => {}
            None => panic!("the session ended"),
        }
    }
}

async fn message(party: &mut PartyHandle) -> String {
    loop {
        match timeout(Duration::from_secs(10), party.notices.recv()).await.unwrap() {
            Some(Notice::Message(text)) => return text,
            Some(_) => {}
            None => panic!("no message"),
        }
    }
}

#[tokio::test]
async fn a_moderator_copies_no_file_by_a_session_of_somebody_else() {
    let (mut f, mut moderator) = watched().await;
    let refused = ask_for_a_file(&f, "bob").await.unwrap_err();
    assert_eq!(refused, "only the owner of a session, while in it, can ask for a file transfer");
    let request = TransferRequest { download: true, location: "a".into(), filename: String::new() };
    let wanted = Command::WantTransfer { by: By::Party(1), request, answer: None };
    f.commands.send(wanted).await.unwrap();
    assert_eq!(message(&mut moderator).await, refused);

    // Nor by what its owner asked for and he approved.
    ask_for_a_file(&f, "alice").await.unwrap();
    let id = id_of_request(&mut f.creator).await;
    f.commands.send(Command::DecideTransfer { party: 1, id, approved: true }).await.unwrap();
    let refused = copy(&f, "bob").await.await.unwrap().unwrap_err();
    assert_eq!(refused, "the moderated session has no file transfer request of yours");
    assert_eq!(copy(&f, "alice").await.await.unwrap().unwrap().path, "/home/dev/a");
    f.commands.send(Command::Terminate { by: None, reason: "end".into() }).await.unwrap();
    f.run.await.unwrap();
}

#[tokio::test]
async fn nobody_approves_a_file_transfer_of_their_own() {
    let (mut f, _moderator) = watched().await;
    // The owner takes part twice, and is a moderator of her own session the second time.
    let (second, mut herself) = party(2, participant("alice", JoinMode::Moderator));
    f.commands.send(Command::Join(Box::new(second))).await.unwrap();
    ask_for_a_file(&f, "alice").await.unwrap();
    let id = id_of_request(&mut f.creator).await;
    let mut waiting = copy(&f, "alice").await;
    f.commands.send(Command::DecideTransfer { party: 2, id: id.clone(), approved: true }).await.unwrap();
    assert_eq!(message(&mut herself).await, "nobody can approve a file transfer of their own");
    assert!(waiting.try_recv().is_err());
    f.commands.send(Command::DecideTransfer { party: 1, id, approved: true }).await.unwrap();
    assert!(timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().is_ok());
    f.commands.send(Command::Terminate { by: None, reason: "end".into() }).await.unwrap();
    f.run.await.unwrap();
}

#[tokio::test]
async fn a_session_without_rules_approves_no_file_transfer() {
    let f = session("sleep 600");
    let refused = ask_for_a_file(&f, "alice").await.unwrap_err();
    assert!(refused.contains("nobody can approve a file transfer in it"), "{refused}");
    assert!(copy(&f, "alice").await.await.unwrap().is_err());
    f.commands.send(Command::Terminate { by: None, reason: "end".into() }).await.unwrap();
    f.run.await.unwrap();
}
