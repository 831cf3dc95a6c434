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
