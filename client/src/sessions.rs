//! Sessions that run now, and recordings of those that ended.

use chrono::{DateTime, Utc};
use wire::events::OneOf;
use wire::proto::{GetSessionEventsRequest, GetSessionTrackerRequest, Order};
use wire::types::{SessionState, SessionTrackerV1};

use crate::cluster::ClusterClient;
use crate::error::{Error, Result};

/// Recordings asked for at once.
const PAGE: i32 = 500;

/// Lists the sessions that run now or wait for participants, of the given kinds or of all, in the order in which they began.
pub async fn active(client: &ClusterClient, kinds: &[String]) -> Result<Vec<SessionTrackerV1>> {
    let mut stream = client.auth().get_active_session_trackers(()).await?.into_inner();
    let mut sessions = Vec::new();
    while let Some(tracker) = stream.message().await? {
        let kind = tracker.spec.as_ref().map_or("", |spec| &spec.kind);
        // Some servers keep what has ended for a while.
        if !has_ended(&tracker) && (kinds.is_empty() || kinds.iter().any(|wanted| wanted == kind)) {
            sessions.push(tracker);
        }
    }
    sessions.sort_by_key(|tracker| wire::time::moment(tracker.spec.as_ref().and_then(|spec| spec.created.as_ref())));
    Ok(sessions)
}

/// A session that runs now.
pub async fn tracker(client: &ClusterClient, session: &str) -> Result<SessionTrackerV1> {
    let request = GetSessionTrackerRequest { session_id: session.to_owned() };
    let gone = || Error::other(format!("session {session:?} not found or ended"));
    match client.auth().get_session_tracker(request).await {
        Ok(answer) => Some(answer.into_inner()).filter(|tracker| !has_ended(tracker)).ok_or_else(gone),
        Err(status) if status.code() == tonic::Code::NotFound => Err(gone()),
        Err(status) => Err(status.into()),
    }
}

fn has_ended(tracker: &SessionTrackerV1) -> bool {
    tracker.spec.as_ref().is_some_and(|spec| spec.state == SessionState::Terminated as i32)
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

#[cfg(test)]
mod tests {
    use wire::types::SessionTrackerSpecV1;

    use super::*;

    #[test]
    fn a_session_has_ended_when_its_tracker_says_so() {
        let in_state = |state: SessionState| SessionTrackerV1 {
            spec: Some(SessionTrackerSpecV1 { state: state.into(), ..Default::default() }),
            ..Default::default()
        };
        assert!(has_ended(&in_state(SessionState::Terminated)));
        assert!(!has_ended(&in_state(SessionState::Running)) && !has_ended(&in_state(SessionState::Pending)));
        assert!(!has_ended(&SessionTrackerV1::default()));
    }
}
