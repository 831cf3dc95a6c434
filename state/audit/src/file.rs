//! The log in daily files.
//!
//! `<data_dir>/log/<host id>/2026-01-31.00:00:00.log` holds the events of one UTC day, one JSON line each, and
//! `<data_dir>/log/events.log` links to the file of today. Several hosts may share `<data_dir>/log`: each writes its
//! own folder, and a search reads all of them.
//!
//! [`writer`] is the one place where lines are put in order and made durable, and where the chain over all lines is
//! kept (see [`crate::chain`]). [`index`] remembers which stretch of a file holds which moments, [`search`] merges those stretches.

mod index;
mod search;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use chrono::NaiveDate;
use tokio::sync::{Semaphore, mpsc, oneshot};
use wire::events::OneOf;

use crate::{Anchor, Clock, Error, EventExt, Page, Query, Result, Signer, Sink, chain::Checkpoints, json};

/// Where a [`FileLog`] keeps its files.
#[derive(Clone, Debug)]
pub struct FileLogConfig {
    /// The folder this process writes to.
    pub folder: PathBuf,
    /// The link to the file of today.
    pub link: PathBuf,
    /// A folder whose subfolders are searched as well: the logs of other hosts.
    pub hosts: Option<PathBuf>,
}

impl FileLogConfig {
    /// The layout below a data directory: `log/<host id>/` and `log/events.log`.
    pub fn in_data_dir(data_dir: &Path, host_id: &str) -> Self {
        let log = data_dir.join("log");
        Self { folder: log.join(host_id), link: log.join("events.log"), hosts: Some(log) }
    }

    /// The layout of a `file://` address: everything in one folder.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), link: folder.join("events.log"), hosts: None }
    }
}

/// The log in daily files. Emitting waits until the event is on disk; events that arrive together share one flush.
pub struct FileLog {
    jobs: mpsc::Sender<writer::Job>,
    folder: PathBuf,
    sealing: tokio::sync::Mutex<Sealing>,
    searcher: Arc<search::Searcher>,
    searches: Semaphore,
    clock: Clock,
}

/// What the next checkpoint will say.
struct Sealing {
    checkpoints: Checkpoints,
    changes: writer::Changes,
}

/// How many events may wait for the disk; emitters beyond that wait in line.
const QUEUE: usize = 1024;
/// How many searches read files at the same time.
const SEARCHES: usize = 4;

impl FileLog {
    /// Opens the log, makes its folders and today's file, and repairs what a crash left half-written.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] when the folders cannot be made or today's file cannot be opened.
    pub fn open(config: FileLogConfig, clock: Clock) -> Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        writer::Writer::open(&config, clock.clone())?.start(queue)?;
        let sealing = Sealing { checkpoints: Checkpoints::open(&config.folder)?, changes: Default::default() };
        let folder = config.folder.clone();
        let searcher = Arc::new(search::Searcher::new(config));
        let sealing = tokio::sync::Mutex::new(sealing);
        Ok(Self { jobs, folder, sealing, searcher, searches: Semaphore::new(SEARCHES), clock })
    }

    /// Signs how far the log has come, unless nothing has happened since the last time. Returns the latest checkpoint.
    ///
    /// `known` is the latest checkpoint that is remembered elsewhere; when it is missing here, the new one follows it
    /// all the same and the gap stays visible.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`]; what was to be signed is signed the next time.
    pub async fn seal(&self, signer: Arc<dyn Signer>, cluster: &str, known: Option<Anchor>) -> Result<Option<Anchor>> {
        let mut sealing = self.sealing.lock().await;
        let (answer, changes) = oneshot::channel();
        self.jobs.send(writer::Job::Changes(answer)).await.map_err(|_| Error::Closed)?;
        sealing.changes.merge(changes.await.map_err(|_| Error::Closed)?);
        let Sealing { checkpoints, changes } = &mut *sealing;
        if changes.files.is_empty() && changes.removed.is_empty() {
            return Ok(checkpoints.last().cloned().or(known));
        }
        // One small line once in a while: it may as well block here.
        let (files, removed) = (changes.files.clone(), changes.removed.clone());
        let anchor = checkpoints.add(&*signer, cluster, self.clock.now(), known.as_ref(), files, removed)?;
        *changes = Default::default();
        Ok(Some(anchor))
    }

    /// Has the next checkpoint say that the files of the days before `day` are removed; how many there are.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub async fn retire_before(&self, day: NaiveDate) -> Result<usize> {
        let (answer, retired) = oneshot::channel();
        self.jobs.send(writer::Job::Retire(day, answer)).await.map_err(|_| Error::Closed)?;
        retired.await.map_err(|_| Error::Closed)?
    }

    /// Removes the files that [`Self::retire_before`] has named, but those to which something was added since; says how
    /// many. To be called when a checkpoint has said so: the other way round, a stop in between would look like
    /// tampering for ever.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub async fn remove_retired(&self) -> Result<usize> {
        let (answer, removed) = oneshot::channel();
        self.jobs.send(writer::Job::Remove(answer)).await.map_err(|_| Error::Closed)?;
        removed.await.map_err(|_| Error::Closed)?
    }

    /// The folder this process writes to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The day whose file an event belongs to: its own, unless its time is so far off that its sender's clock must
    /// be wrong; then today's.
    fn day_of(&self, event: &OneOf) -> NaiveDate {
        let now = self.clock.now();
        let believable = |t: &chrono::DateTime<chrono::Utc>| *t > now - LATEST_DELIVERY && *t < now + FASTEST_CLOCK;
        event.time().filter(believable).unwrap_or(now).date_naive()
    }
}

/// Events older than this are filed under the day they arrived.
const LATEST_DELIVERY: chrono::TimeDelta = chrono::TimeDelta::days(30);
/// Events further in the future than this are filed under the day they arrived.
const FASTEST_CLOCK: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

#[async_trait]
impl Sink for FileLog {
    async fn emit(&self, event: OneOf) -> Result<()> {
        let mut text = json::to_json_line(&event)?;
        text.push('\n');
        let (done, stored) = oneshot::channel();
        let line = writer::Line { day: self.day_of(&event), text, done };
        self.jobs.send(writer::Job::Line(line)).await.map_err(|_| Error::Closed)?;
        stored.await.map_err(|_| Error::Closed)?
    }

    async fn search(&self, query: Query) -> Result<Page> {
        let _turn = self.searches.acquire().await.map_err(|_| Error::Closed)?;
        let searcher = self.searcher.clone();
        let (_wanted, abandoned) = search::cancellation();
        tokio::task::spawn_blocking(move || searcher.search(&query, &abandoned)).await.map_err(|_| Error::Closed)?
    }
}

/// The name of a day's file.
fn file_name(day: NaiveDate) -> String {
    format!("{}.00:00:00.log", day.format("%Y-%m-%d"))
}

/// The day in the name of a log file: `2026-01-31.00:00:00.log`.
pub(crate) fn file_day(name: &str) -> Option<NaiveDate> {
    let (day, time) = name.strip_suffix(".log")?.split_once('.')?;
    let clock = time.len() == 8 && time.bytes().all(|b| b.is_ascii_digit() || b == b':');
    NaiveDate::parse_from_str(day, "%Y-%m-%d").ok().filter(|_| clock)
}

#[cfg(test)]
mod tests;
