//! What the parts of the cluster itself may do: one table, one row per system role.

use resources::{
    Resource, SystemRole,
    kind::{self, *},
};
use wire::{
    types::{RoleConditions, RoleSpecV6, RoleV6, Rule},
    wrappers::{LabelValues, StringValues},
};

use crate::{fields::LabelField, role::ParsedRole, role_set::RoleSet};

const RW: &[&str] = &["list", "create", "read", "update", "delete"];
const RO: &[&str] = &["list", "read"];
const NO_SECRETS: &[&str] = &["list", "readnosecrets"];
const USE: &[&str] = &["list", "read", "use"];
const CREATE: &[&str] = &["create"];
const ALL: &[&str] = &["*"];

/// The settings every service follows.
const SETTINGS: [&str; 6] = [
    CLUSTER_NAME,
    CLUSTER_AUDIT_CONFIG,
    CLUSTER_NETWORKING_CONFIG,
    SESSION_RECORDING_CONFIG,
    CLUSTER_AUTH_PREFERENCE,
    NETWORK_RESTRICTIONS,
];

/// What an agent reads besides, to decide about users and to find its way.
const AGENT_READS: [&str; 7] = [PROXY, USER, NAMESPACE, kind::ROLE, AUTH_SERVER, TUNNEL_CONNECTION, LOCK];

/// What one system role may do.
#[derive(Default)]
struct Grants {
    rules: Vec<Rule>,
    labels: Vec<LabelField>,
}

impl Grants {
    fn may(mut self, verbs: &[&str], kinds: &[&str]) -> Self {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let rule = |kind: &&str| Rule { resources: owned(&[kind]), verbs: owned(verbs), ..Default::default() };
        self.rules.extend(kinds.iter().map(rule));
        self
    }

    fn reach(mut self, fields: &[LabelField]) -> Self {
        self.labels.extend(fields);
        self
    }

    /// What every agent needs.
    fn agent(self) -> Self {
        self.may(RO, &SETTINGS).may(RO, &AGENT_READS).may(NO_SECRETS, &[CERT_AUTHORITY])
    }
}

fn grants(role: SystemRole) -> Grants {
    let none = Grants::default();
    match role {
        SystemRole::Admin | SystemRole::Auth => none.may(ALL, &["*"]).reach(&LabelField::ALL),
        SystemRole::Proxy => proxy(),
        SystemRole::Node => none
            .agent()
            .may(RW, &[NODE, SSH_SESSION, EVENT, TUNNEL, SEMAPHORE, CONNECTION_DIAGNOSTIC, SESSION_TRACKER])
            .may(RO, &[SESSION])
            .reach(&[LabelField::Node]),
        SystemRole::App => none
            .agent()
            .may(RW, &[EVENT, TUNNEL, APP_SERVER, JWT, SESSION_TRACKER])
            .may(RO, &[APP])
            .reach(&[LabelField::App]),
        SystemRole::Db => none
            .agent()
            .may(
                RW,
                &[EVENT, TUNNEL, DB_SERVER, DB_SERVICE, SEMAPHORE, CONNECTION_DIAGNOSTIC, DB_OBJECT, SESSION_TRACKER],
            )
            .may(RO, &[DB, DB_OBJECT_IMPORT_RULE])
            .reach(&[LabelField::Database, LabelField::DatabaseService]),
        SystemRole::Kube => none
            .agent()
            .may(RW, &[KUBE_SERVER, KUBE_EPHEMERAL_CONTAINER, EVENT, TUNNEL, SEMAPHORE, SESSION_TRACKER])
            .may(RO, &[KUBE_CLUSTER])
            .reach(&[LabelField::Kubernetes]),
        SystemRole::WindowsDesktop => none
            .agent()
            .may(RW, &[EVENT, TUNNEL, WINDOWS_DESKTOP_SERVICE, WINDOWS_DESKTOP, SESSION_TRACKER])
            .reach(&[LabelField::WindowsDesktop]),
        SystemRole::Discovery => none
            .may(RO, &SETTINGS)
            .may(RO, &[NAMESPACE, PROXY, KUBE_SERVER, DISCOVERY_CONFIG, INSTALLER])
            .may(NO_SECRETS, &[CERT_AUTHORITY])
            .may(RW, &[EVENT, NODE, KUBE_CLUSTER, DB, SERVER_INFO, APP, SEMAPHORE])
            .may(USE, &[INTEGRATION])
            .may(CREATE, &[USAGE_EVENT])
            .reach(&[LabelField::Node, LabelField::Kubernetes, LabelField::Database, LabelField::App]),
        SystemRole::Okta => none
            .agent()
            .may(RW, &[EVENT, TUNNEL, APP_SERVER, USER_GROUP, OKTA_IMPORT_RULE, OKTA_ASSIGNMENT, SEMAPHORE])
            .may(RO, &[ACCESS_LIST, ACCESS_LIST_MEMBER])
            .reach(&[LabelField::App, LabelField::Group]),
        SystemRole::Mdm => none.may(RO, &SETTINGS).may(NO_SECRETS, &[CERT_AUTHORITY]).may(RW, &[DEVICE]),
        SystemRole::AccessGraphPlugin => none
            .may(NO_SECRETS, &[CERT_AUTHORITY])
            .may(RO, &[NODE, USER, kind::ROLE, APP, DB, KUBE_CLUSTER, ACCESS_LIST]),
        SystemRole::RemoteProxy => remote_proxy(),
        SystemRole::Signup => none.may(RO, &[CLUSTER_AUTH_PREFERENCE]),
        SystemRole::Instance => none.agent(),
        SystemRole::Nop | SystemRole::ProvisionToken | SystemRole::TrustedCluster | SystemRole::Bot => none,
    }
}

/// A proxy reads what it routes to and shows, and writes what it keeps for browsers, tunnels and recordings.
fn proxy() -> Grants {
    Grants::default()
        .agent()
        .may(
            RO,
            &[
                NODE,
                APP,
                APP_SERVER,
                DB,
                DB_SERVER,
                DB_SERVICE,
                KUBE_CLUSTER,
                KUBE_SERVER,
                WINDOWS_DESKTOP,
                WINDOWS_DESKTOP_SERVICE,
                REMOTE_CLUSTER,
                TRUSTED_CLUSTER,
                SAML_IDP_SERVICE_PROVIDER,
                USER_GROUP,
                INTEGRATION,
                UI_CONFIG,
                INSTALLER,
                INSTANCE,
                AUDIT_QUERY,
                SECURITY_REPORT,
                SECURITY_REPORT_STATE,
                CLUSTER_MAINTENANCE_CONFIG,
                VNET_CONFIG,
                USER_LOGIN_STATE,
                KUBE_EPHEMERAL_CONTAINER,
                SESSION,
            ],
        )
        .may(NO_SECRETS, &[OIDC, SAML, GITHUB])
        .may(
            RW,
            &[
                PROXY,
                SSH_SESSION,
                EVENT,
                TUNNEL,
                TUNNEL_CONNECTION,
                SEMAPHORE,
                SESSION_TRACKER,
                WEB_SESSION,
                APP_SESSION,
                SNOWFLAKE_SESSION,
                SAML_IDP_SESSION,
                WEB_TOKEN,
                CONNECTION_DIAGNOSTIC,
                HEADLESS_AUTHENTICATION,
                OIDC_REQUEST,
                SAML_REQUEST,
                GITHUB_REQUEST,
                JWT,
            ],
        )
        .may(CREATE, &[HOST_CERT, USAGE_EVENT])
        .may(USE, &[INTEGRATION])
        .reach(&LabelField::ALL)
}

/// The proxy of a cluster that is trusted sees what its users can be routed to, and no secrets.
fn remote_proxy() -> Grants {
    Grants::default()
        .may(RO, &SETTINGS)
        .may(RO, &[NAMESPACE, NODE, PROXY, AUTH_SERVER, kind::ROLE, USER, LOCK, TUNNEL_CONNECTION, REMOTE_CLUSTER])
        .may(RO, &[APP_SERVER, DB_SERVER, KUBE_SERVER, WINDOWS_DESKTOP, WINDOWS_DESKTOP_SERVICE, INSTALLER])
        .may(NO_SECRETS, &[CERT_AUTHORITY])
        .reach(&LabelField::ALL)
}

/// What an identity with one system role may do.
pub fn builtin_role(role: SystemRole) -> RoleSet {
    builtin_roles(&[role])
}

/// What an identity with several system roles may do: everything that one of them may.
pub fn builtin_roles(roles: &[SystemRole]) -> RoleSet {
    RoleSet::bare(roles.iter().map(|role| ParsedRole::new(definition(*role))))
}

/// The row of the table as a role. Names of system roles are reserved, so no user's role can be taken for one.
fn definition(role: SystemRole) -> RoleV6 {
    let Grants { rules, labels } = grants(role);
    let any = || Some(LabelValues { values: [("*".to_owned(), StringValues { values: vec!["*".into()] })].into() });
    let mut allow = RoleConditions { rules, ..Default::default() };
    for field in labels {
        let slot = match field {
            LabelField::Node => &mut allow.node_labels,
            LabelField::App => &mut allow.app_labels,
            LabelField::Cluster => &mut allow.cluster_labels,
            LabelField::Kubernetes => &mut allow.kubernetes_labels,
            LabelField::Database => &mut allow.database_labels,
            LabelField::DatabaseService => &mut allow.database_service_labels,
            LabelField::WindowsDesktop => &mut allow.windows_desktop_labels,
            LabelField::Group => &mut allow.group_labels,
        };
        *slot = any();
    }
    let spec = RoleSpecV6 { allow: Some(allow), ..Default::default() };
    let mut definition = RoleV6 { version: "v7".into(), spec: Some(spec), ..Default::default() };
    definition.metadata_mut().name = role.name().to_owned();
    definition
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::RuleContext;

    fn may(role: SystemRole, verb: &str, kind: &str) -> bool {
        builtin_role(role).check_rule(kind, verb, &RuleContext::new()).is_allowed()
    }

    #[test]
    fn services_may_do_what_they_need_and_no_more() {
        use SystemRole::{Admin, App, Bot, Discovery, Node, Nop, ProvisionToken, Proxy, Signup};
        for (role, verb, kind, allowed) in [
            (Node, "create", NODE, true),
            (Node, "update", APP_SERVER, false),
            (Node, "readnosecrets", CERT_AUTHORITY, true),
            (Node, "read", CERT_AUTHORITY, false),
            (Node, "read", kind::ROLE, true),
            (Node, "update", kind::ROLE, false),
            (Node, "create", USER, false),
            (App, "create", JWT, true),
            (Proxy, "read", NODE, true),
            (Proxy, "create", NODE, false),
            (Proxy, "create", WEB_SESSION, true),
            (Proxy, "read", CERT_AUTHORITY, false),
            (Proxy, "read", TOKEN, false),
            (Proxy, "create", USER, false),
            (Discovery, "use", INTEGRATION, true),
            (Admin, "rotate", CERT_AUTHORITY, true),
            (Nop, "read", CLUSTER_NAME, false),
            (ProvisionToken, "read", CLUSTER_NAME, false),
            (Signup, "read", CLUSTER_AUTH_PREFERENCE, true),
            (Bot, "read", NODE, false),
        ] {
            assert_eq!(may(role, verb, kind), allowed, "{role} {verb} {kind}");
        }
    }

    #[test]
    fn an_instance_may_what_its_services_may() {
        let both = builtin_roles(&[SystemRole::Instance, SystemRole::Node, SystemRole::App]);
        let context = RuleContext::new();
        assert!(both.check_rule(NODE, "create", &context).is_allowed());
        assert!(both.check_rule(APP_SERVER, "create", &context).is_allowed());
        assert!(!both.check_rule(DB_SERVER, "create", &context).is_allowed());
    }
}
