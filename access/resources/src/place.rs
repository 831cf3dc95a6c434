/// Where a resource is stored: a constant prefix and the parts below it.
///
/// The prefix is written in the code and trusted; the parts come from outside and have to be checked by the
/// storage when the key is built.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Such as `/roles`.
    pub prefix: &'static str,
    /// Such as `["dev", "params"]`.
    pub parts: Vec<String>,
}

impl Place {
    /// A place from its prefix and the parts below.
    pub fn new<const N: usize>(prefix: &'static str, parts: [&str; N]) -> Self {
        Self { prefix, parts: parts.iter().map(|p| (*p).to_owned()).collect() }
    }

    /// The whole key as text: `/roles/dev/params`. The parts are not checked.
    pub fn path(&self) -> String {
        self.parts.iter().fold(self.prefix.to_owned(), |path, part| path + "/" + part)
    }
}

/// Prefixes of the key space, and the places of things that are found by name.
pub mod places {
    use super::Place;

    /// Users and what belongs to them.
    pub const USERS: &str = "/web/users";
    /// Roles.
    pub const ROLES: &str = "/roles";
    /// Join tokens.
    pub const TOKENS: &str = "/tokens";
    /// Authorities in use.
    pub const AUTHORITIES: &str = "/authorities";
    /// Authorities of trusted clusters that are disabled.
    pub const DEACTIVATED_AUTHORITIES: &str = "/authorities/deactivated";
    /// SSH agents of the only namespace.
    pub const NODES: &str = "/nodes/default";
    /// Auth Services.
    pub const AUTH_SERVERS: &str = "/authservers";
    /// Proxy Services.
    pub const PROXIES: &str = "/proxies";
    /// Locks of this cluster; those of another lie below its name.
    pub const LOCKS: &str = "/locks";
    /// Namespaces.
    pub const NAMESPACES: &str = "/namespaces";
    /// Clusters that this one trusts.
    pub const TRUSTED_CLUSTERS: &str = "/trustedclusters";
    /// Clusters that trust this one.
    pub const REMOTE_CLUSTERS: &str = "/remoteClusters";
    /// Tunnels to other clusters.
    pub const REVERSE_TUNNELS: &str = "/reverseTunnels";
    /// Ends of tunnels at proxies.
    pub const TUNNEL_CONNECTIONS: &str = "/tunnelConnections";
    /// Settings of the cluster that exist once.
    pub const CLUSTER_CONFIGURATION: &str = "/cluster_configuration";
    /// The authentication settings.
    pub const AUTH_PREFERENCE: &str = "/authentication/preference";
    /// Network restrictions.
    pub const RESTRICTIONS: &str = "/restrictions";
    /// Sessions that are running.
    pub const SESSION_TRACKERS: &str = "/session_tracker";
    /// Sessions of the web interface.
    pub const WEB_SESSIONS: &str = "/web/sessions";
    /// Sessions of applications.
    pub const APP_SESSIONS: &str = "/apps/sessions";
    /// Sessions of Snowflake databases.
    pub const SNOWFLAKE_SESSIONS: &str = "/snowflake/sessions";
    /// Sessions of the SAML identity provider.
    pub const SAML_IDP_SESSIONS: &str = "/saml_idp/sessions";
    /// Bearer tokens of web sessions.
    pub const WEB_TOKENS: &str = "/web/tokens";
    /// Invitations and resets.
    pub const USER_TOKENS: &str = "/usertoken";
    /// Semaphores.
    pub const SEMAPHORES: &str = "/semaphores";
    /// The inventory.
    pub const INSTANCES: &str = "/instances";
    /// Access requests.
    pub const ACCESS_REQUESTS: &str = "/access_requests";
    /// GitHub connectors.
    pub const GITHUB_CONNECTORS: &str = "/web/connectors/github/connectors";
    /// Cluster alerts.
    pub const CLUSTER_ALERTS: &str = "/cluster-alerts";

    /// Applications that agents pick up by label.
    pub const APPS: &str = "/applications";
    /// Applications that agents serve.
    pub const APP_SERVERS: &str = "/appServers/default";
    /// Groups of users, from an identity provider.
    pub const USER_GROUPS: &str = "/user_group";
    /// Databases that agents pick up by label.
    pub const DATABASES: &str = "/db";
    /// Databases that agents serve.
    pub const DATABASE_SERVERS: &str = "/databaseServers/default";
    /// Agents that serve databases.
    pub const DATABASE_SERVICES: &str = "/databaseService";
    /// Objects found in databases.
    pub const DATABASE_OBJECTS: &str = "/databaseObjectPrefix";
    /// How objects found in databases get labels.
    pub const DATABASE_OBJECT_IMPORT_RULES: &str = "/databaseObjectImportRulePrefix";
    /// Kubernetes clusters that agents pick up by label.
    pub const KUBERNETES_CLUSTERS: &str = "/kubernetes";
    /// Kubernetes clusters that agents serve.
    pub const KUBERNETES_SERVERS: &str = "/kubeServers";
    /// Ephemeral containers that wait for a moderator.
    pub const KUBERNETES_WAITING_CONTAINERS: &str = "/k8s_waiting_container";
    /// Windows desktops.
    pub const WINDOWS_DESKTOPS: &str = "/windowsDesktop";
    /// Agents that serve Windows desktops.
    pub const WINDOWS_DESKTOP_SERVICES: &str = "/windowsDesktopServices";
    /// OpenID Connect connectors.
    pub const OIDC_CONNECTORS: &str = "/web/connectors/oidc/connectors";
    /// SAML connectors.
    pub const SAML_CONNECTORS: &str = "/web/connectors/saml/connectors";
    /// Services that log people in with this cluster.
    pub const SAML_SERVICE_PROVIDERS: &str = "/saml_idp_service_provider";
    /// Access lists.
    pub const ACCESS_LISTS: &str = "/access_list";
    /// Members of access lists.
    pub const ACCESS_LIST_MEMBERS: &str = "/access_list_member";
    /// Reviews of access lists.
    pub const ACCESS_LIST_REVIEWS: &str = "/access_list_review";
    /// What plugins remember about access requests.
    pub const PLUGIN_DATA: &str = "/plugin_data/access_request";
    /// Notifications of single users.
    pub const USER_NOTIFICATIONS: &str = "/notifications/user";
    /// Notifications of many users.
    pub const GLOBAL_NOTIFICATIONS: &str = "/notifications/global";
    /// What users did with their notifications.
    pub const NOTIFICATION_STATES: &str = "/notifications/states";
    /// When users last looked at their notifications.
    pub const LAST_SEEN_NOTIFICATIONS: &str = "/notifications/last_seen";
    /// What people had at their last login.
    pub const USER_LOGIN_STATES: &str = "/user_login_state";
    /// Labels that are given to servers.
    pub const SERVER_INFOS: &str = "/serverInfos";
    /// Scripts that install an agent.
    pub const INSTALLERS: &str = "/cluster_configuration/scripts/installer";
    /// Settings of virtual networks.
    pub const VNET: &str = "/vnet_config";
    /// What discovery looks for.
    pub const DISCOVERY_CONFIGS: &str = "/discovery_config";
    /// Integrations with clouds.
    pub const INTEGRATIONS: &str = "/integrations";
    /// How groups and applications of Okta get labels.
    pub const OKTA_IMPORT_RULES: &str = "/okta_import_rule";
    /// Devices that are trusted.
    pub const DEVICES: &str = "/devices";
    /// Accounts that servers keep.
    pub const STATIC_HOST_USERS: &str = "/static_host_user";
    /// Bots; each is stored as a user and a role, so nothing lies here.
    pub const BOTS: &str = "/bots";
    /// Running bots.
    pub const BOT_INSTANCES: &str = "/bot_instance";
    /// Rules about access requests.
    pub const ACCESS_MONITORING_RULES: &str = "/access_monitoring_rule";
    /// What is most worth protecting.
    pub const CROWN_JEWELS: &str = "/crown_jewels";
    /// Saved questions to the audit log.
    pub const AUDIT_QUERIES: &str = "/security_report/audit_query";
    /// Reports made of saved questions.
    pub const SECURITY_REPORTS: &str = "/security_report/report";
    /// Rules that make traits at login.
    pub const LOGIN_RULES: &str = "/login_rule";

    /// A user.
    pub fn user(name: &str) -> Place {
        Place::new(USERS, [name, "params"])
    }

    /// The hash of a user's password.
    pub fn password_hash(user: &str) -> Place {
        Place::new(USERS, [user, "pwd"])
    }

    /// The one-time code a user used last.
    pub fn used_totp(user: &str) -> Place {
        Place::new(USERS, [user, "used_totp"])
    }

    /// A second factor of a user.
    pub fn mfa_device(user: &str, id: &str) -> Place {
        Place::new(USERS, [user, "mfa", id])
    }

    /// A failed login of a user.
    pub fn login_attempt(user: &str, id: &str) -> Place {
        Place::new(USERS, [user, "attempts", id])
    }

    /// A role.
    pub fn role(name: &str) -> Place {
        Place::new(ROLES, [name, "params"])
    }

    /// A join token.
    pub fn token(name: &str) -> Place {
        Place::new(TOKENS, [name])
    }

    /// The tokens of the configuration file.
    pub fn static_tokens() -> Place {
        Place::new(CLUSTER_CONFIGURATION, ["static_tokens"])
    }

    /// An authority of a type (`user`, `host`, …) and a cluster.
    pub fn authority(ca_type: &str, cluster: &str) -> Place {
        Place::new(AUTHORITIES, [ca_type, cluster])
    }

    /// An authority that is not trusted at the moment.
    pub fn deactivated_authority(ca_type: &str, cluster: &str) -> Place {
        Place::new(DEACTIVATED_AUTHORITIES, [ca_type, cluster])
    }

    /// An SSH agent.
    pub fn node(id: &str) -> Place {
        Place::new(NODES, [id])
    }

    /// A lock of this cluster.
    pub fn lock(name: &str) -> Place {
        Place::new(LOCKS, [name])
    }

    /// A lock that another cluster announced.
    pub fn remote_lock(cluster: &str, name: &str) -> Place {
        Place::new(LOCKS, [cluster, name])
    }

    /// The name of the cluster.
    pub fn cluster_name() -> Place {
        Place::new(CLUSTER_CONFIGURATION, ["name"])
    }

    /// The audit settings.
    pub fn cluster_audit_config() -> Place {
        Place::new(CLUSTER_CONFIGURATION, ["audit"])
    }

    /// The networking settings.
    pub fn cluster_networking_config() -> Place {
        Place::new(CLUSTER_CONFIGURATION, ["networking"])
    }

    /// The session recording settings.
    pub fn session_recording_config() -> Place {
        Place::new(CLUSTER_CONFIGURATION, ["session_recording"])
    }

    /// The authentication settings.
    pub fn auth_preference() -> Place {
        Place::new(AUTH_PREFERENCE, ["general"])
    }

    /// A semaphore.
    pub fn semaphore(kind: &str, name: &str) -> Place {
        Place::new(SEMAPHORES, [kind, name])
    }

    /// A web session.
    pub fn web_session(id: &str) -> Place {
        Place::new(WEB_SESSIONS, [id])
    }

    /// A running session.
    pub fn session_tracker(id: &str) -> Place {
        Place::new(SESSION_TRACKERS, [id])
    }

    /// An invitation or reset.
    pub fn user_token(id: &str) -> Place {
        Place::new(USER_TOKENS, [id, "params"])
    }

    /// The secrets of an invitation or reset.
    pub fn user_token_secrets(id: &str) -> Place {
        Place::new(USER_TOKENS, [id, "secrets"])
    }

    /// An access request.
    pub fn access_request(id: &str) -> Place {
        Place::new(ACCESS_REQUESTS, [id, "params"])
    }

    /// A process of the inventory.
    pub fn instance(id: &str) -> Place {
        Place::new(INSTANCES, [id])
    }

    /// A cluster that trusts this one.
    pub fn remote_cluster(name: &str) -> Place {
        Place::new(REMOTE_CLUSTERS, [name])
    }

    /// A cluster that this one trusts.
    pub fn trusted_cluster(name: &str) -> Place {
        Place::new(TRUSTED_CLUSTERS, [name])
    }
}
