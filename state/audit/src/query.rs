//! What is asked of the log, and its answer.

use std::{collections::BTreeSet, fmt, sync::Arc};

use chrono::{DateTime, Utc};
use prost_types::Timestamp;
use serde_json::{Map, Value};
use wire::{auditlog::EventUnstructured, events::OneOf, time};

use crate::{Error, Result, json};

/// How many events a page has when the caller does not say.
pub const DEFAULT_LIMIT: usize = 500;
/// The most events a caller may ask for in one page.
pub const MAX_LIMIT: usize = 10_000;
/// A page ends early once its events have this many bytes of JSON.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// The events that end a session: what lists of recordings are made of.
pub const SESSION_END_EVENTS: [&str; 3] = ["session.end", "windows.desktop.session.end", "db.session.end"];

/// Decides about a single event, for example by the caller's rights.
pub type Filter = Arc<dyn Fn(&Map<String, Value>) -> bool + Send + Sync>;

/// Which end of the time span comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The newest event first.
    #[default]
    Descending,
    /// The oldest event first.
    Ascending,
}

/// A question to the log.
#[derive(Clone)]
pub struct Query {
    /// No event before this moment.
    pub from: DateTime<Utc>,
    /// No event after this moment.
    pub to: DateTime<Utc>,
    /// Only events of these names; all when empty.
    pub types: BTreeSet<String>,
    /// Only events of this session.
    pub session: Option<String>,
    /// Only events of this user.
    pub user: Option<String>,
    /// Only events this function accepts.
    pub filter: Option<Filter>,
    /// At most this many events; 0 stands for [`DEFAULT_LIMIT`].
    pub limit: usize,
    /// Where the page before this one ended: its [`Page::next`], empty for the first page.
    pub start_key: String,
    /// Newest or oldest first.
    pub order: Order,
}

impl Query {
    /// All events between two moments, newest first.
    pub fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> Self {
        Self {
            from,
            to,
            types: BTreeSet::new(),
            session: None,
            user: None,
            filter: None,
            limit: 0,
            start_key: String::new(),
            order: Order::Descending,
        }
    }

    /// Only events of these names.
    #[must_use]
    pub fn of_types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.types = types.into_iter().map(Into::into).collect();
        self
    }

    /// The number of events wanted in a page.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for more than [`MAX_LIMIT`].
    pub fn page_size(&self) -> Result<usize> {
        match self.limit {
            0 => Ok(DEFAULT_LIMIT),
            n if n <= MAX_LIMIT => Ok(n),
            n => Err(Error::Invalid(format!("limit {n} is too high: at most {MAX_LIMIT} events fit in a page"))),
        }
    }

    /// Whether an event, given as its JSON object, is asked for. The time is the caller's to check.
    pub(crate) fn accepts(&self, object: &Map<String, Value>) -> bool {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        (self.types.is_empty() || self.types.contains(text("event")))
            && self.session.as_deref().is_none_or(|s| text("sid") == s)
            && self.user.as_deref().is_none_or(|u| text("user") == u)
            && self.filter.as_ref().is_none_or(|f| f(object))
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("from", &self.from)
            .field("to", &self.to)
            .field("types", &self.types)
            .field("session", &self.session)
            .field("user", &self.user)
            .field("filtered", &self.filter.is_some())
            .field("limit", &self.limit)
            .field("start_key", &self.start_key)
            .field("order", &self.order)
            .finish()
    }
}

/// An event found.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The event's JSON object as it stands in the log.
    pub fields: Map<String, Value>,
}

impl Entry {
    /// The event as a message.
    pub fn event(&self) -> OneOf {
        json::from_json(&Value::Object(self.fields.clone()))
    }

    /// When it happened.
    pub fn time(&self) -> Option<DateTime<Utc>> {
        let text = self.fields.get("time")?.as_str()?;
        Some(DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc))
    }

    /// The event in the form of the export calls.
    pub fn unstructured(&self) -> EventUnstructured {
        let time: Option<Timestamp> = self.time().map(time::timestamp);
        json::unstructured_object(&self.fields, time)
    }
}

/// A part of the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The events, in the order asked for.
    pub events: Vec<Entry>,
    /// The `start_key` of the next page; empty when this is the last.
    pub next: String,
}
