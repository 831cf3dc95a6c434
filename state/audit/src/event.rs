//! What all events share.
//!
//! An event travels as [`OneOf`]; its description is one of many messages, all of which embed [`Metadata`] and some
//! of the groups in [`Groups`]. [`EventExt`] reaches them without caring which message it is.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde_json::Value;
use uuid::Uuid;
use wire::{
    events::{
        self, BpfMetadata, ClientMetadata, CommandMetadata, ConnectionMetadata, KubernetesClusterMetadata,
        KubernetesPodMetadata, Metadata, MfaDeviceMetadata, OneOf, ResourceMetadata, ServerMetadata, SessionMetadata,
        Status, UserMetadata, one_of::Event,
    },
    time,
};

use crate::{Error, Result};

/// The `ei` of `session.upload`, which comes after everything a session can say.
pub const UPLOAD_INDEX: i64 = i32::MAX as i64;

/// A message that describes one event.
pub trait AuditEvent: Default {
    /// The event's metadata, made when absent.
    fn metadata_mut(&mut self) -> &mut Metadata;

    /// The message as an event.
    fn into_event(self) -> OneOf;
}

/// What can be asked of any event.
pub trait EventExt {
    /// The part every event has; `None` only for an empty [`OneOf`].
    fn metadata(&self) -> Option<&Metadata>;
    /// The part every event has, made when absent; `None` only for an empty [`OneOf`].
    fn metadata_mut(&mut self) -> Option<&mut Metadata>;
    /// The embedded groups this kind of event has.
    fn groups(&self) -> Groups<'_>;
    /// The embedded groups this kind of event has, to be changed.
    fn groups_mut(&mut self) -> GroupsMut<'_>;
    /// Whether this build does not know the event.
    fn is_unknown(&self) -> bool;

    /// The event's name (`session.start`), empty when it has none.
    fn name(&self) -> &str {
        self.metadata().map_or("", |m| &m.r#type)
    }

    /// The event's code (`T2000I`), empty when it has none.
    fn code(&self) -> &str {
        self.metadata().map_or("", |m| &m.code)
    }

    /// The event's unique id, empty when it has none.
    fn uid(&self) -> &str {
        self.metadata().map_or("", |m| &m.id)
    }

    /// The event's place in its session, counted from 0.
    fn index(&self) -> i64 {
        self.metadata().map_or(0, |m| m.index)
    }

    /// When it happened.
    fn time(&self) -> Option<DateTime<Utc>> {
        time::moment(self.metadata()?.time.as_ref())
    }

    /// Who did it.
    fn user(&self) -> Option<&UserMetadata> {
        let groups = self.groups();
        groups.user.or(groups.user_metadata)?.as_ref()
    }

    /// The session it belongs to.
    fn session(&self) -> Option<&SessionMetadata> {
        let groups = self.groups();
        groups.session.or(groups.session_metadata)?.as_ref()
    }

    /// The server it happened on.
    fn server(&self) -> Option<&ServerMetadata> {
        self.groups().server?.as_ref()
    }

    /// Whether it went well, for events that can fail.
    fn status(&self) -> Option<&Status> {
        self.groups().status?.as_ref()
    }

    /// The session it belongs to, made when absent; `None` when this kind of event has none.
    fn session_mut(&mut self) -> Option<&mut SessionMetadata> {
        let groups = self.groups_mut();
        groups.session.or(groups.session_metadata).map(Option::get_or_insert_default)
    }

    /// The server it happened on, made when absent; `None` when this kind of event has none.
    fn server_mut(&mut self) -> Option<&mut ServerMetadata> {
        self.groups_mut().server.map(Option::get_or_insert_default)
    }
}

/// Makes an event complete: id, time (whole milliseconds), cluster and all embedded groups.
///
/// # Errors
///
/// [`Error::Invalid`] for an empty event, and for one without name or code; only `print` has no code.
pub fn prepare(event: &mut OneOf, cluster: &str, now: DateTime<Utc>) -> Result<()> {
    event.groups_mut().fill();
    let Some(metadata) = event.metadata_mut() else {
        return Err(Error::Invalid("event without content, or of a kind this version does not know".into()));
    };
    if metadata.r#type.is_empty() {
        return Err(Error::Invalid("event without a name".into()));
    }
    let nameless = metadata.r#type == "print" || metadata.r#type == "desktop.recording";
    if metadata.code.is_empty() && !nameless {
        return Err(Error::Invalid(format!("event {:?} without a code", metadata.r#type)));
    }
    if metadata.id.is_empty() && !nameless {
        metadata.id = Uuid::new_v4().to_string();
    }
    if time::moment(metadata.time.as_ref()).is_none() {
        // Never rounded up: an event is found by a search up to the moment it was acknowledged.
        let whole = now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(now);
        metadata.time = Some(time::timestamp(whole));
    }
    if metadata.cluster_name.is_empty() {
        cluster.clone_into(&mut metadata.cluster_name);
    }
    Ok(())
}

macro_rules! groups {
    ($($group:ident: $t:ty,)*) => {
        /// The embedded groups of an event: outer `None` when the kind of event has no such group.
        #[derive(Default)]
        #[allow(missing_docs)] // the types say it
        pub struct Groups<'a> {
            $(pub $group: Option<&'a Option<$t>>,)*
        }

        /// The embedded groups of an event, to be changed.
        #[derive(Default)]
        #[allow(missing_docs)] // the types say it
        pub struct GroupsMut<'a> {
            $(pub $group: Option<&'a mut Option<$t>>,)*
        }

        impl GroupsMut<'_> {
            /// Makes every group that the kind of event has, so that its JSON names all fields that are always there.
            fn fill(self) {
                $(if let Some(slot) = self.$group { slot.get_or_insert_default(); })*
            }
        }
    };
}

groups! {
    user: UserMetadata,
    user_metadata: UserMetadata,
    session: SessionMetadata,
    session_metadata: SessionMetadata,
    server: ServerMetadata,
    connection: ConnectionMetadata,
    client: ClientMetadata,
    status: Status,
    resource: ResourceMetadata,
    kubernetes_cluster: KubernetesClusterMetadata,
    kubernetes_pod: KubernetesPodMetadata,
    command: CommandMetadata,
    bpf: BpfMetadata,
    device: MfaDeviceMetadata,
}

/// The one table of all messages: names of their events, and the groups they embed.
macro_rules! messages {
    ($($message:ident [$($name:literal)+] { $($group:ident)* })*) => {
        $(impl AuditEvent for events::$message {
            fn metadata_mut(&mut self) -> &mut Metadata {
                self.metadata.get_or_insert_default()
            }

            fn into_event(self) -> OneOf {
                OneOf { event: Some(Event::$message(self)) }
            }
        })*

        impl EventExt for OneOf {
            fn metadata(&self) -> Option<&Metadata> {
                match self.event.as_ref()? {
                    $(Event::$message(e) => e.metadata.as_ref(),)*
                }
            }

            fn metadata_mut(&mut self) -> Option<&mut Metadata> {
                match self.event.as_mut()? {
                    $(Event::$message(e) => Some(e.metadata.get_or_insert_default()),)*
                }
            }

            #[allow(unused_variables, clippy::needless_update)] // some messages embed nothing
            fn groups(&self) -> Groups<'_> {
                match &self.event {
                    None => Groups::default(),
                    $(Some(Event::$message(e)) => Groups { $($group: Some(&e.$group),)* ..Groups::default() },)*
                }
            }

            #[allow(unused_variables, clippy::needless_update)] // some messages embed nothing
            fn groups_mut(&mut self) -> GroupsMut<'_> {
                match &mut self.event {
                    None => GroupsMut::default(),
                    $(Some(Event::$message(e)) => GroupsMut { $($group: Some(&mut e.$group),)* ..GroupsMut::default() },)*
                }
            }

            fn is_unknown(&self) -> bool {
                matches!(self.event, None | Some(Event::Unknown(_)))
            }
        }

        /// Reads the message that belongs to an event's name; `None` for a name this build does not know.
        pub(crate) fn read_message(name: &str, json: &Value) -> Option<serde_json::Result<Event>> {
            use serde::Deserialize;
            match name {
                $($($name)|+ => Some(events::$message::deserialize(json).map(Event::$message)),)*
                _ => None,
            }
        }
    };
}

messages! {
    UserLogin ["user.login"] { user status client connection }
    UserCreate ["user.create"] { user resource connection }
    UserUpdate ["user.update"] { user resource connection }
    UserDelete ["user.delete"] { user resource connection }
    UserPasswordChange ["user.password_change"] { user connection }
    SessionStart ["session.start"] { user session server connection kubernetes_cluster kubernetes_pod }
    SessionJoin ["session.join"] { user session server connection kubernetes_cluster }
    SessionPrint ["print"] {}
    SessionReject ["session.rejected"] { user server connection }
    Resize ["resize"] { user session connection server kubernetes_cluster kubernetes_pod }
    SessionEnd ["session.end"] { user session connection server kubernetes_cluster kubernetes_pod }
    SessionCommand ["session.command"] { user session server bpf }
    SessionDisk ["session.disk"] { user session server bpf }
    SessionNetwork ["session.network"] { user session server bpf }
    SessionData ["session.data"] { user session server connection }
    SessionLeave ["session.leave"] { user session server connection }
    SessionUpload ["session.upload"] { session_metadata }
    SessionConnect ["session.connect"] { server connection }
    SessionRecordingAccess ["session.recording.access"] { user_metadata }
    PortForward ["port"] { user connection status }
    X11Forward ["x11-forward"] { user connection status }
    Scp ["scp"] { user connection session server command }
    Sftp ["sftp"] { user connection session server }
    Exec ["exec"] { user connection session server command kubernetes_cluster kubernetes_pod }
    Subsystem ["subsystem"] { user connection }
    ClientDisconnect ["client.disconnect"] { user connection server }
    AuthAttempt ["auth"] { user connection status }
    UserTokenCreate ["reset_password_token.create" "recovery_token.create" "privilege_token.create"] { resource user }
    RoleCreate ["role.created"] { resource user connection }
    RoleUpdate ["role.updated"] { resource user connection }
    RoleDelete ["role.deleted"] { resource user connection }
    TrustedClusterCreate ["trusted_cluster.create"] { resource user connection }
    TrustedClusterDelete ["trusted_cluster.delete"] { resource user connection }
    TrustedClusterTokenCreate ["trusted_cluster_token.create"] { resource user }
    ProvisionTokenCreate ["join_token.create"] { resource user }
    MfaDeviceAdd ["mfa.add"] { user device connection }
    MfaDeviceDelete ["mfa.delete"] { user device connection }
    LockCreate ["lock.created"] { resource user }
    LockDelete ["lock.deleted"] { resource user }
    CertificateCreate ["cert.create"] { client }
    InstanceJoin ["instance.join"] { status connection }
    CreateMfaAuthChallenge ["mfa_auth_challenge.create"] { user }
    ValidateMfaAuthResponse ["mfa_auth_challenge.validate"] { user status }
    AuthPreferenceUpdate ["auth_preference.update"] { status user connection }
    SessionRecordingConfigUpdate ["session_recording_config.update"] { status user connection }
    ClusterNetworkingConfigUpdate ["cluster_networking_config.update"] { status user connection }
    AccessRequestCreate ["access_request.create" "access_request.update" "access_request.review"] { user resource }
    GithubConnectorCreate ["github.created"] { user connection resource }
    GithubConnectorDelete ["github.deleted"] { user connection resource }
    OidcConnectorCreate ["oidc.created"] { user resource }
    OidcConnectorDelete ["oidc.deleted"] { user resource }
    SamlConnectorCreate ["saml.created"] { user resource }
    SamlConnectorDelete ["saml.deleted"] { user resource }
    KubeRequest ["kube.request"] { user session server connection }
    AppSessionStart ["app.session.start"] { user session server connection }
    AppSessionChunk ["app.session.chunk"] { user session server connection }
    AppSessionRequest ["app.session.request"] {}
    DatabaseSessionStart ["db.session.start"] { user session server connection status }
    DatabaseSessionEnd ["db.session.end"] { user session }
    DatabaseSessionQuery ["db.session.query" "db.session.query.failed"] { user session status }
    BillingInformationUpdate ["billing.update_info"] { user }
    BillingCardCreate ["billing.create_card" "billing.update_card"] { user }
    BillingCardDelete ["billing.delete_card"] { user }
    RecoveryCodeGenerate ["recovery_code.generated"] { user }
    RecoveryCodeUsed ["recovery_code.used"] { user status }
    DatabaseCreate ["db.create"] { user resource }
    DatabaseUpdate ["db.update"] { user resource }
    DatabaseDelete ["db.delete"] { user resource }
    AppCreate ["app.create"] { user resource }
    AppUpdate ["app.update"] { user resource }
    AppDelete ["app.delete"] { user resource }
    WindowsDesktopSessionStart ["windows.desktop.session.start"] { user session connection status }
    WindowsDesktopSessionEnd ["windows.desktop.session.end"] { user session }
    PostgresParse ["db.session.postgres.statements.parse"] { user session }
    PostgresBind ["db.session.postgres.statements.bind"] { user session }
    PostgresExecute ["db.session.postgres.statements.execute"] { user session }
    PostgresClose ["db.session.postgres.statements.close"] { user session }
    PostgresFunctionCall ["db.session.postgres.function"] { user session }
    AccessRequestDelete ["access_request.delete"] { user }
    DesktopRecording ["desktop.recording"] {}
    DesktopClipboardSend ["desktop.clipboard.send"] { user session connection }
    DesktopClipboardReceive ["desktop.clipboard.receive"] { user session connection }
    MySqlStatementPrepare ["db.session.mysql.statements.prepare"] { user session }
    MySqlStatementExecute ["db.session.mysql.statements.execute"] { user session }
    MySqlStatementSendLongData ["db.session.mysql.statements.send_long_data"] { user session }
    MySqlStatementClose ["db.session.mysql.statements.close"] { user session }
    MySqlStatementReset ["db.session.mysql.statements.reset"] { user session }
    MySqlStatementFetch ["db.session.mysql.statements.fetch"] { user session }
    MySqlStatementBulkExecute ["db.session.mysql.statements.bulk_execute"] { user session }
    RenewableCertificateGenerationMismatch ["cert.generation_mismatch"] { user_metadata }
    MySqlInitDb ["db.session.mysql.init_db"] { user session }
    MySqlCreateDb ["db.session.mysql.create_db"] { user session }
    MySqlDropDb ["db.session.mysql.drop_db"] { user session }
    MySqlShutDown ["db.session.mysql.shut_down"] { user session }
    MySqlProcessKill ["db.session.mysql.process_kill"] { user session }
    MySqlDebug ["db.session.mysql.debug"] { user session }
    MySqlRefresh ["db.session.mysql.refresh"] { user session }
    AccessRequestResourceSearch ["access_request.search"] { user }
    SqlServerRpcRequest ["db.session.sqlserver.rpc_request"] { user session }
    DatabaseSessionMalformedPacket ["db.session.malformed_packet"] { user session }
    UpgradeWindowStartUpdate ["upgradewindowstart.update"] { user session }
    AppSessionEnd ["app.session.end"] { user session server connection }
    KubernetesClusterCreate ["kube.create"] { user resource }
    KubernetesClusterUpdate ["kube.update"] { user resource }
    KubernetesClusterDelete ["kube.delete"] { user resource }
    SsmRun ["ssm.run"] {}
    ElasticsearchRequest ["db.session.elasticsearch.request"] { user session }
    CassandraBatch ["db.session.cassandra.batch"] { user session }
    CassandraPrepare ["db.session.cassandra.prepare"] { user session }
    CassandraRegister ["db.session.cassandra.register"] { user session }
    CassandraExecute ["db.session.cassandra.execute"] { user session }
    AppSessionDynamoDbRequest ["app.session.dynamodb.request"] { user }
    DesktopSharedDirectoryStart ["desktop.directory.share"] { user session connection status }
    DesktopSharedDirectoryRead ["desktop.directory.read"] { user session connection status }
    DesktopSharedDirectoryWrite ["desktop.directory.write"] { user session connection status }
    DynamoDbRequest ["db.session.dynamodb.request"] { user session }
    BotJoin ["bot.join"] { connection status }
    LoginRuleCreate ["login_rule.create"] { user resource }
    LoginRuleDelete ["login_rule.delete"] { user resource }
    SamlIdPAuthAttempt ["saml.idp.auth"] { user session status }
    SamlIdPServiceProviderCreate ["saml.idp.service.provider.create"] { resource }
    SamlIdPServiceProviderUpdate ["saml.idp.service.provider.update"] { resource }
    SamlIdPServiceProviderDelete ["saml.idp.service.provider.delete"] { resource }
    SamlIdPServiceProviderDeleteAll ["saml.idp.service.provider.delete_all"] { resource }
    OpenSearchRequest ["db.session.opensearch.request"] { user session }
    DeviceEvent2 ["device.create" "device.delete" "device.token.create" "device.enroll" "device.authenticate" "device.update" "device.webtoken.create" "device.authenticate.confirm"] { user status }
    OktaResourcesUpdate ["okta.groups.update" "okta.applications.update"] { server }
    OktaSyncFailure ["okta.sync.failure"] { server status }
    OktaAssignmentResult ["okta.assignment.process" "okta.assignment.cleanup"] { server status resource }
    AccessListCreate ["access_list.create"] { status resource }
    AccessListUpdate ["access_list.update"] { status resource }
    AccessListDelete ["access_list.delete"] { status resource }
    AccessListReview ["access_list.review"] { status resource }
    AccessListMemberCreate ["access_list.member.create"] { status resource }
    AccessListMemberUpdate ["access_list.member.update"] { status resource }
    AccessListMemberDelete ["access_list.member.delete"] { status resource }
    AccessListMemberDeleteAllForAccessList ["access_list.member.delete_all_for_access_list"] { status resource }
    AuditQueryRun ["secreports.audit.query.run"] { user status }
    SecurityReportRun ["secreports.report.run"] { user status }
    GithubConnectorUpdate ["github.updated"] { user connection resource }
    OidcConnectorUpdate ["oidc.updated"] { user resource }
    SamlConnectorUpdate ["saml.updated"] { user resource }
    ExternalAuditStorageEnable ["external_audit_storage.enable"] { resource }
    ExternalAuditStorageDisable ["external_audit_storage.disable"] { resource }
    BotCreate ["bot.create"] { user resource }
    BotDelete ["bot.delete"] { user resource }
    BotUpdate ["bot.update"] { user resource }
    OktaAccessListSync ["okta.access_list.sync"] { status }
    DatabasePermissionUpdate ["db.session.permissions.update"] { user session }
    SpiffesvidIssued ["spiffe.svid.issued"] { user connection }
    OktaUserSync ["okta.user.sync"] { status }
    DatabaseUserCreate ["db.session.user.create"] { user session status }
    DatabaseUserDeactivate ["db.session.user.deactivate"] { user session status }
    AccessPathChanged ["access_graph.access_path_changed"] {}
    SpannerRpc ["db.session.spanner.rpc"] { user session status }
    DatabaseSessionCommandResult ["db.session.result"] { user session status }
    DiscoveryConfigCreate ["discovery_config.create"] { user connection resource }
    DiscoveryConfigUpdate ["discovery_config.update"] { user connection resource }
    DiscoveryConfigDelete ["discovery_config.delete"] { user connection resource }
    DiscoveryConfigDeleteAll ["discovery_config.delete_all"] { user connection }
    AccessGraphSettingsUpdate ["access_graph_settings.update"] { user connection status }
    IntegrationCreate ["integration.create"] { user connection resource }
    IntegrationUpdate ["integration.update"] { user connection resource }
    IntegrationDelete ["integration.delete"] { user connection resource }
    Unknown ["unknown"] {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::codes;

    fn now() -> DateTime<Utc> {
        "2026-01-02T03:04:05.123456Z".parse().unwrap()
    }

    #[test]
    fn preparing_fills_what_is_missing_and_keeps_what_is_there() {
        let mut event = codes::SESSION_START.event(events::SessionStart::default());
        prepare(&mut event, "one", now()).unwrap();
        let first = event.metadata().unwrap().clone();
        assert_eq!(first.cluster_name, "one");
        assert_eq!(event.time().unwrap().to_rfc3339(), "2026-01-02T03:04:05.123+00:00");
        assert!(Uuid::parse_str(&first.id).is_ok());
        prepare(&mut event, "two", now() + TimeDelta::days(1)).unwrap();
        assert_eq!(event.metadata(), Some(&first));
    }

    #[test]
    fn events_without_name_or_code_are_refused() {
        let cluster = "one";
        assert!(prepare(&mut OneOf::default(), cluster, now()).is_err());
        assert!(prepare(&mut events::Exec::default().into_event(), cluster, now()).is_err());
        let mut event = codes::EXEC.event(events::Exec::default());
        event.metadata_mut().unwrap().code.clear();
        assert!(prepare(&mut event, cluster, now()).unwrap_err().to_string().contains("without a code"));
        let mut print = codes::SESSION_PRINT.event(events::SessionPrint::default());
        prepare(&mut print, cluster, now()).unwrap();
        assert_eq!(print.uid(), "");
    }

    #[test]
    fn groups_are_reached_whatever_the_message() {
        let mut event = codes::SESSION_UPLOAD.event(events::SessionUpload::default());
        event.session_mut().unwrap().session_id = "s".into();
        assert_eq!(event.session().unwrap().session_id, "s");
        assert!(event.server_mut().is_none() && event.user().is_none());
    }
}
