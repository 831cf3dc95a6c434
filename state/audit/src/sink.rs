//! Where events go.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::Mutex,
    time::timeout,
};
use wire::events::OneOf;

use crate::{Error, Page, Query, Result, json};

/// A place that keeps events.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Stores an event made complete by [`crate::event::prepare`]. `Ok` means that it is as safe as this sink makes
    /// events: on disk, for those that have one.
    async fn emit(&self, event: OneOf) -> Result<()>;

    /// Finds events.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] from sinks that only write, [`Error::Invalid`] for a limit or key out of bounds.
    async fn search(&self, query: Query) -> Result<Page>;
}

/// Several sinks: each gets every event, the first that can searches.
pub struct Fanout {
    sinks: Vec<Arc<dyn Sink>>,
}

impl Fanout {
    /// Feeds all of `sinks`.
    pub fn new(sinks: Vec<Arc<dyn Sink>>) -> Self {
        Self { sinks }
    }
}

#[async_trait]
impl Sink for Fanout {
    /// Emits to every sink, even after one has failed; the first failure is the answer.
    async fn emit(&self, event: OneOf) -> Result<()> {
        let mut outcome = Ok(());
        let Some((last, others)) = self.sinks.split_last() else { return Ok(()) };
        for sink in others {
            outcome = outcome.and(sink.emit(event.clone()).await);
        }
        outcome.and(last.emit(event).await)
    }

    async fn search(&self, query: Query) -> Result<Page> {
        for sink in &self.sinks {
            match sink.search(query.clone()).await {
                Err(Error::Unsupported { .. }) => {}
                answer => return answer,
            }
        }
        Err(Error::Unsupported { sink: "configured", what: "search" })
    }
}

/// One JSON line an event, to a stream that only takes: standard output, for shippers.
pub struct Lines<W> {
    /// The stream, and whether it may end in half a line.
    out: Mutex<(W, bool)>,
}

/// How long whoever reads the stream may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Lines<tokio::io::Stdout> {
    /// Lines on standard output.
    pub fn stdout() -> Self {
        Self::new(tokio::io::stdout())
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Lines<W> {
    /// Lines to `out`.
    pub fn new(out: W) -> Self {
        Self { out: Mutex::new((out, false)) }
    }
}

#[async_trait]
impl<W: AsyncWrite + Unpin + Send + 'static> Sink for Lines<W> {
    async fn emit(&self, event: OneOf) -> Result<()> {
        let mut line = json::to_json_line(&event)?;
        line.push('\n');
        let written = async {
            let mut stream = self.out.lock().await;
            let (out, half) = &mut *stream;
            if std::mem::replace(half, true) {
                // A line that nobody took in time ends here.
                out.write_all(b"\n").await?;
            }
            out.write_all(line.as_bytes()).await?;
            out.flush().await?;
            *half = false;
            Ok(())
        };
        let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "nobody reads it");
        let written = timeout(PATIENCE, written).await.map_err(late).flatten();
        written.map_err(|e| Error::storage("write to", "the audit stream".as_ref(), e))
    }

    async fn search(&self, _: Query) -> Result<Page> {
        Err(Error::Unsupported { sink: "stdout", what: "search" })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use chrono::Utc;
    use wire::events::Exec;

    use super::*;
    use crate::{Log, Memory, codes};

    #[tokio::test]
    async fn every_sink_gets_the_event_and_the_first_that_can_searches() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let memory = Arc::new(Memory::default());
        let fanout = Fanout::new(vec![Arc::new(Lines::new(ours)), memory.clone()]);
        let log = Log::new(Arc::new(fanout), "one", Default::default());
        log.emit(codes::EXEC.event(Exec::default())).await.unwrap();
        let mut bytes = [0; 4096];
        let n = tokio::io::AsyncReadExt::read(&mut theirs, &mut bytes).await.unwrap();
        assert!(bytes[..n].starts_with(b"{\"ei\":0,\"event\":\"exec\"") && bytes[..n].ends_with(b"}\n"));
        let page = log.search(Query::between(Utc::now() - chrono::TimeDelta::hours(1), Utc::now())).await.unwrap();
        assert_eq!(page.events.len(), 1);
        assert_eq!(page.events[0].event(), memory.events()[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_nobody_reads_holds_nothing_up() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let lines = Lines::new(ours);
        let event = || codes::EXEC.event(Exec::default());
        assert!(lines.emit(event()).await.unwrap_err().to_string().contains("nobody reads it"));
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut read).await.unwrap();
            read
        });
        lines.emit(event()).await.unwrap();
        drop(lines);
        let read = String::from_utf8(reading.await.unwrap()).unwrap();
        let whole = read.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        assert_eq!((whole.count(), read.lines().count()), (1, 2), "{read}");
    }

    #[tokio::test]
    async fn a_failing_sink_does_not_keep_events_from_the_others() {
        let (ours, theirs) = tokio::io::duplex(16);
        drop(theirs);
        let memory = Arc::new(Memory::default());
        let log = Log::new(
            Arc::new(Fanout::new(vec![Arc::new(Lines::new(ours)), memory.clone()])),
            "one",
            Default::default(),
        );
        assert!(log.emit(codes::EXEC.event(Exec::default())).await.is_err());
        assert_eq!(memory.events().len(), 1);
    }
}
