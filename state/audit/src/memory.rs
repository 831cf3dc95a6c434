//! A log for the life of a process.

use async_trait::async_trait;
use parking_lot::Mutex;
use wire::events::OneOf;

use crate::{Entry, Error, EventExt, Order, Page, Query, Result, Sink, json};

/// Keeps events in memory, without a bound: for tests and tools.
#[derive(Default)]
pub struct Memory {
    events: Mutex<Vec<OneOf>>,
}

impl Memory {
    /// Everything emitted so far, in the order of arrival.
    pub fn events(&self) -> Vec<OneOf> {
        self.events.lock().clone()
    }
}

#[async_trait]
impl Sink for Memory {
    async fn emit(&self, event: OneOf) -> Result<()> {
        json::to_json_line(&event)?;
        self.events.lock().push(event);
        Ok(())
    }

    async fn search(&self, query: Query) -> Result<Page> {
        let size = query.page_size()?;
        let skip: usize = match query.start_key.as_str() {
            "" => 0,
            key => key.parse().map_err(|_| Error::Invalid(format!("start key {key:?} is not of this log")))?,
        };
        let mut events = self.events();
        events.sort_by_key(EventExt::time);
        if query.order == Order::Descending {
            events.reverse();
        }
        let mut matching = Vec::new();
        for event in events.iter().filter(|e| e.time().is_some_and(|t| query.from <= t && t <= query.to)) {
            let fields = json::to_object(event)?;
            if query.accepts(&fields) {
                matching.push(Entry { fields });
            }
        }
        let end = skip.saturating_add(size);
        let next = if matching.len() > end { end.to_string() } else { String::new() };
        Ok(Page { events: matching.into_iter().skip(skip).take(size).collect(), next })
    }
}
