//! Events that wait on disk until the log can be reached again.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use prost::Message;
use wire::events::OneOf;

use crate::{Error, Result, json::MAX_EVENT_BYTES};

/// A durable queue in one file: events come out in the order they went in, over restarts and crashes.
///
/// The file starts with the offset of the first event not yet delivered (u64, big-endian); each event is its length
/// (u32, big-endian) and its message. An event delivered just before a crash may be delivered once more: it carries
/// the same id.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

impl Spool {
    /// Opens the queue at `path`, or makes it and the folder it is in. It takes at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn open(path: impl Into<PathBuf>, limit: u64) -> Result<Self> {
        let path = path.into();
        let open = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            State::recover(open_file(&path)?)
        };
        let state = open().map_err(|e| Error::storage("open", &path, e))?;
        Ok(Self { inner: Arc::new(Inner { path, limit: limit.into(), state: Mutex::new(state) }) })
    }

    /// Puts an event at the end. From here on it survives the end of this process, however it ends; a failure of the
    /// machine's power it survives after the next [`Self::sync`].
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::TooLarge`], [`Error::Storage`]; the queue is then as it was before.
    pub async fn push(&self, event: OneOf) -> Result<()> {
        let inner = self.inner.clone();
        blocking(move || inner.push(&event)).await
    }

    /// Waits until everything pushed so far is on the disk itself. Costs nothing when it already is.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub async fn sync(&self) -> Result<()> {
        let inner = self.inner.clone();
        blocking(move || inner.sync()).await
    }

    /// The first `most` events not yet delivered, with the place to pass to [`Self::delivered`].
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub async fn pending(&self, most: usize) -> Result<Pending> {
        let inner = self.inner.clone();
        blocking(move || inner.pending(most)).await
    }

    /// Forgets the events up to the end of `pending`.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub async fn delivered(&self, pending: &Pending) -> Result<()> {
        let (inner, end, epoch) = (self.inner.clone(), pending.end, pending.epoch);
        blocking(move || inner.delivered(end, epoch)).await
    }

    /// Changes how many bytes it takes.
    #[cfg(test)]
    pub(crate) fn set_limit(&self, limit: u64) {
        self.inner.limit.store(limit, Ordering::Relaxed);
    }

    /// Whether nothing waits for delivery.
    pub fn is_empty(&self) -> bool {
        let state = self.inner.state.lock();
        state.first == state.end
    }
}

/// Events taken from the head of a [`Spool`].
pub struct Pending {
    /// The events, oldest first.
    pub events: Vec<OneOf>,
    end: u64,
    epoch: u64,
}

struct Inner {
    path: PathBuf,
    limit: AtomicU64,
    state: Mutex<State>,
}

struct State {
    file: Arc<File>,
    /// Offset of the first event not yet delivered.
    first: u64,
    /// Offset after the last whole event.
    end: u64,
    /// Offset up to which the file is known to be on the disk.
    synced: u64,
    /// Grows whenever offsets change their meaning.
    epoch: u64,
}

const HEADER: u64 = 8;
/// Delivered events take room in the file until they are this many bytes and more than those that wait.
const COMPACT: u64 = 4 << 20;

impl State {
    /// Reads the header, walks over whole events and cuts off what a crash left half-written.
    fn recover(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        let file = Arc::new(file);
        if size < HEADER {
            file.set_len(0)?;
            file.write_all_at(&HEADER.to_be_bytes(), 0)?;
            file.sync_all()?;
            return Ok(Self { file, first: HEADER, end: HEADER, synced: HEADER, epoch: 0 });
        }
        let mut header = [0; HEADER as usize];
        file.read_exact_at(&mut header, 0)?;
        let stored = u64::from_be_bytes(header);
        let (mut end, mut first) = (HEADER, HEADER);
        while let Some(next) = record_end(&file, end, size)? {
            end = next;
            if end <= stored {
                first = end;
            }
        }
        if end < size {
            file.set_len(end)?;
        }
        if first != stored {
            // A mark beyond the end would count events still to come as delivered.
            file.write_all_at(&first.to_be_bytes(), 0)?;
        }
        Ok(Self { file, first, end, synced: HEADER, epoch: 0 })
    }

    /// Forgets what is delivered: nothing is left.
    fn restart(&mut self) -> io::Result<()> {
        // The mark goes first: a crash in between repeats events, the other way round would lose some.
        self.file.write_all_at(&HEADER.to_be_bytes(), 0)?;
        (self.first, self.end, self.synced, self.epoch) = (HEADER, HEADER, HEADER, self.epoch + 1);
        self.file.set_len(HEADER)
    }

    /// Gives back the room of what is delivered, by a new file that takes the old one's name when it is complete.
    fn compact(&mut self, path: &Path) -> io::Result<()> {
        let fresh = path.with_extension("new");
        let file = open_file(&fresh)?;
        file.set_len(0)?;
        file.write_all_at(&HEADER.to_be_bytes(), 0)?;
        let mut rest = vec![0; usize::try_from(self.end - self.first).unwrap_or(0)];
        self.file.read_exact_at(&mut rest, self.first)?;
        file.write_all_at(&rest, HEADER)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        let end = HEADER + rest.len() as u64;
        *self = Self { file: Arc::new(file), first: HEADER, end, synced: end, epoch: self.epoch + 1 };
        Ok(())
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Where the event at `offset` ends; `None` when no whole event is there.
fn record_end(file: &File, offset: u64, size: u64) -> io::Result<Option<u64>> {
    let mut length = [0; 4];
    match file.read_exact_at(&mut length, offset) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let length = u32::from_be_bytes(length);
    let end = offset + 4 + u64::from(length);
    Ok((length > 0 && length as usize <= MAX_RECORD && end <= size).then_some(end))
}

/// A message may be larger than the JSON limit it was checked against, by its framing.
const MAX_RECORD: usize = 2 * MAX_EVENT_BYTES;

impl Inner {
    fn push(&self, event: &OneOf) -> Result<()> {
        let message = event.encode_to_vec();
        if message.is_empty() {
            return Err(Error::Invalid("event without content".into()));
        }
        if message.len() > MAX_RECORD {
            let name = crate::EventExt::name(event).to_owned();
            return Err(Error::TooLarge { name, size: message.len(), limit: MAX_RECORD });
        }
        let mut state = self.state.lock();
        let mut record = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
        record.extend_from_slice(&message);
        let end = state.end + record.len() as u64;
        let limit = self.limit.load(Ordering::Relaxed);
        if end > limit {
            return Err(Error::Full { path: self.path.display().to_string(), limit });
        }
        if let Err(e) = state.file.write_all_at(&record, state.end) {
            // What is left of the event must not be taken for one.
            state.file.set_len(state.end).ok();
            return Err(Error::storage("write to", &self.path, e));
        }
        state.end = end;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let (file, end, epoch) = {
            let state = self.state.lock();
            if state.synced >= state.end {
                return Ok(());
            }
            (state.file.clone(), state.end, state.epoch)
        };
        file.sync_data().map_err(|e| Error::storage("flush", &self.path, e))?;
        let mut state = self.state.lock();
        if state.epoch == epoch {
            state.synced = state.synced.max(end);
        }
        Ok(())
    }

    fn pending(&self, most: usize) -> Result<Pending> {
        let state = self.state.lock();
        let (file, mut offset, end, epoch) = (state.file.clone(), state.first, state.end, state.epoch);
        drop(state);
        let mut events = Vec::new();
        let fail = |e| Error::storage("read", &self.path, e);
        while events.len() < most
            && let Some(next) = record_end(&file, offset, end).map_err(fail)?
        {
            let mut message = vec![0; usize::try_from(next - offset - 4).unwrap_or(0)];
            file.read_exact_at(&mut message, offset + 4).map_err(fail)?;
            offset = next;
            match OneOf::decode(message.as_slice()) {
                Ok(event) => events.push(event),
                Err(e) => tracing::error!(path = %self.path.display(), error = %e, "unreadable event in audit spool"),
            }
        }
        Ok(Pending { events, end: offset, epoch })
    }

    fn delivered(&self, upto: u64, epoch: u64) -> Result<()> {
        let fail = |e| Error::storage("write to", &self.path, e);
        let mut state = self.state.lock();
        if state.epoch != epoch {
            return Ok(());
        }
        state.first = state.first.max(upto.min(state.end));
        if state.first == state.end {
            return state.restart().map_err(fail);
        }
        if state.first >= COMPACT && state.first > state.end - state.first {
            return state.compact(&self.path).map_err(fail);
        }
        state.file.write_all_at(&state.first.to_be_bytes(), 0).map_err(fail)
    }
}

/// Runs file work where it does not hold up other tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Closed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use tempfile::TempDir;
    use wire::events::Exec;

    use super::*;
    use crate::{EventExt, codes};

    const LIMIT: u64 = 1 << 20;

    fn event(index: i64) -> OneOf {
        let mut event = codes::EXEC.event(Exec::default());
        event.metadata_mut().unwrap().index = index;
        event
    }

    async fn waiting(spool: &Spool) -> Vec<i64> {
        spool.pending(usize::MAX).await.unwrap().events.iter().map(EventExt::index).collect()
    }

    #[tokio::test]
    async fn events_come_out_in_order_and_once_over_restarts() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("spool");
        let spool = Spool::open(&path, LIMIT).unwrap();
        assert!(spool.is_empty());
        for i in 0..5 {
            spool.push(event(i)).await.unwrap();
        }
        let two = spool.pending(2).await.unwrap();
        assert_eq!(two.events.len(), 2);
        spool.delivered(&two).await.unwrap();
        drop(spool);
        let spool = Spool::open(&path, LIMIT).unwrap();
        assert_eq!(waiting(&spool).await, [2, 3, 4]);
        spool.push(event(5)).await.unwrap();
        let rest = spool.pending(100).await.unwrap();
        spool.delivered(&rest).await.unwrap();
        assert!(spool.is_empty());
        assert_eq!(fs::metadata(&path).unwrap().len(), HEADER);
    }

    #[tokio::test]
    async fn a_crash_at_any_byte_loses_only_the_event_being_written() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("spool");
        let spool = Spool::open(&path, LIMIT).unwrap();
        let mut ends = vec![HEADER];
        for i in 0..3 {
            spool.push(event(i)).await.unwrap();
            ends.push(fs::metadata(&path).unwrap().len());
        }
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let spool = Spool::open(&path, LIMIT).unwrap();
            let kept = ends.iter().filter(|e| **e <= cut as u64).count().saturating_sub(1);
            assert_eq!(waiting(&spool).await.len(), kept, "cut at {cut}");
            spool.push(event(9)).await.unwrap();
            assert_eq!(waiting(&spool).await.last(), Some(&9));
        }
    }

    #[tokio::test]
    async fn a_queue_that_is_never_empty_does_not_fill_its_file() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("spool");
        let spool = Spool::open(&path, 3 * COMPACT).unwrap();
        let long = |index: i64| {
            let mut exec = Exec::default();
            exec.command.get_or_insert_default().command = "x".repeat(60_000);
            let mut event = codes::EXEC.event(exec);
            event.metadata_mut().unwrap().index = index;
            event
        };
        spool.push(long(0)).await.unwrap();
        for i in 1..400 {
            spool.push(long(i)).await.unwrap();
            let one = spool.pending(1).await.unwrap();
            assert_eq!(one.events[0].index(), i - 1);
            spool.delivered(&one).await.unwrap();
        }
        spool.sync().await.unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 2 * COMPACT);
        drop(spool);
        assert_eq!(waiting(&Spool::open(&path, LIMIT).unwrap()).await, [399]);
    }

    #[tokio::test]
    async fn a_full_spool_says_so() {
        let dir = TempDir::new().unwrap();
        let spool = Spool::open(dir.path().join("spool"), 100).unwrap();
        spool.push(event(0)).await.unwrap();
        let refused = loop {
            if let Err(e) = spool.push(event(1)).await {
                break e;
            }
        };
        assert!(matches!(refused, Error::Full { .. }), "{refused}");
        assert!(!waiting(&spool).await.is_empty());
    }
}
