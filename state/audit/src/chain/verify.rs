//! Compares a log with its chain and checkpoints.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io,
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    Anchor, Digest, beginning,
    checkpoint::{FILE, FileState, PURPOSE, Signed, Statement},
    digest,
    links::{for_lines, read_links},
    step,
};
use crate::{Error, Result, file::file_day};

/// Whether a key of the cluster made a signature: (key, message, signature).
type Accepts<'a> = dyn Fn(&str, &[u8], &[u8]) -> bool + 'a;

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The checkpoints that were read and are in order.
    pub checkpoints: u64,
    /// The files they speak of.
    pub files: u64,
    /// The lines they cover.
    pub lines: u64,
    /// Lines written since the last checkpoint, which nothing vouches for yet.
    pub uncovered: u64,
    /// The latest checkpoint.
    pub latest: Option<Anchor>,
    /// What was tampered with.
    pub findings: Vec<Finding>,
    /// What is no sign of tampering by itself, but worth knowing.
    pub notes: Vec<Finding>,
}

/// Something found, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A file, with lines counted from 1, or a checkpoint.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

/// How many findings are listed; whoever rewrites a log produces no endless answers.
const MAX_FINDINGS: usize = 200;
/// How far ahead a line is looked for that is not where it should be.
const WINDOW: usize = 10_000;

/// Verifies the log in `folder`. `accepts` says whether a key of the cluster, named by its id, made a signature;
/// `anchors` are checkpoints known from elsewhere. Blocks: it reads everything.
///
/// # Errors
///
/// [`Error::Storage`] when the files cannot be read.
pub fn verify(folder: &Path, accepts: &Accepts<'_>, anchors: &[Anchor]) -> Result<Report> {
    let mut report = Report::default();
    let known = checkpoints(folder, accepts, anchors, &mut report)?;
    for (name, history) in &known.files {
        let path = folder.join(name);
        match File::open(&path) {
            Ok(file) => {
                report.files += 1;
                let read = FileCheck { name, history, folder }.run(&file, &mut report);
                read.map_err(|e| Error::storage("read", &path, e))?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => report.found(name, "the file is missing"),
            Err(e) => return Err(Error::storage("open", &path, e)),
        }
    }
    strangers(folder, &known, &mut report)?;
    Ok(report)
}

/// Those of `wanted` that are not among the checkpoints of the log in `folder`, which need not be in order. Blocks: it
/// reads all checkpoints, once.
///
/// # Errors
///
/// [`Error::Storage`] when the checkpoints cannot be read.
pub fn lacking(folder: &Path, accepts: &Accepts<'_>, mut wanted: Vec<Anchor>) -> Result<Vec<Anchor>> {
    if wanted.is_empty() {
        return Ok(wanted);
    }
    let path = folder.join(FILE);
    let each = |line: &[u8], _| {
        if let Ok((_, has)) = signed(line, accepts) {
            wanted.retain(|anchor| *anchor != has);
        }
    };
    match File::open(&path).and_then(|file| for_lines(&file, 0, each)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::storage("read", &path, e)),
        _ => Ok(wanted),
    }
}

/// What the checkpoints say.
#[derive(Default)]
struct Known {
    /// The states of each file, oldest first.
    files: BTreeMap<String, Vec<FileState>>,
    removed: HashSet<String>,
}

fn checkpoints(folder: &Path, accepts: &Accepts<'_>, anchors: &[Anchor], report: &mut Report) -> Result<Known> {
    let path = folder.join(FILE);
    let (mut known, mut seen, mut at) = (Known::default(), HashMap::new(), 0);
    let each = |line: &[u8], _| {
        at += 1;
        let place = format!("{FILE} line {at}");
        match signed(line, accepts) {
            Ok((statement, anchor)) => {
                follows(&statement, report, &place);
                seen.insert(anchor.number, anchor.digest.clone());
                report.checkpoints += 1;
                report.latest = Some(anchor);
                // A file of the same name may have been made anew since, by an event that came late.
                for name in statement.removed {
                    known.files.remove(&name);
                    known.removed.insert(name);
                }
                for (name, state) in statement.files {
                    known.removed.remove(&name);
                    known.files.entry(name).or_default().push(state);
                }
            }
            Err(what) => report.found(&place, what),
        }
    };
    match File::open(&path).and_then(|file| for_lines(&file, 0, each)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::storage("read", &path, e)),
        _ => {}
    }
    for anchor in anchors {
        let place = format!("checkpoint {}", anchor.number);
        match seen.get(&anchor.number) {
            Some(digest) if *digest == anchor.digest => {}
            Some(_) => report.found(&place, "is another one than the cluster remembers"),
            None => report.found(&place, "is missing, and with it everything after it"),
        }
    }
    Ok(known)
}

fn signed(line: &[u8], accepts: &Accepts<'_>) -> Result<(Statement, Anchor), &'static str> {
    let signed: Signed = serde_json::from_slice(line).map_err(|_| "is no checkpoint")?;
    let signature = STANDARD.decode(&signed.signature).map_err(|_| "has no readable signature")?;
    let message = format!("{PURPOSE}{}", signed.statement);
    if !accepts(&signed.key, message.as_bytes(), &signature) {
        return Err("was not signed by the cluster");
    }
    let statement = signed.statement().ok_or("cannot be read")?;
    let anchor = signed.anchor(statement.number);
    Ok((statement, anchor))
}

/// Checks that a checkpoint follows the one before.
fn follows(statement: &Statement, report: &mut Report, place: &str) {
    let (expected, previous) = match &report.latest {
        Some(last) => (last.number + 1, last.digest.as_str()),
        None => (1, ""),
    };
    if statement.number > expected {
        let last = statement.number - 1;
        report.found(place, format!("checkpoints {expected} to {last} are missing before number {}", statement.number));
    } else if statement.number < expected {
        report.found(place, format!("has number {}, expected {expected}", statement.number));
    } else if statement.previous != previous {
        report.found(place, format!("does not follow checkpoint {}", expected - 1));
    }
}

/// Files that no checkpoint knows.
fn strangers(folder: &Path, known: &Known, report: &mut Report) -> Result<()> {
    let newest = known.files.keys().chain(&known.removed).max();
    let entries = fs::read_dir(folder).map_err(|e| Error::storage("list", folder, e))?;
    let mut names: Vec<_> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    for name in names {
        if file_day(&name).is_none() || known.files.contains_key(&name) {
            continue;
        }
        if known.removed.contains(&name) {
            // A stop between saying so and doing it; the next start makes up for it.
            report.note(&name, "too old, and not removed yet: nothing vouches for it any more");
        } else if newest.is_none_or(|newest| name > *newest) {
            let file = File::open(folder.join(&name)).map_err(|e| Error::storage("open", folder, e))?;
            for_lines(&file, 0, |_, _| report.uncovered += 1).map_err(|e| Error::storage("read", folder, e))?;
        } else {
            report.found(&name, "no checkpoint knows this file");
        }
    }
    Ok(())
}

/// The comparison of one file.
struct FileCheck<'a> {
    name: &'a str,
    history: &'a [FileState],
    folder: &'a Path,
}

impl FileCheck<'_> {
    fn run(&self, file: &File, report: &mut Report) -> io::Result<()> {
        let Some(last) = self.history.last() else { return Ok(()) };
        let mut lines = Vec::new();
        for_lines(file, 0, |line, _| lines.push(digest(&[line])))?;
        report.lines += last.lines;
        for (from, to) in self.history.iter().flat_map(|state| &state.adopted) {
            report.note(&self.lines(*from, *to), "found after a restart: left by a crash, or added while nothing ran");
        }
        if self.good_until(&lines) == self.history.len() {
            report.uncovered += (lines.len() as u64).saturating_sub(last.lines);
            return Ok(());
        }
        let original: Vec<Digest> =
            read_links(&self.folder.join(self.name).with_extension("chain"))?.iter().map(|link| link.line).collect();
        let covered = usize::try_from(last.lines).unwrap_or(usize::MAX);
        match original.get(..covered).filter(|original| self.good_until(original) == self.history.len()) {
            Some(original) => self.compare(original, &lines, report),
            None => self.narrow(&lines, report),
        }
        Ok(())
    }

    /// How many states the digests of lines bear out, one after the other.
    fn good_until(&self, lines: &[Digest]) -> usize {
        let (mut head, mut at) = (beginning(self.name), 0);
        for (good, state) in self.history.iter().enumerate() {
            let upto = usize::try_from(state.lines).unwrap_or(usize::MAX);
            let Some(more) = lines.get(at..upto) else { return good };
            head = more.iter().fold(head, |head, line| step(&head, line));
            at = upto;
            if hex::encode(head) != state.head {
                return good;
            }
        }
        self.history.len()
    }

    /// Without the digests of the original lines, all that can be said is between which checkpoints it happened.
    fn narrow(&self, lines: &[Digest], report: &mut Report) {
        let good = self.good_until(lines);
        let from = good.checked_sub(1).and_then(|i| self.history.get(i)).map_or(0, |state| state.lines);
        let to = self.history.get(good).map_or(from, |state| state.lines);
        let there = lines.len() as u64;
        let what = match there < to {
            true => format!("changed or removed (the file has {there} lines left), and its chain was changed as well"),
            false => "changed, removed or reordered; the chain beside the file was changed as well".to_owned(),
        };
        report.found(&self.lines(from, to), what);
    }

    /// Walks the original and the present lines side by side.
    fn compare(&self, original: &[Digest], now: &[Digest], report: &mut Report) {
        let still: HashSet<&Digest> = now.iter().collect();
        let (mut i, mut j) = (0, 0);
        while i < original.len() && report.findings.len() < MAX_FINDINGS {
            let (Some(was), is) = (original.get(i), now.get(j)) else { return };
            if is == Some(was) {
                (i, j) = (i + 1, j + 1);
                continue;
            }
            let ahead = |list: &[Digest], from: usize, wanted: &Digest| {
                list.get(from..).unwrap_or_default().iter().take(WINDOW).position(|line| line == wanted)
            };
            let removed = is.and_then(|is| ahead(original, i, is));
            let inserted = ahead(now, j, was);
            match (removed, inserted) {
                (Some(count), other) if other.is_none_or(|other| count <= other) => {
                    let moved = original.get(i..i + count).unwrap_or_default().iter().all(|line| still.contains(line));
                    let what = if moved { "moved to another place" } else { "removed" };
                    report.found(&self.lines(i as u64, (i + count) as u64), what);
                    i += count;
                }
                (_, Some(count)) => {
                    report
                        .found(&self.lines(j as u64, (j + count) as u64), "not written by the cluster, or moved here");
                    j += count;
                }
                _ if is.is_none() => {
                    report.found(&self.lines(i as u64, original.len() as u64), "removed");
                    return;
                }
                _ => {
                    report.found(&self.lines(i as u64, i as u64 + 1), "changed");
                    (i, j) = (i + 1, j + 1);
                }
            }
        }
    }

    fn lines(&self, from: u64, to: u64) -> String {
        match to.saturating_sub(from) {
            0 | 1 => format!("{} line {}", self.name, from + 1),
            _ => format!("{} lines {} to {}", self.name, from + 1, to),
        }
    }
}

impl Report {
    /// Adds that a checkpoint is not there which somebody has seen.
    pub fn lacks(&mut self, anchor: &Anchor) {
        self.found(&format!("checkpoint {}", anchor.number), "is not there, or is another one than was expected");
    }

    /// Whether nothing was tampered with.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn found(&mut self, place: &str, what: impl Into<String>) {
        add(&mut self.findings, place, what.into());
    }

    fn note(&mut self, place: &str, what: &str) {
        add(&mut self.notes, place, what.to_owned());
    }
}

fn add(list: &mut Vec<Finding>, place: &str, what: String) {
    if list.len() < MAX_FINDINGS {
        list.push(Finding { place: place.to_owned(), what });
    }
}
