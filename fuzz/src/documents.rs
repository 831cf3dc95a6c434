//! Texts that people write: configuration, resources and expressions.

use std::collections::BTreeMap;

use config::{Config, Environment, Overrides};
use rbac::language::{Dialect, EvalError, Expression, Scope, Value};
use rbac::{
    AccessState, Matcher, ParsedRole, Pattern, ResourceFilter, RoleSet, RuleContext, Template, Traits, lint_role,
};
use resources::{Fields, Reference, parse_documents, to_json, to_yaml};
use wire::types::{Metadata, RoleV6, ServerSpecV2, ServerV2};

pub(crate) const SETTINGS: &[&str] = &[
    "version: v3\n",
    "teleport:\n",
    "  auth_server: ",
    "auth_service:\n",
    "proxy_service:\n",
    "ssh_service:\n",
    "  enabled: yes\n",
    "  tokens: [",
    "  labels: {",
    "  commands:\n",
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "---\n",
    "|\n",
    "1h30m",
    "0x7f",
    "[::1]:3080",
];
pub(crate) const RESOURCES: &[&str] = &[
    "kind: role\n",
    "kind: user\n",
    "kind: token\n",
    "version: v7\n",
    "metadata: {name: a}\n",
    "spec:\n",
    "  allow: {",
    "node_labels: {'*': '*'}",
    "logins: ['{{internal.logins}}']",
    "rules: [{resources: ['*'], verbs: ['*'], where: 'contains(user.spec.roles, \"a\")'}]",
    "expires: 2026-11-21T15:00:00Z",
    "---\n",
    "&a ",
    "*a",
    "max_session_ttl: 8h",
];
pub(crate) const OPERATORS: &[&str] = &[
    "contains(",
    "equals(",
    "labels[\"env\"]",
    "labels.env",
    "user.spec.traits[\"logins\"]",
    "resource.metadata.name",
    "regexp.match(",
    "regexp.replace(",
    "email.local(",
    "labels_matching(\"*\")",
    "set(",
    " || ",
    " && ",
    " == ",
    "!",
    "((((",
    "\"^(a+)+$\"",
    "{{internal.logins}}",
    "{{external.",
    "}}",
];

/// `teleport.yaml`.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let environment = Environment { hostname: "host".into(), allow_no_second_factor: true };
    match Config::parse("teleport.yaml", text, &Overrides::default(), &environment) {
        Ok(config) => {
            let _ = (config.cluster_name().len(), config.backend_dir(), format!("{config:?}"));
        }
        Err(error) => assert!(!error.to_string().is_empty(), "an error says what is wrong"),
    }
}

/// Resource documents, as `tctl create` takes them.
pub fn resource_documents(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        let _ = reference.is_known();
    }
    let known = parse_documents(text, Fields::Known);
    let Ok(documents) = parse_documents(text, Fields::Any) else {
        assert!(known.is_err(), "what is refused with unknown fields is refused without them too");
        return;
    };
    let yaml = to_yaml(&documents).expect("what was read can be written");
    let again =
        parse_documents(&yaml, Fields::Known).unwrap_or_else(|e| panic!("our own YAML is refused: {e}\n{yaml}"));
    assert_eq!(to_yaml(&again).ok().as_ref(), Some(&yaml), "a document reads back as written");
    let json = to_json(&documents).expect("what was read can be written");
    let again =
        parse_documents(&json, Fields::Known).unwrap_or_else(|e| panic!("our own JSON is refused: {e}\n{json}"));
    assert_eq!(to_json(&again).ok(), Some(json), "a document reads back as written");
}

/// Roles as they arrive from storage and from other clusters: any fields, never checked.
pub fn role(data: &[u8]) {
    let Ok(role) = resources::decode::<RoleV6>(data) else { return };
    let _ = lint_role(&role);
    let logins = BTreeMap::from([("logins".to_owned(), vec!["root".to_owned(), "*".to_owned(), String::new()])]);
    let roles = RoleSet::new([ParsedRole::new(role)], Traits::from(logins));
    let node = server();
    let visible = roles.can_see_node(&node);
    for login in ["root", "*", "-teleport-internal-join"] {
        let allowed = roles.check_node(&node, login, &AccessState::VISIBLE).is_allowed();
        assert!(visible || !allowed, "nobody logs in to what they may not see");
    }
    let _ = roles.node_logins(&node);
    for verb in ["list", "create", "*"] {
        if roles.check_rule("role", verb, &RuleContext::new()).is_allowed() {
            assert!(roles.could_allow("role", verb));
        }
    }
    let _ = roles.logins_for_ttl(std::time::Duration::from_secs(3600));
}

/// Expressions, templates, patterns and filters.
pub fn expression(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for dialect in [Dialect::Labels, Dialect::Where, Dialect::Filter, Dialect::Template] {
        match Expression::parse(text, dialect) {
            Ok(expression) => {
                assert_eq!(expression.text(), text);
                let first = expression.holds(&Names);
                assert_eq!(expression.holds(&Names), first, "an expression has one value");
            }
            Err(error) => assert!(error.position >= 1 && error.position <= text.chars().count() + 1, "{error}"),
        }
    }
    let traits = Traits::from(BTreeMap::from([(
        "logins".to_owned(),
        vec!["root".to_owned(), "{{internal.logins}}".to_owned()],
    )]));
    if let Ok(template) = Template::parse(text) {
        let _ = template.expand(&traits);
    }
    if let Ok(matcher) = Matcher::with_traits(text, &traits) {
        let _ = matcher.matches("root");
    }
    if let Ok(pattern) = Pattern::parse(text) {
        let _ = pattern.matches(text) | pattern.matches("");
    }
    if let Ok(filter) = ResourceFilter::new(BTreeMap::new(), &[], text) {
        let _ = filter.matches(&server());
    }
}

fn server() -> ServerV2 {
    let labels = [("env", "test"), ("", ""), ("teleport.dev/origin", "dynamic")];
    let metadata = Metadata {
        name: "6b3a8f2c-5f8d-4d27-9f2e-0d6c2f6c8a11".into(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Metadata::default()
    };
    let spec = ServerSpecV2 { hostname: "node".into(), addr: "127.0.0.1:3022".into(), ..ServerSpecV2::default() };
    ServerV2 {
        kind: "node".into(),
        version: "v2".into(),
        metadata: Some(metadata),
        spec: Some(spec),
        ..ServerV2::default()
    }
}

/// Every name means something: the kind of its value depends on the length of the path.
struct Names;

impl Scope for Names {
    fn resolve(&self, path: &[&str]) -> Result<Value<'_>, EvalError> {
        Ok(match path.len() % 5 {
            0 => Value::Absent,
            1 => Value::Map,
            2 => Value::text("test"),
            3 => Value::List(vec!["root".into(), "test".into()]),
            _ => Value::Number(-0.5),
        })
    }

    fn labels_matching(&self, accepts: &dyn Fn(&str) -> bool) -> Vec<String> {
        ["env", "", "a.b/c"].into_iter().filter(|key| accepts(key)).map(str::to_owned).collect()
    }
}
