//! Options, logins, rules, impersonation and sessions of several roles together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{role, set, traits, versioned};
use rbac::{
    CertificateFormat, CertificateLogins, Impersonated, JoinMode, KeyPolicy, OnLeave, Options, Participant, RoleSet,
    RuleContext, SessionOwner, SessionPolicies, Strictness, lint_role,
};
use resources::presets;
use serde_json::{Value, json};
use wire::types::UserV2;

const HOUR: Duration = Duration::from_secs(3600);

fn merged(options: &[Value]) -> Options {
    let roles = options
        .iter()
        .enumerate()
        .map(|(i, o)| role(&format!("r{i}"), json!({"logins": ["root"]}), json!({}), o.clone()));
    Options::clone(set(roles.collect()).options())
}

#[test]
fn options_of_several_roles_merge() {
    let none = || json!({});
    let plain = merged(&[none()]);
    assert_eq!(plain.max_session_ttl, 30 * HOUR);
    assert!(!plain.forward_agent && plain.port_forwarding && plain.ssh_file_copy && !plain.x11_forwarding);
    assert_eq!(plain.client_idle_timeout, None);
    assert_eq!(plain.enhanced_recording.iter().collect::<Vec<_>>(), ["command", "network"]);
    // The role that everybody has adds nothing to what a role names.
    let disk = merged(&[json!({"enhanced_recording": ["disk"]})]).enhanced_recording;
    assert_eq!(disk.iter().collect::<Vec<_>>(), ["disk"]);
    assert_eq!((plain.max_connections, plain.max_sessions), (None, None));
    assert!(plain.record_desktop && plain.saml_idp && !plain.pin_source_ip);

    assert_eq!(
        merged(&[json!({"max_session_ttl": "30m"}), json!({"max_session_ttl": "5h"})]).max_session_ttl,
        HOUR / 2
    );
    assert!(merged(&[json!({"forward_agent": false}), json!({"forward_agent": true})]).forward_agent);
    assert!(!merged(&[json!({"port_forwarding": false}), json!({"port_forwarding": false})]).port_forwarding);
    assert!(merged(&[json!({"port_forwarding": false}), json!({"port_forwarding": true})]).port_forwarding);
    assert!(!merged(&[none(), json!({"ssh_file_copy": false})]).ssh_file_copy);
    assert_eq!(merged(&[none(), json!({"cert_format": "oldssh"})]).certificate_format, CertificateFormat::OldSsh);
    let idle = merged(&[json!({"client_idle_timeout": "2h"}), json!({"client_idle_timeout": "1h"}), none()]);
    assert_eq!(idle.idle_timeout(Some(3 * HOUR)), Some(HOUR));
    assert_eq!(idle.idle_timeout(Some(HOUR / 2)), Some(HOUR / 2));
    assert_eq!(plain.idle_timeout(Some(Duration::ZERO)), None);
    assert!(merged(&[none(), json!({"disconnect_expired_cert": true})]).disconnect_expired(false));
    assert_eq!(
        merged(&[json!({"max_connections": 5}), json!({"max_connections": 2}), none()]).max_connections,
        Some(2)
    );
    assert_eq!(merged(&[none(), json!({"lock": "strict"})]).lock_mode(Strictness::BestEffort), Strictness::Strict);
    assert_eq!(plain.lock_mode(Strictness::Strict), Strictness::Strict);
    let request = merged(&[json!({"request_access": "reason", "request_prompt": "why?"}), none()]).request;
    assert!(request.reason_required && !request.automatic && request.prompt == "why?");
    assert!(merged(&[none(), json!({"record_session": {"desktop": false}})]).record_desktop);
    assert!(!merged(&[json!({"record_session": {"desktop": false}})]).record_desktop);
}

#[test]
fn a_word_about_ssh_recording_decides_over_the_default() {
    let of = |words: &[(&str, &str)]| {
        let options: Vec<Value> =
            words.iter().map(|(d, s)| json!({"record_session": {"default": d, "ssh": s}})).collect();
        merged(&options).ssh_recording
    };
    assert_eq!(of(&[("best_effort", "")]), Strictness::BestEffort);
    assert_eq!(of(&[("strict", "")]), Strictness::Strict);
    assert_eq!(of(&[("strict", ""), ("strict", "best_effort")]), Strictness::BestEffort);
    assert_eq!(of(&[("best_effort", "strict"), ("best_effort", "best_effort")]), Strictness::Strict);
}

#[test]
fn key_policies_add_up() {
    use KeyPolicy::{HardwareKey, HardwareKeyPin, HardwareKeyTouch, HardwareKeyTouchAndPin, None};
    assert_eq!(None.and(HardwareKey), HardwareKey);
    assert_eq!(HardwareKeyTouch.and(HardwareKeyPin), HardwareKeyTouchAndPin);
    assert_eq!(HardwareKeyPin.and(HardwareKey), HardwareKeyPin);
    assert!(HardwareKeyTouchAndPin.satisfies(HardwareKeyTouch));
    assert!(!HardwareKeyTouch.satisfies(HardwareKeyPin) && !HardwareKeyPin.satisfies(HardwareKeyTouch));
    assert!(None.satisfies(None) && !None.satisfies(HardwareKey));
    let options = merged(&[
        json!({"require_session_mfa": "hardware_key_touch"}),
        json!({"require_session_mfa": "hardware_key_pin"}),
    ]);
    assert_eq!(options.key_policy(0), HardwareKeyTouchAndPin);
    for policy in [None, HardwareKey, HardwareKeyTouch, HardwareKeyPin, HardwareKeyTouchAndPin] {
        assert_eq!(KeyPolicy::from_name(policy.name()), Some(policy));
    }
}

#[test]
fn extensions_of_certificates_come_from_roles_and_traits() {
    let extension = |name: &str, value: &str| json!({"cert_extensions": [{"name": name, "value": value}]});
    let roles = RoleSet::compile(
        [
            role("a", json!({}), json!({}), extension("login@example.com", "{{external.git}}")),
            role("b", json!({}), json!({}), extension("login@example.com", "other")),
            role("c", json!({}), json!({}), extension("missing", "{{external.none}}")),
        ],
        traits(&[("git", &["octo"])]),
    );
    let found: Vec<_> = roles.options().certificate_extensions.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(found, [("login@example.com", "octo")]);
}

#[test]
fn logins_of_certificates_follow_the_life_of_the_certificate() {
    let ttl = |ttl: &str| json!({"max_session_ttl": ttl});
    let short = role("short", json!({"logins": ["root", "{{internal.logins}}"]}), json!({}), ttl("30m"));
    let long = role("long", json!({"logins": ["ann", "bad name!", "root"]}), json!({"logins": ["ann"]}), ttl("5h"));
    let roles = RoleSet::compile([short, long], traits(&[("logins", &["bob"])]));
    let names = |d: Duration| match roles.logins_for_ttl(d) {
        Ok(CertificateLogins::Names(names)) => names,
        other => panic!("{other:?}"),
    };
    assert_eq!(roles.adjust_session_ttl(12 * HOUR), HOUR / 2);
    assert_eq!(names(HOUR / 2), ["ann", "bob", "root"]);
    assert_eq!(names(HOUR), ["ann", "root"]);
    assert!(roles.can_login("root") && !roles.can_login("ann"));
    let denial = roles.logins_for_ttl(6 * HOUR).unwrap_err();
    assert_eq!(denial.message, "this user cannot create SSH sessions, has no allowed logins");
    assert_eq!(set(vec![presets::roles().remove(1)]).logins_for_ttl(HOUR), Ok(CertificateLogins::NoneDefined));
    let nobody = RoleSet::compile(presets::roles().into_iter().take(1), traits(&[]));
    assert!(nobody.logins_for_ttl(HOUR).is_err());
}

fn may(roles: &RoleSet, verb: &str, kind: &str) -> bool {
    roles.check_rule(kind, verb, &RuleContext::new()).is_allowed()
}

#[test]
fn rules_allow_verbs_on_kinds_and_denials_come_first() {
    let rule = |kind: &str, verbs: &[&str]| json!({"resources": [kind], "verbs": verbs});
    let roles = set(vec![
        role(
            "a",
            json!({"rules": [rule("*", &["list"]), rule("user", &["read", "update"]), rule("role", &["*"])]}),
            json!({}),
            json!({}),
        ),
        role("b", json!({}), json!({"rules": [rule("role", &["delete"])]}), json!({})),
    ]);
    for (verb, kind, allowed) in [
        ("list", "anything", true),
        ("read", "user", true),
        ("readnosecrets", "user", true),
        ("delete", "user", false),
        ("create", "role", true),
        ("delete", "role", false),
        ("read", "token", false),
        ("read", "node", true),
        ("create", "node", false),
        ("readnosecrets", "cert_authority", true),
        ("read", "cert_authority", false),
    ] {
        assert_eq!(may(&roles, verb, kind), allowed, "{verb} {kind}");
    }
    let denial = roles.check_rule("role", "delete", &RuleContext::new()).into_result().unwrap_err();
    assert_eq!(denial.message, "access denied to perform action \"delete\" on \"role\"");
    assert_eq!(denial.explanation(), "role \"b\", deny.rules[0]: denies \"delete\" on \"role\"");
    assert!(denial.is_explicit());
    let denial = roles.check_rule("token", "read", &RuleContext::new()).into_result().unwrap_err();
    assert!(!denial.is_explicit());
}

#[test]
fn conditions_of_rules_look_at_user_resource_and_session() {
    let user: UserV2 = serde_json::from_value(json!({
        "metadata": {"name": "alice", "labels": {"team": "db"}},
        "spec": {"roles": ["dev", "ops"], "traits": {"logins": ["root"]}}
    }))
    .unwrap();
    let session = json!({"participants": ["alice", "bob"], "login": "root", "server_id": "1"});
    let host_cert = json!({"principals": ["a.example.com", "b.example.com"], "ttl": 5});
    let context =
        RuleContext::new().with_user(&user).with_session(&session).with_host_cert(&host_cert).with_ca_type("host");
    let holds = |text: &str| {
        let rule = json!({"rules": [{"resources": ["session"], "verbs": ["read"], "where": text}]});
        let allowed = set(vec![role("r", rule.clone(), json!({}), json!({}))])
            .check_rule("session", "read", &context)
            .is_allowed();
        let everything = json!({"rules": [{"resources": ["session"], "verbs": ["read"]}]});
        let denied =
            !set(vec![role("r", everything, rule, json!({}))]).check_rule("session", "read", &context).is_allowed();
        (allowed, denied)
    };
    for text in [
        "contains(session.participants, user.metadata.name)",
        r#"equals(user.metadata.labels["team"], "db") && !equals(session.login, "ann")"#,
        r#"contains(user.spec.roles, "ops")"#,
        r#"contains(user.spec.traits["logins"], session.login)"#,
        r#"all_end_with(host_cert.principals, ".example.com")"#,
        r#"is_subset(user.spec.roles, "dev", "ops", "more")"#,
        r#"all_equal(session.server_id, "1")"#,
        r#"equals(system.catype(), "host")"#,
        r#"equals(resource.metadata.name, "")"#,
    ] {
        assert_eq!(holds(text), (true, true), "{text}");
    }
    for text in [r#"contains(session.participants, "carol")"#, "equals(user.metadata.name, session.login)"] {
        assert_eq!(holds(text), (false, false), "{text}");
    }
    // What cannot be decided gives nothing and denies.
    for text in ["nosuch.name", "contains(", "user.metadata.name", "contains(host_cert.ttl, \"x\")", "equals(1)"] {
        assert_eq!(holds(text), (false, true), "{text}");
    }
}

#[test]
fn the_preset_access_role_reads_only_own_sessions() {
    let roles = RoleSet::compile(presets::roles().into_iter().take(1), traits(&[]));
    let user = json!({"metadata": {"name": "alice"}});
    let with =
        |participants: Value| RuleContext::new().with_user(&user).with_session(&json!({"participants": participants}));
    assert!(roles.check_rule("session", "read", &with(json!(["alice"]))).is_allowed());
    assert!(!roles.check_rule("session", "read", &with(json!(["bob"]))).is_allowed());
    assert!(!roles.check_rule("session", "read", &RuleContext::new().with_user(&user)).is_allowed());
    assert!(roles.could_allow("session", "list") && !roles.could_allow("user", "list"));
}

#[test]
fn impersonation_needs_user_and_roles_and_no_denial() {
    let bot: UserV2 =
        serde_json::from_value(json!({"metadata": {"name": "bot-ci", "labels": {"kind": "bot"}}})).unwrap();
    let check = |conditions: Value, deny: Value, roles: &[&str]| {
        let set = RoleSet::compile(
            [role("r", json!({"impersonate": conditions}), json!({"impersonate": deny}), json!({}))],
            traits(&[("bots", &["bot-ci", "*"])]),
        );
        let roles: Vec<String> = roles.iter().map(|r| (*r).to_owned()).collect();
        set.check_impersonation(Impersonated { user: &bot, roles: &roles }, &RuleContext::new()).is_allowed()
    };
    let dev = || json!({"users": ["bot-*"], "roles": ["dev", "ops-*"]});
    assert!(check(dev(), json!({}), &["dev", "ops-1"]));
    assert!(!check(dev(), json!({}), &["dev", "admin"]));
    assert!(!check(json!({"users": ["ann"], "roles": ["*"]}), json!({}), &["dev"]));
    assert!(check(json!({"users": ["{{external.bots}}"], "roles": ["dev"]}), json!({}), &["dev"]));
    assert!(!check(json!({"users": ["ann", "{{external.none}}"], "roles": ["dev"]}), json!({}), &["dev"]));
    assert!(!check(dev(), json!({"users": ["bot-ci"]}), &["dev"]));
    assert!(!check(dev(), json!({"roles": ["ops-1"]}), &["dev", "ops-1"]));
    assert!(check(dev(), json!({"roles": ["ops-2"]}), &["dev", "ops-1"]));
    let only_bots = |kind: &str| json!({"users": ["*"], "roles": ["*"], "where": format!("equals(impersonate_user.metadata.labels[\"kind\"], \"{kind}\")")});
    assert!(check(only_bots("bot"), json!({}), &["dev"]));
    assert!(!check(only_bots("human"), json!({}), &["dev"]));
    let set = set(vec![role("r", json!({"impersonate": {"roles": ["dev"]}}), json!({}), json!({}))]);
    assert!(set.check_role_impersonation(&["dev".to_owned()]).is_allowed());
    let denial = set.check_role_impersonation(&["dev".to_owned(), "x".to_owned()]).into_result().unwrap_err();
    assert!(denial.message.contains("access denied"), "{denial}");
}

#[test]
fn sessions_are_joined_by_policy() {
    let owner_roles = set(vec![role("dev", json!({}), json!({}), json!({}))]);
    let policies = owner_roles.session_policies();
    let owner = SessionOwner { user: "alice", policies: &policies };
    let join = |roles: &[&str], kinds: &[&str], modes: &[&str]| json!({"join_sessions": [{"name": "j", "roles": roles, "kinds": kinds, "modes": modes}]});
    let modes =
        |allow: Value, deny: Value| set(vec![role("r", allow, deny, json!({}))]).join_modes("bob", owner, "ssh");
    assert_eq!(modes(join(&["d*"], &["*"], &["observer", "peer"]), json!({})), [JoinMode::Observer, JoinMode::Peer]);
    assert_eq!(
        modes(join(&["d*"], &["*"], &["observer", "peer"]), join(&["*"], &["ssh"], &["peer"])),
        [JoinMode::Observer]
    );
    assert_eq!(modes(join(&["ops"], &["*"], &["observer"]), json!({})), []);
    assert_eq!(modes(join(&["dev"], &["k8s"], &["observer"]), json!({})), []);
    assert_eq!(modes(json!({}), json!({})), []);
    assert_eq!(owner_roles.join_modes("alice", owner, "ssh").len(), 3);
    let old = set(vec![versioned("v4", "old", json!({}), json!({}), json!({}))]);
    assert_eq!(old.join_modes("bob", owner, "ssh"), [JoinMode::Peer]);
    assert_eq!(old.join_modes("bob", owner, "k8s"), []);
}

#[test]
fn moderated_sessions_wait_for_those_who_have_to_be_present() {
    let demand = json!({"name": "two", "filter": "contains(user.spec.roles, \"auditor\")", "kinds": ["ssh"],
                        "count": 2, "modes": ["moderator"], "on_leave": "pause"});
    let policies =
        set(vec![role("dev", json!({"require_session_join": [demand]}), json!({}), json!({}))]).session_policies();
    let demands = SessionPolicies::new(SessionOwner { user: "alice", policies: &policies }, "ssh");
    assert!(demands.is_moderated());
    assert!(!SessionPolicies::new(SessionOwner { user: "alice", policies: &policies }, "k8s").is_moderated());
    let joiner = json!({"join_sessions": [{"name": "j", "roles": ["dev"], "kinds": ["ssh"], "modes": ["moderator", "observer"]}]});
    let somebody = |name: &str, roles: Value, allow: &Value, mode: JoinMode| {
        Participant::new(
            name,
            &json!({"spec": {"roles": roles}}),
            set(vec![role("j", allow.clone(), json!({}), json!({}))]),
            mode,
        )
    };
    let auditor = |name: &str| somebody(name, json!(["auditor"]), &joiner, JoinMode::Moderator);
    let alone = demands.may_run(&[auditor("bob")]);
    assert!(!alone.allowed && alone.on_leave == OnLeave::Pause);
    assert!(alone.missing[0].contains("2x moderator"), "{alone:?}");
    assert!(demands.may_run(&[auditor("bob"), auditor("carol")]).allowed);
    assert!(!demands.may_run(&[auditor("bob"), auditor("bob")]).allowed, "one person at two terminals");
    assert!(!demands.may_run(&[auditor("bob"), auditor("alice")]).allowed, "the owner does not count");
    assert!(!demands.may_run(&[auditor("bob"), somebody("dan", json!(["dev"]), &joiner, JoinMode::Moderator)]).allowed);
    assert!(
        !demands.may_run(&[auditor("bob"), somebody("dan", json!(["auditor"]), &joiner, JoinMode::Observer)]).allowed
    );
    assert!(
        !demands
            .may_run(&[auditor("bob"), somebody("dan", json!(["auditor"]), &json!({}), JoinMode::Moderator)])
            .allowed
    );
}

#[test]
fn problems_of_roles_are_found_with_their_path() {
    let bad = role(
        "r",
        json!({"logins": ["{{internal.nosuch}}"], "node_labels": {"region": "^us-(east$"}, "app_labels_expression": "nonsense(1)",
               "rules": [{"resources": ["usr"], "verbs": ["read"], "where": "contains("}],
               "impersonate": {"users": ["a"], "roles": ["^($"], "where": "x.y"},
               "require_session_join": [{"filter": "user."}]}),
        json!({"node_labels_expression": "labels.a =="}),
        json!({"cert_extensions": [{"name": "x", "value": "{{a"}]}),
    );
    let found = lint_role(&bad);
    for path in [
        "spec.allow.logins[0]",
        "spec.allow.node_labels",
        "spec.allow.app_labels_expression",
        "spec.allow.rules[0].where",
        "spec.allow.rules[0].resources",
        "spec.allow.impersonate.where",
        "spec.allow.impersonate.roles[0]",
        "spec.allow.require_session_join[0].filter",
        "spec.deny.node_labels_expression",
        "spec.options.cert_extensions[0].value",
    ] {
        assert!(found.iter().any(|p| p.path == path), "{path} is not in {found:?}");
    }
    let kind = found.iter().find(|p| p.path == "spec.allow.rules[0].resources").unwrap();
    assert!(!kind.fatal && kind.problem.contains("did you mean \"user\"?"), "{kind}");
    for preset in presets::roles().iter().chain([&presets::implicit_role()]) {
        assert_eq!(lint_role(preset), [], "{:?}", preset.metadata);
    }
}
