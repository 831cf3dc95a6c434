//! What watches a session: the recording, the audit log, and the list of live sessions at the Auth Service.

use std::net::SocketAddr;
use std::sync::Arc;

use audit::{Clock, codes};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use rbac::Strictness;
use recording::{SessionId, SessionInfo, SessionWriter, Uploads};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use wire::events::{
    OneOf, Resize, ServerMetadata, SessionData, SessionEnd, SessionJoin, SessionLeave, SessionMetadata, SessionStart,
    UserMetadata,
};
use wire::types::SessionTrackerSpecV1;

use crate::audit::{NodeAudit, connection_metadata};
use crate::channel::TerminalRequest;
use crate::connection::Connection;
use crate::enhanced_recording::{Followed, Watch};
use crate::os::pty::TerminalSize;
use crate::session::{Outcome, Party, Who};
use crate::tracker::{Trackers, Tracking};

/// How long a session may take to hear that it ends.
const TOLD: std::time::Duration = std::time::Duration::from_secs(10);

/// Sees everything that happens in a session, in order.
pub trait Observer: Send {
    /// Terminal output.
    fn output(&mut self, data: Bytes) -> impl Future<Output = ()> + Send;
    /// The terminal has a new size.
    fn resized(&mut self, size: TerminalSize) -> impl Future<Output = ()> + Send;
    /// The process that waited was started.
    fn started(&mut self) -> impl Future<Output = ()> + Send;
    /// A party came.
    fn joined(&mut self, party: &Party) -> impl Future<Output = ()> + Send;
    /// A party left, or was there when the session ended.
    fn left(&mut self, party: u64, who: &Who) -> impl Future<Output = ()> + Send;
}

/// A session that is about to begin.
pub(crate) struct Beginning<'a> {
    /// Its id.
    pub id: &'a Arc<str>,
    /// The terminal asked for.
    pub terminal: &'a TerminalRequest,
    /// The command, empty for a shell.
    pub command: &'a str,
    /// Number of the first party.
    pub party: u64,
    /// Whether it waits for others to be present.
    pub pending: bool,
    /// Why it is held, as its owner says.
    pub reason: &'a str,
    /// Who is invited, as its owner says.
    pub invited: Vec<String>,
    /// What its processes do, where that is recorded.
    pub watch: Option<Watch>,
}

/// Begins recordings.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub uploads: Uploads,
    pub audit: NodeAudit,
    pub trackers: Trackers,
    pub host_uuid: String,
    pub hostname: String,
    pub cluster: String,
}

/// Where the events of a session go: its recording and the audit log. Clones share it.
#[derive(Clone)]
pub(crate) struct Trail {
    /// The session's id.
    pub id: Arc<str>,
    writer: Arc<SessionWriter>,
    audit: NodeAudit,
    user: UserMetadata,
    session: SessionMetadata,
    server: SocketAddr,
}

/// One session's recording and audit trail.
pub(crate) struct SessionObserver {
    trail: Trail,
    /// What its processes do, where that is recorded, and has not been told yet: first comes that the session starts.
    watch: Option<Watch>,
    /// The same, from then on.
    enhanced: Option<Followed>,
    tasks: TaskTracker,
    tracking: Tracking,
    client: SocketAddr,
    participants: Vec<String>,
    /// The terminal's size at the start.
    size: String,
    started: DateTime<Utc>,
    mode: String,
    initial_command: Vec<String>,
    sent: u64,
    /// Set when a recording that must be kept cannot be: the session ends.
    failed: Option<String>,
    failures: Option<mpsc::Sender<crate::session::Command>>,
}

impl Recorder {
    /// Begins the recording of a session; nothing may run before it returns.
    ///
    /// # Errors
    ///
    /// In words, when a role demands a recording and none can be made.
    pub async fn begin(&self, connection: &Connection, beginning: Beginning<'_>) -> Result<SessionObserver, String> {
        let Beginning { id, terminal, command, .. } = beginning;
        let trail = self.trail(connection, id).await?;
        let mode = connection.node.recording_mode();
        let access = &connection.access;
        let initial_command: Vec<String> = (!command.is_empty()).then(|| command.to_owned()).into_iter().collect();
        let tracker = self.tracker(connection, &beginning, &initial_command);
        let tracking = self.trackers.begin(tracker, beginning.party, beginning.pending).await;
        let mut observer = SessionObserver {
            size: terminal.size.to_string(),
            trail,
            watch: beginning.watch,
            enhanced: None,
            tasks: connection.node.tasks.clone(),
            tracking,
            client: connection.client,
            participants: vec![access.user.clone()],
            started: Utc::now(),
            mode,
            initial_command,
            sent: 0,
            failed: None,
            failures: None,
        };
        if !beginning.pending {
            observer.start().await;
        }
        Ok(observer)
    }

    /// Where the events of a session go, in its recording if there is to be one.
    ///
    /// # Errors
    ///
    /// As [`Self::begin`].
    pub async fn trail(&self, connection: &Connection, id: &Arc<str>) -> Result<Trail, String> {
        let session = id.parse::<SessionId>().map_err(|e| e.to_string())?;
        let mode = connection.node.recording_mode();
        let info = SessionInfo {
            session,
            server_id: self.host_uuid.clone(),
            cluster: self.cluster.clone(),
            clock: Clock::system(),
        };
        let writer = if mode == "off" || connection.node.records_at_proxy() {
            SessionWriter::discard(info)
        } else {
            match SessionWriter::create(&self.uploads, info.clone(), mode == "node-sync").await {
                Ok(writer) => writer,
                Err(error) if connection.access.permit.options.ssh_recording == Strictness::Strict => {
                    return Err(format!("Session terminating due to node error. ({error})"));
                }
                Err(error) => {
                    warn!(%error, session = %id, "session goes on without a recording");
                    SessionWriter::discard(info)
                }
            }
        };
        Ok(Trail {
            id: id.clone(),
            writer: Arc::new(writer),
            audit: self.audit.clone(),
            user: connection.access.user_metadata(),
            session: connection.access.session_metadata(id),
            server: connection.server,
        })
    }

    fn tracker(&self, connection: &Connection, beginning: &Beginning<'_>, command: &[String]) -> SessionTrackerSpecV1 {
        let access = &connection.access;
        SessionTrackerSpecV1 {
            session_id: beginning.id.to_string(),
            reason: beginning.reason.to_owned(),
            invited: beginning.invited.clone(),
            kind: "ssh".into(),
            hostname: self.hostname.clone(),
            address: self.host_uuid.clone(),
            cluster_name: self.cluster.clone(),
            login: access.login.clone(),
            host_user: access.user.clone(),
            host_policies: access.roles.session_policies(),
            host_id: self.host_uuid.clone(),
            initial_command: command.to_vec(),
            ..Default::default()
        }
    }
}

impl Trail {
    /// Puts an event into the recording and the audit log.
    pub async fn record(&self, event: OneOf) {
        match self.writer.record(event) {
            Ok(event) => self.audit.emit(event).await,
            Err(error) => warn!(%error, session = %self.id, "event of the session lost"),
        }
    }

    /// The parts of an event that say whose session it is, which one, and where.
    pub fn said(&self) -> (Option<UserMetadata>, Option<SessionMetadata>, Option<ServerMetadata>) {
        (Some(self.user.clone()), Some(self.session.clone()), Some(self.audit.server(self.server)))
    }

    /// Ends the recording.
    pub async fn finish(&self) {
        if let Err(error) = self.writer.finish().await {
            warn!(%error, session = %self.id, "recording incomplete");
        }
    }
}

impl SessionObserver {
    /// Says that the process starts.
    async fn start(&mut self) {
        self.started = Utc::now();
        let start = SessionStart {
            user: Some(self.trail.user.clone()),
            session: Some(self.trail.session.clone()),
            server: Some(self.trail.audit.server(self.trail.server)),
            connection: Some(connection_metadata(self.client, self.trail.server)),
            terminal_size: self.size.clone(),
            initial_command: self.initial_command.clone(),
            session_recording: self.mode.clone(),
            ..Default::default()
        };
        self.trail.record(codes::SESSION_START.event(start)).await;
        self.enhanced = self.watch.take().map(|watch| watch.follow(self.trail.clone(), &self.tasks));
    }

    /// Where to end the session when its recording fails and a role demands one.
    pub fn on_failure(&mut self, session: mpsc::Sender<crate::session::Command>) {
        self.failures = Some(session);
    }

    /// Ends the recording and says in the audit log how the session ended.
    pub async fn finish(mut self, outcome: Outcome) {
        let enhanced_recording = self.enhanced.is_some() || self.watch.is_some();
        if let Some(enhanced) = self.enhanced.take() {
            enhanced.end().await;
        }
        let server = self.trail.audit.server(self.trail.server);
        let connection = connection_metadata(self.client, self.trail.server);
        let data = SessionData {
            user: Some(self.trail.user.clone()),
            session: Some(self.trail.session.clone()),
            server: Some(server.clone()),
            connection: Some(connection.clone()),
            bytes_transmitted: self.sent,
            ..Default::default()
        };
        let end = SessionEnd {
            user: Some(self.trail.user.clone()),
            session: Some(self.trail.session.clone()),
            connection: Some(connection),
            server: Some(server),
            enhanced_recording,
            interactive: true,
            participants: std::mem::take(&mut self.participants),
            start_time: Some(wire::time::timestamp(self.started)),
            end_time: Some(wire::time::timestamp(Utc::now())),
            initial_command: self.initial_command.clone(),
            session_recording: self.mode.clone(),
            ..Default::default()
        };
        debug!(session = %self.trail.id, ?outcome, "session ended");
        self.trail.record(codes::SESSION_END.event(end)).await;
        if let Ok(event) = self.trail.writer.stamp(codes::SESSION_DATA.event(data)) {
            self.trail.audit.emit(event).await;
        }
        self.trail.finish().await;
        self.tracking.end().await;
    }
}

impl Observer for SessionObserver {
    async fn output(&mut self, data: Bytes) {
        self.sent += data.len() as u64;
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.trail.writer.output(&data).await {
            warn!(%error, session = %self.trail.id, "recording failed");
            self.failed = Some(error.to_string());
            if let Some(session) = &self.failures {
                let reason = "Session terminating due to node error.".to_owned();
                // The session's task is what calls this, so it cannot wait for itself.
                let (session, command) = (session.clone(), crate::session::Command::Terminate { by: None, reason });
                self.tasks.spawn(async move { timeout(TOLD, session.send(command)).await }); // it may have ended
            }
        }
    }

    async fn resized(&mut self, size: TerminalSize) {
        let body = Resize {
            user: Some(self.trail.user.clone()),
            session: Some(self.trail.session.clone()),
            connection: Some(connection_metadata(self.client, self.trail.server)),
            server: Some(self.trail.audit.server(self.trail.server)),
            terminal_size: size.to_string(),
            ..Default::default()
        };
        // Sizes belong to the recording alone: in the log they would say nothing.
        if let Err(error) = self.trail.writer.record(codes::RESIZE.event(body)) {
            warn!(%error, session = %self.trail.id, "change of size lost");
        }
    }

    async fn started(&mut self) {
        self.tracking.running().await;
        self.start().await;
    }

    async fn joined(&mut self, party: &Party) {
        if !self.participants.iter().any(|user| user == party.user()) {
            self.participants.push(party.user().to_owned());
        }
        self.tracking.joined(party.id, party.user(), party.mode()).await;
        let body = SessionJoin {
            user: Some(party.who.user.clone()),
            session: Some(self.trail.session.clone()),
            server: Some(self.trail.audit.server(self.trail.server)),
            connection: Some(party.who.connection.clone()),
            ..Default::default()
        };
        self.trail.record(codes::SESSION_JOIN.event(body)).await;
    }

    async fn left(&mut self, party: u64, who: &Who) {
        self.tracking.left(party).await;
        let body = SessionLeave {
            user: Some(who.user.clone()),
            session: Some(self.trail.session.clone()),
            server: Some(self.trail.audit.server(self.trail.server)),
            connection: Some(who.connection.clone()),
            ..Default::default()
        };
        self.trail.record(codes::SESSION_LEAVE.event(body)).await;
    }
}
