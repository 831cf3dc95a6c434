//! What is kept of one session: its recording, and its events in the audit log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use audit::{Clock, codes};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use pki::identity::Identity;
use rbac::{RoleSet, Strictness};
use recording::{SessionId, SessionInfo, SessionWriter};
use tracing::warn;
use wire::events::{
    CommandMetadata, ConnectionMetadata, Exec, OneOf, Resize, Scp, ServerMetadata, SessionConnect, SessionData,
    SessionEnd, SessionLeave, SessionMetadata, SessionReject, SessionStart, Sftp, Subsystem, UserMetadata,
};

use super::copies::Done;
use super::door::Visit;
use super::host::node_id;
use super::{Meeting, Mode, Shared};

/// What runs in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A shell or a command on a terminal of this size: recorded.
    Terminal { size: String, command: Option<String> },
    /// A command without a terminal.
    Command(String),
    /// A subsystem.
    Subsystem(String),
}

/// Name of the subsystem that copies files.
pub(super) const SFTP: &str = "sftp";

impl Kind {
    /// Whether this copies files.
    pub(super) fn copies(&self) -> bool {
        match self {
            Self::Subsystem(name) => name == SFTP,
            Self::Command(command) => is_scp(command),
            Self::Terminal { command, .. } => command.as_deref().is_some_and(is_scp),
        }
    }
}

/// Whether a command is the remote end of the old copy protocol.
fn is_scp(command: &str) -> bool {
    let mut words = command.split_whitespace();
    words.next().is_some_and(|program| program.rsplit('/').next() == Some("scp"))
        && words.any(|word| word.starts_with('-') && word.contains(['t', 'f']))
}

/// The trail of a session that goes on.
pub(super) struct Trail {
    id: SessionId,
    writer: SessionWriter,
    log: audit::RemoteLog,
    about: About,
    kind: Kind,
    started: DateTime<Utc>,
    sent: AtomicU64,
    /// The recording has a hole, and takes no more.
    failed: AtomicBool,
    /// Whether the session must not go on without a recording.
    strict: bool,
    /// Whether nobody else speaks of what ran.
    agentless: bool,
}

/// What all events of a session say.
#[derive(Clone)]
struct About {
    user: UserMetadata,
    session: SessionMetadata,
    server: ServerMetadata,
    connection: ConnectionMetadata,
    mode: &'static str,
}

/// What a user reads when a session that must be recorded cannot be.
pub(super) const NOT_RECORDED: &str = "Session terminating due to node error.";

impl Trail {
    /// Begins; `Err` in words, when a role demands a recording and none can be made.
    pub(super) async fn begin(visit: &Visit, id: SessionId, kind: Kind) -> Result<Self, String> {
        let Visit { shared, meeting, .. } = visit;
        let info = SessionInfo {
            session: id,
            server_id: node_id(meeting).to_owned(),
            cluster: shared.cache.cluster_name(),
            clock: Clock::system(),
        };
        let strict = is_strict(shared, visit);
        let writer = if matches!(kind, Kind::Terminal { .. }) && meeting.mode != Mode::Off {
            match SessionWriter::create(&shared.uploads, info.clone(), meeting.mode == Mode::ProxySync).await {
                Ok(writer) => writer,
                Err(error) if strict => {
                    warn!(%error, session = %id, "session refused: it cannot be recorded");
                    return Err(NOT_RECORDED.to_owned());
                }
                Err(error) => {
                    warn!(%error, session = %id, "session goes on without a recording");
                    SessionWriter::discard(info)
                }
            }
        } else {
            SessionWriter::discard(info)
        };
        let trail = Self {
            id,
            writer,
            log: shared.log.clone(),
            about: About::of(visit, &id.to_string()),
            kind,
            started: Utc::now(),
            sent: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            strict,
            agentless: meeting.agentless,
        };
        trail.record(trail.start()).await;
        Ok(trail)
    }

    /// The session's id, as the audit log has it.
    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    fn start(&self) -> OneOf {
        let About { user, session, server, connection, mode } = self.about.clone();
        let terminal_size = match &self.kind {
            Kind::Terminal { size, .. } => size.clone(),
            _ => String::new(),
        };
        codes::SESSION_START.event(SessionStart {
            user: Some(user),
            session: Some(session),
            server: Some(server),
            connection: Some(connection),
            terminal_size,
            initial_command: self.command(),
            session_recording: mode.to_owned(),
            ..Default::default()
        })
    }

    fn command(&self) -> Vec<String> {
        match &self.kind {
            Kind::Terminal { command, .. } => command.iter().cloned().collect(),
            Kind::Command(command) => vec![command.clone()],
            Kind::Subsystem(_) => Vec::new(),
        }
    }

    /// The node has shown something; false when the session must end because it cannot be recorded.
    pub(super) async fn output(&self, data: &Bytes) -> bool {
        self.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        if !matches!(self.kind, Kind::Terminal { .. }) || self.failed.load(Ordering::Relaxed) {
            return true;
        }
        match self.writer.output(data).await {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "recording failed");
                self.failed.store(true, Ordering::Relaxed);
                !self.strict
            }
        }
    }

    /// The terminal has another size. That belongs to the recording alone.
    pub(super) fn resized(&self, size: &str) {
        let About { user, session, server, connection, .. } = self.about.clone();
        let event = codes::RESIZE.event(Resize {
            user: Some(user),
            session: Some(session),
            server: Some(server),
            connection: Some(connection),
            terminal_size: size.to_owned(),
            ..Default::default()
        });
        if let Err(error) = self.writer.record(event) {
            warn!(%error, "change of size lost");
        }
    }

    /// The session is over; `received` bytes came from the client, and what ran ended with `exit`.
    pub(super) async fn finish(&self, received: u64, exit: Option<u32>) {
        if self.agentless && !self.command().is_empty() {
            self.log.emit(self.exec(exit)).await;
        }
        let About { user, session, server, connection, mode } = self.about.clone();
        if matches!(self.kind, Kind::Terminal { .. }) {
            let leave = SessionLeave {
                user: Some(user.clone()),
                session: Some(session.clone()),
                server: Some(server.clone()),
                connection: Some(connection.clone()),
                ..Default::default()
            };
            self.record(codes::SESSION_LEAVE.event(leave)).await;
        }
        let end = SessionEnd {
            user: Some(user.clone()),
            session: Some(session.clone()),
            server: Some(server.clone()),
            connection: Some(connection.clone()),
            interactive: matches!(self.kind, Kind::Terminal { .. }),
            participants: vec![user.user.clone()],
            start_time: Some(wire::time::timestamp(self.started)),
            end_time: Some(wire::time::timestamp(Utc::now())),
            initial_command: self.command(),
            session_recording: mode.to_owned(),
            ..Default::default()
        };
        self.record(codes::SESSION_END.event(end)).await;
        let data = SessionData {
            user: Some(user),
            session: Some(session),
            server: Some(server),
            connection: Some(connection),
            bytes_transmitted: self.sent.load(Ordering::Relaxed),
            bytes_received: received,
            ..Default::default()
        };
        match self.writer.stamp(codes::SESSION_DATA.event(data)) {
            Ok(event) => self.log.emit(event).await,
            Err(error) => warn!(%error, "event of the session lost"),
        }
        if let Err(error) = self.writer.finish().await {
            warn!(%error, "recording incomplete");
        }
    }

    /// Says how a command ended; nodes say that themselves.
    fn exec(&self, exit: Option<u32>) -> OneOf {
        let About { user, session, server, connection, .. } = self.about.clone();
        let (kind, error) = match exit {
            Some(0) => (codes::EXEC, String::new()),
            Some(code) => (codes::EXEC_FAILURE, format!("exit status {code}")),
            None => (codes::EXEC_FAILURE, "ended without an exit status".to_owned()),
        };
        let exit_code = exit.unwrap_or(255).to_string();
        kind.event(Exec {
            user: Some(user),
            session: Some(session),
            server: Some(server),
            connection: Some(connection),
            command: Some(CommandMetadata { command: self.command().join(" "), exit_code, error }),
            ..Default::default()
        })
    }

    /// Puts an event into the recording and the audit log.
    async fn record(&self, event: OneOf) {
        match self.writer.record(event) {
            Ok(event) => self.log.emit(event).await,
            Err(error) => warn!(%error, "event of the session lost"),
        }
    }
}

/// Says that a connection was made to a server without an agent.
pub(super) async fn connected(shared: &Shared, meeting: &Meeting) {
    let body = SessionConnect {
        server: Some(server(shared, meeting)),
        connection: Some(process::said::connection_metadata(meeting.client, meeting.server)),
        ..Default::default()
    };
    shared.log.emit(codes::SESSION_CONNECT.event(body)).await;
}

/// Says that a subsystem was asked for; with the reason when it was refused.
pub(super) async fn subsystem(visit: &Visit, name: &str, refused: Option<&str>) {
    let About { user, connection, .. } = About::of(visit, "");
    let body = Subsystem {
        user: Some(user),
        connection: Some(connection),
        name: name.to_owned(),
        error: refused.unwrap_or_default().to_owned(),
        ..Default::default()
    };
    let kind = if refused.is_some() { codes::SUBSYSTEM_FAILURE } else { codes::SUBSYSTEM };
    visit.shared.log.emit(kind.event(body)).await;
}

/// Says what was done to a file.
pub(super) async fn file_operation(visit: &Visit, session: &str, home: &str, done: Done) {
    let kind = codes::sftp(done.action, done.error.is_empty());
    let body = Sftp {
        working_directory: home.to_owned(),
        path: done.path,
        target_path: done.target,
        flags: done.flags,
        attributes: done.attributes,
        action: done.action as i32,
        error: done.error,
        ..About::of(visit, session).sftp()
    };
    visit.shared.log.emit(kind.event(body)).await;
}

/// Says that a copy was not allowed.
pub(super) async fn copy_refused(visit: &Visit, kind: &Kind, reason: &str) {
    let about = About::of(visit, &SessionId::random().to_string());
    let event = match kind {
        Kind::Command(command) | Kind::Terminal { command: Some(command), .. } => {
            let path = command.split_whitespace().next_back().unwrap_or_default().to_owned();
            let upload = command.split_whitespace().any(|word| word.starts_with('-') && word.contains('t'));
            let (exit_code, error) = ("255".to_owned(), reason.to_owned());
            codes::SCP_DISALLOWED.event(Scp {
                user: Some(about.user),
                connection: Some(about.connection),
                session: Some(about.session),
                server: Some(about.server),
                command: Some(CommandMetadata { command: command.clone(), exit_code, error }),
                path,
                action: if upload { "upload" } else { "download" }.to_owned(),
                ..Default::default()
            })
        }
        _ => codes::SFTP_DISALLOWED.event(Sftp { error: reason.to_owned(), ..about.sftp() }),
    };
    visit.shared.log.emit(event).await;
}

/// Says that a limit refused a session.
pub(super) async fn rejected(
    shared: &Shared,
    meeting: &Meeting,
    (identity, login): (&Identity, &str),
    (reason, max): (&str, u64),
) {
    let body = SessionReject {
        user: Some(process::said::user_metadata(identity, login)),
        server: Some(server(shared, meeting)),
        connection: Some(process::said::connection_metadata(meeting.client, meeting.server)),
        reason: reason.to_owned(),
        maximum: i64::try_from(max).unwrap_or(i64::MAX),
        ..Default::default()
    };
    shared.log.emit(codes::SESSION_REJECTED.event(body)).await;
}

impl About {
    fn sftp(self) -> Sftp {
        Sftp {
            user: Some(self.user),
            connection: Some(self.connection),
            session: Some(self.session),
            server: Some(self.server),
            ..Default::default()
        }
    }

    fn of(visit: &Visit, session: &str) -> Self {
        let Visit { shared, meeting, identity, login, .. } = visit;
        Self {
            user: process::said::user_metadata(identity, login),
            session: process::said::session_metadata(session, identity),
            server: server(shared, meeting),
            connection: process::said::connection_metadata(meeting.client, meeting.server),
            mode: meeting.mode.name(),
        }
    }
}

/// The part of an event that says where it happened, and who saw it.
pub(super) fn server(shared: &Shared, meeting: &Meeting) -> ServerMetadata {
    let spec = meeting.node.spec.clone().unwrap_or_default();
    let metadata = meeting.node.metadata.clone().unwrap_or_default();
    ServerMetadata {
        server_namespace: "default".into(),
        server_id: node_id(meeting).to_owned(),
        server_hostname: spec.hostname,
        server_addr: spec.addr,
        server_labels: metadata.labels.into_iter().collect(),
        server_sub_kind: meeting.node.sub_kind.clone(),
        server_version: spec.version,
        forwarded_by: shared.host_uuid.clone(),
    }
}

/// Whether the user's roles demand that sessions are recorded.
fn is_strict(shared: &Shared, visit: &Visit) -> bool {
    let roles: Vec<_> = visit.identity.groups.iter().filter_map(|name| shared.cache.role(name)).collect();
    let traits = rbac::Traits::from(visit.identity.traits.clone().unwrap_or_default());
    // A role that is not known here may demand it.
    roles.len() < visit.identity.groups.len()
        || RoleSet::compile(roles.iter().map(|role| (**role).clone()), traits).options().ssh_recording
            == Strictness::Strict
}
