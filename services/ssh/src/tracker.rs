//! The Auth Service's list of live sessions.
//!
//! Nothing waits for it: a session runs whether or not the list could be told.

use std::time::Duration;

use chrono::Utc;
use rbac::JoinMode;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tonic::Request;
use tracing::debug;
use uuid::Uuid;
use wire::client::ApiChannel;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::proto::update_session_tracker_request::Update;
use wire::proto::{
    CreateSessionTrackerRequest, SessionTrackerAddParticipant, SessionTrackerRemoveParticipant,
    SessionTrackerUpdateExpiry, SessionTrackerUpdateState, UpdateSessionTrackerRequest,
};
use wire::types::{Metadata, Participant, ResourceHeader, SessionState, SessionTrackerSpecV1, SessionTrackerV1};

/// How long a record lives without being extended.
const TTL: Duration = Duration::from_secs(30 * 60);
/// How often it is extended.
const EXTEND: Duration = Duration::from_secs(10 * 60);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);
/// Changes that may wait to be told.
const QUEUE: usize = 32;

/// Tells the Auth Service of sessions.
#[derive(Clone)]
pub(crate) struct Trackers {
    channel: ApiChannel,
    tasks: TaskTracker,
}

/// One session on the list.
pub(crate) struct Tracking {
    changes: mpsc::Sender<Update>,
    /// Numbers of the parties with their ids on the list.
    parties: Vec<(u64, String)>,
}

impl Trackers {
    pub fn new(channel: ApiChannel, tasks: TaskTracker) -> Self {
        Self { channel, tasks }
    }

    /// Puts a session on the list, with its owner as the first party.
    pub async fn begin(&self, mut spec: SessionTrackerSpecV1, party: u64, pending: bool) -> Tracking {
        let now = Utc::now();
        let owner = participant(&spec.host_user, JoinMode::Peer);
        let parties = vec![(party, owner.id.clone())];
        spec.state = if pending { SessionState::Pending } else { SessionState::Running } as i32;
        spec.created = Some(wire::time::timestamp(now));
        spec.expires = Some(wire::time::timestamp(now + TTL));
        spec.participants = vec![owner];
        let id = spec.session_id.clone();
        let tracker = SessionTrackerV1 {
            header: Some(ResourceHeader {
                kind: "session_tracker".into(),
                version: "v1".into(),
                metadata: Some(Metadata { name: id.clone(), expires: spec.expires, ..Default::default() }),
                ..Default::default()
            }),
            spec: Some(spec),
        };
        let (changes, receiver) = mpsc::channel(QUEUE);
        self.tasks.spawn(tell(self.channel.clone(), id, tracker, receiver));
        Tracking { changes, parties }
    }
}

impl Tracking {
    /// The session waits no longer.
    pub async fn running(&self) {
        let state = SessionState::Running as i32;
        self.send(Update::UpdateState(SessionTrackerUpdateState { state })).await;
    }

    /// Somebody joined.
    pub async fn joined(&mut self, party: u64, user: &str, mode: JoinMode) {
        let participant = participant(user, mode);
        self.parties.push((party, participant.id.clone()));
        self.send(Update::AddParticipant(SessionTrackerAddParticipant { participant: Some(participant) })).await;
    }

    /// Somebody left.
    pub async fn left(&mut self, party: u64) {
        if let Some(index) = self.parties.iter().position(|(p, _)| *p == party) {
            let (_, participant_id) = self.parties.swap_remove(index);
            self.send(Update::RemoveParticipant(SessionTrackerRemoveParticipant { participant_id })).await;
        }
    }

    /// The session ended.
    pub async fn end(self) {
        let state = SessionState::Terminated as i32;
        self.send(Update::UpdateState(SessionTrackerUpdateState { state })).await;
    }

    async fn send(&self, update: Update) {
        let _ = timeout(CALL, self.changes.send(update)).await; // the list is told as well as can be
    }
}

fn participant(user: &str, mode: JoinMode) -> Participant {
    Participant {
        id: Uuid::new_v4().to_string(),
        user: user.to_owned(),
        mode: mode.name().to_owned(),
        last_active: Some(wire::time::timestamp(Utc::now())),
    }
}

/// Creates the record, passes on changes, and extends the record's life in between.
async fn tell(channel: ApiChannel, id: String, tracker: SessionTrackerV1, mut changes: mpsc::Receiver<Update>) {
    let mut client = AuthServiceClient::new(channel);
    let request = CreateSessionTrackerRequest { session_tracker: Some(tracker) };
    if let Some(problem) = failure(timeout(CALL, client.create_session_tracker(Request::new(request))).await) {
        debug!(session = id, problem, "session is not on the list of live sessions");
    }
    loop {
        let update = match timeout(EXTEND, changes.recv()).await {
            Ok(Some(update)) => update,
            Ok(None) => return,
            Err(_) => {
                let expires = Some(wire::time::timestamp(Utc::now() + TTL));
                Update::UpdateExpiry(SessionTrackerUpdateExpiry { expires })
            }
        };
        let request = UpdateSessionTrackerRequest { session_id: id.clone(), update: Some(update) };
        if let Some(problem) = failure(timeout(CALL, client.update_session_tracker(Request::new(request))).await) {
            debug!(session = id, problem, "change is not on the list of live sessions");
        }
    }
}

fn failure<T>(result: Result<Result<T, tonic::Status>, tokio::time::error::Elapsed>) -> Option<String> {
    match result {
        Ok(Ok(_)) => None,
        Ok(Err(status)) => Some(status.message().to_owned()),
        Err(_) => Some("waited 10 s".into()),
    }
}
