//! The kinds of events: each constant names an event, its code and the message that describes it.
//!
//! Codes end in `I` for what went as asked, `W` for a refusal or warning and `E` for a failure.
//!
//! ```
//! use audit::{codes, EventExt};
//! use wire::events;
//!
//! let event = codes::USER_LOGIN.event(events::UserLogin { method: "local".into(), ..Default::default() });
//! assert_eq!((event.name(), event.code()), ("user.login", "T1000I"));
//! ```

use std::{fmt, marker::PhantomData};

use wire::events::{self as e, OneOf};

use crate::event::AuditEvent;

/// One kind of event, described by messages of type `E`.
pub struct Kind<E> {
    /// The event's name: `session.start`.
    pub name: &'static str,
    /// The event's code: `T2000I`.
    pub code: &'static str,
    body: PhantomData<fn(E)>,
}

impl<E> Kind<E> {
    const fn new(name: &'static str, code: &'static str) -> Self {
        Self { name, code, body: PhantomData }
    }
}

impl<E: AuditEvent> Kind<E> {
    /// The event with `body` as its description. Its id, time and cluster come with [`crate::event::prepare`].
    pub fn event(&self, mut body: E) -> OneOf {
        let metadata = body.metadata_mut();
        metadata.r#type = self.name.to_owned();
        metadata.code = self.code.to_owned();
        body.into_event()
    }
}

impl<E> Clone for Kind<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Kind<E> {}

impl<E> fmt::Debug for Kind<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.code)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $constant:ident: $body:ident = $name:literal $code:literal;)*) => {
        $($(#[$doc])* pub const $constant: Kind<e::$body> = Kind::new($name, $code);)*

        /// Name and code of every kind.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$(($name, $code)),*];
    };
}

kinds! {
    /// A local user has logged in.
    USER_LOGIN: UserLogin = "user.login" "T1000I";
    /// A local user was refused.
    USER_LOGIN_FAILURE: UserLogin = "user.login" "T1000W";
    /// A user has logged in through an identity provider.
    USER_SSO_LOGIN: UserLogin = "user.login" "T1001I";
    /// A user was refused after the identity provider's answer.
    USER_SSO_LOGIN_FAILURE: UserLogin = "user.login" "T1001W";
    /// A test of an identity provider went through.
    USER_SSO_TEST: UserLogin = "user.login" "T1010I";
    /// A test of an identity provider failed.
    USER_SSO_TEST_FAILURE: UserLogin = "user.login" "T1011W";
    /// A headless login waits for approval.
    USER_HEADLESS_REQUESTED: UserLogin = "user.login" "T1012I";
    /// A headless login was approved.
    USER_HEADLESS_APPROVED: UserLogin = "user.login" "T1013I";
    /// The approval of a headless login failed.
    USER_HEADLESS_APPROVAL_FAILURE: UserLogin = "user.login" "T1013W";
    /// A headless login was rejected.
    USER_HEADLESS_REJECTED: UserLogin = "user.login" "T1014W";
    /// A user was made.
    USER_CREATE: UserCreate = "user.create" "T1002I";
    /// A user was changed.
    USER_UPDATE: UserUpdate = "user.update" "T1003I";
    /// A user was removed.
    USER_DELETE: UserDelete = "user.delete" "T1004I";
    /// A user has a new password.
    USER_PASSWORD_CHANGE: UserPasswordChange = "user.password_change" "T1005I";
    /// A second factor was registered.
    MFA_ADD: MfaDeviceAdd = "mfa.add" "T1006I";
    /// A second factor was removed.
    MFA_DELETE: MfaDeviceDelete = "mfa.delete" "T1007I";
    /// A challenge for a second factor was handed out.
    MFA_CHALLENGE_CREATE: CreateMfaAuthChallenge = "mfa_auth_challenge.create" "T1015I";
    /// A challenge was answered correctly.
    MFA_CHALLENGE_VALIDATE: ValidateMfaAuthResponse = "mfa_auth_challenge.validate" "T1016I";
    /// A challenge was answered wrongly.
    MFA_CHALLENGE_VALIDATE_FAILURE: ValidateMfaAuthResponse = "mfa_auth_challenge.validate" "T1016W";

    /// A session or connection over a limit, or under a lock, was refused.
    SESSION_REJECTED: SessionReject = "session.rejected" "T1006W";
    /// A session has begun.
    SESSION_START: SessionStart = "session.start" "T2000I";
    /// A participant has entered a session.
    SESSION_JOIN: SessionJoin = "session.join" "T2001I";
    /// A terminal has a new size.
    RESIZE: Resize = "resize" "T2002I";
    /// A participant has left a session.
    SESSION_LEAVE: SessionLeave = "session.leave" "T2003I";
    /// A session is over.
    SESSION_END: SessionEnd = "session.end" "T2004I";
    /// A recording has reached the Auth Service.
    SESSION_UPLOAD: SessionUpload = "session.upload" "T2005I";
    /// How much a session has moved.
    SESSION_DATA: SessionData = "session.data" "T2006I";
    /// A connection to a server that runs no agent.
    SESSION_CONNECT: SessionConnect = "session.connect" "T2010I";
    /// Somebody has watched a recording.
    SESSION_RECORDING_ACCESS: SessionRecordingAccess = "session.recording.access" "T2012I";
    /// Terminal output, found in recordings only. It has neither code nor id.
    SESSION_PRINT: SessionPrint = "print" "";

    /// A subsystem was used.
    SUBSYSTEM: Subsystem = "subsystem" "T3001I";
    /// A subsystem failed.
    SUBSYSTEM_FAILURE: Subsystem = "subsystem" "T3001E";
    /// A command has run.
    EXEC: Exec = "exec" "T3002I";
    /// A command has failed.
    EXEC_FAILURE: Exec = "exec" "T3002E";
    /// A port was forwarded.
    PORT_FORWARD: PortForward = "port" "T3003I";
    /// A port was not forwarded.
    PORT_FORWARD_FAILURE: PortForward = "port" "T3003E";
    /// A file was fetched with scp.
    SCP_DOWNLOAD: Scp = "scp" "T3004I";
    /// Fetching with scp has failed.
    SCP_DOWNLOAD_FAILURE: Scp = "scp" "T3004E";
    /// A file was sent with scp.
    SCP_UPLOAD: Scp = "scp" "T3005I";
    /// Sending with scp has failed.
    SCP_UPLOAD_FAILURE: Scp = "scp" "T3005E";
    /// Copying files is not allowed here.
    SCP_DISALLOWED: Scp = "scp" "T3010E";
    /// A client was disconnected.
    CLIENT_DISCONNECT: ClientDisconnect = "client.disconnect" "T3006I";
    /// A client could not prove who it is, or may not enter.
    AUTH_ATTEMPT_FAILURE: AuthAttempt = "auth" "T3007W";
    /// X11 was forwarded.
    X11_FORWARD: X11Forward = "x11-forward" "T3008I";
    /// X11 was not forwarded.
    X11_FORWARD_FAILURE: X11Forward = "x11-forward" "T3008W";
    /// Copying files is not allowed here.
    SFTP_DISALLOWED: Sftp = "sftp" "TS020E";
    /// A process was started inside a session.
    SESSION_COMMAND: SessionCommand = "session.command" "T4000I";
    /// A file was opened inside a session.
    SESSION_DISK: SessionDisk = "session.disk" "T4001I";
    /// A connection was made inside a session.
    SESSION_NETWORK: SessionNetwork = "session.network" "T4002I";

    /// A link to set a password was made.
    RESET_PASSWORD_TOKEN_CREATE: UserTokenCreate = "reset_password_token.create" "T6000I";
    /// A link to recover an account was made.
    RECOVERY_TOKEN_CREATE: UserTokenCreate = "recovery_token.create" "T6001I";
    /// A token for sensitive changes was made.
    PRIVILEGE_TOKEN_CREATE: UserTokenCreate = "privilege_token.create" "T6002I";
    /// Another cluster is trusted from now on.
    TRUSTED_CLUSTER_CREATE: TrustedClusterCreate = "trusted_cluster.create" "T7000I";
    /// Another cluster is trusted no longer.
    TRUSTED_CLUSTER_DELETE: TrustedClusterDelete = "trusted_cluster.delete" "T7001I";
    /// A token with which clusters join was made.
    TRUSTED_CLUSTER_TOKEN_CREATE: TrustedClusterTokenCreate = "trusted_cluster_token.create" "T7002I";
    /// A token with which instances join was made.
    JOIN_TOKEN_CREATE: ProvisionTokenCreate = "join_token.create" "TJT00I";
    /// A role was made.
    ROLE_CREATE: RoleCreate = "role.created" "T9000I";
    /// A role was removed.
    ROLE_DELETE: RoleDelete = "role.deleted" "T9001I";
    /// A role was changed.
    ROLE_UPDATE: RoleUpdate = "role.updated" "T9002I";
    /// An instance has joined.
    INSTANCE_JOIN: InstanceJoin = "instance.join" "TJ002I";
    /// An instance was not let in.
    INSTANCE_JOIN_FAILURE: InstanceJoin = "instance.join" "TJ002E";
    /// A lock was made or changed.
    LOCK_CREATE: LockCreate = "lock.created" "TLK00I";
    /// A lock was removed.
    LOCK_DELETE: LockDelete = "lock.deleted" "TLK01I";
    /// A certificate was issued.
    CERTIFICATE_CREATE: CertificateCreate = "cert.create" "TC000I";
    /// The authentication preference was changed.
    AUTH_PREFERENCE_UPDATE: AuthPreferenceUpdate = "auth_preference.update" "TCAUTH001I";
    /// The networking configuration was changed.
    CLUSTER_NETWORKING_CONFIG_UPDATE: ClusterNetworkingConfigUpdate = "cluster_networking_config.update" "TCNET002I";
    /// The recording configuration was changed.
    SESSION_RECORDING_CONFIG_UPDATE: SessionRecordingConfigUpdate = "session_recording_config.update" "TCREC003I";
    /// An application was made.
    APP_CREATE: AppCreate = "app.create" "TAP03I";
    /// An application was changed.
    APP_UPDATE: AppUpdate = "app.update" "TAP04I";
    /// An application was removed.
    APP_DELETE: AppDelete = "app.delete" "TAP05I";
    /// A database was made.
    DB_CREATE: DatabaseCreate = "db.create" "TDB03I";
    /// A database was changed.
    DB_UPDATE: DatabaseUpdate = "db.update" "TDB04I";
    /// A database was removed.
    DB_DELETE: DatabaseDelete = "db.delete" "TDB05I";
    /// A Kubernetes cluster was made.
    KUBE_CREATE: KubernetesClusterCreate = "kube.create" "T3010I";
    /// A Kubernetes cluster was changed.
    KUBE_UPDATE: KubernetesClusterUpdate = "kube.update" "T3011I";
    /// A Kubernetes cluster was removed.
    KUBE_DELETE: KubernetesClusterDelete = "kube.delete" "T3012I";
    /// A bot was made.
    BOT_CREATE: BotCreate = "bot.create" "TB001I";
    /// A bot was changed.
    BOT_UPDATE: BotUpdate = "bot.update" "TB002I";
    /// A bot was removed.
    BOT_DELETE: BotDelete = "bot.delete" "TB003I";
    /// A discovery configuration was made.
    DISCOVERY_CONFIG_CREATE: DiscoveryConfigCreate = "discovery_config.create" "DC001I";
    /// A discovery configuration was changed.
    DISCOVERY_CONFIG_UPDATE: DiscoveryConfigUpdate = "discovery_config.update" "DC002I";
    /// A discovery configuration was removed.
    DISCOVERY_CONFIG_DELETE: DiscoveryConfigDelete = "discovery_config.delete" "DC003I";
    /// An integration was made.
    INTEGRATION_CREATE: IntegrationCreate = "integration.create" "IG001I";
    /// An integration was changed.
    INTEGRATION_UPDATE: IntegrationUpdate = "integration.update" "IG002I";
    /// An integration was removed.
    INTEGRATION_DELETE: IntegrationDelete = "integration.delete" "IG003I";
    /// An access list was made.
    ACCESS_LIST_CREATE: AccessListCreate = "access_list.create" "TAL001I";
    /// An access list could not be made.
    ACCESS_LIST_CREATE_FAILURE: AccessListCreate = "access_list.create" "TAL001E";
    /// An access list could not be changed.
    ACCESS_LIST_UPDATE_FAILURE: AccessListUpdate = "access_list.update" "TAL002E";
    /// An access list could not be removed.
    ACCESS_LIST_DELETE_FAILURE: AccessListDelete = "access_list.delete" "TAL003E";
    /// A member of an access list could not be made.
    ACCESS_LIST_MEMBER_CREATE_FAILURE: AccessListMemberCreate = "access_list.member.create" "TAL005E";
    /// A member of an access list could not be changed.
    ACCESS_LIST_MEMBER_UPDATE_FAILURE: AccessListMemberUpdate = "access_list.member.update" "TAL006E";
    /// A member of an access list could not be removed.
    ACCESS_LIST_MEMBER_DELETE_FAILURE: AccessListMemberDelete = "access_list.member.delete" "TAL007E";
    /// All members of an access list were removed.
    ACCESS_LIST_MEMBERS_DELETE: AccessListMemberDeleteAllForAccessList = "access_list.member.delete_all_for_access_list" "TAL008I";
    /// The members of an access list could not be removed.
    ACCESS_LIST_MEMBERS_DELETE_FAILURE: AccessListMemberDeleteAllForAccessList = "access_list.member.delete_all_for_access_list" "TAL008E";
    /// An access list was changed.
    ACCESS_LIST_UPDATE: AccessListUpdate = "access_list.update" "TAL002I";
    /// An access list was removed.
    ACCESS_LIST_DELETE: AccessListDelete = "access_list.delete" "TAL003I";
    /// A member of an access list was made.
    ACCESS_LIST_MEMBER_CREATE: AccessListMemberCreate = "access_list.member.create" "TAL005I";
    /// A member of an access list was changed.
    ACCESS_LIST_MEMBER_UPDATE: AccessListMemberUpdate = "access_list.member.update" "TAL006I";
    /// A member of an access list was removed.
    ACCESS_LIST_MEMBER_DELETE: AccessListMemberDelete = "access_list.member.delete" "TAL007I";
    /// A GitHub connector was made.
    GITHUB_CONNECTOR_CREATE: GithubConnectorCreate = "github.created" "T8000I";
    /// A GitHub connector was changed.
    GITHUB_CONNECTOR_UPDATE: GithubConnectorUpdate = "github.updated" "T80002I";
    /// A GitHub connector was removed.
    GITHUB_CONNECTOR_DELETE: GithubConnectorDelete = "github.deleted" "T8001I";
    /// An OpenID Connect connector was made.
    OIDC_CONNECTOR_CREATE: OidcConnectorCreate = "oidc.created" "T8100I";
    /// An OpenID Connect connector was changed.
    OIDC_CONNECTOR_UPDATE: OidcConnectorUpdate = "oidc.updated" "T8102I";
    /// An OpenID Connect connector was removed.
    OIDC_CONNECTOR_DELETE: OidcConnectorDelete = "oidc.deleted" "T8101I";
    /// A SAML connector was made.
    SAML_CONNECTOR_CREATE: SamlConnectorCreate = "saml.created" "T8200I";
    /// A SAML connector was changed.
    SAML_CONNECTOR_UPDATE: SamlConnectorUpdate = "saml.updated" "T8202I";
    /// A SAML connector was removed.
    SAML_CONNECTOR_DELETE: SamlConnectorDelete = "saml.deleted" "T8201I";
    /// A login rule was made or changed.
    LOGIN_RULE_CREATE: LoginRuleCreate = "login_rule.create" "TLR00I";
    /// A login rule was removed.
    LOGIN_RULE_DELETE: LoginRuleDelete = "login_rule.delete" "TLR01I";
    /// An access list was reviewed.
    ACCESS_LIST_REVIEW: AccessListReview = "access_list.review" "TAL004I";
    /// An access list could not be reviewed.
    ACCESS_LIST_REVIEW_FAILURE: AccessListReview = "access_list.review" "TAL004E";
    /// A device was registered.
    DEVICE_CREATE: DeviceEvent2 = "device.create" "TV001I";
    /// A device was removed.
    DEVICE_DELETE: DeviceEvent2 = "device.delete" "TV002I";
    /// A device was changed.
    DEVICE_UPDATE: DeviceEvent2 = "device.update" "TV007I";
    /// A service was registered that logs people in here.
    SAML_SERVICE_PROVIDER_CREATE: SamlIdPServiceProviderCreate = "saml.idp.service.provider.create" "TSI001I";
    /// A service that logs people in here could not be registered.
    SAML_SERVICE_PROVIDER_CREATE_FAILURE: SamlIdPServiceProviderCreate = "saml.idp.service.provider.create" "TSI001W";
    /// A service that logs people in here could not be changed.
    SAML_SERVICE_PROVIDER_UPDATE_FAILURE: SamlIdPServiceProviderUpdate = "saml.idp.service.provider.update" "TSI002W";
    /// A service that logs people in here could not be removed.
    SAML_SERVICE_PROVIDER_DELETE_FAILURE: SamlIdPServiceProviderDelete = "saml.idp.service.provider.delete" "TSI003W";
    /// The window in which agents may be upgraded was changed.
    UPGRADE_WINDOW_UPDATE: UpgradeWindowStartUpdate = "upgradewindowstart.update" "TUW01I";
    /// A service that logs people in here was changed.
    SAML_SERVICE_PROVIDER_UPDATE: SamlIdPServiceProviderUpdate = "saml.idp.service.provider.update" "TSI002I";
    /// A service that logs people in here was removed.
    SAML_SERVICE_PROVIDER_DELETE: SamlIdPServiceProviderDelete = "saml.idp.service.provider.delete" "TSI003I";
    /// More access was asked for.
    ACCESS_REQUEST_CREATE: AccessRequestCreate = "access_request.create" "T5000I";
    /// A request for more access was decided.
    ACCESS_REQUEST_UPDATE: AccessRequestCreate = "access_request.update" "T5001I";
    /// A request for more access was reviewed.
    ACCESS_REQUEST_REVIEW: AccessRequestCreate = "access_request.review" "T5002I";
    /// A request for more access was removed.
    ACCESS_REQUEST_DELETE: AccessRequestDelete = "access_request.delete" "T5003I";
    /// Resources were listed with the roles that somebody may request.
    ACCESS_REQUEST_SEARCH: AccessRequestResourceSearch = "access_request.search" "T5004I";
    /// An event this build does not know.
    UNKNOWN: Unknown = "unknown" "TCC00E";
}

/// The kind of an SFTP operation that went well, or failed.
pub fn sftp(action: e::SftpAction, success: bool) -> Kind<e::Sftp> {
    let code = match (SFTP_CODES.get(action as usize), success) {
        (Some((ok, _)), true) => ok,
        (Some((_, failure)), false) => failure,
        (None, _) => SFTP_DISALLOWED.code,
    };
    Kind::new("sftp", code)
}

/// Codes by the number of the action; an invalid action is one that was not allowed.
const SFTP_CODES: [(&str, &str); 20] = [
    ("TS020E", "TS020E"),
    ("TS001I", "TS001E"),
    ("TS002I", "TS002E"),
    ("TS003I", "TS003E"),
    ("TS004I", "TS004E"),
    ("TS005I", "TS005E"),
    ("TS006I", "TS006E"),
    ("TS007I", "TS007E"),
    ("TS008I", "TS008E"),
    ("TS009I", "TS009E"),
    ("TS010I", "TS010E"),
    ("TS011I", "TS011E"),
    ("TS012I", "TS012E"),
    ("TS013I", "TS013E"),
    ("TS014I", "TS014E"),
    ("TS015I", "TS015E"),
    ("TS016I", "TS016E"),
    ("TS017I", "TS017E"),
    ("TS018I", "TS018E"),
    ("TS019I", "TS019E"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventExt, json};

    #[test]
    fn every_kind_is_read_back_as_its_own_message() {
        for (name, code) in ALL {
            let event = json::from_json(&serde_json::json!({"event": name, "code": code, "ei": 0}));
            assert_eq!((event.name(), event.code()), (*name, *code));
            assert_eq!(event.is_unknown(), *name == "unknown", "{name}");
        }
    }

    #[test]
    fn a_code_belongs_to_one_event() {
        for (i, (name, code)) in ALL.iter().enumerate() {
            for (other, same) in &ALL[..i] {
                assert!(code != same || name == other, "{code} stands for {name} and {other}");
            }
        }
    }

    #[test]
    fn sftp_codes_follow_the_action() {
        assert_eq!(sftp(e::SftpAction::Open, true).code, "TS001I");
        assert_eq!(sftp(e::SftpAction::Link, false).code, "TS019E");
        assert_eq!(sftp(e::SftpAction::Invalid, true).code, "TS020E");
    }
}
