#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::PathBuf, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use tempfile::TempDir;
use wire::events::Exec;

use super::*;
use crate::{Clock, EventExt, FileLog, FileLogConfig, Log, codes};

/// "Signs" with a digest: whoever knows the word can.
struct Word(&'static str);

impl Signer for Word {
    fn key_id(&self) -> String {
        "the key".into()
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(digest(&[self.0.as_bytes(), message]).to_vec())
    }
}

fn accepts(key: &str, message: &[u8], signature: &[u8]) -> bool {
    key == "the key" && digest(&[b"cluster", message]) == signature
}

struct Fixture {
    dir: TempDir,
    now: Arc<Mutex<DateTime<Utc>>>,
    files: Arc<FileLog>,
    log: Log,
    anchor: Option<Anchor>,
}

impl Fixture {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let now = Arc::new(Mutex::new("2026-01-31T12:00:00Z".parse().unwrap()));
        let (files, log) = open(&dir, &now);
        Self { dir, now, files, log, anchor: None }
    }

    async fn emit(&self, count: i64) {
        for index in 0..count {
            let mut event = codes::EXEC.event(Exec::default());
            event.metadata_mut().unwrap().index = index;
            self.log.emit(event).await.unwrap();
        }
    }

    async fn seal(&mut self) -> Anchor {
        let anchor = self.files.seal(Arc::new(Word("cluster")), "one", self.anchor.clone()).await.unwrap().unwrap();
        self.anchor = Some(anchor.clone());
        anchor
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("log/host-1")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn report(&self) -> Report {
        verify(&self.folder(), &accepts, self.anchor.as_slice()).unwrap()
    }

    fn findings(&self) -> Vec<String> {
        self.report().findings.iter().map(|f| format!("{}: {}", f.place, f.what)).collect()
    }

    /// Rewrites the lines of today's file.
    fn rewrite(&self, change: impl FnOnce(&mut Vec<String>)) {
        let path = self.path(TODAY);
        let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        change(&mut lines);
        fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
}

const TODAY: &str = "2026-01-31.00:00:00.log";
const CHAIN: &str = "2026-01-31.00:00:00.chain";

fn open(dir: &TempDir, now: &Arc<Mutex<DateTime<Utc>>>) -> (Arc<FileLog>, Log) {
    let shared = now.clone();
    let clock = Clock::from_fn(move || *shared.lock());
    let files = Arc::new(FileLog::open(FileLogConfig::in_data_dir(dir.path(), "host-1"), clock.clone()).unwrap());
    let log = Log::new(files.clone(), "one", clock);
    (files, log)
}

#[tokio::test]
async fn an_untouched_log_is_clean_over_days_and_restarts() {
    let mut f = Fixture::new();
    f.emit(5).await;
    assert_eq!(f.seal().await.number, 1);
    assert_eq!(f.seal().await.number, 1, "nothing has happened");
    f.emit(3).await;
    (f.files, f.log) = open(&f.dir, &f.now);
    f.emit(2).await;
    *f.now.lock() += TimeDelta::days(1);
    f.emit(4).await;
    assert_eq!(f.seal().await.number, 2);
    f.emit(1).await;
    let report = f.report();
    assert_eq!((report.checkpoints, report.files, report.lines, report.uncovered), (2, 2, 14, 1));
    assert!(report.is_clean() && report.notes.is_empty(), "{report:?}");
    assert_eq!(report.latest, f.anchor);
}

#[tokio::test]
async fn what_was_done_to_a_line_is_told_with_its_place() {
    let mut f = Fixture::new();
    f.emit(20).await;
    f.seal().await;
    let whole = fs::read(f.path(TODAY)).unwrap();
    f.rewrite(|lines| lines[6] = lines[6].replace("exec", "exek"));
    assert_eq!(f.findings(), [format!("{TODAY} line 7: changed")]);
    fs::write(f.path(TODAY), &whole).unwrap();
    f.rewrite(|lines| drop(lines.drain(3..6)));
    assert_eq!(f.findings(), [format!("{TODAY} lines 4 to 6: removed")]);
    fs::write(f.path(TODAY), &whole).unwrap();
    f.rewrite(|lines| drop(lines.drain(15..)));
    assert_eq!(f.findings(), [format!("{TODAY} lines 16 to 20: removed")]);
    fs::write(f.path(TODAY), &whole).unwrap();
    f.rewrite(|lines| lines.insert(2, "{}".into()));
    assert_eq!(f.findings(), [format!("{TODAY} line 3: not written by the cluster, or moved here")]);
    fs::write(f.path(TODAY), &whole).unwrap();
    f.rewrite(|lines| lines.swap(10, 11));
    assert!(!f.findings().is_empty() && f.findings()[0].contains("moved"), "{:?}", f.findings());
    fs::remove_file(f.path(TODAY)).unwrap();
    assert_eq!(f.findings(), [format!("{TODAY}: the file is missing")]);
}

#[tokio::test]
async fn a_log_rewritten_with_its_chain_is_caught_by_the_checkpoints() {
    let mut f = Fixture::new();
    f.emit(4).await;
    f.seal().await;
    f.emit(4).await;
    f.seal().await;
    f.rewrite(|lines| lines[5] = lines[5].replace("exec", "exek"));
    fs::remove_file(f.path(CHAIN)).unwrap();
    let found = f.findings();
    assert!(found.len() == 1 && found[0].starts_with(&format!("{TODAY} lines 5 to 8: changed")), "{found:?}");
}

#[tokio::test]
async fn checkpoints_cannot_be_forged_removed_or_cut_off() {
    let mut f = Fixture::new();
    for _ in 0..3 {
        f.emit(1).await;
        f.seal().await;
    }
    let path = f.path("checkpoints.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    fs::write(&path, whole.replacen("\\\"lines\\\":1", "\\\"lines\\\":2", 1)).unwrap();
    assert!(f.findings()[0].contains("was not signed by the cluster"), "{:?}", f.findings());
    fs::write(&path, format!("{}\n{}\n", lines[0], lines[2])).unwrap();
    assert!(f.findings()[0].contains("checkpoints 2 to 2 are missing"), "{:?}", f.findings());
    fs::write(&path, format!("{}\n{}\n", lines[0], lines[1])).unwrap();
    assert_eq!(f.findings(), ["checkpoint 3: is missing, and with it everything after it"]);
    // A restart does not cover it up: the next checkpoint follows the one that the cluster remembers.
    (f.files, f.log) = open(&f.dir, &f.now);
    f.emit(1).await;
    assert_eq!(f.seal().await.number, 4);
    assert!(f.findings()[0].contains("checkpoints 3 to 3 are missing"), "{:?}", f.findings());
    fs::write(&path, "").unwrap();
    let stranger = f.files.seal(Arc::new(Word("thief")), "one", None).await.unwrap();
    assert!(stranger.is_some());
    assert!(!f.report().is_clean());
}

#[tokio::test]
async fn lines_added_while_nothing_ran_are_noted() {
    let mut f = Fixture::new();
    f.emit(2).await;
    f.seal().await;
    f.rewrite(|lines| lines.push(lines[0].clone()));
    (f.files, f.log) = open(&f.dir, &f.now);
    f.seal().await;
    let report = f.report();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.notes[0].place, format!("{TODAY} line 3"));
    // A file of a day that is past was never written by the cluster.
    fs::write(f.path("2025-01-01.00:00:00.log"), "{}\n").unwrap();
    assert_eq!(f.findings(), ["2025-01-01.00:00:00.log: no checkpoint knows this file"]);
}

#[tokio::test]
async fn files_removed_because_of_their_age_are_not_missed() {
    let mut f = Fixture::new();
    f.emit(2).await;
    f.seal().await;
    *f.now.lock() += TimeDelta::days(40);
    f.emit(1).await;
    let day = f.now.lock().date_naive();
    assert_eq!(f.files.retire_before(day).await.unwrap(), 1);
    f.seal().await;
    // A stop here: the file that nothing vouches for is no sign of tampering.
    assert!(f.report().is_clean() && f.report().notes.len() == 1, "{:?}", f.report());
    assert_eq!(f.files.remove_retired().await.unwrap(), 1);
    assert!(!f.path(TODAY).exists() && !f.path(CHAIN).exists());
    f.seal().await;
    assert!(f.report().is_clean(), "{:?}", f.report());
}

#[tokio::test]
async fn a_removed_day_may_be_made_anew_by_an_event_that_comes_late() {
    let mut f = Fixture::new();
    f.emit(2).await;
    f.seal().await;
    let old = *f.now.lock();
    *f.now.lock() += TimeDelta::days(20);
    f.emit(1).await;
    let late = || {
        let mut event = codes::EXEC.event(Exec::default());
        event.metadata_mut().unwrap().time = Some(wire::time::timestamp(old));
        event
    };
    let day = f.now.lock().date_naive();
    f.files.retire_before(day).await.unwrap();
    f.seal().await;
    f.files.remove_retired().await.unwrap();
    f.log.emit(late()).await.unwrap();
    f.seal().await;
    let report = f.report();
    assert!(report.is_clean() && report.lines == 2, "{report:?}");
    // One that comes between saying and doing keeps its file.
    f.files.retire_before(day).await.unwrap();
    f.seal().await;
    f.log.emit(late()).await.unwrap();
    assert_eq!(f.files.remove_retired().await.unwrap(), 0);
    f.seal().await;
    assert!(f.report().is_clean() && f.path(TODAY).exists(), "{:?}", f.report());
    fs::remove_file(f.path(TODAY)).unwrap();
    assert_eq!(f.findings(), [format!("{TODAY}: the file is missing")]);
}

#[tokio::test]
async fn what_a_failure_of_power_leaves_is_no_sign_of_tampering() {
    for garbage in [vec![0; 72], vec![0; 4096], vec![7; 100]] {
        let mut f = Fixture::new();
        f.emit(5).await;
        f.seal().await;
        f.emit(3).await;
        let (chain, whole) = (f.path(CHAIN), fs::read(f.path(CHAIN)).unwrap());
        // The last three links, and a checkpoint, came to the disk as something else.
        fs::write(&chain, [&whole[..5 * 72], garbage.as_slice()].concat()).unwrap();
        let checkpoints = f.path("checkpoints.jsonl");
        let torn = [fs::read(&checkpoints).unwrap(), garbage.clone(), b"\"}\n".to_vec()].concat();
        fs::write(&checkpoints, torn).unwrap();
        (f.files, f.log) = open(&f.dir, &f.now);
        f.emit(1).await;
        assert_eq!(f.seal().await.number, 2);
        let report = f.report();
        assert!(report.is_clean() && report.lines == 9, "{report:?}");
        assert_eq!(report.notes.len(), 1, "the lines whose links were lost: {report:?}");
    }
}

#[tokio::test]
async fn a_chain_made_anew_hides_no_change() {
    let mut f = Fixture::new();
    f.emit(5).await;
    f.seal().await;
    f.rewrite(|lines| lines[2] = lines[2].replace("exec", "exek"));
    let chain = fs::read(f.path(CHAIN)).unwrap();
    fs::write(f.path(CHAIN), [&chain[..72], vec![0; 4 * 72].as_slice()].concat()).unwrap();
    (f.files, f.log) = open(&f.dir, &f.now);
    f.emit(1).await;
    f.seal().await;
    assert!(!f.report().is_clean());
}

#[tokio::test]
async fn any_checkpoint_of_the_past_can_be_asked_for() {
    let mut f = Fixture::new();
    f.emit(1).await;
    let first = f.seal().await;
    f.emit(1).await;
    let second = f.seal().await;
    let other = Anchor { digest: "00".repeat(32), ..first.clone() };
    let read = std::cell::Cell::new(0);
    let counts = |key: &str, message: &[u8], signature: &[u8]| {
        read.set(read.get() + 1);
        accepts(key, message, signature)
    };
    let wanted = vec![first.clone(), other.clone(), second, first];
    assert_eq!(lacking(&f.folder(), &counts, wanted).unwrap(), [other]);
    assert_eq!(read.get(), 2, "each checkpoint is read once, however many are asked for");
}

#[tokio::test]
async fn steps_of_the_clock_lose_and_hide_nothing() {
    let mut f = Fixture::new();
    for step in [0, 86_400, -90_000, -3, 40 * 86_400, -40 * 86_400, 7] {
        *f.now.lock() += TimeDelta::seconds(step);
        f.emit(2).await;
        f.seal().await;
    }
    let report = f.report();
    assert!(report.is_clean() && report.lines == 14, "{report:?}");
    let mut all = crate::Query::between(DateTime::UNIX_EPOCH, *f.now.lock() + TimeDelta::days(100));
    all.limit = 100;
    let times: Vec<String> =
        f.log.search(all).await.unwrap().events.iter().map(|e| e.fields["time"].to_string()).collect();
    assert_eq!(times.len(), 14);
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
}
