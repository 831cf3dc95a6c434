//! Recordings for async callers.

use std::{
    collections::VecDeque,
    fs::File,
    io::BufRead,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use audit::EventExt;
use futures::Stream;
use prost::Message;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};
use wire::events::OneOf;

use crate::{FormatError, Result, Seal, StreamReader, part_file::from_start};

/// The events of a recording, read from the disk in small batches as they are asked for: a slow taker holds neither
/// memory nor a thread.
pub struct EventStream {
    reader: Option<StreamReader<Box<dyn BufRead + Send>>>,
    /// A batch being read. Kept here, so that a caller who stops waiting for it finds it the next time.
    reading: Option<JoinHandle<Batch>>,
    ready: VecDeque<OneOf>,
    first_index: i64,
    failure: Option<FormatError>,
    /// For a source that grows: set by its reader once it has ended.
    over: Option<Arc<AtomicBool>>,
}

/// How often it is looked whether a source that grows has more.
pub(crate) const LOOK: Duration = Duration::from_millis(300);
/// How many bytes of events are read ahead.
const BATCH_BYTES: usize = 128 * 1024;
/// How many events are read ahead.
const BATCH_EVENTS: usize = 256;

impl EventStream {
    /// Reads a recording from `source`.
    pub fn new(source: impl BufRead + Send + 'static) -> Self {
        Self::of(StreamReader::new(Box::new(source) as Box<dyn BufRead + Send>))
    }

    /// What `reader` reads.
    pub(crate) fn of(reader: StreamReader<Box<dyn BufRead + Send>>) -> Self {
        Self {
            reader: Some(reader),
            reading: None,
            ready: VecDeque::new(),
            first_index: i64::MIN,
            failure: None,
            over: None,
        }
    }

    /// What `reader` reads of a source that grows, until `over` is set.
    pub(crate) fn growing(reader: StreamReader<Box<dyn BufRead + Send>>, over: Arc<AtomicBool>) -> Self {
        Self { over: Some(over), ..Self::of(reader) }
    }

    /// Reads a complete recording, parts of which may be sealed, from a file.
    ///
    /// # Errors
    ///
    /// [`FormatError::Read`].
    pub fn sealed(file: File, seal: Seal) -> Result<Self> {
        let source = Box::new(from_start(file).map_err(FormatError::Read)?) as Box<dyn BufRead + Send>;
        Ok(Self::of(StreamReader::complete(source, seal)))
    }

    /// Reads a recording from a file, such as one a user has downloaded.
    ///
    /// # Errors
    ///
    /// [`FormatError::Read`].
    pub fn from_file(file: File) -> Result<Self> {
        Ok(Self::new(from_start(file).map_err(FormatError::Read)?))
    }

    /// Leaves out events before this index.
    #[must_use]
    pub fn starting_at(mut self, index: i64) -> Self {
        self.first_index = index;
        self
    }

    /// The next event; `None` at the end. A call after the end looks whether the source has grown; the events of a
    /// recording that is still on its way are waited for, and end with its upload. Cancelling the call loses nothing.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Format`], once all events before the fault have been returned.
    pub async fn next(&mut self) -> Result<Option<OneOf>> {
        let is_over = |over: &Arc<AtomicBool>| over.load(Ordering::Acquire);
        loop {
            let last = self.over.as_ref().is_none_or(is_over);
            match self.next_there().await? {
                None if !last && self.reader.is_some() => {}
                found => return Ok(found),
            }
            if !self.over.as_ref().is_none_or(is_over) {
                sleep(LOOK).await;
            }
        }
    }

    /// The next event that is there; a call after the end looks whether the source has grown.
    async fn next_there(&mut self) -> Result<Option<OneOf>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if event.index() >= self.first_index {
                    return Ok(Some(event));
                }
                continue;
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure.into());
            }
            if let Some(reader) = self.reader.take() {
                self.reading = Some(spawn_blocking(move || read_batch(reader)));
            }
            let Some(reading) = &mut self.reading else { return Ok(None) };
            let batch = reading.await;
            self.reading = None;
            let batch = batch.map_err(|e| FormatError::Read(std::io::Error::other(e)))?;
            self.reader = batch.failure.is_none().then_some(batch.reader);
            self.failure = batch.failure;
            self.ready = batch.events;
            if self.ready.is_empty() && self.failure.is_none() {
                return Ok(None);
            }
        }
    }

    /// The events as a [`Stream`] that ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<OneOf>> + Send {
        futures::stream::unfold(Some(self), async |stream| {
            let mut stream = stream?;
            match stream.next().await {
                Ok(Some(event)) => Some((Ok(event), Some(stream))),
                Ok(None) => None,
                Err(e) => Some((Err(e), None)),
            }
        })
    }
}

struct Batch {
    reader: StreamReader<Box<dyn BufRead + Send>>,
    events: VecDeque<OneOf>,
    failure: Option<FormatError>,
}

fn read_batch(reader: StreamReader<Box<dyn BufRead + Send>>) -> Batch {
    let mut batch = Batch { reader, events: VecDeque::new(), failure: None };
    let mut bytes = 0;
    while bytes < BATCH_BYTES && batch.events.len() < BATCH_EVENTS {
        match batch.reader.next_event() {
            Ok(Some(event)) => {
                bytes += event.encoded_len();
                batch.events.push_back(event);
            }
            Ok(None) => break,
            Err(e) => {
                batch.failure = Some(e);
                break;
            }
        }
    }
    batch
}
