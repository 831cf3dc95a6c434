//! What a recording says in short.

use std::{collections::BTreeSet, io::BufRead};

use audit::{EventExt, codes};
use chrono::{DateTime, Utc};
use uuid::Uuid;
use wire::{
    events::{OneOf, SessionEnd, SessionStart, one_of::Event},
    time::timestamp,
};

use crate::{FormatError, SessionId, StreamReader};

/// The outline of a recording, gathered event by event.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many events there are.
    pub events: u64,
    /// The index of the last event; -1 when there is none.
    pub last_index: i64,
    /// When the last event happened.
    pub last_time: Option<DateTime<Utc>>,
    /// How the session began.
    pub start: Option<Box<SessionStart>>,
    /// Whether the event that ends a session is there.
    pub ended: bool,
    participants: BTreeSet<String>,
}

impl Summary {
    /// The outline of nothing.
    pub fn new() -> Self {
        Self { last_index: -1, ..Self::default() }
    }

    /// Takes an event into account.
    pub fn add(&mut self, event: &OneOf) {
        self.events += 1;
        self.last_index = self.last_index.max(event.index());
        self.last_time = self.last_time.max(event.time());
        match &event.event {
            Some(Event::SessionStart(start)) if self.start.is_none() => self.start = Some(Box::new(start.clone())),
            Some(Event::SessionEnd(_)) => self.ended = true,
            _ => {}
        }
        if matches!(&event.event, Some(Event::SessionStart(_) | Event::SessionJoin(_)))
            && let Some(user) = event.user()
        {
            self.participants.insert(user.user.clone());
        }
    }

    /// Takes a later piece of the same recording into account.
    pub fn append(&mut self, later: Self) {
        self.events += later.events;
        self.last_index = self.last_index.max(later.last_index);
        self.last_time = self.last_time.max(later.last_time);
        self.start = self.start.take().or(later.start);
        self.ended |= later.ended;
        self.participants.extend(later.participants);
    }

    /// The `session.end` that a session lacks whose server has crashed: it ends with the last event seen. The id of
    /// that event depends on the session alone, so that saying it twice can be noticed.
    pub fn missing_end(&self, session: SessionId) -> Option<OneOf> {
        let start = self.start.as_deref().filter(|_| !self.ended)?;
        let mut event = codes::SESSION_END.event(SessionEnd {
            metadata: start.metadata.clone(),
            user: start.user.clone(),
            session: start.session.clone(),
            connection: start.connection.clone(),
            server: start.server.clone(),
            interactive: true,
            participants: self.participants.iter().cloned().collect(),
            start_time: start.metadata.as_ref().and_then(|m| m.time),
            end_time: self.last_time.map(timestamp),
            kubernetes_cluster: start.kubernetes_cluster.clone(),
            kubernetes_pod: start.kubernetes_pod.clone(),
            initial_command: start.initial_command.clone(),
            session_recording: start.session_recording.clone(),
            ..SessionEnd::default()
        });
        if let Some(metadata) = event.metadata_mut() {
            metadata.index = self.last_index + 1;
            metadata.id = Uuid::new_v5(&session.uuid(), b"session.end").to_string();
            metadata.time = self.last_time.map(timestamp);
        }
        Some(event)
    }
}

/// Reads a recording to its end. Besides its outline the answer has the number of bytes that are whole parts, to
/// which the outline is limited, and what was wrong with the rest.
pub fn summarize<R: BufRead>(source: R) -> (Summary, u64, Option<FormatError>) {
    outline(StreamReader::new(source))
}

/// The same for what `reader` reads.
pub(crate) fn outline<R: BufRead>(mut reader: StreamReader<R>) -> (Summary, u64, Option<FormatError>) {
    let (mut seen, mut kept, mut whole) = (Summary::new(), Summary::new(), 0);
    loop {
        let next = reader.next_event();
        if reader.whole() > whole {
            whole = reader.whole();
            kept = seen.clone();
        }
        match next {
            Ok(Some(event)) => seen.add(&event),
            Ok(None) => return (kept, whole, None),
            Err(e) => return (kept, whole, Some(e)),
        }
    }
}
