//! Puts lines on disk: one thread, one flush for all lines that wait.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    mem,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use backend::GroupCommit;
use chrono::NaiveDate;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::{FileLogConfig, file_day, file_name};
use crate::{
    Clock, Error, Result,
    chain::{Chain, FileState},
};

/// A line to be stored, and who waits for that.
pub(super) struct Line {
    /// Whose day's file it belongs to.
    pub day: NaiveDate,
    /// The JSON text with its line feed.
    pub text: String,
    /// Told when the line is on disk, or why it is not.
    pub done: oneshot::Sender<Result<()>>,
}

/// What the writing thread is asked to do.
pub(super) enum Job {
    /// Store a line.
    Line(Line),
    /// Say what has changed since the last such question.
    Changes(oneshot::Sender<Changes>),
    /// Say with the next changes that the files of the days before this one are to be removed.
    Retire(NaiveDate, oneshot::Sender<Result<usize>>),
    /// Remove those of them to which nothing was added since.
    Remove(oneshot::Sender<Result<usize>>),
}

/// What has happened to the files of a log.
#[derive(Default)]
pub(super) struct Changes {
    /// Files that have grown, by name, and how far they have come.
    pub files: BTreeMap<String, FileState>,
    /// Files that were removed because of their age.
    pub removed: Vec<String>,
}

impl Changes {
    /// Adds what has happened since.
    pub fn merge(&mut self, later: Self) {
        for name in &later.removed {
            self.files.remove(name);
        }
        for (name, mut state) in later.files {
            let before = self.files.remove(&name).map(|state| state.adopted).unwrap_or_default();
            state.adopted.splice(0..0, before);
            self.files.insert(name, state);
        }
        self.removed.extend(later.removed);
    }
}

/// The writing side of the log.
pub(super) struct Writer {
    folder: PathBuf,
    link: PathBuf,
    clock: Clock,
    current: Option<DayFile>,
    changes: Changes,
    /// Files to be removed, which a checkpoint will say first.
    retired: Vec<String>,
}

/// How often the writer looks for the lines that it waits for.
const NAP: Duration = Duration::from_micros(50);
/// The most bytes that share one flush.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

impl Writer {
    /// Makes the folders and opens today's file.
    pub fn open(config: &FileLogConfig, clock: Clock) -> Result<Self> {
        for folder in [config.link.parent(), Some(&config.folder)].into_iter().flatten() {
            make_folder(folder).map_err(|e| Error::storage("make folder", folder, e))?;
        }
        let (folder, link) = (config.folder.clone(), config.link.clone());
        let mut writer = Self { folder, link, clock, current: None, changes: Changes::default(), retired: Vec::new() };
        writer.today()?;
        Ok(writer)
    }

    /// Does what comes through `queue` until its senders are gone.
    pub fn start(mut self, mut queue: mpsc::Receiver<Job>) -> Result<()> {
        let folder = self.folder.clone();
        let run = move || {
            let (mut next, mut group) = (None, GroupCommit::default());
            loop {
                let waiting: Option<Job> = next.take().or_else(|| queue.try_recv().ok());
                let came_before = waiting.is_some();
                let Some(job) = waiting.or_else(|| queue.blocking_recv()) else { return };
                match job {
                    Job::Line(first) => {
                        let (batch, other) = gather(first, &mut queue, &group, came_before);
                        next = other;
                        let (began, callers) = (Instant::now(), batch.len());
                        self.store(batch);
                        group.flushed(callers, began, Instant::now());
                    }
                    // Whoever asked and went away does not need the answer.
                    Job::Changes(answer) => drop(answer.send(mem::take(&mut self.changes))),
                    Job::Retire(before, answer) => drop(answer.send(self.retire_before(before))),
                    Job::Remove(answer) => drop(answer.send(self.remove_retired())),
                }
            }
        };
        let thread = thread::Builder::new().name("audit-log".into()).spawn(run);
        thread.map(drop).map_err(|e| Error::storage("start the writer of", &folder, e))
    }

    /// The names of the files of the days before `day`.
    fn files_before(&self, day: NaiveDate) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.folder).map_err(|e| Error::storage("list", &self.folder, e))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let current = self.current.as_ref().and_then(|file| file.path.file_name());
        Ok(names.filter(|n| file_day(n).is_some_and(|of| of < day) && current != Some(n.as_ref())).collect())
    }

    /// Takes down that the files of the days before `day` are to be removed.
    fn retire_before(&mut self, day: NaiveDate) -> Result<usize> {
        let names = self.files_before(day)?;
        for name in &names {
            self.changes.files.remove(name);
        }
        self.changes.removed.extend(names.iter().cloned());
        self.retired = names;
        Ok(self.retired.len())
    }

    /// Removes the files that were retired, with their chains.
    fn remove_retired(&mut self) -> Result<usize> {
        let mut count = 0;
        while let Some(name) = self.retired.pop() {
            let path = self.folder.join(&name);
            fs::remove_file(&path).map_err(|e| Error::storage("remove", &path, e))?;
            fs::remove_file(path.with_extension("chain")).ok();
            info!(file = name, "audit log file removed because of its age");
            count += 1;
        }
        Ok(count)
    }

    /// Stores lines day by day and tells every emitter how it went.
    fn store(&mut self, mut batch: Vec<Line>) {
        while let Some(day) = batch.first().map(|l| l.day) {
            let (lines, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|l| l.day == day);
            batch = rest;
            let mut bytes = String::with_capacity(lines.iter().map(|l| l.text.len()).sum());
            lines.iter().for_each(|l| bytes.push_str(&l.text));
            let outcome = self.append(day, bytes.as_bytes());
            if let Err(error) = &outcome {
                warn!(%error, events = lines.len(), "audit events not stored");
            }
            for line in lines {
                line.done.send(outcome.clone()).ok();
            }
        }
    }

    /// Appends to the file of `day` and flushes it.
    fn append(&mut self, day: NaiveDate, bytes: &[u8]) -> Result<()> {
        if self.today()?.day == day
            && let Some(mut file) = self.current.take()
        {
            file.append(bytes)?;
            self.note(&mut file);
            // Kept only after success: after a failure the file is opened and repaired anew, and so is its chain.
            self.current = Some(file).filter(|file| file.chain.is_some());
            return Ok(());
        }
        let mut file = DayFile::open(&self.folder, day)?;
        file.append(bytes)?;
        self.note(&mut file);
        Ok(())
    }

    /// Remembers how far a file has come, for the next checkpoint.
    fn note(&mut self, file: &mut DayFile) {
        let Some(chain) = &mut file.chain else { return };
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.retired.retain(|retired| *retired != name);
        let before = self.changes.files.remove(&name).map(|state| state.adopted).unwrap_or_default();
        let adopted = before.into_iter().chain(chain.adopted.take()).collect();
        let state = FileState { lines: chain.lines, bytes: chain.bytes, head: hex::encode(chain.head), adopted };
        self.changes.files.insert(name, state);
    }

    /// Today's file; on a new day, the link follows.
    fn today(&mut self) -> Result<&DayFile> {
        let day = self.clock.now().date_naive();
        let file = match self.current.take() {
            Some(file) if file.day == day => file,
            _ => {
                let mut file = DayFile::open(&self.folder, day)?;
                self.note(&mut file);
                replace_link(&self.link, &file.path).map_err(|e| Error::storage("make link", &self.link, e))?;
                info!(path = %file.path.display(), "audit log file opened");
                file
            }
        };
        Ok(self.current.insert(file))
    }
}

/// Takes the lines that wait, and those that are expected to come at once, up to another job. `came_before` is whether the
/// first has come during the flush before.
fn gather(
    first: Line,
    queue: &mut mpsc::Receiver<Job>,
    group: &GroupCommit,
    came_before: bool,
) -> (Vec<Line>, Option<Job>) {
    let mut bytes = first.text.len();
    let mut batch = vec![first];
    let mut before = None;
    while bytes < BATCH_BYTES {
        match queue.try_recv() {
            Ok(Job::Line(line)) => {
                bytes += line.text.len();
                batch.push(line);
            }
            Ok(other) => return (batch, Some(other)),
            Err(_) => {
                let before = *before.get_or_insert(if came_before { batch.len() } else { 0 });
                match group.wait(batch.len(), before, Instant::now()) {
                    Some(wait) => thread::sleep(wait.min(NAP)),
                    None => break,
                }
            }
        }
    }
    (batch, None)
}

/// The open file of one day.
struct DayFile {
    day: NaiveDate,
    path: PathBuf,
    file: File,
    length: u64,
    /// Missing when it cannot be kept: events are more important than evidence about them.
    chain: Option<Chain>,
}

impl DayFile {
    fn open(folder: &Path, day: NaiveDate) -> Result<Self> {
        let path = folder.join(file_name(day));
        let open = || {
            let made = !path.exists();
            let mut options = OpenOptions::new();
            let mut file = options.read(true).append(true).create(true).mode(0o640).open(&path)?;
            if made {
                file.set_permissions(Permissions::from_mode(0o640))?;
                File::open(folder)?.sync_all()?;
            }
            let length = repair(&mut file)?;
            let chain = Chain::open(&path, &file);
            let chain = chain.map_err(|error| error!(%error, path = %path.display(), "no chain of the audit log")).ok();
            Ok(Self { day, path: path.clone(), file, length, chain })
        };
        open().map_err(|e| Error::storage("open", &path, e))
    }

    /// Appends whole lines durably; on failure the file is put back to what it was.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += bytes.len() as u64;
                if let Some(chain) = &mut self.chain
                    && let Err(error) = chain.append(bytes)
                {
                    error!(%error, path = %self.path.display(), "the chain of the audit log could not be continued");
                    // Opened anew later, it takes in what is missing and says so.
                    self.chain = None;
                }
                Ok(())
            }
            Err(e) => {
                self.file.set_len(self.length).ok();
                Err(Error::storage("write to", &self.path, e))
            }
        }
    }
}

/// Completes or removes a last line without its line feed: what a crash in the middle of a write leaves. Nobody was
/// told that such a line is stored. Returns the length of the file.
fn repair(file: &mut File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut tail = Vec::new();
    let mut start = size;
    while start > 0 {
        let step = start.min(64 * 1024);
        start -= step;
        let mut block = vec![0; usize::try_from(step).unwrap_or(0)];
        file.read_exact_at(&mut block, start)?;
        let found = block.iter().rposition(|b| *b == b'\n');
        let from = found.map_or(0, |at| at + 1);
        start += from as u64;
        block.drain(..from);
        block.append(&mut tail);
        tail = block;
        if found.is_some() {
            break;
        }
    }
    if tail.is_empty() {
        return Ok(size);
    }
    if serde_json::from_slice::<Value>(&tail).is_ok_and(|v| v.is_object()) {
        file.write_all(b"\n")?;
        return Ok(size + 1);
    }
    file.set_len(start)?;
    Ok(start)
}

/// Makes a folder that the group may use, and its parents.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o770).create(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o770))
}

/// Points `link` at `target` in one step, so that nobody ever finds it missing.
fn replace_link(link: &Path, target: &Path) -> io::Result<()> {
    let target = fs::canonicalize(target)?;
    if fs::read_link(link).is_ok_and(|now| now == target) {
        return Ok(());
    }
    let fresh = link.with_extension("log.new");
    fs::remove_file(&fresh).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
    symlink(&target, &fresh)?;
    fs::rename(&fresh, link)
}
