//! One row for every RPC.

use resources::SystemRole::{
    self, App, Auth, Db, Discovery, Instance, Kube, Mdm, Node, Okta, Proxy, RemoteProxy, WindowsDesktop,
};

use super::Rule::{self, AnyAuthenticated, Anyone, Builtin, Message, Object, OwnServerOnly, SelfOrVerbs, Users, Verbs};

/// Verbs that make up read access.
const READ: &[&str] = &["list", "read"];
/// Verbs that an upsert needs.
const UPSERT: &[&str] = &["create", "update"];

/// System roles of services that hold sessions and speak about them.
const SESSION_SERVICES: &[SystemRole] = &[Node, Proxy, Kube, App, Db, WindowsDesktop];
/// System roles that may keep a control stream and ask for new host certificates.
const INSTANCES: &[SystemRole] = &[Instance, Auth, Node, Proxy, Kube, App, Db, WindowsDesktop, Discovery, Okta, Mdm];

macro_rules! permissions {
    ($($service:literal { $($rpc:literal => $rule:expr,)* })*) => {
        &[$($((concat!("/", $service, "/", $rpc), $rule),)*)*]
    };
}

/// The table.
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
        "GenerateDatabaseCert" => Message("database agents for logins; create on database_certificate for servers"),
        // Good for any account of any desktop, so agents alone get it.
        "GenerateWindowsDesktopCert" => Builtin(&[WindowsDesktop]),
        "GenerateOpenSSHCert" => Builtin(&[Proxy]),
        "SendKeepAlives" => OwnServerOnly(INSTANCES),
        "ExportUpgradeWindows" => Builtin(INSTANCES),
        "GetPluginData" => Verbs("access_plugin_data", &["read"]),
        "UpdatePluginData" => Verbs("access_plugin_data", &["update"]),
        "EmitAuditEvent" => OwnServerOnly(SESSION_SERVICES),
        "CreateAuditStream" => OwnServerOnly(SESSION_SERVICES),
        "CreateSessionTracker" => OwnServerOnly(SESSION_SERVICES),
        "UpdateSessionTracker" => OwnServerOnly(SESSION_SERVICES),
        "RemoveSessionTracker" => OwnServerOnly(SESSION_SERVICES),
        "GetSessionTracker" => Message("services; participants; whoever may join or has read on session_tracker"),
        "GetActiveSessionTrackers" => Message("services; participants; whoever may join or has list on session_tracker"),
        "GetActiveSessionTrackersWithFilter" => Message("services; participants; whoever may join or has list on session_tracker"),
        "AcquireSemaphore" => Verbs("semaphore", UPSERT),
        "KeepAliveSemaphoreLease" => Verbs("semaphore", &["update"]),
        "CancelSemaphoreLease" => Verbs("semaphore", &["update"]),
        "GetSemaphores" => Verbs("semaphore", READ),
        "DeleteSemaphore" => Verbs("semaphore", &["delete"]),

        // Inventory.
        "GetInventoryStatus" => Verbs("instance", READ),
        "GetInventoryConnectedServiceCounts" => Verbs("instance", READ),
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
        "SetNetworkRestrictions" => Verbs("network_restrictions", UPSERT),
        "DeleteNetworkRestrictions" => Verbs("network_restrictions", &["delete"]),

        // What agents serve, and what is registered for them. What is listed is what the caller's roles reach.
        "GetApp" => Verbs("app", &["read"]),
        "GetApps" => Verbs("app", READ),
        "CreateApp" => Verbs("app", &["create"]),
        "UpdateApp" => Verbs("app", &["update"]),
        "DeleteApp" => Verbs("app", &["delete"]),
        "DeleteAllApps" => Verbs("app", &["list", "delete"]),
        "GetDatabase" => Verbs("db", &["read"]),
        "GetDatabases" => Verbs("db", READ),
        "CreateDatabase" => Verbs("db", &["create"]),
        "UpdateDatabase" => Verbs("db", &["update"]),
        "DeleteDatabase" => Verbs("db", &["delete"]),
        "DeleteAllDatabases" => Verbs("db", &["list", "delete"]),
        "GetKubernetesCluster" => Verbs("kube_cluster", &["read"]),
        "GetKubernetesClusters" => Verbs("kube_cluster", READ),
        "CreateKubernetesCluster" => Verbs("kube_cluster", &["create"]),
        "UpdateKubernetesCluster" => Verbs("kube_cluster", &["update"]),
        "DeleteKubernetesCluster" => Verbs("kube_cluster", &["delete"]),
        "DeleteAllKubernetesClusters" => Verbs("kube_cluster", &["list", "delete"]),
        "UpsertApplicationServer" => Verbs("app_server", UPSERT),
        "DeleteApplicationServer" => Verbs("app_server", &["delete"]),
        "DeleteAllApplicationServers" => Verbs("app_server", &["list", "delete"]),
        "UpsertDatabaseServer" => Verbs("db_server", UPSERT),
        "DeleteDatabaseServer" => Verbs("db_server", &["delete"]),
        "DeleteAllDatabaseServers" => Verbs("db_server", &["list", "delete"]),
        "UpsertKubernetesServer" => Verbs("kube_server", UPSERT),
        "DeleteKubernetesServer" => Verbs("kube_server", &["delete"]),
        "DeleteAllKubernetesServers" => Verbs("kube_server", &["list", "delete"]),
        "UpsertDatabaseService" => Verbs("db_service", UPSERT),
        "DeleteDatabaseService" => Verbs("db_service", &["delete"]),
        "DeleteAllDatabaseServices" => Verbs("db_service", &["list", "delete"]),
        "UpsertWindowsDesktopService" => Verbs("windows_desktop_service", UPSERT),
        "DeleteWindowsDesktopService" => Verbs("windows_desktop_service", &["delete"]),
        "DeleteAllWindowsDesktopServices" => Verbs("windows_desktop_service", &["list", "delete"]),
        "GetWindowsDesktopService" => Verbs("windows_desktop_service", &["read"]),
        "GetWindowsDesktopServices" => Verbs("windows_desktop_service", READ),
        "GetWindowsDesktops" => Verbs("windows_desktop", READ),
        "CreateWindowsDesktop" => Verbs("windows_desktop", &["create"]),
        "UpdateWindowsDesktop" => Verbs("windows_desktop", &["update"]),
        "UpsertWindowsDesktop" => Verbs("windows_desktop", UPSERT),
        "DeleteWindowsDesktop" => Verbs("windows_desktop", &["delete"]),
        "DeleteAllWindowsDesktops" => Verbs("windows_desktop", &["list", "delete"]),
        "ListUserGroups" => Verbs("user_group", READ),
        "GetUserGroup" => Verbs("user_group", &["read"]),
        "CreateUserGroup" => Verbs("user_group", &["create"]),
        "UpdateUserGroup" => Verbs("user_group", &["update"]),
        "DeleteUserGroup" => Verbs("user_group", &["delete"]),
        "DeleteAllUserGroups" => Verbs("user_group", &["list", "delete"]),
        "ListSAMLIdPServiceProviders" => Verbs("saml_idp_service_provider", READ),
        "GetSAMLIdPServiceProvider" => Verbs("saml_idp_service_provider", &["read"]),
        "CreateSAMLIdPServiceProvider" => Verbs("saml_idp_service_provider", &["create"]),
        "UpdateSAMLIdPServiceProvider" => Verbs("saml_idp_service_provider", &["update"]),
        "DeleteSAMLIdPServiceProvider" => Verbs("saml_idp_service_provider", &["delete"]),
        "DeleteAllSAMLIdPServiceProviders" => Verbs("saml_idp_service_provider", &["list", "delete"]),

        // The fleet.
        "GetServerInfo" => Verbs("server_info", &["read"]),
        "GetServerInfos" => Verbs("server_info", READ),
        "UpsertServerInfo" => Verbs("server_info", UPSERT),
        "DeleteServerInfo" => Verbs("server_info", &["delete"]),
        "DeleteAllServerInfos" => Verbs("server_info", &["list", "delete"]),
        "GetInstaller" => Verbs("installer", &["read"]),
        "GetInstallers" => Verbs("installer", READ),
        "SetInstaller" => Verbs("installer", UPSERT),
        "DeleteInstaller" => Verbs("installer", &["delete"]),
        "DeleteAllInstallers" => Verbs("installer", &["list", "delete"]),
        "GetClusterMaintenanceConfig" => Verbs("cluster_maintenance_config", &["read"]),
        "UpdateClusterMaintenanceConfig" => Verbs("cluster_maintenance_config", UPSERT),
        "DeleteClusterMaintenanceConfig" => Verbs("cluster_maintenance_config", &["delete"]),
        "GetUIConfig" => Verbs("ui_config", &["read"]),
        "SetUIConfig" => Verbs("ui_config", UPSERT),
        "DeleteUIConfig" => Verbs("ui_config", &["delete"]),

        // Connectors. Secrets need `read`.
        "GetOIDCConnector" => Verbs("oidc", &["readnosecrets"]),
        "GetOIDCConnectors" => Verbs("oidc", &["list", "readnosecrets"]),
        "CreateOIDCConnector" => Verbs("oidc", &["create"]),
        "UpdateOIDCConnector" => Verbs("oidc", &["update"]),
        "UpsertOIDCConnector" => Verbs("oidc", UPSERT),
        "UpsertOIDCConnectorV2" => Verbs("oidc", UPSERT),
        "DeleteOIDCConnector" => Verbs("oidc", &["delete"]),
        "GetSAMLConnector" => Verbs("saml", &["readnosecrets"]),
        "GetSAMLConnectors" => Verbs("saml", &["list", "readnosecrets"]),
        "CreateSAMLConnector" => Verbs("saml", &["create"]),
        "UpdateSAMLConnector" => Verbs("saml", &["update"]),
        "UpsertSAMLConnector" => Verbs("saml", UPSERT),
        "UpsertSAMLConnectorV2" => Verbs("saml", UPSERT),
        "DeleteSAMLConnector" => Verbs("saml", &["delete"]),
        "GetGithubConnector" => Verbs("github", &["readnosecrets"]),
        "GetGithubConnectors" => Verbs("github", &["list", "readnosecrets"]),
        "CreateGithubConnector" => Verbs("github", &["create"]),
        "UpdateGithubConnector" => Verbs("github", &["update"]),
        "UpsertGithubConnector" => Verbs("github", UPSERT),
        "UpsertGithubConnectorV2" => Verbs("github", UPSERT),
        "DeleteGithubConnector" => Verbs("github", &["delete"]),

        // Alerts.
        "GetClusterAlerts" => AnyAuthenticated,
        "UpsertClusterAlert" => Verbs("cluster_alert", UPSERT),
        "CreateAlertAck" => Verbs("cluster_alert", &["create"]),
        "GetAlertAcks" => Verbs("cluster_alert", READ),
        "ClearAlertAcks" => Verbs("cluster_alert", &["delete"]),

        // Requests for more access.
        "ListAccessRequests" => Message("one's own; those one may review; with list and read on access_request all"),
        "GetAccessRequestsV2" => Message("one's own; those one may review; with list and read on access_request all"),
        "CreateAccessRequestV2" => Message("users for themselves, by request of their roles; create on access_request"),
        "SetAccessRequestState" => Verbs("access_request", &["update"]),
        "SubmitAccessReview" => Message("users whose roles let them review the request"),
        "DeleteAccessRequest" => Verbs("access_request", &["delete"]),
        "GetAccessCapabilities" => SelfOrVerbs("access_request", READ),
        "GetAccessRequestAllowedPromotions" => Message("whoever may see the request"),

        // The audit log and recordings.
        "GetEvents" => Verbs("event", &["list"]),
        "GetSessionEvents" => Object("session", &["list"]),
        "StreamSessionEvents" => Object("session", &["read"]),
    }
    "teleport.accesslist.v1.AccessListService" {
        "GetAccessLists" => Message("whoever has list and read on access_list; members and owners about their lists"),
        "ListAccessLists" => Message("whoever has list and read on access_list; members and owners about their lists"),
        "GetAccessList" => Message("whoever has read on access_list; members and owners about their lists"),
        "UpsertAccessList" => Verbs("access_list", UPSERT),
        "UpdateAccessList" => Verbs("access_list", &["update"]),
        "DeleteAccessList" => Verbs("access_list", &["delete"]),
        "DeleteAllAccessLists" => Verbs("access_list", &["list", "delete"]),
        "GetAccessListsToReview" => AnyAuthenticated,
        "CountAccessListMembers" => Message("whoever has read on access_list; members and owners about their lists"),
        "ListAccessListMembers" => Message("whoever has list and read on access_list; owners about their lists"),
        "ListAllAccessListMembers" => Verbs("access_list", READ),
        "GetAccessListMember" => Message("whoever has read on access_list; owners about their lists; members about themselves"),
        "UpsertAccessListMember" => Message("whoever has create and update on access_list; owners of the list"),
        "UpdateAccessListMember" => Message("whoever has create and update on access_list; owners of the list"),
        "DeleteAccessListMember" => Message("whoever has delete on access_list; owners of the list"),
        "DeleteAllAccessListMembersForAccessList" => Message("whoever has delete on access_list; owners of the list"),
        "DeleteAllAccessListMembers" => Verbs("access_list", &["list", "delete"]),
        "UpsertAccessListWithMembers" => Verbs("access_list", UPSERT),
        "ListAccessListReviews" => Message("whoever has list and read on access_list; owners about their lists"),
        "ListAllAccessListReviews" => Verbs("access_list", READ),
        "CreateAccessListReview" => Message("whoever has create and update on access_list; owners of the list"),
        "AccessRequestPromote" => Message("owners of the list, and whoever has create and update on access_list, as reviewers"),
        "GetSuggestedAccessLists" => Message("whoever may see the request, about lists that they may add members to"),
        "DeleteAccessListReview" => Verbs("access_list", &["delete"]),
    }
    "teleport.accessmonitoringrules.v1.AccessMonitoringRulesService" {
        "CreateAccessMonitoringRule" => Verbs("access_monitoring_rule", &["create"]),
        "UpdateAccessMonitoringRule" => Verbs("access_monitoring_rule", &["update"]),
        "UpsertAccessMonitoringRule" => Verbs("access_monitoring_rule", UPSERT),
        "GetAccessMonitoringRule" => Verbs("access_monitoring_rule", &["read"]),
        "ListAccessMonitoringRules" => Verbs("access_monitoring_rule", READ),
        "DeleteAccessMonitoringRule" => Verbs("access_monitoring_rule", &["delete"]),
        "ListAccessMonitoringRulesWithFilter" => Verbs("access_monitoring_rule", READ),
    }
    "teleport.crownjewel.v1.CrownJewelService" {
        "CreateCrownJewel" => Verbs("crown_jewel", &["create"]),
        "UpdateCrownJewel" => Verbs("crown_jewel", &["update"]),
        "UpsertCrownJewel" => Verbs("crown_jewel", UPSERT),
        "GetCrownJewel" => Verbs("crown_jewel", &["read"]),
        "ListCrownJewels" => Verbs("crown_jewel", READ),
        "DeleteCrownJewel" => Verbs("crown_jewel", &["delete"]),
    }
    "teleport.dbobject.v1.DatabaseObjectService" {
        "CreateDatabaseObject" => Verbs("db_object", &["create"]),
        "UpdateDatabaseObject" => Verbs("db_object", &["update"]),
        "UpsertDatabaseObject" => Verbs("db_object", UPSERT),
        "GetDatabaseObject" => Verbs("db_object", &["read"]),
        "ListDatabaseObjects" => Verbs("db_object", READ),
        "DeleteDatabaseObject" => Verbs("db_object", &["delete"]),
    }
    "teleport.dbobjectimportrule.v1.DatabaseObjectImportRuleService" {
        "CreateDatabaseObjectImportRule" => Verbs("db_object_import_rule", &["create"]),
        "UpdateDatabaseObjectImportRule" => Verbs("db_object_import_rule", &["update"]),
        "UpsertDatabaseObjectImportRule" => Verbs("db_object_import_rule", UPSERT),
        "GetDatabaseObjectImportRule" => Verbs("db_object_import_rule", &["read"]),
        "ListDatabaseObjectImportRules" => Verbs("db_object_import_rule", READ),
        "DeleteDatabaseObjectImportRule" => Verbs("db_object_import_rule", &["delete"]),
    }
    "teleport.devicetrust.v1.DeviceTrustService" {
        "CreateDevice" => Verbs("device", &["create"]),
        "UpsertDevice" => Verbs("device", UPSERT),
        "DeleteDevice" => Verbs("device", &["delete"]),
        "FindDevices" => Verbs("device", READ),
        "GetDevice" => Verbs("device", &["read"]),
        "ListDevices" => Verbs("device", READ),
    }
    "teleport.discoveryconfig.v1.DiscoveryConfigService" {
        "CreateDiscoveryConfig" => Verbs("discovery_config", &["create"]),
        "UpdateDiscoveryConfig" => Verbs("discovery_config", &["update"]),
        "UpsertDiscoveryConfig" => Verbs("discovery_config", UPSERT),
        "GetDiscoveryConfig" => Verbs("discovery_config", &["read"]),
        "ListDiscoveryConfigs" => Verbs("discovery_config", READ),
        "DeleteDiscoveryConfig" => Verbs("discovery_config", &["delete"]),
        "DeleteAllDiscoveryConfigs" => Verbs("discovery_config", &["list", "delete"]),
        "UpdateDiscoveryConfigStatus" => Builtin(&[Discovery]),
    }
    "teleport.integration.v1.IntegrationService" {
        "CreateIntegration" => Verbs("integration", &["create"]),
        "UpdateIntegration" => Verbs("integration", &["update"]),
        "GetIntegration" => Verbs("integration", &["read"]),
        "ListIntegrations" => Verbs("integration", READ),
        "DeleteIntegration" => Verbs("integration", &["delete"]),
        "DeleteAllIntegrations" => Verbs("integration", &["list", "delete"]),
    }
    "teleport.loginrule.v1.LoginRuleService" {
        "CreateLoginRule" => Verbs("login_rule", &["create"]),
        "UpsertLoginRule" => Verbs("login_rule", UPSERT),
        "GetLoginRule" => Verbs("login_rule", &["read"]),
        "ListLoginRules" => Verbs("login_rule", READ),
        "DeleteLoginRule" => Verbs("login_rule", &["delete"]),
    }
    "teleport.machineid.v1.BotService" {
        "CreateBot" => Verbs("bot", &["create"]),
        "UpdateBot" => Verbs("bot", &["update"]),
        "UpsertBot" => Verbs("bot", UPSERT),
        "GetBot" => Verbs("bot", &["read"]),
        "ListBots" => Verbs("bot", READ),
        "DeleteBot" => Verbs("bot", &["delete"]),
    }
    "teleport.machineid.v1.BotInstanceService" {
        "GetBotInstance" => Verbs("bot_instance", &["read"]),
        "ListBotInstances" => Verbs("bot_instance", READ),
        "DeleteBotInstance" => Verbs("bot_instance", &["delete"]),
    }
    "teleport.okta.v1.OktaService" {
        "CreateOktaImportRule" => Verbs("okta_import_rule", &["create"]),
        "UpdateOktaImportRule" => Verbs("okta_import_rule", &["update"]),
        "GetOktaImportRule" => Verbs("okta_import_rule", &["read"]),
        "ListOktaImportRules" => Verbs("okta_import_rule", READ),
        "DeleteOktaImportRule" => Verbs("okta_import_rule", &["delete"]),
        "DeleteAllOktaImportRules" => Verbs("okta_import_rule", &["list", "delete"]),
    }
    "teleport.secreports.v1.SecReportsService" {
        "UpsertAuditQuery" => Verbs("audit_query", UPSERT),
        "GetAuditQuery" => Verbs("audit_query", &["read"]),
        "ListAuditQueries" => Verbs("audit_query", READ),
        "DeleteAuditQuery" => Verbs("audit_query", &["delete"]),
        "UpsertReport" => Verbs("security_report", UPSERT),
        "GetReport" => Verbs("security_report", &["read"]),
        "ListReports" => Verbs("security_report", READ),
        "DeleteReport" => Verbs("security_report", &["delete"]),
    }
    "teleport.notifications.v1.NotificationService" {
        "CreateUserNotification" => Verbs("notification", &["create"]),
        "DeleteUserNotification" => Verbs("notification", &["delete"]),
        "CreateGlobalNotification" => Verbs("notification", &["create"]),
        "DeleteGlobalNotification" => Verbs("notification", &["delete"]),
        "ListNotifications" => Message("users for themselves; filters need list and read on notification"),
        "UpsertUserNotificationState" => Message("users for themselves"),
        "UpsertUserLastSeenNotification" => Message("users for themselves"),
    }
    "teleport.userloginstate.v1.UserLoginStateService" {
        "GetUserLoginStates" => Verbs("user_login_state", READ),
        "GetUserLoginState" => SelfOrVerbs("user_login_state", &["read"]),
        "UpsertUserLoginState" => Verbs("user_login_state", UPSERT),
        "DeleteUserLoginState" => Verbs("user_login_state", &["delete"]),
        "DeleteAllUserLoginStates" => Verbs("user_login_state", &["list", "delete"]),
    }
    "teleport.userprovisioning.v1.StaticHostUsersService" {
        "CreateStaticHostUser" => Verbs("static_host_user", &["create"]),
        "UpdateStaticHostUser" => Verbs("static_host_user", &["update"]),
        "UpsertStaticHostUser" => Verbs("static_host_user", UPSERT),
        "GetStaticHostUser" => Verbs("static_host_user", &["read"]),
        "ListStaticHostUsers" => Verbs("static_host_user", READ),
        "DeleteStaticHostUser" => Verbs("static_host_user", &["delete"]),
    }
    "teleport.vnet.v1.VnetConfigService" {
        "CreateVnetConfig" => Verbs("vnet_config", &["create"]),
        "UpdateVnetConfig" => Verbs("vnet_config", &["update"]),
        "UpsertVnetConfig" => Verbs("vnet_config", UPSERT),
        "GetVnetConfig" => Verbs("vnet_config", &["read"]),
        "DeleteVnetConfig" => Verbs("vnet_config", &["delete"]),
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
        "GetSessionRecordingConfig" => Message("everybody learns who records; the rest takes read on the kind"),
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
