//! The audit log as browsers read it.

use audit::json;
use axum::Json;
use axum::extract::{Path, Query};
use axum::response::IntoResponse;
use chrono::{DateTime, Months, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::error::ErrorKind;
use wire::proto::{Events, GetEventsRequest, GetSessionEventsRequest, Order};

use super::user::WebUser;
use super::{WebError, WebResult};

/// `GET /webapi/sites/<cluster>/events/search`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Search {
    /// RFC 3339; a month ago if it is not given.
    from: String,
    /// RFC 3339; now if it is not given.
    to: String,
    limit: String,
    start_key: String,
    /// `asc` or `desc`.
    order: String,
    /// Names of events, separated by commas.
    include: String,
}

/// A search in the form of a call.
struct Wanted {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    limit: i32,
    order: Order,
}

impl Search {
    fn wanted(&self, now: DateTime<Utc>) -> WebResult<Wanted> {
        let to = moment("to", &self.to)?.unwrap_or(now);
        let month_ago = to.checked_sub_months(Months::new(1)).unwrap_or(to);
        let from = moment("from", &self.from)?.unwrap_or(month_ago);
        let wrong = |what: String| WebError::new(ErrorKind::BadParameter, what);
        let limit = match self.limit.as_str() {
            "" => 0,
            text => text.parse().map_err(|_| wrong(format!("limit: expected a number, found {text:?}")))?,
        };
        let order = match self.order.as_str() {
            "asc" => Order::Ascending,
            "" | "desc" => Order::Descending,
            other => return Err(wrong(format!("order: expected asc or desc, found {other:?}"))),
        };
        Ok(Wanted { from, to, limit, order })
    }
}

fn moment(name: &str, text: &str) -> WebResult<Option<DateTime<Utc>>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = DateTime::parse_from_rfc3339(text).map(|moment| Some(moment.with_timezone(&Utc)));
    parsed.map_err(|_| {
        WebError::new(
            ErrorKind::BadParameter,
            format!("{name}: expected a time such as 2026-01-31T08:00:00Z, found {text:?}"),
        )
    })
}

/// Events of all kinds.
pub(super) async fn search(user: WebUser, Path(cluster): Path<String>, Query(search): Query<Search>) -> WebResult {
    let wanted = search.wanted(Utc::now())?;
    let names = search.include.split(',').map(str::trim).filter(|name| !name.is_empty());
    let request = GetEventsRequest {
        namespace: "default".into(),
        start_date: Some(wire::time::timestamp(wanted.from)),
        end_date: Some(wire::time::timestamp(wanted.to)),
        event_types: names.map(str::to_owned).collect(),
        limit: wanted.limit,
        start_key: search.start_key,
        order: wanted.order.into(),
    };
    answer(user.ask(&cluster, |mut auth| async move { auth.get_events(request).await }).await?)
}

/// The ends of recorded sessions.
pub(super) async fn sessions(user: WebUser, Path(cluster): Path<String>, Query(search): Query<Search>) -> WebResult {
    let wanted = search.wanted(Utc::now())?;
    let request = GetSessionEventsRequest {
        start_date: Some(wire::time::timestamp(wanted.from)),
        end_date: Some(wire::time::timestamp(wanted.to)),
        limit: wanted.limit,
        start_key: search.start_key,
        order: wanted.order.into(),
    };
    answer(user.ask(&cluster, |mut auth| async move { auth.get_session_events(request).await }).await?)
}

fn answer(found: Events) -> WebResult {
    let events = found.items.iter().map(|event| json::to_object(event).map(Value::Object));
    let events = events.collect::<Result<Vec<_>, _>>();
    let events = events.map_err(|error| WebError::new(ErrorKind::Other, error.to_string()))?;
    Ok(Json(json!({"events": events, "startKey": found.last_key})).into_response())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_search_without_times_is_about_the_last_month() {
        let now: DateTime<Utc> = "2026-03-31T12:00:00Z".parse().unwrap();
        let wanted = Search::default().wanted(now).unwrap();
        assert_eq!((wanted.from.to_rfc3339(), wanted.to), ("2026-02-28T12:00:00+00:00".into(), now));
        assert_eq!((wanted.limit, wanted.order), (0, Order::Descending));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (search, word) in [
            (Search { from: "yesterday".into(), ..Default::default() }, "from"),
            (Search { to: "2026-01-01".into(), ..Default::default() }, "to"),
            (Search { limit: "many".into(), ..Default::default() }, "limit"),
            (Search { order: "up".into(), ..Default::default() }, "order"),
        ] {
            let said = search.wanted(Utc::now()).err().unwrap().0.message;
            assert!(said.starts_with(word), "{said}");
        }
    }
}
