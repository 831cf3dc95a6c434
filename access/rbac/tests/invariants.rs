//! What holds for every decision, whatever the roles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use common::role;
use proptest::prelude::*;
use rbac::{AccessState, Labels, Pattern, RoleSet, RuleContext, Template, Traits};
use serde_json::{Value, json};
use wire::types::{RoleV6, ServerV2};

const STATES: [AccessState; 2] = [
    AccessState::VISIBLE,
    AccessState {
        mfa_required: rbac::MfaRequired::PerRole,
        mfa_verified: false,
        device_exempt: false,
        device_verified: false,
    },
];

fn label() -> impl Strategy<Value = (String, Value)> {
    let key = prop::sample::select(vec!["env", "team", "zone"]);
    let value = prop::sample::select(vec![
        "prod",
        "test",
        "*",
        "t*",
        "^(prod|db)$",
        "{{external.team}}",
        "^broken($",
        "{{broken",
    ]);
    (key, prop::collection::vec(value, 1..3)).prop_map(|(k, v)| (k.to_owned(), json!(v)))
}

fn selector() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(json!({})),
        1 => Just(json!({"*": "*"})),
        4 => prop::collection::btree_map(label().prop_map(|l| l.0), label().prop_map(|l| l.1), 1..3).prop_map(|m| json!(m)),
    ]
}

fn expression() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "",
        r#"labels["env"] == "prod""#,
        r#"!contains(user.spec.traits.team, labels.team)"#,
        r#"labels["env"]"#,
        "broken(",
    ])
}

fn conditions() -> impl Strategy<Value = Value> {
    let logins = prop::collection::vec(prop::sample::select(vec!["root", "ann", "{{internal.logins}}"]), 0..3);
    let verbs = prop::collection::vec(prop::sample::select(vec!["list", "read", "update", "*"]), 1..3);
    let kinds = prop::collection::vec(prop::sample::select(vec!["user", "role", "*"]), 1..3);
    let wheres = prop::sample::select(vec![
        "",
        r#"equals(user.metadata.name, "alice")"#,
        "broken(",
        "!equals(resource.kind, \"x\")",
    ]);
    (selector(), expression(), logins, (kinds, verbs, wheres)).prop_map(
        |(labels, expression, logins, (kinds, verbs, wheres))| {
            json!({"node_labels": labels, "node_labels_expression": expression, "logins": logins,
               "rules": [{"resources": kinds, "verbs": verbs, "where": wheres}]})
        },
    )
}

fn a_role(name: &'static str) -> impl Strategy<Value = RoleV6> {
    let deny = prop_oneof![2 => Just(json!({})), 1 => conditions()];
    (conditions(), deny, any::<bool>(), any::<bool>()).prop_map(move |(allow, deny, mfa, device)| {
        let trust = if device { "required" } else { "" };
        role(name, allow, deny, json!({"require_session_mfa": mfa, "device_trust_mode": trust}))
    })
}

fn roles() -> impl Strategy<Value = Vec<RoleV6>> {
    (a_role("a"), a_role("b"), a_role("c")).prop_map(|(a, b, c)| vec![a, b, c])
}

fn server() -> impl Strategy<Value = ServerV2> {
    let value = prop::sample::select(vec!["prod", "test", "db", "*", "^.*$"]);
    prop::collection::btree_map(prop::sample::select(vec!["env", "team", "zone"]), value, 0..3).prop_map(|labels| {
        serde_json::from_value(json!({"metadata": {"name": "n", "labels": labels}, "spec": {"hostname": "n"}})).unwrap()
    })
}

fn user_traits() -> impl Strategy<Value = Traits> {
    let value = prop::sample::select(vec!["db", "prod", "*", "^.*$", "p*"]);
    prop::collection::vec(value, 0..3).prop_map(|team| {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        BTreeMap::from([("team".to_owned(), owned(&team)), ("logins".to_owned(), owned(&["bob"]))]).into()
    })
}

/// Everything that is decided in these tests.
fn decisions(roles: Vec<RoleV6>, traits: &Traits, server: &ServerV2) -> Vec<bool> {
    let set = RoleSet::compile(roles, traits.clone());
    let mut all = Vec::new();
    for state in STATES {
        for login in ["root", "ann", "bob", "nobody"] {
            all.push(set.check_node(server, login, &state).is_allowed());
        }
    }
    all.push(set.can_see_node(server));
    let context = RuleContext::new().with_user(&json!({"metadata": {"name": "alice"}}));
    for kind in ["user", "role", "token"] {
        for verb in ["list", "read", "readnosecrets", "update", "delete"] {
            all.push(set.check_rule(kind, verb, &context).is_allowed());
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn adding_a_deny_never_allows_more(roles in roles(), extra in conditions(), traits in user_traits(), server in server()) {
        let before = decisions(roles.clone(), &traits, &server);
        let mut more = roles.clone();
        more.push(role("d", json!({}), extra.clone(), json!({})));
        for (was, is) in before.iter().zip(decisions(more, &traits, &server)) {
            prop_assert!(*was || !is);
        }
        // The same inside of a role.
        let mut changed = roles;
        let deny = changed[0].spec.as_mut().unwrap().deny.get_or_insert_default();
        let extra: wire::types::RoleConditions = serde_json::from_value(extra).unwrap();
        deny.logins.extend(extra.logins);
        deny.rules.extend(extra.rules);
        if deny.node_labels_expression.is_empty() {
            deny.node_labels_expression = extra.node_labels_expression;
        }
        for (was, is) in before.iter().zip(decisions(changed, &traits, &server)) {
            prop_assert!(*was || !is);
        }
    }

    #[test]
    fn the_order_of_roles_never_matters(roles in roles(), turn in 0usize..6, traits in user_traits(), server in server()) {
        let wanted = decisions(roles.clone(), &traits, &server);
        let mut turned = roles;
        turned.rotate_left(turn % 3);
        if turn >= 3 {
            turned.swap(0, 1);
        }
        let refused = |roles: &[RoleV6]| {
            let set = RoleSet::compile(roles.to_vec(), traits.clone());
            set.check_node(&server, "root", &AccessState::default()).denial().map(rbac::Denial::explanation)
        };
        let reason = refused(&turned);
        prop_assert_eq!(wanted, decisions(turned.clone(), &traits, &server));
        turned.reverse();
        prop_assert_eq!(reason, refused(&turned), "the reason is the same, too");
    }

    #[test]
    fn a_role_without_a_matching_label_changes_nothing(roles in roles(), traits in user_traits(), server in server(), mfa in any::<bool>()) {
        let node = |roles: &[RoleV6]| {
            let set = RoleSet::compile(roles.to_vec(), traits.clone());
            STATES.map(|state| ["root", "ann"].map(|login| set.check_node(&server, login, &state).is_allowed()))
        };
        let before = node(&roles);
        let mut more = roles;
        let allow = json!({"node_labels": {"no-such-label": "*"}, "logins": ["root", "ann"]});
        more.push(role("d", allow, json!({"node_labels": {"no-such-label": "*"}}), json!({"require_session_mfa": mfa})));
        prop_assert_eq!(before, node(&more));
    }

    #[test]
    fn traits_never_become_patterns(prefix in "[a-z*]{0,3}", value in "[a-z*^$.()|]{1,6}", suffix in "[a-z*]{0,3}", label in "[a-z]{0,8}") {
        let traits: Traits = [("team".to_owned(), vec![value.clone()])].into_iter().collect();
        let allow = json!({"node_labels": {"team": format!("{prefix}{{{{external.team}}}}{suffix}")}});
        let set = RoleSet::compile([role("r", allow, json!({}), json!({}))], traits);
        let labels: BTreeMap<String, String> = [("team".to_owned(), label.clone())].into();
        let target = rbac::Target { kind: "node", name: "n", labels: Labels::fixed(&labels) };
        if set.can_see(&target) {
            prop_assert!(label.contains(&value), "{label} was reached by {value}");
        }
    }

    #[test]
    fn what_administrators_and_users_write_never_panics(text in ".{0,60}", value in ".{0,12}") {
        let traits: Traits = [("x".to_owned(), vec![value])].into_iter().collect();
        if let Ok(template) = Template::parse(&text) {
            template.expand(&traits);
        }
        if let Ok(template) = Template::parse(&format!("{{{{{text}}}}}")) {
            template.expand(&traits);
        }
        let _ = Pattern::parse(&text);
        let _ = rbac::Matcher::parse(&text);
        for dialect in [rbac::language::Dialect::Labels, rbac::language::Dialect::Where, rbac::language::Dialect::Filter] {
            let _ = rbac::language::Expression::parse(&text, dialect);
        }
    }

    #[test]
    fn expressions_of_tokens_never_panic(tokens in prop::collection::vec(prop::sample::select(vec![
        "labels", ".", "env", "[", "\"x\"", "]", "==", "!=", "&&", "||", "!", "(", ")", ",", "contains", "regexp.match", "1", "-", "true", "`a`", "name", "search"
    ]), 0..14)) {
        let text = tokens.join("");
        let server = ServerV2::default();
        if let Ok(filter) = rbac::ResourceFilter::new(BTreeMap::new(), &[], &text) {
            let _ = filter.matches(&server);
        }
        let allow = json!({"node_labels_expression": text});
        RoleSet::compile([role("r", allow, json!({}), json!({}))], Traits::default()).can_see_node(&server);
    }
}
