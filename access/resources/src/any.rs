use serde::Serialize;
use serde_json::Value;
use wire::types;

use crate::{Fields, Place, Resource, ResourceError, Result, kind, read};

macro_rules! any_resource {
    ($($(#[$doc:meta])* $variant:ident($type:ty): $($kind:path)|+;)*) => {
        /// A resource of any kind that has a shape in this build.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum AnyResource {
            $($(#[$doc])* $variant(Box<$type>),)*
        }

        $(impl From<$type> for AnyResource {
            fn from(value: $type) -> Self {
                Self::$variant(Box::new(value))
            }
        })*

        impl AnyResource {
            /// Reads a value of `kind`, without defaults and without checks.
            pub(crate) fn read(kind: &str, value: Value, fields: Fields) -> Result<Self> {
                match kind {
                    $($($kind)|+ => read::read::<$type>(value, fields).map(Self::from),)*
                    other => Err(unknown_kind(other)),
                }
            }

            /// The kind of the value.
            pub fn kind(&self) -> &str {
                match self { $(Self::$variant(r) => r.kind(),)* }
            }

            /// The variant of the kind, often empty.
            pub fn sub_kind(&self) -> &str {
                match self { $(Self::$variant(r) => r.sub_kind(),)* }
            }

            /// The version of the shape.
            pub fn version(&self) -> &str {
                match self { $(Self::$variant(r) => r.version(),)* }
            }

            /// Name, labels, expiry and revision.
            pub fn metadata(&self) -> &types::Metadata {
                match self { $(Self::$variant(r) => r.metadata(),)* }
            }

            /// The same, to change.
            pub fn metadata_mut(&mut self) -> &mut types::Metadata {
                match self { $(Self::$variant(r) => r.metadata_mut(),)* }
            }

            /// Where the value is stored.
            pub fn place(&self) -> Place {
                match self { $(Self::$variant(r) => r.place(),)* }
            }

            /// Kind and name for messages: `role "dev"`.
            pub fn title(&self) -> String {
                match self { $(Self::$variant(r) => r.title(),)* }
            }

            /// Fills the blanks, then checks.
            ///
            /// # Errors
            /// The first value that is refused, with the kind and the name of the resource.
            pub fn check_and_set_defaults(&mut self) -> Result<()> {
                match self { $(Self::$variant(r) => r.check_and_set_defaults(),)* }
            }
        }

        const KNOWN: &[&str] = &[$($($kind),+),*];
    };
}

any_resource! {
    /// An account.
    User(types::UserV2): kind::USER;
    /// A set of permissions.
    Role(types::RoleV6): kind::ROLE;
    /// A join token.
    Token(types::ProvisionTokenV2): kind::TOKEN;
    /// The join tokens of the configuration file.
    StaticTokens(types::StaticTokensV2): kind::STATIC_TOKENS;
    /// An SSH agent, an Auth Service or a Proxy Service.
    Server(types::ServerV2): kind::NODE | kind::PROXY | kind::AUTH_SERVER;
    /// An authority.
    CertAuthority(types::CertAuthorityV2): kind::CERT_AUTHORITY;
    /// The name of the cluster.
    ClusterName(types::ClusterNameV2): kind::CLUSTER_NAME;
    /// The authentication settings.
    AuthPreference(types::AuthPreferenceV2): kind::CLUSTER_AUTH_PREFERENCE;
    /// The networking settings.
    NetworkingConfig(types::ClusterNetworkingConfigV2): kind::CLUSTER_NETWORKING_CONFIG;
    /// The session recording settings.
    SessionRecordingConfig(types::SessionRecordingConfigV2): kind::SESSION_RECORDING_CONFIG;
    /// The audit settings.
    AuditConfig(types::ClusterAuditConfigV2): kind::CLUSTER_AUDIT_CONFIG;
    /// A lock.
    Lock(types::LockV2): kind::LOCK;
    /// A namespace.
    Namespace(types::Namespace): kind::NAMESPACE;
    /// A cluster that trusts this one.
    RemoteCluster(types::RemoteClusterV3): kind::REMOTE_CLUSTER;
    /// A cluster that this one trusts.
    TrustedCluster(types::TrustedClusterV2): kind::TRUSTED_CLUSTER;
    /// A tunnel to another cluster.
    ReverseTunnel(types::ReverseTunnelV2): kind::TUNNEL;
    /// The end of a tunnel at a proxy.
    TunnelConnection(types::TunnelConnectionV2): kind::TUNNEL_CONNECTION;
    /// Addresses sessions may or may not connect to.
    NetworkRestrictions(types::NetworkRestrictionsV4): kind::NETWORK_RESTRICTIONS;
    /// A running session.
    SessionTracker(types::SessionTrackerV1): kind::SESSION_TRACKER;
    /// A session of the web interface or of an application.
    WebSession(types::WebSessionV2): kind::WEB_SESSION | kind::APP_SESSION | kind::SNOWFLAKE_SESSION | kind::SAML_IDP_SESSION;
    /// A bearer token of a web session.
    WebToken(types::WebTokenV3): kind::WEB_TOKEN;
    /// An invitation or a reset.
    UserToken(types::UserTokenV3): kind::USER_TOKEN;
    /// The secrets of an invitation or a reset.
    UserTokenSecrets(types::UserTokenSecretsV3): kind::USER_TOKEN_SECRETS;
    /// A semaphore.
    Semaphore(types::SemaphoreV3): kind::SEMAPHORE;
    /// A process of the inventory.
    Instance(types::InstanceV1): kind::INSTANCE;
    /// An access request.
    AccessRequest(types::AccessRequestV3): kind::ACCESS_REQUEST;
    /// A GitHub connector.
    GithubConnector(types::GithubConnectorV3): kind::GITHUB;
    /// A message for everybody.
    ClusterAlert(types::ClusterAlert): kind::CLUSTER_ALERT;
    /// An OpenID Connect connector.
    OidcConnector(types::OidcConnectorV3): kind::OIDC;
    /// A SAML connector.
    SamlConnector(types::SamlConnectorV2): kind::SAML;
    /// A service that logs people in with this cluster.
    SamlServiceProvider(types::SamlIdPServiceProviderV1): kind::SAML_IDP_SERVICE_PROVIDER;
    /// An application that agents pick up by label.
    App(types::AppV3): kind::APP;
    /// An application as an agent serves it.
    AppServer(types::AppServerV3): kind::APP_SERVER;
    /// A group of users.
    UserGroup(types::UserGroupV1): kind::USER_GROUP;
    /// A database that agents pick up by label.
    Database(types::DatabaseV3): kind::DB;
    /// A database as an agent serves it.
    DatabaseServer(types::DatabaseServerV3): kind::DB_SERVER;
    /// An agent that serves databases.
    DatabaseService(types::DatabaseServiceV1): kind::DB_SERVICE;
    /// An object found in a database.
    DatabaseObject(wire::dbobject::DatabaseObject): kind::DB_OBJECT;
    /// How objects found in databases get labels.
    DatabaseObjectImportRule(wire::dbobjectimportrule::DatabaseObjectImportRule): kind::DB_OBJECT_IMPORT_RULE;
    /// A Kubernetes cluster that agents pick up by label.
    KubernetesCluster(types::KubernetesClusterV3): kind::KUBE_CLUSTER;
    /// A Kubernetes cluster as an agent serves it.
    KubernetesServer(types::KubernetesServerV3): kind::KUBE_SERVER;
    /// A Windows desktop.
    WindowsDesktop(types::WindowsDesktopV3): kind::WINDOWS_DESKTOP;
    /// An agent that serves Windows desktops.
    WindowsDesktopService(types::WindowsDesktopServiceV3): kind::WINDOWS_DESKTOP_SERVICE;
    /// Labels that are given to a server.
    ServerInfo(types::ServerInfoV1): kind::SERVER_INFO;
    /// A script that installs an agent.
    Installer(types::InstallerV1): kind::INSTALLER;
    /// What people see in the web interface.
    UiConfig(types::UiConfigV1): kind::UI_CONFIG;
    /// When agents may be upgraded.
    MaintenanceConfig(types::ClusterMaintenanceConfigV1): kind::CLUSTER_MAINTENANCE_CONFIG;
    /// Settings of virtual networks.
    VnetConfig(wire::vnet::VnetConfig): kind::VNET_CONFIG;
    /// What discovery looks for.
    DiscoveryConfig(wire::discoveryconfig::DiscoveryConfig): kind::DISCOVERY_CONFIG;
    /// An integration with a cloud.
    Integration(types::IntegrationV1): kind::INTEGRATION;
    /// How groups and applications of Okta get labels.
    OktaImportRule(types::OktaImportRuleV1): kind::OKTA_IMPORT_RULE;
    /// A device that can be trusted.
    Device(types::DeviceV1): kind::DEVICE;
    /// An account that servers keep.
    StaticHostUser(wire::userprovisioning::StaticHostUser): kind::STATIC_HOST_USER;
    /// A bot.
    Bot(wire::machineid::Bot): kind::BOT;
    /// A running bot.
    BotInstance(wire::machineid::BotInstance): kind::BOT_INSTANCE;
    /// An access list.
    AccessList(wire::accesslist::AccessList): kind::ACCESS_LIST;
    /// A member of an access list.
    AccessListMember(wire::accesslist::Member): kind::ACCESS_LIST_MEMBER;
    /// A review of an access list.
    AccessListReview(wire::accesslist::Review): kind::ACCESS_LIST_REVIEW;
    /// What somebody had at the last login.
    UserLoginState(wire::userloginstate::UserLoginState): kind::USER_LOGIN_STATE;
    /// A rule about access requests.
    AccessMonitoringRule(wire::accessmonitoringrules::AccessMonitoringRule): kind::ACCESS_MONITORING_RULE;
    /// What is most worth protecting.
    CrownJewel(wire::crownjewel::CrownJewel): kind::CROWN_JEWEL;
    /// A saved question to the audit log.
    AuditQuery(wire::secreports::AuditQuery): kind::AUDIT_QUERY;
    /// A report made of saved questions.
    SecurityReport(wire::secreports::Report): kind::SECURITY_REPORT;
    /// A rule that makes traits at login.
    LoginRule(wire::loginrule::LoginRule): kind::LOGIN_RULE;
}

/// Whether a kind has a shape in this build.
pub(crate) fn known_kind(kind: &str) -> bool {
    KNOWN.contains(&kind)
}

/// The refusal of a kind, with the nearest one that exists.
pub(crate) fn unknown_kind(kind: &str) -> ResourceError {
    let hint = match read::nearest(kind, KNOWN.iter().copied()) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => String::new(),
    };
    ResourceError::UnknownKind { kind: kind.to_owned(), hint }
}
