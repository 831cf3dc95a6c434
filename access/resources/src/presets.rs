//! The roles that every cluster has from the start, and the role that everybody has.

use std::collections::BTreeMap;

use wire::{
    types::{
        AccessRequestConditions, AccessReviewConditions, BoolValue, RecordSession, RoleConditions, RoleOptions,
        RoleSpecV6, RoleV6, Rule,
    },
    wrappers::{LabelValues, StringValues},
};

use crate::{
    Resource,
    kind::{self, *},
};

/// The label that tells roles of the system from roles that administrators made.
pub const RESOURCE_TYPE_LABEL: &str = "teleport.internal/resource-type";
/// Its value for preset roles.
pub const PRESET: &str = "preset";
/// Its value for roles that the cluster itself needs.
pub const SYSTEM: &str = "system";

/// The name of the role that everybody has and that no list shows.
pub const IMPLICIT_ROLE: &str = "default-implicit-role";

/// Reaches everything that the user's own traits allow.
pub const ACCESS: &str = "access";
/// Administers the cluster.
pub const EDITOR: &str = "editor";
/// Reads what happened.
pub const AUDITOR: &str = "auditor";

const RW: &[&str] = &["list", "create", "read", "update", "delete"];
const RO: &[&str] = &["list", "read"];
const HOUR: i64 = 3600 * 1_000_000_000;

/// The preset roles, with defaults filled.
pub fn roles() -> Vec<RoleV6> {
    vec![
        access(),
        editor(),
        auditor(),
        terraform_provider(),
        reviewer(),
        requester(),
        group_access(),
        device_admin(),
        device_enroll(),
        require_trusted_device(),
        access_approver(),
    ]
}

/// Whether a role is a preset that nobody replaced by a role of their own.
pub fn is_preset(role: &RoleV6) -> bool {
    role.metadata().labels.get(RESOURCE_TYPE_LABEL).is_some_and(|v| v == PRESET || v == SYSTEM)
}

/// Gives a stored preset role the rules that its present form has for kinds that the stored one does not mention.
/// Returns whether anything was added.
pub fn add_missing_rules(stored: &mut RoleV6) -> bool {
    let Some(preset) = roles().into_iter().find(|r| r.name() == stored.name()) else {
        return false;
    };
    if !is_preset(stored) {
        return false;
    }
    let spec = stored.spec.get_or_insert_default();
    let rules = |c: &Option<RoleConditions>| c.as_ref().map(|c| c.rules.clone()).unwrap_or_default();
    let named: Vec<String> =
        rules(&spec.allow).into_iter().chain(rules(&spec.deny)).flat_map(|rule| rule.resources).collect();
    let missing = rules(&preset.spec.unwrap_or_default().allow)
        .into_iter()
        .filter(|rule| rule.resources.iter().all(|resource| !named.contains(resource)))
        .collect::<Vec<_>>();
    let added = !missing.is_empty();
    spec.allow.get_or_insert_default().rules.extend(missing);
    added
}

/// The role that every set of roles ends with: what any user of a cluster needs to find their way.
pub fn implicit_role() -> RoleV6 {
    let mut rules: Vec<Rule> = [
        NODE,
        PROXY,
        AUTH_SERVER,
        TUNNEL,
        CLUSTER_AUTH_PREFERENCE,
        CLUSTER_NAME,
        SSH_SESSION,
        APP_SERVER,
        REMOTE_CLUSTER,
        KUBE_SERVER,
        DB_SERVER,
        DB,
        APP,
        WINDOWS_DESKTOP_SERVICE,
        WINDOWS_DESKTOP,
        KUBE_CLUSTER,
        VNET_CONFIG,
    ]
    .into_iter()
    .map(|kind| rule(kind, RO))
    .collect();
    rules.push(rule(CERT_AUTHORITY, &["list", "readnosecrets"]));
    rules.push(rule(USAGE_EVENT, &["create"]));
    let options = RoleOptions {
        max_session_ttl: i64::MAX,
        port_forwarding: boolean(false),
        record_session: Some(RecordSession { desktop: boolean(false), ..Default::default() }),
        ..Default::default()
    };
    // Version v3 opens applications and more to roles that name no labels; this one opens nothing.
    let nothing = || Some(LabelValues::default());
    let allow = RoleConditions {
        rules,
        node_labels: nothing(),
        app_labels: nothing(),
        kubernetes_labels: nothing(),
        database_labels: nothing(),
        ..Default::default()
    };
    role(IMPLICIT_ROLE, "v3", options, allow)
}

fn access() -> RoleV6 {
    let internal = |name: &str| vec![format!("{{{{internal.{name}}}}}")];
    let allow = RoleConditions {
        node_labels: any(),
        app_labels: any(),
        kubernetes_labels: any(),
        windows_desktop_labels: any(),
        database_labels: any(),
        database_service_labels: any(),
        logins: internal("logins"),
        windows_desktop_logins: internal("windows_logins"),
        kube_users: internal("kubernetes_users"),
        kube_groups: internal("kubernetes_groups"),
        database_names: internal("db_names"),
        database_users: internal("db_users"),
        database_roles: internal("db_roles"),
        aws_role_ar_ns: internal("aws_role_arns"),
        azure_identities: internal("azure_identities"),
        gcp_service_accounts: internal("gcp_service_accounts"),
        rules: vec![
            rule(EVENT, RO),
            Rule { r#where: "contains(session.participants, user.metadata.name)".into(), ..rule(SESSION, RO) },
            rule(INSTANCE, RO),
            rule(CLUSTER_MAINTENANCE_CONFIG, RO),
        ],
        ..Default::default()
    };
    described(preset(ACCESS, "v7", options(true), allow), "Access cluster resources")
}

fn editor() -> RoleV6 {
    let mut rules = rules(
        RW,
        &[
            USER,
            ROLE,
            BOT,
            CROWN_JEWEL,
            DB_OBJECT_IMPORT_RULE,
            OIDC,
            SAML,
            GITHUB,
            OIDC_REQUEST,
            SAML_REQUEST,
            GITHUB_REQUEST,
            CLUSTER_AUDIT_CONFIG,
            CLUSTER_AUTH_PREFERENCE,
            AUTH_CONNECTOR,
            CLUSTER_NAME,
            CLUSTER_NETWORKING_CONFIG,
            SESSION_RECORDING_CONFIG,
            EXTERNAL_AUDIT_STORAGE,
            UI_CONFIG,
            TRUSTED_CLUSTER,
            REMOTE_CLUSTER,
            TOKEN,
            CONNECTION_DIAGNOSTIC,
            DB,
            DATABASE_CERTIFICATE,
            INSTALLER,
            LOGIN_RULE,
            SAML_IDP_SERVICE_PROVIDER,
            USER_GROUP,
            PLUGIN,
            OKTA_IMPORT_RULE,
            OKTA_ASSIGNMENT,
            LOCK,
            BILLING,
            CLUSTER_ALERT,
            ACCESS_LIST,
            NODE,
            DISCOVERY_CONFIG,
            ACCESS_GRAPH,
            SERVER_INFO,
            ACCESS_MONITORING_RULE,
            APP_SERVER,
            VNET_CONFIG,
            BOT_INSTANCE,
            ACCESS_GRAPH_SETTINGS,
        ],
    );
    rules.push(device_rule());
    for kind in [INTEGRATION, SECURITY_REPORT, AUDIT_QUERY] {
        rules.push(rule(kind, &["list", "create", "read", "update", "delete", "use"]));
    }
    rules.extend([rule(DB_SERVICE, RO), rule(INSTANCE, RO)]);
    let allow = RoleConditions { rules, ..Default::default() };
    described(preset(EDITOR, "v7", options(false), allow), "Edit cluster configuration")
}

fn auditor() -> RoleV6 {
    let mut rules = rules(RO, &[SESSION, EVENT, SESSION_TRACKER, CLUSTER_ALERT, INSTANCE, BOT_INSTANCE]);
    rules.extend([SECURITY_REPORT, AUDIT_QUERY].map(|kind| rule(kind, &["list", "read", "use"])));
    let options = RoleOptions { record_session: desktop_recording(false), ..Default::default() };
    let allow = RoleConditions { rules, ..Default::default() };
    described(preset(AUDITOR, "v7", options, allow), "Review cluster events and replay sessions")
}

fn terraform_provider() -> RoleV6 {
    let allow = RoleConditions {
        app_labels: any(),
        database_labels: any(),
        node_labels: any(),
        rules: rules(
            RW,
            &[
                ACCESS_LIST,
                APP,
                CLUSTER_AUTH_PREFERENCE,
                CLUSTER_MAINTENANCE_CONFIG,
                CLUSTER_NETWORKING_CONFIG,
                DB,
                DEVICE,
                GITHUB,
                LOGIN_RULE,
                NODE,
                OIDC,
                OKTA_IMPORT_RULE,
                ROLE,
                SAML,
                SESSION_RECORDING_CONFIG,
                TOKEN,
                TRUSTED_CLUSTER,
                USER,
            ],
        ),
        ..Default::default()
    };
    described(preset("terraform-provider", "v7", RoleOptions::default(), allow), "Manage the cluster by Terraform")
}

fn reviewer() -> RoleV6 {
    let conditions = AccessReviewConditions {
        roles: names(&[ACCESS, "group-access"]),
        preview_as_roles: names(&[ACCESS, "group-access"]),
        ..Default::default()
    };
    let allow = RoleConditions { review_requests: Some(conditions), ..Default::default() };
    described(preset("reviewer", "v6", RoleOptions::default(), allow), "Review access requests")
}

fn requester() -> RoleV6 {
    let conditions =
        AccessRequestConditions { search_as_roles: names(&[ACCESS, "group-access"]), ..Default::default() };
    let allow = RoleConditions { request: Some(conditions), ..Default::default() };
    described(preset("requester", "v6", RoleOptions::default(), allow), "Request access to resources")
}

fn group_access() -> RoleV6 {
    let allow = RoleConditions { group_labels: any(), rules: rules(RO, &[USER_GROUP]), ..Default::default() };
    described(preset("group-access", "v6", RoleOptions::default(), allow), "Have access to all user groups")
}

fn device_admin() -> RoleV6 {
    let allow = RoleConditions { rules: vec![device_rule()], ..Default::default() };
    described(preset("device-admin", "v6", RoleOptions::default(), allow), "Administer trusted devices")
}

fn device_enroll() -> RoleV6 {
    let allow = RoleConditions { rules: vec![rule(DEVICE, &["enroll"])], ..Default::default() };
    described(preset("device-enroll", "v6", RoleOptions::default(), allow), "Enroll trusted devices")
}

fn require_trusted_device() -> RoleV6 {
    let options = RoleOptions { device_trust_mode: "required".into(), ..Default::default() };
    let allow = RoleConditions {
        logins: names(&["{{internal.logins}}"]),
        node_labels: any(),
        kubernetes_labels: any(),
        database_labels: any(),
        kube_groups: names(&["{{internal.kubernetes_groups}}", "system:masters", "developers", "viewers"]),
        database_names: names(&["*"]),
        database_users: names(&["*"]),
        ..Default::default()
    };
    described(preset("require-trusted-device", "v6", options, allow), "Require trusted devices for access")
}

fn access_approver() -> RoleV6 {
    let conditions = AccessReviewConditions { roles: names(&["*"]), ..Default::default() };
    let allow = RoleConditions { review_requests: Some(conditions), ..Default::default() };
    let mut approver = preset("@teleport-access-approver", "v7", RoleOptions::default(), allow);
    approver.metadata_mut().labels.insert(RESOURCE_TYPE_LABEL.into(), SYSTEM.into());
    described(approver, "Approves access requests by rules")
}

/// Options that `access` and `editor` share.
fn options(record_desktops: bool) -> RoleOptions {
    RoleOptions {
        certificate_format: "standard".into(),
        max_session_ttl: 30 * HOUR,
        port_forwarding: boolean(true),
        forward_agent: true,
        bpf: names(&["command", "network"]),
        record_session: desktop_recording(record_desktops),
        ..Default::default()
    }
}

fn desktop_recording(on: bool) -> Option<RecordSession> {
    Some(RecordSession { desktop: boolean(on), ..Default::default() })
}

fn boolean(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

fn any() -> Option<LabelValues> {
    Some(LabelValues { values: BTreeMap::from([("*".to_owned(), StringValues { values: names(&["*"]) })]) })
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|n| (*n).to_owned()).collect()
}

fn rule(kind: &str, verbs: &[&str]) -> Rule {
    Rule { resources: names(&[kind]), verbs: names(verbs), ..Default::default() }
}

fn rules(verbs: &[&str], kinds: &[&str]) -> Vec<Rule> {
    kinds.iter().map(|kind| rule(kind, verbs)).collect()
}

fn device_rule() -> Rule {
    rule(kind::DEVICE, &["list", "create", "read", "update", "delete", "create_enroll_token", "enroll"])
}

fn preset(name: &str, version: &str, options: RoleOptions, allow: RoleConditions) -> RoleV6 {
    let mut preset = role(name, version, options, allow);
    preset.metadata_mut().labels.insert(RESOURCE_TYPE_LABEL.into(), PRESET.into());
    preset
}

fn described(mut role: RoleV6, description: &str) -> RoleV6 {
    role.metadata_mut().description = description.into();
    role
}

fn role(name: &str, version: &str, options: RoleOptions, allow: RoleConditions) -> RoleV6 {
    let spec = RoleSpecV6 { options: Some(options), allow: Some(allow), deny: None };
    let mut role = RoleV6 { version: version.into(), spec: Some(spec), ..Default::default() };
    role.metadata_mut().name = name.into();
    role.set_defaults();
    role
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn presets_are_valid_and_complete() {
        for role in roles() {
            let mut again = role.clone();
            again.check_and_set_defaults().unwrap();
            assert_eq!(again, role, "defaults are filled already");
            assert!(is_preset(&role));
        }
    }

    #[test]
    fn the_implicit_role_opens_nothing() {
        let allow = implicit_role().spec.unwrap().allow.unwrap();
        for (field, labels) in crate::kinds::label_fields(&allow) {
            assert!(labels.as_ref().is_none_or(|l| l.values.is_empty()), "{field}");
        }
        assert!(allow.kubernetes_resources.is_empty());
        assert!(allow.logins.is_empty());
    }

    #[test]
    fn missing_rules_are_added_to_presets_only() {
        let mut old = auditor();
        let allow = old.spec.as_mut().unwrap().allow.as_mut().unwrap();
        allow.rules.retain(|rule| rule.resources != ["instance"]);
        let mut own = old.clone();
        assert!(add_missing_rules(&mut old));
        assert!(!add_missing_rules(&mut old));
        own.metadata_mut().labels.clear();
        assert!(!add_missing_rules(&mut own));
    }

    #[test]
    fn a_rule_that_an_administrator_changed_is_kept() {
        let mut changed = auditor();
        let allow = changed.spec.as_mut().unwrap().allow.as_mut().unwrap();
        allow.rules.iter_mut().find(|r| r.resources == ["event"]).unwrap().verbs = names(&["list"]);
        assert!(!add_missing_rules(&mut changed));
    }
}
