//! The kinds of resources that are stored: where they lie, and how they appear in watches.

use std::{any::Any, sync::Arc, sync::OnceLock};

use backend::{Item, Key};
use resources::Resource;
use wire::{
    error::{Error, Result},
    proto::event::Resource as EventResource,
    types,
};

use super::storage;

/// A kind of resource.
pub trait Kind: 'static {
    /// The message that holds such a resource.
    type Value: Resource;
    /// The name of the kind.
    const NAME: &'static str;
    /// Where such resources are stored.
    const PLACE: Template;
    /// Whether all of them are kept in memory.
    const CACHED: bool = true;
    /// Whether the name is a secret that messages must not repeat.
    const SECRET_NAME: bool = false;
    /// Whether decisions about access depend on it.
    const POLICY: bool = false;

    /// The resource as watches carry it; `None` for kinds that cannot be watched.
    fn event(_value: &Self::Value, _load_secrets: bool) -> Option<EventResource> {
        None
    }

    /// The storage key of a name.
    ///
    /// # Errors
    /// `BadParameter` when the name cannot be part of a key.
    fn key(name: &str) -> Result<Key> {
        Self::PLACE.key(name)
    }
}

/// How storage keys of a kind are built: `prefix`, then the parts of the name, then `suffix`.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    prefix: &'static str,
    /// How many parts the name has; 0 when the kind exists once.
    levels: usize,
    suffix: &'static str,
}

impl Template {
    const fn once(prefix: &'static str, suffix: &'static str) -> Self {
        Self { prefix, levels: 0, suffix }
    }
    const fn named(prefix: &'static str) -> Self {
        Self { prefix, levels: 1, suffix: "" }
    }
    const fn params(prefix: &'static str) -> Self {
        Self { prefix, levels: 1, suffix: "params" }
    }
    const fn two_part(prefix: &'static str) -> Self {
        Self { prefix, levels: 2, suffix: "" }
    }

    /// The prefix as a key.
    pub(crate) const fn root(&self) -> Key {
        Key::root(self.prefix)
    }

    fn key(&self, name: &str) -> Result<Key> {
        let mut key = self.root();
        if self.levels > 0 {
            let parts: Vec<&str> = if self.levels == 1 { vec![name] } else { name.splitn(self.levels, '/').collect() };
            if parts.len() != self.levels {
                return Err(Error::bad_parameter(format!("name {name:?} needs {} parts", self.levels)));
            }
            for part in parts {
                key = key.child(part).map_err(|e| storage(&e))?;
            }
        }
        if self.suffix.is_empty() { Ok(key) } else { key.child(self.suffix).map_err(|e| storage(&e)) }
    }

    /// Whether a key is one of this kind.
    pub(crate) fn matches(&self, key: &Key) -> bool {
        let suffix_levels = usize::from(!self.suffix.is_empty());
        let root = self.root();
        let Some(rest) = key.below(&root) else { return false };
        rest.split('/').count() == self.levels + suffix_levels
            && (self.suffix.is_empty() || rest.rsplit('/').next() == Some(self.suffix))
    }

    /// The name that a key of this kind stands for.
    pub(crate) fn name_in(&self, key: &Key) -> String {
        let root = self.root();
        let rest = key.below(&root).unwrap_or_default();
        rest.split('/').take(self.levels).collect::<Vec<_>>().join("/")
    }
}

/// What the untyped parts of the store need to know about a kind.
pub(crate) struct KindInfo {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) singleton: Option<&'static str>,
    pub(crate) place: Template,
    pub(crate) cached: bool,
    pub(crate) policy: bool,
    pub(crate) watchable: bool,
    pub(crate) decode: fn(&Item) -> Result<Arc<dyn Any + Send + Sync>>,
    pub(crate) event: fn(&(dyn Any + Send + Sync), bool) -> Option<EventResource>,
}

fn info<K: Kind>(watchable: bool) -> KindInfo {
    KindInfo {
        name: K::NAME,
        version: K::Value::VERSION,
        singleton: K::Value::SINGLETON,
        place: K::PLACE,
        cached: K::CACHED,
        policy: K::POLICY,
        watchable,
        decode: |item| Ok(Arc::new(decode::<K>(item)?)),
        event: |value, secrets| K::event(value.downcast_ref::<K::Value>()?, secrets),
    }
}

/// Reads a resource from storage; its expiry and revision are those of the item.
pub(crate) fn decode<K: Kind>(item: &Item) -> Result<K::Value> {
    let mut value: K::Value = super::from_json(K::NAME, item)?;
    value.set_defaults();
    value.set_expires(item.expires);
    value.set_revision(item.revision.clone());
    Ok(value)
}

/// Writes a resource for storage, without its revision.
pub(crate) fn encode<K: Kind>(value: &K::Value) -> Result<Item> {
    encode_at::<K>(key_of::<K>(value)?, value)
}

/// Writes a resource for storage under a key that is not the one of its place.
pub(crate) fn encode_at<K: Kind>(key: Key, value: &K::Value) -> Result<Item> {
    let expires = value.expires();
    let mut stored = value.clone();
    stored.set_defaults();
    stored.set_revision(String::new());
    let bytes = serde_json::to_vec(&stored).map_err(|e| Error::other(format!("{} cannot be stored: {e}", K::NAME)))?;
    Ok(Item::new(key, bytes).with_expires(expires))
}

/// The storage key of a resource.
pub(crate) fn key_of<K: Kind>(value: &K::Value) -> Result<Key> {
    let key = super::key_at(&value.place())?;
    if K::PLACE.matches(&key) {
        return Ok(key);
    }
    Err(Error::bad_parameter(format!("this is a {}, expected a {}", value.kind(), K::NAME)))
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $marker:ident : $value:ty, $name:literal, $place:expr, { $($body:tt)* };)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $marker;
            impl Kind for $marker {
                type Value = $value;
                const NAME: &'static str = $name;
                const PLACE: Template = $place;
                $($body)*
            }
        )*

        /// Every kind there is.
        pub(crate) fn all() -> &'static [KindInfo] {
            static ALL: OnceLock<Vec<KindInfo>> = OnceLock::new();
            ALL.get_or_init(|| vec![$(
                info::<$marker>($marker::event(&<$value>::default(), false).is_some()),
            )*])
        }
    };
}

macro_rules! event {
    ($variant:ident) => {
        fn event(value: &Self::Value, _load_secrets: bool) -> Option<EventResource> {
            Some(EventResource::$variant(Box::new(value.clone())))
        }
    };
}

const CONFIGURATION: &str = "/cluster_configuration";

kinds! {
    /// People and machines.
    User: types::UserV2, "user", Template::params("/web/users"), {
        const POLICY: bool = true;
        fn event(value: &types::UserV2, _: bool) -> Option<EventResource> {
            let mut public = value.clone();
            if let Some(spec) = &mut public.spec {
                spec.local_auth = None;
            }
            Some(EventResource::User(Box::new(public)))
        }
    };
    /// What people may do.
    Role: types::RoleV6, "role", Template::params("/roles"), { const POLICY: bool = true; event!(Role); };
    /// Authorities of this cluster and of those it trusts; named `type/cluster`.
    CertAuthority: types::CertAuthorityV2, "cert_authority", Template::two_part("/authorities"), {
        // Roles of users of other clusters follow from the map in their authority.
        const POLICY: bool = true;
        fn event(value: &types::CertAuthorityV2, load_secrets: bool) -> Option<EventResource> {
            let mut ca = value.clone();
            if !load_secrets {
                crate::authority::strip_secrets(&mut ca);
            }
            Some(EventResource::CertAuthority(Box::new(ca)))
        }
    };
    /// Authorities of clusters that are trusted, but not at the moment; named `type/cluster`. Nothing believes them.
    ParkedAuthority: types::CertAuthorityV2, "parked_cert_authority", Template::two_part("/parkedAuthorities"), {};
    /// Join tokens made at run time.
    Token: types::ProvisionTokenV2, "token", Template::named("/tokens"), {
        const SECRET_NAME: bool = true;
        event!(ProvisionToken);
    };
    /// Join tokens of the configuration file.
    StaticTokens: types::StaticTokensV2, "static_tokens", Template::once(CONFIGURATION, "static_tokens"), { event!(StaticTokens); };
    /// The name of the cluster.
    ClusterName: types::ClusterNameV2, "cluster_name", Template::once(CONFIGURATION, "name"), { event!(ClusterName); };
    /// Audit settings.
    AuditConfig: types::ClusterAuditConfigV2, "cluster_audit_config", Template::once(CONFIGURATION, "audit"), { event!(ClusterAuditConfig); };
    /// Networking settings.
    NetworkingConfig: types::ClusterNetworkingConfigV2, "cluster_networking_config", Template::once(CONFIGURATION, "networking"), {
        event!(ClusterNetworkingConfig);
    };
    /// Recording settings.
    RecordingConfig: types::SessionRecordingConfigV2, "session_recording_config", Template::once(CONFIGURATION, "session_recording"), {
        event!(SessionRecordingConfig);
    };
    /// Authentication settings.
    AuthPreference: types::AuthPreferenceV2, "cluster_auth_preference", Template::once("/authentication/preference", "general"), {
        const POLICY: bool = true;
        event!(AuthPreference);
    };
    /// The namespace.
    Namespace: types::Namespace, "namespace", Template::params("/namespaces"), { event!(Namespace); };
    /// SSH agents.
    Node: types::ServerV2, "node", Template::named("/nodes/default"), { event!(Server); };
    /// Auth Services.
    AuthServer: types::ServerV2, "auth_server", Template::named("/authservers"), { event!(Server); };
    /// Proxy Services.
    Proxy: types::ServerV2, "proxy", Template::named("/proxies"), { event!(Server); };
    /// Tunnels to other clusters.
    ReverseTunnel: types::ReverseTunnelV2, "tunnel", Template::named("/reverseTunnels"), { event!(ReverseTunnel); };
    /// Ends of tunnels at proxies; named `cluster/connection`.
    TunnelConnection: types::TunnelConnectionV2, "tunnel_connection", Template::two_part("/tunnelConnections"), { event!(TunnelConnection); };
    /// Clusters that trust this one.
    RemoteCluster: types::RemoteClusterV3, "remote_cluster", Template::named("/remoteClusters"), { event!(RemoteCluster); };
    /// Clusters that this one trusts.
    TrustedCluster: types::TrustedClusterV2, "trusted_cluster", Template::named("/trustedclusters"), {};
    /// Locks.
    Lock: types::LockV2, "lock", Template::named("/locks"), { const POLICY: bool = true; event!(Lock); };
    /// Network restrictions.
    NetworkRestrictions: types::NetworkRestrictionsV4, "network_restrictions", Template::once("/restrictions", "network"), {
        event!(NetworkRestrictions);
    };
    /// Access requests.
    AccessRequest: types::AccessRequestV3, "access_request", Template::params("/access_requests"), { event!(AccessRequest); };
    /// Sessions of the web interface.
    WebSession: types::WebSessionV2, "web_session", Template::named("/web/sessions"), {
        const CACHED: bool = false;
        const SECRET_NAME: bool = true;
        fn event(value: &types::WebSessionV2, load_secrets: bool) -> Option<EventResource> {
            let mut session = value.clone();
            if let (false, Some(spec)) = (load_secrets, &mut session.spec) {
                (spec.r#priv, spec.tls_priv) = (Vec::new(), Vec::new());
                spec.bearer_token = String::new();
            }
            Some(EventResource::WebSession(Box::new(session)))
        }
    };
    /// Sessions that are running.
    SessionTracker: types::SessionTrackerV1, "session_tracker", Template::named("/session_tracker"), {};
    /// Limits of what may be held at once; named `kind/name`.
    Semaphore: types::SemaphoreV3, "semaphore", Template::two_part("/semaphores"), {};
    /// Processes that reported themselves.
    Instance: types::InstanceV1, "instance", Template::named("/instances"), {};
    /// Messages for people.
    ClusterAlert: types::ClusterAlert, "cluster_alert", Template::named("/cluster-alerts"), {};
    /// GitHub connectors.
    GithubConnector: types::GithubConnectorV3, "github", Template::named("/web/connectors/github/connectors"), {};
    /// Invitations and resets.
    UserToken: types::UserTokenV3, "user_token", Template::params("/usertoken"), {
        const CACHED: bool = false;
        const SECRET_NAME: bool = true;
    };
    /// Secrets that wait for an invitation or reset to be accepted.
    UserTokenSecrets: types::UserTokenSecretsV3, "user_token_secrets", Template { prefix: "/usertoken", levels: 1, suffix: "secrets" }, {
        const CACHED: bool = false;
        const SECRET_NAME: bool = true;
    };
    /// OpenID Connect connectors.
    OidcConnector: types::OidcConnectorV3, "oidc", Template::named("/web/connectors/oidc/connectors"), {};
    /// SAML connectors.
    SamlConnector: types::SamlConnectorV2, "saml", Template::named("/web/connectors/saml/connectors"), {};
    /// Services that log people in with this cluster.
    SamlServiceProvider: types::SamlIdPServiceProviderV1, "saml_idp_service_provider", Template::named("/saml_idp_service_provider"), {
        event!(SamlIdPServiceProvider);
    };
    /// Applications that agents pick up by label.
    App: types::AppV3, "app", Template::named("/applications"), { event!(App); };
    /// Applications as agents serve them; named `host/application`.
    AppServer: types::AppServerV3, "app_server", Template::two_part("/appServers/default"), { event!(AppServer); };
    /// Groups of users.
    UserGroup: types::UserGroupV1, "user_group", Template::named("/user_group"), { event!(UserGroup); };
    /// Databases that agents pick up by label.
    Database: types::DatabaseV3, "db", Template::named("/db"), { event!(Database); };
    /// Databases as agents serve them; named `host/database`.
    DatabaseServer: types::DatabaseServerV3, "db_server", Template::two_part("/databaseServers/default"), { event!(DatabaseServer); };
    /// Agents that serve databases.
    DatabaseService: types::DatabaseServiceV1, "db_service", Template::named("/databaseService"), { event!(DatabaseService); };
    /// Objects found in databases.
    DatabaseObject: wire::dbobject::DatabaseObject, "db_object", Template::named("/databaseObjectPrefix"), { event!(DatabaseObject); };
    /// How objects found in databases get labels.
    DatabaseObjectImportRule: wire::dbobjectimportrule::DatabaseObjectImportRule, "db_object_import_rule",
        Template::named("/databaseObjectImportRulePrefix"), {};
    /// Kubernetes clusters that agents pick up by label.
    KubernetesCluster: types::KubernetesClusterV3, "kube_cluster", Template::named("/kubernetes"), { event!(KubernetesCluster); };
    /// Kubernetes clusters as agents serve them; named `host/cluster`.
    KubernetesServer: types::KubernetesServerV3, "kube_server", Template::two_part("/kubeServers"), { event!(KubernetesServer); };
    /// Windows desktops; named `host/desktop`.
    WindowsDesktop: types::WindowsDesktopV3, "windows_desktop", Template::two_part("/windowsDesktop"), { event!(WindowsDesktop); };
    /// Agents that serve Windows desktops.
    WindowsDesktopService: types::WindowsDesktopServiceV3, "windows_desktop_service", Template::named("/windowsDesktopServices"), {
        event!(WindowsDesktopService);
    };
    /// Labels that are given to servers.
    ServerInfo: types::ServerInfoV1, "server_info", Template::named("/serverInfos"), {};
    /// Scripts that install an agent.
    Installer: types::InstallerV1, "installer", Template::named("/cluster_configuration/scripts/installer"), { event!(Installer); };
    /// What people see in the web interface.
    UiConfig: types::UiConfigV1, "ui_config", Template::once(CONFIGURATION, "ui"), { event!(UiConfig); };
    /// When agents may be upgraded.
    MaintenanceConfig: types::ClusterMaintenanceConfigV1, "cluster_maintenance_config", Template::once(CONFIGURATION, "maintenance"), {};
    /// Settings of virtual networks.
    VnetConfig: wire::vnet::VnetConfig, "vnet_config", Template::once("/vnet_config", "config"), {};
    /// What discovery looks for.
    DiscoveryConfig: wire::discoveryconfig::DiscoveryConfig, "discovery_config", Template::named("/discovery_config"), {
        event!(DiscoveryConfig);
    };
    /// Integrations with clouds.
    Integration: types::IntegrationV1, "integration", Template::named("/integrations"), { event!(Integration); };
    /// How groups and applications of Okta get labels.
    OktaImportRule: types::OktaImportRuleV1, "okta_import_rule", Template::named("/okta_import_rule"), { event!(OktaImportRule); };
    /// Devices that can be trusted.
    Device: types::DeviceV1, "device", Template::named("/devices"), {};
    /// Accounts that servers keep.
    StaticHostUser: wire::userprovisioning::StaticHostUser, "static_host_user", Template::named("/static_host_user"), {};
    /// Running bots; named `bot/instance`.
    BotInstance: wire::machineid::BotInstance, "bot_instance", Template::two_part("/bot_instance"), { event!(BotInstance); };
    /// Access lists.
    AccessList: wire::accesslist::AccessList, "access_list", Template::named("/access_list"), { event!(AccessList); };
    /// Members of access lists; named `list/member`.
    AccessListMember: wire::accesslist::Member, "access_list_member", Template::two_part("/access_list_member"), {
        event!(AccessListMember);
    };
    /// Reviews of access lists; named `list/review`.
    AccessListReview: wire::accesslist::Review, "access_list_review", Template::two_part("/access_list_review"), {
        event!(AccessListReview);
    };
    /// What people had at their last login.
    UserLoginState: wire::userloginstate::UserLoginState, "user_login_state", Template::named("/user_login_state"), {
        event!(UserLoginState);
    };
    /// Rules about access requests.
    AccessMonitoringRule: wire::accessmonitoringrules::AccessMonitoringRule, "access_monitoring_rule",
        Template::named("/access_monitoring_rule"), { event!(AccessMonitoringRule); };
    /// What is most worth protecting.
    CrownJewel: wire::crownjewel::CrownJewel, "crown_jewel", Template::named("/crown_jewels"), { event!(CrownJewel); };
    /// Saved questions to the audit log.
    AuditQuery: wire::secreports::AuditQuery, "audit_query", Template::named("/security_report/audit_query"), { event!(AuditQuery); };
    /// Reports made of saved questions.
    SecurityReport: wire::secreports::Report, "security_report", Template::named("/security_report/report"), { event!(Report); };
    /// Notifications of single users; named `user/id`.
    UserNotification: wire::notifications::Notification, "notification", Template::two_part("/notifications/user"), {};
    /// Notifications of many users.
    GlobalNotification: wire::notifications::GlobalNotification, "global_notification", Template::named("/notifications/global"), {};
    /// What users did with notifications; named `user/id`.
    NotificationState: wire::notifications::UserNotificationState, "user_notification_state",
        Template::two_part("/notifications/states"), {};
    /// When users last looked at their notifications.
    LastSeenNotification: wire::notifications::UserLastSeenNotification, "user_last_seen_notification",
        Template::named("/notifications/last_seen"), {};
    /// What plugins remember about access requests.
    PluginData: types::PluginDataV3, "plugin_data", Template::params("/plugin_data/access_request"), {};
    /// Rules that make traits at login.
    LoginRule: wire::loginrule::LoginRule, "login_rule", Template::named("/login_rule"), {};
}
