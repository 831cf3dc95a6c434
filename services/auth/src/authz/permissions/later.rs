//! RPCs that have messages and no handler: what they belong to is not part of this build. They are refused by name,
//! so that whoever calls one learns what is missing; every other RPC without a row is unknown.

use Missing::{
    Applications, Bots, Databases, Desktops, DeviceTrust, Integrations, Kubernetes, Okta, SecurityKeys, SingleSignOn,
    WebInterface,
};

/// What an RPC belongs to that this build does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Access to web applications.
    Applications,
    /// Machine identity: what running bots say about themselves.
    Bots,
    /// Access to databases.
    Databases,
    /// Access to Windows desktops.
    Desktops,
    /// Enrolment and authentication of devices; their inventory is there.
    DeviceTrust,
    /// Credentials for clouds.
    Integrations,
    /// Access to Kubernetes clusters.
    Kubernetes,
    /// The synchronisation with Okta.
    Okta,
    /// Security keys: headless logins and presence in moderated sessions can be proved by nothing else.
    SecurityKeys,
    /// Single sign-on, and the rules about what it says of users.
    SingleSignOn,
    /// What only the web interface calls.
    WebInterface,
}

impl Missing {
    /// What is missing, for the answer.
    pub fn describe(self) -> &'static str {
        match self {
            Applications => "application access",
            Bots => "machine identity",
            Databases => "database access",
            Desktops => "desktop access",
            DeviceTrust => "device trust",
            Integrations => "cloud integrations",
            Kubernetes => "Kubernetes access",
            Okta => "the synchronisation with Okta",
            SecurityKeys => "security keys",
            SingleSignOn => "single sign-on",
            WebInterface => "this part of the web interface",
        }
    }
}

/// What an RPC belongs to, by its gRPC path; `None` for RPCs that are there or unknown.
pub fn missing(path: &str) -> Option<Missing> {
    NOT_BUILT.iter().find(|(_, paths)| paths.contains(&path)).map(|(of, _)| *of)
}

/// The table.
pub static NOT_BUILT: &[(Missing, &[&str])] = &[
    (
        Applications,
        &[
            "/proto.AuthService/CreateAppSession",
            "/proto.AuthService/DeleteAllAppSessions",
            "/proto.AuthService/DeleteAppSession",
            "/proto.AuthService/DeleteUserAppSessions",
            "/proto.AuthService/GenerateAppToken",
            "/proto.AuthService/GetAppSession",
            "/proto.AuthService/ListAppSessions",
        ],
    ),
    (Bots, &["/teleport.machineid.v1.BotInstanceService/SubmitHeartbeat"]),
    (
        Databases,
        &[
            "/proto.AuthService/CreateSnowflakeSession",
            "/proto.AuthService/DeleteAllSnowflakeSessions",
            "/proto.AuthService/DeleteSnowflakeSession",
            "/proto.AuthService/GenerateSnowflakeJWT",
            "/proto.AuthService/GetSnowflakeSession",
            "/proto.AuthService/GetSnowflakeSessions",
            "/proto.AuthService/SignDatabaseCSR",
        ],
    ),
    (Desktops, &["/proto.AuthService/GetDesktopBootstrapScript"]),
    (
        DeviceTrust,
        &[
            "/teleport.devicetrust.v1.DeviceTrustService/AuthenticateDevice",
            "/teleport.devicetrust.v1.DeviceTrustService/ConfirmDeviceWebAuthentication",
            "/teleport.devicetrust.v1.DeviceTrustService/CreateDeviceEnrollToken",
            "/teleport.devicetrust.v1.DeviceTrustService/EnrollDevice",
            "/teleport.devicetrust.v1.DeviceTrustService/GetDevicesUsage",
            "/teleport.devicetrust.v1.DeviceTrustService/UpdateDevice",
        ],
    ),
    (Integrations, &["/teleport.integration.v1.IntegrationService/GenerateAWSOIDCToken"]),
    (
        Kubernetes,
        &[
            "/teleport.kube.v1.KubeService/ListKubernetesResources",
            "/teleport.kubewaitingcontainer.v1.KubeWaitingContainersService/CreateKubernetesWaitingContainer",
            "/teleport.kubewaitingcontainer.v1.KubeWaitingContainersService/DeleteKubernetesWaitingContainer",
            "/teleport.kubewaitingcontainer.v1.KubeWaitingContainersService/GetKubernetesWaitingContainer",
            "/teleport.kubewaitingcontainer.v1.KubeWaitingContainersService/ListKubernetesWaitingContainers",
        ],
    ),
    (
        Okta,
        &[
            "/teleport.okta.v1.OktaService/CreateOktaAssignment",
            "/teleport.okta.v1.OktaService/DeleteAllOktaAssignments",
            "/teleport.okta.v1.OktaService/DeleteOktaAssignment",
            "/teleport.okta.v1.OktaService/GetOktaAssignment",
            "/teleport.okta.v1.OktaService/ListOktaAssignments",
            "/teleport.okta.v1.OktaService/UpdateOktaAssignment",
            "/teleport.okta.v1.OktaService/UpdateOktaAssignmentStatus",
        ],
    ),
    (
        SecurityKeys,
        &[
            "/proto.AuthService/GetHeadlessAuthentication",
            "/proto.AuthService/MaintainSessionPresence",
            "/proto.AuthService/UpdateHeadlessAuthenticationState",
            "/proto.AuthService/WatchPendingHeadlessAuthentications",
        ],
    ),
    (
        SingleSignOn,
        &[
            "/proto.AuthService/CreateGithubAuthRequest",
            "/proto.AuthService/CreateOIDCAuthRequest",
            "/proto.AuthService/CreateSAMLAuthRequest",
            "/proto.AuthService/GetGithubAuthRequest",
            "/proto.AuthService/GetOIDCAuthRequest",
            "/proto.AuthService/GetSAMLAuthRequest",
            "/proto.AuthService/GetSSODiagnosticInfo",
            "/teleport.loginrule.v1.LoginRuleService/TestLoginRule",
        ],
    ),
    (
        WebInterface,
        &[
            "/proto.AuthService/CreatePrivilegeToken",
            "/proto.AuthService/DeleteAllWebTokens",
            "/proto.AuthService/DeleteWebToken",
            "/proto.AuthService/GetWebToken",
            "/proto.AuthService/GetWebTokens",
        ],
    ),
];
