//! Who may call what: one row for every RPC of the Auth Service.
//!
//! The gate ([`super::gate`]) looks every call up here before its handler runs; an RPC without a row is refused. What
//! can be decided without reading the message is decided there, once, for all services. Rules that depend on the
//! message ([`Rule::SelfOrVerbs`], [`Rule::OwnServerOnly`], [`Rule::Object`], [`Rule::Message`]) let pass whoever could
//! be right, and the handler finishes the check with a method of [`AuthContext`](super::AuthContext).
//!
//! Builtin role `Admin` (the administrator on the Auth Service's own machine) passes every rule except
//! [`Rule::Users`].

use resources::SystemRole::{
    self, App, Auth, Db, Discovery, Instance, Kube, Mdm, Node, Okta, Proxy, RemoteProxy, WindowsDesktop,
};

use Rule::{AnyAuthenticated, Anyone, Builtin, Message, Object, OwnServerOnly, SelfOrVerbs, Users, Verbs};

/// Verbs that make up read access.
const READ: &[&str] = &["list", "read"];
/// Verbs that an upsert needs.
const UPSERT: &[&str] = &["create", "update"];

/// System roles of services that hold sessions and speak about them.
const SESSION_SERVICES: &[SystemRole] = &[Node, Proxy, Kube, App, Db, WindowsDesktop];
/// System roles that may keep a control stream and ask for new host certificates.
const INSTANCES: &[SystemRole] = &[Instance, Auth, Node, Proxy, Kube, App, Db, WindowsDesktop, Discovery, Okta, Mdm];

/// What a caller must be to make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everybody, also without a certificate. The message carries its own proof, or the answer is public.
    Anyone,
    /// Everybody with a certificate of this or of a trusted cluster; the answer depends on who asks.
    AnyAuthenticated,
    /// People and bots, not services.
    Users,
    /// Services that hold one of these system roles.
    Builtin(&'static [SystemRole]),
    /// Whoever has all of these verbs on the kind.
    Verbs(&'static str, &'static [&'static str]),
    /// The user whom the message names, or whoever has all of these verbs on the kind.
    /// The handler calls [`AuthContext::require_self_or`](super::AuthContext::require_self_or).
    SelfOrVerbs(&'static str, &'static [&'static str]),
    /// Services that hold one of the roles and speak of themselves only.
    /// The handler calls [`AuthContext::require_own_server`](super::AuthContext::require_own_server).
    OwnServerOnly(&'static [SystemRole]),
    /// Whoever has the verbs on the kind where the condition of the rule can hold.
    /// The handler calls [`AuthContext::require_on`](super::AuthContext::require_on) with the object.
    Object(&'static str, &'static [&'static str]),
    /// Everybody with a certificate; the handler decides by the message, as the text says.
    Message(&'static str),
}

/// The rule of a call, by its gRPC path; `None` means that nobody may make it.
pub fn rule(path: &str) -> Option<Rule> {
    PERMISSIONS.binary_search_by(|(row, _)| (*row).cmp(path)).ok().map(|index| PERMISSIONS[index].1)
}

macro_rules! permissions {
    ($($service:literal { $($rpc:literal => $rule:expr,)* })*) => {
        &sorted([$($((concat!("/", $service, "/", $rpc), $rule),)*)*])
    };
}

/// The table, sorted by path.
pub static PERMISSIONS: &[(&str, Rule)] = permissions! {
    "proto.AuthService" {
        // What a stranger needs to join, to log in and to check whom he talks to.
        "Ping" => Anyone,
        "GetDomainName" => Anyone,
        "GetClusterCACert" => Anyone,
        "CreateAuthenticateChallenge" => Anyone,
        "ChangeUserAuthentication" => Anyone,
        "GetResetPasswordToken" => Builtin(&[Proxy]),

        // One's own certificates, devices and password.
        "GenerateUserCerts" => Message("one's own name, or by the impersonation rules of one's roles"),
        "IsMFARequired" => Message("users; services only about administrative actions"),
        "CreateRegisterChallenge" => Message("users for themselves; the holder of a token for its user"),
        "GetMFADevices" => Message("users for themselves; the holder of a token for its user"),
        "AddMFADeviceSync" => Message("users for themselves; the holder of a token for its user"),
        "DeleteMFADeviceSync" => Message("users for themselves; the holder of a token for its user"),
        "ChangePassword" => Message("users for themselves, with the old password"),
        "GetCurrentUserRoles" => Users,
        "CreateResetPasswordToken" => Verbs("user", &["update"]),
        "GetWebSession" => SelfOrVerbs("web_session", &["read"]),
        "GetWebSessions" => Verbs("web_session", READ),
        "DeleteWebSession" => SelfOrVerbs("web_session", &["delete"]),
        "DeleteAllWebSessions" => Verbs("web_session", &["list", "delete"]),

        // Services about themselves.
        "GenerateHostCerts" => OwnServerOnly(INSTANCES),
        "AssertSystemRole" => OwnServerOnly(INSTANCES),
        "InventoryControlStream" => OwnServerOnly(INSTANCES),
        "GenerateOpenSSHCert" => Builtin(&[Proxy]),
        "EmitAuditEvent" => OwnServerOnly(SESSION_SERVICES),
        "CreateAuditStream" => OwnServerOnly(SESSION_SERVICES),
        "CreateSessionTracker" => OwnServerOnly(SESSION_SERVICES),
        "UpdateSessionTracker" => OwnServerOnly(SESSION_SERVICES),
        "RemoveSessionTracker" => OwnServerOnly(SESSION_SERVICES),
        "GetSessionTracker" => Message("services; participants; whoever may join or has read on session_tracker"),
        "GetActiveSessionTrackers" => Message("services; participants; whoever may join or has list on session_tracker"),
        "AcquireSemaphore" => Verbs("semaphore", UPSERT),
        "KeepAliveSemaphoreLease" => Verbs("semaphore", &["update"]),
        "CancelSemaphoreLease" => Verbs("semaphore", &["update"]),
        "GetSemaphores" => Verbs("semaphore", READ),
        "DeleteSemaphore" => Verbs("semaphore", &["delete"]),

        // Inventory.
        "GetInventoryStatus" => Verbs("instance", READ),
        "GetInstances" => Verbs("instance", READ),
        "PingInventory" => Builtin(&[]),

        // Servers. What is listed is what the caller's roles reach.
        "ListResources" => Message("list and read on the kind, item by item by label"),
        "ListUnifiedResources" => Message("list and read on each kind, item by item by label"),
        "GetSSHTargets" => Message("list and read on node, item by item by label"),
        "GetNode" => Verbs("node", &["read"]),
        "UpsertNode" => Message("create and update on node; agents only themselves"),
        "DeleteNode" => Message("delete on node; agents only themselves"),
        "DeleteAllNodes" => Message("list and delete on node; no agent"),
        "WatchEvents" => Message("the read access of each kind that is asked for"),

        // Roles, tokens, locks, connectors.
        "GetRole" => Message("read on role, or a role the caller holds"),
        "GetRoles" => Verbs("role", READ),
        "ListRoles" => Verbs("role", READ),
        "CreateRole" => Verbs("role", &["create"]),
        "UpdateRole" => Verbs("role", &["update"]),
        "UpsertRole" => Verbs("role", UPSERT),
        "UpsertRoleV2" => Verbs("role", UPSERT),
        "DeleteRole" => Verbs("role", &["delete"]),
        "GetToken" => Verbs("token", &["read"]),
        "GetTokens" => Verbs("token", READ),
        "CreateTokenV2" => Verbs("token", &["create"]),
        "UpsertTokenV2" => Verbs("token", UPSERT),
        "DeleteToken" => Verbs("token", &["delete"]),
        "GetLock" => Verbs("lock", &["read"]),
        "GetLocks" => Verbs("lock", READ),
        "UpsertLock" => Verbs("lock", UPSERT),
        "DeleteLock" => Verbs("lock", &["delete"]),
        "ReplaceRemoteLocks" => Builtin(&[RemoteProxy]),
        "GetGithubConnectors" => Verbs("github", &["list", "readnosecrets"]),
        "GetTrustedCluster" => Verbs("trusted_cluster", &["read"]),
        "GetTrustedClusters" => Verbs("trusted_cluster", READ),
        "UpsertTrustedCluster" => Verbs("trusted_cluster", UPSERT),
        "DeleteTrustedCluster" => Verbs("trusted_cluster", &["delete"]),
        "GenerateCertAuthorityCRL" => Verbs("cert_authority", &["readnosecrets"]),

        // Settings.
        "GetClusterAuditConfig" => Verbs("cluster_audit_config", &["read"]),
        "GetClusterNetworkingConfig" => Verbs("cluster_networking_config", &["read"]),
        "GetSessionRecordingConfig" => Verbs("session_recording_config", &["read"]),
        "GetAuthPreference" => Verbs("cluster_auth_preference", &["read"]),
        "GetNetworkRestrictions" => Verbs("network_restrictions", &["read"]),

        // Alerts.
        "GetClusterAlerts" => AnyAuthenticated,
        "UpsertClusterAlert" => Verbs("cluster_alert", UPSERT),
        "CreateAlertAck" => Verbs("cluster_alert", &["create"]),
        "GetAlertAcks" => Verbs("cluster_alert", READ),
        "ClearAlertAcks" => Verbs("cluster_alert", &["delete"]),

        // Requests for more access.
        "ListAccessRequests" => AnyAuthenticated,
        "GetAccessCapabilities" => SelfOrVerbs("access_request", READ),

        // The audit log and recordings.
        "GetEvents" => Verbs("event", &["list"]),
        "GetSessionEvents" => Object("session", &["list"]),
        "StreamSessionEvents" => Object("session", &["read"]),
    }
    "teleport.auditlog.v1.AuditLogService" {
        "GetUnstructuredEvents" => Verbs("event", &["list"]),
        "StreamUnstructuredSessionEvents" => Object("session", &["read"]),
    }
    "teleport.clusterconfig.v1.ClusterConfigService" {
        "GetClusterNetworkingConfig" => Verbs("cluster_networking_config", &["read"]),
        "UpdateClusterNetworkingConfig" => Verbs("cluster_networking_config", &["update"]),
        "UpsertClusterNetworkingConfig" => Verbs("cluster_networking_config", UPSERT),
        "ResetClusterNetworkingConfig" => Verbs("cluster_networking_config", &["update"]),
        "GetSessionRecordingConfig" => Verbs("session_recording_config", &["read"]),
        "UpdateSessionRecordingConfig" => Verbs("session_recording_config", &["update"]),
        "UpsertSessionRecordingConfig" => Verbs("session_recording_config", UPSERT),
        "ResetSessionRecordingConfig" => Verbs("session_recording_config", &["update"]),
        "GetAuthPreference" => Verbs("cluster_auth_preference", &["read"]),
        "UpdateAuthPreference" => Verbs("cluster_auth_preference", &["update"]),
        "UpsertAuthPreference" => Verbs("cluster_auth_preference", UPSERT),
        "ResetAuthPreference" => Verbs("cluster_auth_preference", &["update"]),
    }
    "teleport.presence.v1.PresenceService" {
        "GetRemoteCluster" => Verbs("remote_cluster", &["read"]),
        "ListRemoteClusters" => Verbs("remote_cluster", READ),
        "UpdateRemoteCluster" => Verbs("remote_cluster", &["update"]),
        "DeleteRemoteCluster" => Verbs("remote_cluster", &["delete"]),
    }
    "teleport.trust.v1.TrustService" {
        "GetCertAuthority" => Verbs("cert_authority", &["readnosecrets"]),
        "GetCertAuthorities" => Verbs("cert_authority", &["list", "readnosecrets"]),
        "UpsertCertAuthority" => Verbs("cert_authority", UPSERT),
        "DeleteCertAuthority" => Verbs("cert_authority", &["delete"]),
        "RotateCertAuthority" => Verbs("cert_authority", UPSERT),
        "RotateExternalCertAuthority" => Builtin(&[RemoteProxy]),
        "GenerateHostCert" => Object("host_cert", &["create"]),
    }
    "teleport.users.v1.UsersService" {
        "GetUser" => SelfOrVerbs("user", &["read"]),
        "ListUsers" => Verbs("user", READ),
        "CreateUser" => Verbs("user", &["create"]),
        "UpdateUser" => Verbs("user", &["update"]),
        "UpsertUser" => Verbs("user", UPSERT),
        "DeleteUser" => Verbs("user", &["delete"]),
    }
};

/// Sorts rows by path while compiling, so that the table may be written by subject.
const fn sorted<const N: usize>(mut rows: [(&'static str, Rule); N]) -> [(&'static str, Rule); N] {
    let mut end = 1;
    while end < N {
        let mut at = end;
        while at > 0 && less(rows[at].0, rows[at - 1].0) {
            let row = rows[at];
            rows[at] = rows[at - 1];
            rows[at - 1] = row;
            at -= 1;
        }
        end += 1;
    }
    rows
}

const fn less(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut at = 0;
    while at < left.len() && at < right.len() {
        if left[at] != right[at] {
            return left[at] < right[at];
        }
        at += 1;
    }
    left.len() < right.len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Every RPC that the generated services know, from the files they are generated from.
    pub(crate) fn all_rpcs() -> Vec<String> {
        const FILES: [&str; 6] = [
            include_str!("../../../../wire/proto/proto.proto"),
            include_str!("../../../../wire/proto/teleport/auditlog/v1.proto"),
            include_str!("../../../../wire/proto/teleport/clusterconfig/v1.proto"),
            include_str!("../../../../wire/proto/teleport/presence/v1.proto"),
            include_str!("../../../../wire/proto/teleport/trust/v1.proto"),
            include_str!("../../../../wire/proto/teleport/users/v1.proto"),
        ];
        let mut paths = Vec::new();
        for file in FILES {
            let word = |line: &str, before: &str| -> Option<String> {
                let rest = line.trim().strip_prefix(before)?;
                Some(rest.split([' ', '(', ';', '{']).next()?.to_owned())
            };
            let package = file.lines().find_map(|line| word(line, "package ")).unwrap();
            let service = file.lines().find_map(|line| word(line, "service ")).unwrap();
            paths.extend(
                file.lines().filter_map(|line| word(line, "rpc ")).map(|rpc| format!("/{package}.{service}/{rpc}")),
            );
        }
        paths
    }

    #[test]
    fn every_rpc_has_one_row_and_every_row_an_rpc() {
        let mut known = all_rpcs();
        known.sort();
        let rows: Vec<String> = PERMISSIONS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(rows, known);
    }

    #[test]
    fn every_row_is_found_and_nothing_else_is() {
        for (path, expected) in PERMISSIONS {
            assert_eq!(rule(path), Some(*expected), "{path}");
        }
        assert_eq!(rule("/proto.AuthService/DropEverything"), None);
        assert_eq!(rule(""), None);
    }

    #[test]
    fn strangers_reach_only_what_joining_and_login_need() {
        let open: Vec<&str> = PERMISSIONS.iter().filter(|(_, rule)| *rule == Anyone).map(|(path, _)| *path).collect();
        assert_eq!(
            open,
            [
                "/proto.AuthService/ChangeUserAuthentication",
                "/proto.AuthService/CreateAuthenticateChallenge",
                "/proto.AuthService/GetClusterCACert",
                "/proto.AuthService/GetDomainName",
                "/proto.AuthService/Ping",
            ]
        );
    }
}
