//! The node's way to the audit log.
//!
//! Events go to a file on this host first and from there to the Auth Service, in the order in which they happened, so
//! that neither an outage nor the end of this process loses any.

use std::net::SocketAddr;
use std::sync::Arc;

use audit::{RemoteLog, codes};
use chrono::{DateTime, Utc};
pub(crate) use process::said::connection_metadata;
use wire::events::{
    AuthAttempt, CommandMetadata, Exec, OneOf, PortForward, Scp, ServerMetadata, SessionEnd, SessionReject,
    SessionStart, Sftp, SftpAction, SftpAttributes, Status as Outcome, UserMetadata, X11Forward,
};

use crate::access::{Access, Refused};
use crate::channel::Scp as Copy;
use crate::connection::Connection;
use crate::heartbeat::NodeRecord;
use crate::worker::sftp::{Attributes, Performed};

/// Hands events over. Clones share the queue.
#[derive(Clone)]
pub(crate) struct NodeAudit {
    log: RemoteLog,
    facts: Arc<Facts>,
}

/// What every event of a node says about it.
#[derive(Clone)]
pub(crate) struct Facts {
    /// UUID of the host.
    pub host_uuid: String,
    /// Its name.
    pub hostname: String,
    /// Its labels.
    pub record: NodeRecord,
}

impl NodeAudit {
    /// Events of this node go to `log`.
    pub fn new(log: RemoteLog, facts: Facts) -> Self {
        Self { log, facts: Arc::new(facts) }
    }

    /// Emits an event: fills in what is common to all, and queues it on disk.
    pub async fn emit(&self, event: OneOf) {
        self.log.emit(event).await;
    }

    /// The part of an event that says where it happened.
    pub fn server(&self, address: SocketAddr) -> ServerMetadata {
        ServerMetadata {
            server_namespace: "default".into(),
            server_id: self.facts.host_uuid.clone(),
            server_hostname: self.facts.hostname.clone(),
            server_addr: address.to_string(),
            server_version: wire::VERSION.into(),
            server_labels: self.facts.record.labels(),
            ..Default::default()
        }
    }

    /// A login was refused.
    pub async fn auth_failed(
        &self,
        client: SocketAddr,
        server: SocketAddr,
        login: &str,
        reason: &crate::access::Denial,
    ) {
        let status = Outcome { success: false, error: reason.to_string(), user_message: String::new() };
        let body = AuthAttempt {
            user: Some(UserMetadata { user: reason.user.clone(), login: login.to_owned(), ..Default::default() }),
            connection: Some(connection_metadata(client, server)),
            status: Some(status),
            ..Default::default()
        };
        self.emit(codes::AUTH_ATTEMPT_FAILURE.event(body)).await;
    }

    /// Somebody with the right login was refused by a lock or a limit.
    pub async fn rejected(&self, access: &Access, client: SocketAddr, server: SocketAddr, refused: &Refused) {
        let body = SessionReject {
            user: Some(access.user_metadata()),
            server: Some(self.server(server)),
            connection: Some(connection_metadata(client, server)),
            reason: refused.reason.clone(),
            maximum: i64::try_from(refused.maximum).unwrap_or(i64::MAX),
            ..Default::default()
        };
        self.emit(codes::SESSION_REJECTED.event(body)).await;
    }

    /// A session without a terminal began: a command is running.
    pub fn command_started(&self, connection: &Connection, session: &str, command: &str) -> OneOf {
        codes::SESSION_START.event(SessionStart {
            user: Some(connection.access.user_metadata()),
            session: Some(connection.access.session_metadata(session)),
            server: Some(self.server(connection.server)),
            connection: Some(connection_metadata(connection.client, connection.server)),
            initial_command: vec![command.to_owned()],
            session_recording: connection.node.recording_mode(),
            ..Default::default()
        })
    }

    /// The session of a command is over. Whether what its processes did was recorded is left to be said.
    pub fn command_ended(
        &self,
        connection: &Connection,
        session: &str,
        command: &str,
        started: DateTime<Utc>,
    ) -> SessionEnd {
        SessionEnd {
            user: Some(connection.access.user_metadata()),
            session: Some(connection.access.session_metadata(session)),
            server: Some(self.server(connection.server)),
            connection: Some(connection_metadata(connection.client, connection.server)),
            interactive: false,
            participants: vec![connection.access.user.clone()],
            initial_command: vec![command.to_owned()],
            start_time: Some(wire::time::timestamp(started)),
            end_time: Some(wire::time::timestamp(Utc::now())),
            session_recording: connection.node.recording_mode(),
            ..Default::default()
        }
    }

    /// A forwarded connection has ended.
    pub async fn port_forwarded(&self, connection: &Connection, address: &str) {
        self.port(connection, address, None).await;
    }

    /// A forward was not allowed.
    pub async fn port_refused(&self, connection: &Connection, address: &str, reason: &str) {
        self.port(connection, address, Some(reason)).await;
    }

    async fn port(&self, connection: &Connection, address: &str, refused: Option<&str>) {
        let kind = if refused.is_some() { codes::PORT_FORWARD_FAILURE } else { codes::PORT_FORWARD };
        let body = PortForward {
            user: Some(connection.access.user_metadata()),
            connection: Some(connection_metadata(connection.client, connection.server)),
            status: Some(outcome(refused)),
            addr: address.to_owned(),
            ..Default::default()
        };
        self.emit(kind.event(body)).await;
    }

    /// A display was made for a session, or not.
    pub async fn display(&self, connection: &Connection, refused: Option<&str>) {
        let kind = if refused.is_some() { codes::X11_FORWARD_FAILURE } else { codes::X11_FORWARD };
        let body = X11Forward {
            user: Some(connection.access.user_metadata()),
            connection: Some(connection_metadata(connection.client, connection.server)),
            status: Some(outcome(refused)),
            ..Default::default()
        };
        self.emit(kind.event(body)).await;
    }

    /// Something was done to a file over SFTP.
    pub async fn sftp(&self, connection: &Connection, session: &str, home: &str, performed: Performed) {
        let action = SftpAction::try_from(performed.action).unwrap_or(SftpAction::Invalid);
        let body = Sftp {
            working_directory: home.to_owned(),
            path: performed.path,
            target_path: performed.target,
            flags: performed.flags,
            attributes: performed.attributes.map(attributes),
            action: action as i32,
            error: performed.error,
            ..self.sftp_frame(connection, session)
        };
        let kind = codes::sftp(action, body.error.is_empty());
        self.emit(kind.event(body)).await;
    }

    /// SFTP was not allowed.
    pub async fn sftp_refused(&self, connection: &Connection, session: &str, reason: &str) {
        let body = Sftp { error: reason.to_owned(), ..self.sftp_frame(connection, session) };
        self.emit(codes::SFTP_DISALLOWED.event(body)).await;
    }

    fn sftp_frame(&self, connection: &Connection, session: &str) -> Sftp {
        Sftp {
            user: Some(connection.access.user_metadata()),
            connection: Some(connection_metadata(connection.client, connection.server)),
            session: Some(connection.access.session_metadata(session)),
            server: Some(self.server(connection.server)),
            ..Default::default()
        }
    }

    /// A copy with the old protocol has ended.
    pub async fn scp(&self, connection: &Connection, session: &str, command: &str, copy: &Copy, code: u32) {
        let kind = match (copy.upload, code) {
            (true, 0) => codes::SCP_UPLOAD,
            (true, _) => codes::SCP_UPLOAD_FAILURE,
            (false, 0) => codes::SCP_DOWNLOAD,
            (false, _) => codes::SCP_DOWNLOAD_FAILURE,
        };
        let error = if code == 0 { String::new() } else { format!("exit status {code}") };
        let command = CommandMetadata { command: command.to_owned(), exit_code: code.to_string(), error };
        self.emit(kind.event(self.scp_body(connection, session, copy, command))).await;
    }

    /// A copy with the old protocol was not allowed.
    pub async fn scp_refused(&self, connection: &Connection, session: &str, command: &str, copy: &Copy, reason: &str) {
        let command =
            CommandMetadata { command: command.to_owned(), exit_code: "255".into(), error: reason.to_owned() };
        self.emit(codes::SCP_DISALLOWED.event(self.scp_body(connection, session, copy, command))).await;
    }

    fn scp_body(&self, connection: &Connection, session: &str, copy: &Copy, command: CommandMetadata) -> Scp {
        Scp {
            user: Some(connection.access.user_metadata()),
            connection: Some(connection_metadata(connection.client, connection.server)),
            session: Some(connection.access.session_metadata(session)),
            server: Some(self.server(connection.server)),
            command: Some(command),
            path: copy.path.clone(),
            action: if copy.upload { "upload" } else { "download" }.to_owned(),
            ..Default::default()
        }
    }

    /// A command ran, or did not start.
    pub fn exec(
        &self,
        connection: &Connection,
        session: Option<&str>,
        command: &str,
        result: Result<u32, String>,
    ) -> OneOf {
        let (kind, exit_code, error) = match result {
            Ok(0) => (codes::EXEC, "0".to_owned(), String::new()),
            Ok(code) => (codes::EXEC_FAILURE, code.to_string(), format!("exit status {code}")),
            Err(error) => (codes::EXEC_FAILURE, "255".to_owned(), error),
        };
        let body = Exec {
            user: Some(connection.access.user_metadata()),
            connection: Some(connection_metadata(connection.client, connection.server)),
            session: session.map(|id| connection.access.session_metadata(id)),
            server: Some(self.server(connection.server)),
            command: Some(CommandMetadata { command: command.to_owned(), exit_code, error }),
            ..Default::default()
        };
        kind.event(body)
    }
}

/// The part of an event that says whether it went well.
fn outcome(refused: Option<&str>) -> Outcome {
    Outcome { success: refused.is_none(), error: refused.unwrap_or_default().to_owned(), user_message: String::new() }
}

fn attributes(given: Attributes) -> SftpAttributes {
    let moment =
        |seconds: u32| wire::time::timestamp(DateTime::from_timestamp(i64::from(seconds), 0).unwrap_or_default());
    SftpAttributes {
        file_size: given.size,
        uid: given.owner.map(|(user, _)| user),
        gid: given.owner.map(|(_, group)| group),
        permissions: given.permissions,
        access_time: given.times.map(|(access, _)| moment(access)),
        modification_time: given.times.map(|(_, modification)| moment(modification)),
    }
}
