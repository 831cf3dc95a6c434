//! Finding events in the table.

use backend::ToSql;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Connections, within};
use crate::{Entry, Error, MAX_PAGE_BYTES, Order, Page, Query, Result};

/// Rows fetched at a time.
const FETCHED: i64 = 1000;
/// Rows looked at for one page when a filter leaves few: the rest is for the next page.
const MOST_SCANNED: usize = 200_000;

/// The place of an event in the table; as text it is a page's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    time: DateTime<Utc>,
    id: Uuid,
}

impl Place {
    fn to_key(self) -> String {
        format!("{}/{}", self.time.timestamp_micros(), self.id)
    }

    fn from_key(key: &str) -> Result<Option<Self>> {
        if key.is_empty() {
            return Ok(None);
        }
        let read = || {
            let (time, id) = key.split_once('/')?;
            Some(Self { time: DateTime::from_timestamp_micros(time.parse().ok()?)?, id: id.parse().ok()? })
        };
        read().map(Some).ok_or_else(|| Error::Invalid(format!("start key {key:?} is not of this log")))
    }
}

/// The statement for one direction. The conditions that are not wanted are switched off by their parameters.
fn statement(order: Order) -> &'static str {
    match order {
        Order::Ascending => {
            "SELECT event_time, event_id, event_data::text FROM events
             WHERE event_time BETWEEN $1 AND $2
               AND (cardinality($3::text[]) = 0 OR event_type = ANY($3))
               AND ($4::uuid IS NULL OR session_id = $4)
               AND ($5::text IS NULL OR event_data->>'user' = $5)
               AND ($6::timestamptz IS NULL OR (event_time, event_id) > ($6, $7::uuid))
             ORDER BY event_time ASC, event_id ASC LIMIT $8"
        }
        Order::Descending => {
            "SELECT event_time, event_id, event_data::text FROM events
             WHERE event_time BETWEEN $1 AND $2
               AND (cardinality($3::text[]) = 0 OR event_type = ANY($3))
               AND ($4::uuid IS NULL OR session_id = $4)
               AND ($5::text IS NULL OR event_data->>'user' = $5)
               AND ($6::timestamptz IS NULL OR (event_time, event_id) < ($6, $7::uuid))
             ORDER BY event_time DESC, event_id DESC LIMIT $8"
        }
    }
}

/// A page of events.
pub(super) async fn search(connections: &Connections, query: Query) -> Result<Page> {
    let size = query.page_size()?;
    let mut place = Place::from_key(&query.start_key)?;
    let types: Vec<&str> = query.types.iter().map(String::as_str).collect();
    let session: Option<Uuid> = match query.session.as_deref().map(str::parse) {
        Some(Ok(session)) => Some(session),
        Some(Err(_)) => return Ok(Page::default()),
        None => None,
    };
    let client = connections.get().await?;
    let prepared = within(client.prepare(statement(query.order))).await?;
    let (mut events, mut bytes, mut scanned) = (Vec::new(), 0, 0);
    loop {
        let (time, id) = (place.map(|place| place.time), place.map(|place| place.id));
        let wanted: [&(dyn ToSql + Sync); 8] =
            [&query.from, &query.to, &types, &session, &query.user, &time, &id, &FETCHED];
        let rows = within(client.query(&prepared, &wanted)).await?;
        let last = i64::try_from(rows.len()).unwrap_or(i64::MAX) < FETCHED;
        for row in rows {
            let text: &str = row.get(2);
            let fields = serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
            let accepted = query.accepts(&fields);
            if accepted && (events.len() >= size || bytes + text.len() > MAX_PAGE_BYTES && !events.is_empty()) {
                return Ok(Page { events, next: place.map(Place::to_key).unwrap_or_default() });
            }
            place = Some(Place { time: row.get(0), id: row.get(1) });
            scanned += 1;
            if accepted {
                bytes += text.len();
                events.push(Entry { fields });
            }
        }
        if last {
            return Ok(Page { events, next: String::new() });
        }
        if scanned >= MOST_SCANNED {
            return Ok(Page { events, next: place.map(Place::to_key).unwrap_or_default() });
        }
    }
}
