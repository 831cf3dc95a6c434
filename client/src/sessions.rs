//! Sessions that run now, and recordings of those that ended.

use chrono::{DateTime, Utc};
use wire::events::OneOf;
use wire::proto::{GetSessionEventsRequest, GetSessionTrackerRequest, Order};
use wire::types::SessionTrackerV1;

use crate::cluster::ClusterClient;
use crate::error::{Error, Result};

/// Recordings asked for at once.
const PAGE: i32 = 500;

/// Lists the sessions that run now, of the given kinds or of all.
pub async fn active(client: &ClusterClient, kinds: &[String]) -> Result<Vec<SessionTrackerV1>> {
    let mut stream = client.auth().get_active_session_trackers(()).await?.into_inner();
    let mut sessions = Vec::new();
    while let Some(tracker) = stream.message().await? {
        let kind = tracker.spec.as_ref().map_or("", |spec| &spec.kind);
        if kinds.is_empty() || kinds.iter().any(|wanted| wanted == kind) {
            sessions.push(tracker);
        }
    }
    Ok(sessions)
}

/// A session that runs now.
pub async fn tracker(client: &ClusterClient, session: &str) -> Result<SessionTrackerV1> {
    let request = GetSessionTrackerRequest { session_id: session.to_owned() };
    match client.auth().get_session_tracker(request).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) if status.code() == tonic::Code::NotFound => {
            Err(Error::other(format!("session {session:?} not found or ended")))
        }
        Err(status) => Err(status.into()),
    }
}

/// Lists sessions that ended between two moments, latest first: the events of their ends.
pub async fn recorded(
    client: &ClusterClient,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    limit: usize,
) -> Result<Vec<OneOf>> {
    let mut service = client.auth();
    let mut request = GetSessionEventsRequest {
        start_date: Some(wire::time::timestamp(from)),
        end_date: Some(wire::time::timestamp(to)),
        limit: i32::try_from(limit).map_or(PAGE, |limit| limit.min(PAGE)),
        order: Order::Descending.into(),
        ..Default::default()
    };
    let mut events = Vec::new();
    loop {
        let page = service.get_session_events(request.clone()).await?.into_inner();
        events.extend(page.items);
        if events.len() >= limit || page.last_key.is_empty() {
            events.truncate(limit);
            return Ok(events);
        }
        request.start_key = page.last_key;
    }
}
