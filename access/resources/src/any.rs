use serde::Serialize;
use serde_json::Value;
use wire::types;

use crate::{Fields, Place, Resource, ResourceError, Result, kind, read};

macro_rules! any_resource {
    ($($(#[$doc:meta])* $variant:ident($type:ident): $($kind:path)|+;)*) => {
        /// A resource of any kind that has a shape in this build.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum AnyResource {
            $($(#[$doc])* $variant(Box<types::$type>),)*
        }

        $(impl From<types::$type> for AnyResource {
            fn from(value: types::$type) -> Self {
                Self::$variant(Box::new(value))
            }
        })*

        impl AnyResource {
            /// Reads a value of `kind`, without defaults and without checks.
            pub(crate) fn read(kind: &str, value: Value, fields: Fields) -> Result<Self> {
                match kind {
                    $($($kind)|+ => read::read::<types::$type>(value, fields).map(Self::from),)*
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
    User(UserV2): kind::USER;
    /// A set of permissions.
    Role(RoleV6): kind::ROLE;
    /// A join token.
    Token(ProvisionTokenV2): kind::TOKEN;
    /// The join tokens of the configuration file.
    StaticTokens(StaticTokensV2): kind::STATIC_TOKENS;
    /// An SSH agent, an Auth Service or a Proxy Service.
    Server(ServerV2): kind::NODE | kind::PROXY | kind::AUTH_SERVER;
    /// An authority.
    CertAuthority(CertAuthorityV2): kind::CERT_AUTHORITY;
    /// The name of the cluster.
    ClusterName(ClusterNameV2): kind::CLUSTER_NAME;
    /// The authentication settings.
    AuthPreference(AuthPreferenceV2): kind::CLUSTER_AUTH_PREFERENCE;
    /// The networking settings.
    NetworkingConfig(ClusterNetworkingConfigV2): kind::CLUSTER_NETWORKING_CONFIG;
    /// The session recording settings.
    SessionRecordingConfig(SessionRecordingConfigV2): kind::SESSION_RECORDING_CONFIG;
    /// The audit settings.
    AuditConfig(ClusterAuditConfigV2): kind::CLUSTER_AUDIT_CONFIG;
    /// A lock.
    Lock(LockV2): kind::LOCK;
    /// A namespace.
    Namespace(Namespace): kind::NAMESPACE;
    /// A cluster that trusts this one.
    RemoteCluster(RemoteClusterV3): kind::REMOTE_CLUSTER;
    /// A cluster that this one trusts.
    TrustedCluster(TrustedClusterV2): kind::TRUSTED_CLUSTER;
    /// A tunnel to another cluster.
    ReverseTunnel(ReverseTunnelV2): kind::TUNNEL;
    /// The end of a tunnel at a proxy.
    TunnelConnection(TunnelConnectionV2): kind::TUNNEL_CONNECTION;
    /// Addresses sessions may or may not connect to.
    NetworkRestrictions(NetworkRestrictionsV4): kind::NETWORK_RESTRICTIONS;
    /// A running session.
    SessionTracker(SessionTrackerV1): kind::SESSION_TRACKER;
    /// A session of the web interface or of an application.
    WebSession(WebSessionV2): kind::WEB_SESSION | kind::APP_SESSION | kind::SNOWFLAKE_SESSION | kind::SAML_IDP_SESSION;
    /// A bearer token of a web session.
    WebToken(WebTokenV3): kind::WEB_TOKEN;
    /// An invitation or a reset.
    UserToken(UserTokenV3): kind::USER_TOKEN;
    /// The secrets of an invitation or a reset.
    UserTokenSecrets(UserTokenSecretsV3): kind::USER_TOKEN_SECRETS;
    /// A semaphore.
    Semaphore(SemaphoreV3): kind::SEMAPHORE;
    /// A process of the inventory.
    Instance(InstanceV1): kind::INSTANCE;
    /// An access request.
    AccessRequest(AccessRequestV3): kind::ACCESS_REQUEST;
    /// A GitHub connector.
    GithubConnector(GithubConnectorV3): kind::GITHUB;
    /// A message for everybody.
    ClusterAlert(ClusterAlert): kind::CLUSTER_ALERT;
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
