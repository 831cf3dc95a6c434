//! Finds events in daily files: merges the stretches that may hold an answer, reading only those.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use memchr::memmem::Finder;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::{
    FileLogConfig, file_day,
    index::{Block, FileIndex, Head, Moment, kind_bit},
};
use crate::{Entry, Error, Order, Page, Query, Result, query::MAX_PAGE_BYTES};

/// The reading side of the log.
pub(super) struct Searcher {
    config: FileLogConfig,
    indexes: Mutex<HashMap<PathBuf, Arc<Mutex<FileIndex>>>>,
}

/// Events may stand in the file of a neighbouring day, as far as clocks and deliveries differ.
const SLACK: TimeDelta = TimeDelta::hours(24);

/// How far an event's time may be ahead of the day in whose file it is: clocks of senders are believed that far.
const AHEAD: TimeDelta = TimeDelta::hours(1);

/// Folders below the hosts' folder that hold no logs.
const NOT_HOSTS: [&str; 4] = ["playbacks", "records", "spool", "upload"];

/// Tells a search whether its answer is still wanted: dropping the first half says that it is not.
pub(super) fn cancellation() -> (Wanted, Abandoned) {
    let flag = Arc::new(AtomicBool::new(false));
    (Wanted(flag.clone()), Abandoned(flag))
}

/// Held by whoever waits for the answer.
pub(super) struct Wanted(Arc<AtomicBool>);

/// Asked by the search.
pub(super) struct Abandoned(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The place of an event in the order of the log: by time, then by its index within its session, then by where it
/// stands. As text it is a page's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    time: Moment,
    session: String,
    index: i64,
    file: String,
    offset: u64,
}

impl Place {
    fn to_key(&self) -> String {
        let session = hex::encode(&self.session);
        format!("{}:{session}:{}:{}:{}", self.time, self.index, self.offset, self.file)
    }

    fn from_key(key: &str) -> Result<Option<Self>> {
        if key.is_empty() {
            return Ok(None);
        }
        let read = || {
            let mut parts = key.splitn(5, ':');
            let time = parts.next()?.parse().ok()?;
            let session = String::from_utf8(hex::decode(parts.next()?).ok()?).ok()?;
            let index = parts.next()?.parse().ok()?;
            let offset = parts.next()?.parse().ok()?;
            Some(Self { time, session, index, file: parts.next()?.to_owned(), offset })
        };
        read().map(Some).ok_or_else(|| Error::Invalid(format!("start key {key:?} is not of this log")))
    }
}

/// An event read from a file.
struct Found {
    place: Place,
    size: usize,
    fields: Map<String, Value>,
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Found {}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

/// A log file opened for a search.
struct Source {
    name: String,
    file: File,
}

/// A log file that may hold an answer.
struct Candidate {
    /// Later than everything in it.
    end: Moment,
    path: PathBuf,
    /// Host and file name.
    name: String,
}

/// A search under way: stretches not yet read, and events read ahead of the answer.
struct Merge<'a> {
    searcher: &'a Searcher,
    query: &'a Query,
    /// What every line of the answer has in it, for a quick look before it is read.
    needles: Vec<Finder<'static>>,
    /// Files not opened yet, the one to come next last.
    files: Vec<Candidate>,
    span: (Moment, Moment),
    after: Option<Place>,
    kinds: u64,
    sources: Vec<Source>,
    blocks: VecDeque<(usize, Block)>,
    /// Events read, the next one of the order on top.
    ascending: BinaryHeap<Reverse<Found>>,
    descending: BinaryHeap<Found>,
}

impl Searcher {
    pub fn new(config: FileLogConfig) -> Self {
        Self { config, indexes: Mutex::default() }
    }

    /// One page of the answer. Blocks.
    pub fn search(&self, query: &Query, abandoned: &Abandoned) -> Result<Page> {
        let size = query.page_size()?;
        let after = Place::from_key(&query.start_key)?;
        let mut merge = Merge::new(self, query, after);
        merge.files = self.candidates(query)?;
        let (mut page, mut bytes, mut last) = (Page::default(), 0, None);
        while let Some(found) = merge.next(abandoned)? {
            if page.events.len() == size || (bytes + found.size > MAX_PAGE_BYTES && !page.events.is_empty()) {
                page.next = last.as_ref().map(Place::to_key).unwrap_or_default();
                break;
            }
            bytes += found.size;
            page.events.push(Entry { fields: found.fields });
            last = Some(found.place);
        }
        Ok(page)
    }

    /// The files that may hold events of the time span, the newest last.
    fn candidates(&self, query: &Query) -> Result<Vec<Candidate>> {
        let days = (query.from - SLACK).date_naive()..=(query.to + SLACK).date_naive();
        let (mut present, mut found) = (HashSet::new(), Vec::new());
        for folder in self.folders()? {
            let host = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for name in names_in(&folder)? {
                let path = folder.join(&name);
                let Some(day) = file_day(&name) else { continue };
                present.insert(path.clone());
                if !days.contains(&day) || path.is_symlink() {
                    continue;
                }
                let end = nanoseconds(day.and_time(NaiveTime::MIN).and_utc() + TimeDelta::days(1) + AHEAD);
                found.push(Candidate { end, path, name: format!("{host}/{name}") });
            }
        }
        self.indexes.lock().retain(|path, _| present.contains(path));
        found.sort_by_key(|candidate| candidate.end);
        Ok(found)
    }

    fn index(&self, path: &Path) -> Arc<Mutex<FileIndex>> {
        self.indexes.lock().entry(path.to_owned()).or_default().clone()
    }

    /// The folders with logs: this host's and those of others beside it.
    fn folders(&self) -> Result<Vec<PathBuf>> {
        let mut folders = vec![self.config.folder.clone()];
        if let Some(hosts) = &self.config.hosts {
            let others = names_in(hosts)?.into_iter().filter(|n| !NOT_HOSTS.contains(&n.as_str()));
            folders.extend(others.map(|n| hosts.join(n)).filter(|p| p.is_dir()));
        }
        folders.sort();
        folders.dedup();
        Ok(folders)
    }
}

impl<'a> Merge<'a> {
    fn new(searcher: &'a Searcher, query: &'a Query, after: Option<Place>) -> Self {
        let kinds = match query.types.is_empty() {
            true => u64::MAX,
            false => query.types.iter().fold(0, |bits, name| bits | kind_bit(name)),
        };
        let mut span = (nanoseconds(query.from), nanoseconds(query.to));
        match (&after, query.order) {
            (Some(place), Order::Ascending) => span.0 = span.0.max(place.time),
            (Some(place), Order::Descending) => span.1 = span.1.min(place.time),
            (None, _) => {}
        }
        let (ascending, descending) = Default::default();
        let needles = [&query.user, &query.session].into_iter().flatten().filter_map(|text| needle(text)).collect();
        Self {
            searcher,
            query,
            needles,
            files: Vec::new(),
            span,
            after,
            kinds,
            sources: Vec::new(),
            blocks: VecDeque::new(),
            ascending,
            descending,
        }
    }

    /// Opens the next file and lists its stretches.
    fn open_next(&mut self) -> Result<()> {
        let Some(Candidate { path, name, .. }) = self.files.pop() else { return Ok(()) };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::storage("open", &path, e)),
        };
        let index = self.searcher.index(&path);
        self.add(Source { name, file }, &mut index.lock()).map_err(|e| Error::storage("read", &path, e))?;
        self.order_blocks();
        Ok(())
    }

    /// Adds the stretches of a file that may hold an answer.
    fn add(&mut self, source: Source, index: &mut FileIndex) -> io::Result<()> {
        index.refresh(&source.file)?;
        let number = self.sources.len();
        let wanted = |b: &&Block| b.last >= self.span.0 && b.first <= self.span.1 && b.kinds & self.kinds != 0;
        self.blocks.extend(index.blocks.iter().filter(wanted).map(|b| (number, b.clone())));
        self.sources.push(source);
        Ok(())
    }

    fn order_blocks(&mut self) {
        let blocks = self.blocks.make_contiguous();
        match self.query.order {
            Order::Ascending => blocks.sort_by_key(|(_, b)| b.first),
            Order::Descending => blocks.sort_by_key(|(_, b)| Reverse(b.last)),
        }
    }

    /// The next event of the order. A stretch is read only when an event in it could come next.
    fn next(&mut self, abandoned: &Abandoned) -> Result<Option<Found>> {
        loop {
            if abandoned.0.load(Ordering::Relaxed) {
                return Err(Error::Closed);
            }
            if self.next_file_matters() {
                self.open_next()?;
            } else if self.next_block_matters()
                && let Some((source, block)) = self.blocks.pop_front()
            {
                self.read(source, &block)?;
            } else {
                break;
            }
        }
        Ok(match self.query.order {
            Order::Ascending => self.ascending.pop().map(|Reverse(found)| found),
            Order::Descending => self.descending.pop(),
        })
    }

    /// Whether an event in a file that is not open yet could come next. Events that came late are in files of later days,
    /// so that only the search from the new to the old can leave files for later.
    fn next_file_matters(&self) -> bool {
        let Some(file) = self.files.last() else { return false };
        if self.query.order == Order::Ascending {
            return true;
        }
        let read = self.descending.peek().map(|found| found.place.time);
        let listed = self.blocks.front().map(|(_, block)| block.last);
        read.max(listed).is_none_or(|newest| file.end >= newest)
    }

    fn next_block_matters(&self) -> bool {
        let Some((_, block)) = self.blocks.front() else { return false };
        match self.query.order {
            Order::Ascending => self.ascending.peek().is_none_or(|Reverse(f)| block.first <= f.place.time),
            Order::Descending => self.descending.peek().is_none_or(|f| block.last >= f.place.time),
        }
    }

    fn read(&mut self, number: usize, block: &Block) -> Result<()> {
        let Some(source) = self.sources.get(number) else { return Ok(()) };
        let mut bytes = vec![0; usize::try_from(block.range.end - block.range.start).unwrap_or(0)];
        let read = source.file.read_exact_at(&mut bytes, block.range.start);
        read.map_err(|e| Error::storage("read", Path::new(&source.name), e))?;
        let mut offset = block.range.start;
        let mut found = Vec::new();
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            found.extend(self.look_at(line, offset, &source.name));
            offset += line.len() as u64;
        }
        match self.query.order {
            Order::Ascending => self.ascending.extend(found.into_iter().map(Reverse)),
            Order::Descending => self.descending.extend(found),
        }
        Ok(())
    }

    /// The event in a line, when it is asked for and comes after the key.
    fn look_at(&self, line: &[u8], offset: u64, file: &str) -> Option<Found> {
        if self.needles.iter().any(|needle| needle.find(line).is_none()) {
            return None;
        }
        let head = Head::of(line)?;
        let in_span = self.span.0 <= head.time && head.time <= self.span.1;
        if !in_span || !(self.query.types.is_empty() || self.query.types.contains(head.event)) {
            return None;
        }
        let fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
        if !self.query.accepts(&fields) {
            return None;
        }
        let place = Place {
            time: head.time,
            session: fields.get("sid").and_then(Value::as_str).unwrap_or_default().to_owned(),
            index: fields.get("ei").and_then(Value::as_i64).unwrap_or_default(),
            file: file.to_owned(),
            offset,
        };
        let behind = self.after.as_ref().is_none_or(|after| match self.query.order {
            Order::Ascending => place > *after,
            Order::Descending => place < *after,
        });
        behind.then_some(Found { place, size: line.len(), fields })
    }
}

/// What stands in every line with this text as a value; `None` when other writers might write it otherwise.
fn needle(text: &str) -> Option<Finder<'static>> {
    let plain = text.bytes().all(|b| matches!(b, b' '..=b'~') && !b"\"\\<>&/".contains(&b));
    (plain && !text.is_empty()).then(|| Finder::new(&format!("\"{text}\"")).into_owned())
}

fn nanoseconds(moment: DateTime<Utc>) -> Moment {
    moment.timestamp_nanos_opt().unwrap_or(if moment.timestamp() < 0 { Moment::MIN } else { Moment::MAX })
}

/// The names in a folder, sorted; none when it is gone.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::NotADirectory => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(Error::storage("list", folder, e)),
    };
    let mut names: Vec<_> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
