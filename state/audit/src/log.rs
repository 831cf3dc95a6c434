//! The door to the log.

use std::sync::Arc;

use wire::events::OneOf;

use crate::{Clock, Page, Query, Result, Sink, event};

/// The audit log of a cluster: makes events complete and hands them to a sink.
#[derive(Clone)]
pub struct Log {
    sink: Arc<dyn Sink>,
    cluster: Arc<str>,
    clock: Clock,
}

impl Log {
    /// The log of `cluster`, kept by `sink`.
    pub fn new(sink: Arc<dyn Sink>, cluster: impl Into<Arc<str>>, clock: Clock) -> Self {
        Self { sink, cluster: cluster.into(), clock }
    }

    /// Stores an event; see [`event::prepare`] for what may be left out.
    ///
    /// # Errors
    ///
    /// Whatever makes the event incomplete, or keeps the sink from storing it.
    pub async fn emit(&self, mut event: OneOf) -> Result<()> {
        event::prepare(&mut event, &self.cluster, self.clock.now())?;
        self.sink.emit(event).await
    }

    /// Finds events; see [`Sink::search`].
    ///
    /// # Errors
    ///
    /// As [`Sink::search`].
    pub async fn search(&self, query: Query) -> Result<Page> {
        self.sink.search(query).await
    }
}
