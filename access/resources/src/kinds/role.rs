use wire::{
    types::{
        IdPsamlOptions, ImpersonateConditions, KubernetesResource, RoleConditions, RoleOptions, RoleV6,
        SessionJoinPolicy, SessionRequirePolicy,
    },
    wrappers::{LabelValues, StringValues},
};

use super::{default_number, default_text, not_negative, one_of, truth};
use crate::{NAMESPACE, Place, Resource, ResourceError, Result, SystemRole, kind, places, resource::plain_header};

/// The longest life of a user's certificate, and what a role without `max_session_ttl` allows, in nanoseconds.
pub const MAX_SESSION_TTL: i64 = 30 * 3600 * 1_000_000_000;

/// The longest access that can be requested, in nanoseconds.
pub const MAX_ACCESS_DURATION: i64 = 14 * 24 * 3600 * 1_000_000_000;

/// The versions of roles, oldest first.
pub const ROLE_VERSIONS: [&str; 5] = ["v3", "v4", "v5", "v6", "v7"];

/// Kinds of objects in Kubernetes clusters that roles can name, besides `*`.
pub const KUBERNETES_KINDS: [&str; 21] = [
    "pod",
    "secret",
    "configmap",
    "namespace",
    "service",
    "serviceaccount",
    "kube_node",
    "persistentvolume",
    "persistentvolumeclaim",
    "deployment",
    "replicaset",
    "statefulset",
    "daemonset",
    "clusterrole",
    "kube_role",
    "clusterrolebinding",
    "rolebinding",
    "cronjob",
    "job",
    "certificatesigningrequest",
    "ingress",
];

/// Those of [`KUBERNETES_KINDS`] that are in no namespace.
pub const CLUSTER_WIDE_KUBERNETES_KINDS: [&str; 6] =
    ["namespace", "kube_node", "persistentvolume", "clusterrole", "clusterrolebinding", "certificatesigningrequest"];

/// What can be done to objects in Kubernetes clusters, besides `*`.
pub const KUBERNETES_VERBS: [&str; 10] =
    ["get", "create", "update", "patch", "delete", "list", "watch", "deletecollection", "exec", "portforward"];

impl Resource for RoleV6 {
    const KIND: &'static str = kind::ROLE;
    /// A role always says its version, because the versions differ in what they allow by default.
    const VERSION: &'static str = "";
    plain_header!();

    fn place(&self) -> Place {
        places::role(self.name())
    }

    fn set_spec_defaults(&mut self) {
        let version = self.version.clone();
        let spec = self.spec.get_or_insert_default();
        set_option_defaults(spec.options.get_or_insert_default());
        let allow = spec.allow.get_or_insert_default();
        if version == "v3" {
            set_v3_labels(allow);
        }
        set_kubernetes_defaults(&version, allow);
        for conditions in [allow, spec.deny.get_or_insert_default()] {
            if conditions.namespaces.is_empty() {
                conditions.namespaces.push(NAMESPACE.into());
            }
            if version != "v7" {
                for resource in conditions.kubernetes_resources.iter_mut().filter(|r| r.verbs.is_empty()) {
                    resource.verbs.push("*".into());
                }
            }
        }
    }

    fn check_spec(&self) -> Result<()> {
        if !ROLE_VERSIONS.contains(&self.version.as_str()) {
            let problem = format!("role version {:?} is not supported: expected one of v3 to v7", self.version);
            return Err(ResourceError::invalid(problem));
        }
        if SystemRole::from_name(self.name()).is_some() {
            return Err(ResourceError::invalid(format!("reserved role: {}", self.name())));
        }
        let spec = self.spec.clone().unwrap_or_default();
        check_options(&spec.options.unwrap_or_default())?;
        let (allow, deny) = (spec.allow.unwrap_or_default(), spec.deny.unwrap_or_default());
        check_conditions("spec.allow", &self.version, &allow)?;
        check_conditions("spec.deny", &self.version, &deny)?;
        check_allow(&allow)?;
        check_deny(&deny)
    }
}

fn set_option_defaults(options: &mut RoleOptions) {
    default_number(&mut options.max_session_ttl, MAX_SESSION_TTL);
    default_text(&mut options.certificate_format, "standard");
    if options.bpf.is_empty() {
        options.bpf = vec!["command".into(), "network".into()];
    }
    for field in [
        &mut options.port_forwarding,
        &mut options.ssh_file_copy,
        &mut options.desktop_clipboard,
        &mut options.desktop_directory_sharing,
    ] {
        *field = field.or(truth(true));
    }
    for field in [&mut options.create_desktop_user, &mut options.create_database_user] {
        *field = field.or(truth(false));
    }
    let recording = options.record_session.get_or_insert_default();
    default_text(&mut recording.default, "best_effort");
    recording.desktop = recording.desktop.or(truth(true));
    options.idp.get_or_insert_default().saml.get_or_insert_with(|| IdPsamlOptions { enabled: truth(true) });
}

/// Roles of version v3 reach everything unless they say otherwise; without logins no server.
fn set_v3_labels(allow: &mut RoleConditions) {
    if allow.node_labels.is_none() {
        let everything = !allow.logins.is_empty();
        allow.node_labels = Some(if everything { any_labels() } else { LabelValues::default() });
    }
    for labels in [&mut allow.app_labels, &mut allow.kubernetes_labels, &mut allow.database_labels] {
        labels.get_or_insert_with(any_labels);
    }
}

/// `"*": "*"`.
pub(crate) fn any_labels() -> LabelValues {
    LabelValues { values: [("*".to_owned(), StringValues { values: vec!["*".into()] })].into() }
}

fn set_kubernetes_defaults(version: &str, allow: &mut RoleConditions) {
    let labelled = allow.kubernetes_labels.as_ref().is_some_and(|l| !l.values.is_empty())
        || !allow.kubernetes_labels_expression.is_empty();
    if !labelled || !allow.kubernetes_resources.is_empty() {
        return;
    }
    let kind = match version {
        "v3" | "v4" | "v5" => "pod",
        "v7" => "*",
        _ => return,
    };
    let star = || "*".to_owned();
    allow.kubernetes_resources =
        vec![KubernetesResource { kind: kind.into(), namespace: star(), name: star(), verbs: vec![star()] }];
}

fn check_options(options: &RoleOptions) -> Result<()> {
    not_negative(&[
        ("spec.options.max_session_ttl", options.max_session_ttl),
        ("spec.options.client_idle_timeout", options.client_idle_timeout),
        ("spec.options.max_connections", options.max_connections),
        ("spec.options.max_sessions", options.max_sessions),
        ("spec.options.max_kubernetes_connections", options.max_kubernetes_connections),
    ])?;
    for value in &options.bpf {
        one_of("spec.options.enhanced_recording", value, &["command", "disk", "network"])?;
    }
    let strictness = ["best_effort", "strict"];
    let recording = options.record_session.clone().unwrap_or_default();
    for (path, word, allowed) in [
        ("spec.options.cert_format", &options.certificate_format, &["standard", "oldssh"][..]),
        ("spec.options.request_access", &options.request_access, &["optional", "reason", "always"][..]),
        ("spec.options.lock", &options.lock, &strictness[..]),
        ("spec.options.record_session.default", &recording.default, &strictness[..]),
        ("spec.options.record_session.ssh", &recording.ssh, &strictness[..]),
        ("spec.options.device_trust_mode", &options.device_trust_mode, &["off", "optional", "required"][..]),
    ] {
        one_of(path, word, allowed)?;
    }
    match options.cert_extensions.iter().position(|e| e.name.is_empty()) {
        Some(i) => Err(ResourceError::field(format!("spec.options.cert_extensions[{i}].name"), "missing value")),
        None => Ok(()),
    }
}

/// What is checked in `allow` and in `deny`.
fn check_conditions(path: &str, version: &str, conditions: &RoleConditions) -> Result<()> {
    for (field, labels) in label_fields(conditions) {
        let values = labels.iter().flat_map(|l| &l.values);
        for (key, values) in values {
            if key == "*" && values.values.iter().any(|v| v != "*") {
                let value = values.values.join(", ");
                return Err(ResourceError::field(
                    format!("{path}.{field}"),
                    format!("selector *:{value} is not supported"),
                ));
            }
        }
    }
    for (i, rule) in conditions.rules.iter().enumerate() {
        let path = format!("{path}.rules[{i}]");
        if rule.resources.is_empty() {
            return Err(ResourceError::field(path, "missing resources to match"));
        }
        if rule.verbs.is_empty() {
            return Err(ResourceError::field(path, "missing verbs"));
        }
    }
    for (i, resource) in conditions.kubernetes_resources.iter().enumerate() {
        check_kubernetes(version, resource)
            .map_err(|problem| ResourceError::field(format!("{path}.kubernetes_resources[{i}]"), problem))?;
    }
    check_session_policies(path, &conditions.require_session_join, &conditions.join_sessions)
}

/// The label selectors of conditions with their names.
pub(crate) fn label_fields(c: &RoleConditions) -> [(&'static str, &Option<LabelValues>); 8] {
    [
        ("node_labels", &c.node_labels),
        ("app_labels", &c.app_labels),
        ("cluster_labels", &c.cluster_labels),
        ("kubernetes_labels", &c.kubernetes_labels),
        ("db_labels", &c.database_labels),
        ("db_service_labels", &c.database_service_labels),
        ("windows_desktop_labels", &c.windows_desktop_labels),
        ("group_labels", &c.group_labels),
    ]
}

fn check_kubernetes(version: &str, resource: &KubernetesResource) -> Result<(), String> {
    let KubernetesResource { kind, namespace, name, verbs } = resource;
    let pods_only = version != "v7";
    if pods_only && kind != "pod" {
        return Err(format!("kind {kind:?} is not supported by role version {version:?}: expected \"pod\""));
    }
    if kind != "*" && !KUBERNETES_KINDS.contains(&kind.as_str()) {
        return Err(format!("kind {kind:?} is invalid or unsupported"));
    }
    if pods_only && verbs.as_slice() != ["*"] {
        return Err(format!("verbs of role version {version:?} must be [\"*\"]"));
    }
    if verbs.is_empty() {
        return Err("missing verbs".into());
    }
    if verbs.len() > 1 && verbs.iter().any(|v| v == "*") {
        return Err("verb \"*\" cannot be used with other verbs".into());
    }
    if let Some(verb) = verbs.iter().find(|v| *v != "*" && !KUBERNETES_VERBS.contains(&v.as_str())) {
        return Err(format!("verb {verb:?} is invalid or unsupported"));
    }
    if namespace.is_empty() && !CLUSTER_WIDE_KUBERNETES_KINDS.contains(&kind.as_str()) {
        return Err(format!("kind {kind:?} needs a namespace"));
    }
    if name.is_empty() {
        return Err("missing name".into());
    }
    Ok(())
}

fn check_session_policies(path: &str, require: &[SessionRequirePolicy], join: &[SessionJoinPolicy]) -> Result<()> {
    let modes = ["peer", "moderator", "observer"];
    for (i, policy) in require.iter().enumerate() {
        let path = format!("{path}.require_session_join[{i}]");
        one_of(&format!("{path}.on_leave"), &policy.on_leave, &["terminate", "pause"])?;
        not_negative(&[(&format!("{path}.count"), i64::from(policy.count))])?;
        policy.modes.iter().try_for_each(|mode| one_of(&format!("{path}.modes"), mode, &modes))?;
    }
    for (i, policy) in join.iter().enumerate() {
        let path = format!("{path}.join_sessions[{i}].modes");
        policy.modes.iter().try_for_each(|mode| one_of(&path, mode, &modes))?;
    }
    Ok(())
}

fn check_allow(allow: &RoleConditions) -> Result<()> {
    for (field, list) in [
        ("logins", &allow.logins),
        ("aws_role_arns", &allow.aws_role_ar_ns),
        ("azure_identities", &allow.azure_identities),
        ("gcp_service_accounts", &allow.gcp_service_accounts),
        ("database_roles", &allow.database_roles),
    ] {
        if list.iter().any(|value| value == "*") {
            return Err(ResourceError::invalid(format!("wildcard is not allowed in allow.{field}")));
        }
    }
    for (i, permission) in allow.database_permissions.iter().enumerate() {
        if permission.permissions.iter().any(|p| p == "*") {
            return Err(ResourceError::invalid(format!(
                "wildcard is not allowed in allow.db_permissions[{i}].permissions"
            )));
        }
    }
    if let Some(ImpersonateConditions { users, roles, .. }) = &allow.impersonate
        && !users.is_empty()
        && roles.is_empty()
    {
        return Err(ResourceError::field("spec.allow.impersonate", "cannot set users without roles"));
    }
    let duration = allow.request.as_ref().map_or(0, |r| r.max_duration);
    not_negative(&[("spec.allow.request.max_duration", duration)])?;
    if duration > MAX_ACCESS_DURATION {
        return Err(ResourceError::field("spec.allow.request.max_duration", "is longer than 14 days"));
    }
    Ok(())
}

fn check_deny(deny: &RoleConditions) -> Result<()> {
    if deny.impersonate.as_ref().is_some_and(|i| !i.r#where.is_empty()) {
        return Err(ResourceError::field(
            "spec.deny.impersonate",
            "'where' is not supported in deny.impersonate conditions",
        ));
    }
    if deny.request.as_ref().is_some_and(|r| !r.thresholds.is_empty()) {
        return Err(ResourceError::field("spec.deny.request", "access request thresholds are not supported in deny"));
    }
    Ok(())
}
