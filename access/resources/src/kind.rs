//! The names of kinds, as they stand in `kind:` and in the rules of roles.

/// `namespace`.
pub const NAMESPACE: &str = "namespace";
/// `user`.
pub const USER: &str = "user";
/// `bot`.
pub const BOT: &str = "bot";
/// `bot_instance`.
pub const BOT_INSTANCE: &str = "bot_instance";
/// `host_cert`.
pub const HOST_CERT: &str = "host_cert";
/// `jwt`.
pub const JWT: &str = "jwt";
/// `license`.
pub const LICENSE: &str = "license";
/// `role`.
pub const ROLE: &str = "role";
/// `access_request`.
pub const ACCESS_REQUEST: &str = "access_request";
/// `access_monitoring_rule`.
pub const ACCESS_MONITORING_RULE: &str = "access_monitoring_rule";
/// `plugin_data`.
pub const PLUGIN_DATA: &str = "plugin_data";
/// `access_plugin_data`.
pub const ACCESS_PLUGIN_DATA: &str = "access_plugin_data";
/// `oidc`.
pub const OIDC: &str = "oidc";
/// `saml`.
pub const SAML: &str = "saml";
/// `github`.
pub const GITHUB: &str = "github";
/// `oidc_request`.
pub const OIDC_REQUEST: &str = "oidc_request";
/// `saml_request`.
pub const SAML_REQUEST: &str = "saml_request";
/// `github_request`.
pub const GITHUB_REQUEST: &str = "github_request";
/// `session`.
pub const SESSION: &str = "session";
/// `ssh_session`.
pub const SSH_SESSION: &str = "ssh_session";
/// `web_session`.
pub const WEB_SESSION: &str = "web_session";
/// `web_token`.
pub const WEB_TOKEN: &str = "web_token";
/// `app_session`.
pub const APP_SESSION: &str = "app_session";
/// `snowflake_session`.
pub const SNOWFLAKE_SESSION: &str = "snowflake_session";
/// `saml_idp_session`.
pub const SAML_IDP_SESSION: &str = "saml_idp_session";
/// `event`.
pub const EVENT: &str = "event";
/// `auth_server`.
pub const AUTH_SERVER: &str = "auth_server";
/// `proxy`.
pub const PROXY: &str = "proxy";
/// `node`.
pub const NODE: &str = "node";
/// `unified_resource`.
pub const UNIFIED_RESOURCE: &str = "unified_resource";
/// `app_server`.
pub const APP_SERVER: &str = "app_server";
/// `app`.
pub const APP: &str = "app";
/// `db_server`.
pub const DB_SERVER: &str = "db_server";
/// `db_service`.
pub const DB_SERVICE: &str = "db_service";
/// `db`.
pub const DB: &str = "db";
/// `db_object_import_rule`.
pub const DB_OBJECT_IMPORT_RULE: &str = "db_object_import_rule";
/// `db_object`.
pub const DB_OBJECT: &str = "db_object";
/// `kube_server`.
pub const KUBE_SERVER: &str = "kube_server";
/// `crown_jewel`.
pub const CROWN_JEWEL: &str = "crown_jewel";
/// `kube_cluster`.
pub const KUBE_CLUSTER: &str = "kube_cluster";
/// `token`.
pub const TOKEN: &str = "token";
/// `cert_authority`.
pub const CERT_AUTHORITY: &str = "cert_authority";
/// `tunnel`.
pub const TUNNEL: &str = "tunnel";
/// `connectors`.
pub const CONNECTORS: &str = "connectors";
/// `cluster_auth_preference`.
pub const CLUSTER_AUTH_PREFERENCE: &str = "cluster_auth_preference";
/// `session_recording_config`.
pub const SESSION_RECORDING_CONFIG: &str = "session_recording_config";
/// `external_audit_storage`.
pub const EXTERNAL_AUDIT_STORAGE: &str = "external_audit_storage";
/// `cluster_config`.
pub const CLUSTER_CONFIG: &str = "cluster_config";
/// `cluster_audit_config`.
pub const CLUSTER_AUDIT_CONFIG: &str = "cluster_audit_config";
/// `cluster_networking_config`.
pub const CLUSTER_NETWORKING_CONFIG: &str = "cluster_networking_config";
/// `semaphore`.
pub const SEMAPHORE: &str = "semaphore";
/// `cluster_name`.
pub const CLUSTER_NAME: &str = "cluster_name";
/// `static_tokens`.
pub const STATIC_TOKENS: &str = "static_tokens";
/// `trusted_cluster`.
pub const TRUSTED_CLUSTER: &str = "trusted_cluster";
/// `auth_connector`.
pub const AUTH_CONNECTOR: &str = "auth_connector";
/// `tunnel_connection`.
pub const TUNNEL_CONNECTION: &str = "tunnel_connection";
/// `remote_cluster`.
pub const REMOTE_CLUSTER: &str = "remote_cluster";
/// `user_token`.
pub const USER_TOKEN: &str = "user_token";
/// `identity`.
pub const IDENTITY: &str = "identity";
/// `state`.
pub const STATE: &str = "state";
/// `mfa_device`.
pub const MFA_DEVICE: &str = "mfa_device";
/// `billing`.
pub const BILLING: &str = "billing";
/// `lock`.
pub const LOCK: &str = "lock";
/// `network_restrictions`.
pub const NETWORK_RESTRICTIONS: &str = "network_restrictions";
/// `windows_desktop_service`.
pub const WINDOWS_DESKTOP_SERVICE: &str = "windows_desktop_service";
/// `windows_desktop`.
pub const WINDOWS_DESKTOP: &str = "windows_desktop";
/// `recovery_codes`.
pub const RECOVERY_CODES: &str = "recovery_codes";
/// `session_tracker`.
pub const SESSION_TRACKER: &str = "session_tracker";
/// `connection_diagnostic`.
pub const CONNECTION_DIAGNOSTIC: &str = "connection_diagnostic";
/// `database_certificate`.
pub const DATABASE_CERTIFICATE: &str = "database_certificate";
/// `installer`.
pub const INSTALLER: &str = "installer";
/// `ui_config`.
pub const UI_CONFIG: &str = "ui_config";
/// `cluster_alert`.
pub const CLUSTER_ALERT: &str = "cluster_alert";
/// `device`.
pub const DEVICE: &str = "device";
/// `download`.
pub const DOWNLOAD: &str = "download";
/// `usage_event`.
pub const USAGE_EVENT: &str = "usage_event";
/// `instance`.
pub const INSTANCE: &str = "instance";
/// `login_rule`.
pub const LOGIN_RULE: &str = "login_rule";
/// `plugin`.
pub const PLUGIN: &str = "plugin";
/// `saml_idp_service_provider`.
pub const SAML_IDP_SERVICE_PROVIDER: &str = "saml_idp_service_provider";
/// `user_group`.
pub const USER_GROUP: &str = "user_group";
/// `okta_import_rule`.
pub const OKTA_IMPORT_RULE: &str = "okta_import_rule";
/// `okta_assignment`.
pub const OKTA_ASSIGNMENT: &str = "okta_assignment";
/// `headless_authentication`.
pub const HEADLESS_AUTHENTICATION: &str = "headless_authentication";
/// `access_graph`.
pub const ACCESS_GRAPH: &str = "access_graph";
/// `integration`.
pub const INTEGRATION: &str = "integration";
/// `cluster_maintenance_config`.
pub const CLUSTER_MAINTENANCE_CONFIG: &str = "cluster_maintenance_config";
/// `server_info`.
pub const SERVER_INFO: &str = "server_info";
/// `watch_status`.
pub const WATCH_STATUS: &str = "watch_status";
/// `access_list`.
pub const ACCESS_LIST: &str = "access_list";
/// `user_login_state`.
pub const USER_LOGIN_STATE: &str = "user_login_state";
/// `access_list_member`.
pub const ACCESS_LIST_MEMBER: &str = "access_list_member";
/// `access_list_review`.
pub const ACCESS_LIST_REVIEW: &str = "access_list_review";
/// `discovery_config`.
pub const DISCOVERY_CONFIG: &str = "discovery_config";
/// `audit_query`.
pub const AUDIT_QUERY: &str = "audit_query";
/// `security_report`.
pub const SECURITY_REPORT: &str = "security_report";
/// `security_report_state`.
pub const SECURITY_REPORT_STATE: &str = "security_report_state";
/// `notification`.
pub const NOTIFICATION: &str = "notification";
/// `global_notification`.
pub const GLOBAL_NOTIFICATION: &str = "global_notification";
/// `vnet_config`.
pub const VNET_CONFIG: &str = "vnet_config";
/// `access_graph_settings`.
pub const ACCESS_GRAPH_SETTINGS: &str = "access_graph_settings";
/// `static_host_user`.
pub const STATIC_HOST_USER: &str = "static_host_user";
/// `kube_ephemeral_container`.
pub const KUBE_EPHEMERAL_CONTAINER: &str = "kube_ephemeral_container";
/// `user_token_secrets`.
pub const USER_TOKEN_SECRETS: &str = "user_token_secrets";

/// `user_notification_state`: what a user did with a notification; no rule names it.
pub const USER_NOTIFICATION_STATE: &str = "user_notification_state";
/// `user_last_seen_notification`: when a user last looked; no rule names it.
pub const USER_LAST_SEEN_NOTIFICATION: &str = "user_last_seen_notification";

/// Every kind that the rules of a role can name, besides `*`.
pub const ALL: [&str; 104] = [
    NAMESPACE,
    USER,
    BOT,
    BOT_INSTANCE,
    HOST_CERT,
    JWT,
    LICENSE,
    ROLE,
    ACCESS_REQUEST,
    ACCESS_MONITORING_RULE,
    PLUGIN_DATA,
    ACCESS_PLUGIN_DATA,
    OIDC,
    SAML,
    GITHUB,
    OIDC_REQUEST,
    SAML_REQUEST,
    GITHUB_REQUEST,
    SESSION,
    SSH_SESSION,
    WEB_SESSION,
    WEB_TOKEN,
    APP_SESSION,
    SNOWFLAKE_SESSION,
    SAML_IDP_SESSION,
    EVENT,
    AUTH_SERVER,
    PROXY,
    NODE,
    UNIFIED_RESOURCE,
    APP_SERVER,
    APP,
    DB_SERVER,
    DB_SERVICE,
    DB,
    DB_OBJECT_IMPORT_RULE,
    DB_OBJECT,
    KUBE_SERVER,
    CROWN_JEWEL,
    KUBE_CLUSTER,
    TOKEN,
    CERT_AUTHORITY,
    TUNNEL,
    CONNECTORS,
    CLUSTER_AUTH_PREFERENCE,
    SESSION_RECORDING_CONFIG,
    EXTERNAL_AUDIT_STORAGE,
    CLUSTER_CONFIG,
    CLUSTER_AUDIT_CONFIG,
    CLUSTER_NETWORKING_CONFIG,
    SEMAPHORE,
    CLUSTER_NAME,
    STATIC_TOKENS,
    TRUSTED_CLUSTER,
    AUTH_CONNECTOR,
    TUNNEL_CONNECTION,
    REMOTE_CLUSTER,
    USER_TOKEN,
    IDENTITY,
    STATE,
    MFA_DEVICE,
    BILLING,
    LOCK,
    NETWORK_RESTRICTIONS,
    WINDOWS_DESKTOP_SERVICE,
    WINDOWS_DESKTOP,
    RECOVERY_CODES,
    SESSION_TRACKER,
    CONNECTION_DIAGNOSTIC,
    DATABASE_CERTIFICATE,
    INSTALLER,
    UI_CONFIG,
    CLUSTER_ALERT,
    DEVICE,
    DOWNLOAD,
    USAGE_EVENT,
    INSTANCE,
    LOGIN_RULE,
    PLUGIN,
    SAML_IDP_SERVICE_PROVIDER,
    USER_GROUP,
    OKTA_IMPORT_RULE,
    OKTA_ASSIGNMENT,
    HEADLESS_AUTHENTICATION,
    ACCESS_GRAPH,
    INTEGRATION,
    CLUSTER_MAINTENANCE_CONFIG,
    SERVER_INFO,
    WATCH_STATUS,
    ACCESS_LIST,
    USER_LOGIN_STATE,
    ACCESS_LIST_MEMBER,
    ACCESS_LIST_REVIEW,
    DISCOVERY_CONFIG,
    AUDIT_QUERY,
    SECURITY_REPORT,
    SECURITY_REPORT_STATE,
    NOTIFICATION,
    GLOBAL_NOTIFICATION,
    VNET_CONFIG,
    ACCESS_GRAPH_SETTINGS,
    STATIC_HOST_USER,
    KUBE_EPHEMERAL_CONTAINER,
    USER_TOKEN_SECRETS,
];

/// The actions that the rules of a role can name, besides `*`.
pub const VERBS: [&str; 10] =
    ["list", "create", "read", "readnosecrets", "update", "delete", "rotate", "create_enroll_token", "enroll", "use"];
