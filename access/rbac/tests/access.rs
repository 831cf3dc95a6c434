//! Who reaches which server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{lab1, role, set, traits, versioned};
use rbac::{AccessState, Ask, Cause, Labels, MfaRequired, RoleSet, Target};
use serde_json::{Value, json};
use wire::types::{RemoteClusterV3, ResourceId, ServerV2};

const PROVED: AccessState =
    AccessState { mfa_required: MfaRequired::Never, mfa_verified: true, device_exempt: true, device_verified: false };

fn reaches(allow: &Value, deny: &Value) -> bool {
    let mut allow = allow.clone();
    allow["logins"] = json!(["root"]);
    let roles = set(vec![role("r", allow, deny.clone(), json!({}))]);
    let reached = roles.check_node(&lab1(), "root", &PROVED).is_allowed();
    let seen = roles.can_see_node(&lab1());
    assert!(seen == reached || (seen && deny.get("logins").is_some()), "what is seen is what is reached");
    reached
}

#[test]
fn labels_decide_which_servers_are_reached() {
    let none = || json!({});
    let labels = |l: Value| json!({"node_labels": l});
    let expression = |e: &str| json!({"node_labels_expression": e});
    let any = || labels(json!({"*": "*"}));
    for (case, allow, deny, reached) in [
        ("exact value", labels(json!({"env": "prod"})), none(), true),
        ("other value", labels(json!({"env": "test"})), none(), false),
        ("value is case-sensitive", labels(json!({"env": "Prod"})), none(), false),
        ("wildcard", any(), none(), true),
        ("any value of a key", labels(json!({"env": "*"})), none(), true),
        ("any value of a missing key", labels(json!({"stage": "*"})), none(), false),
        ("glob", labels(json!({"region": "us-*-1"})), none(), true),
        ("regex", labels(json!({"region": r"^us-(east|west)-\d$"})), none(), true),
        ("regex fits the whole value only", labels(json!({"region": "^us$"})), none(), false),
        ("regex needs both anchors", labels(json!({"region": r"us-(east|west)-\d"})), none(), false),
        ("one of several values", labels(json!({"env": ["dev", "prod"]})), none(), true),
        ("every key must fit", labels(json!({"env": "prod", "team": "web"})), none(), false),
        ("several keys fit", labels(json!({"env": "prod", "team": ["web", "db"]})), none(), true),
        ("command label", labels(json!({"kernel": "Linux"})), none(), true),
        ("no labels", none(), none(), false),
        ("empty labels", labels(json!({})), none(), false),
        ("trait", labels(json!({"team": "{{external.team}}"})), none(), true),
        (
            "trait in a key",
            labels(json!({"{{regexp.replace(external.team, \"^db$\", \"team\")}}": "db"})),
            none(),
            true,
        ),
        ("trait the user lacks", labels(json!({"team": "{{external.squad}}"})), none(), false),
        ("trait of the wrong value", labels(json!({"env": "{{external.team}}"})), none(), false),
        ("expression", expression(r#"labels["env"] == "prod" && labels.team != "web""#), none(), true),
        ("expression with traits", expression(r#"contains(user.spec.traits["team"], labels["team"])"#), none(), true),
        (
            "expression that is false",
            expression(
                r#"contains(user.spec.traits["team"], labels["env"]) || !regexp.match(labels["region"], "us-*")"#,
            ),
            none(),
            false,
        ),
        (
            "expression with functions",
            expression(
                r#"contains_any(labels_matching("reg*"), user.spec.traits["region"]) && contains(strings.upper(labels["env"]), "PROD")"#,
            ),
            none(),
            true,
        ),
        (
            "contains_all of nothing",
            expression("contains_all(user.spec.traits.team, user.spec.traits.none)"),
            none(),
            false,
        ),
        (
            "labels and expression must both fit",
            json!({"node_labels": {"env": "prod"}, "node_labels_expression": r#"labels.team == "web""#}),
            none(),
            false,
        ),
        ("deny beats allow", any(), labels(json!({"env": "prod"})), false),
        ("deny of other labels", any(), labels(json!({"env": "test"})), true),
        ("deny by expression", any(), expression(r#"labels.owner == "tpbob""#), false),
        (
            "deny by either",
            any(),
            json!({"node_labels": {"env": "test"}, "node_labels_expression": r#"labels.owner == "tpbob""#}),
            false,
        ),
        ("deny by trait", any(), labels(json!({"team": "{{external.team}}"})), false),
        ("deny by regex", any(), labels(json!({"owner": "^tp.*$"})), false),
        ("broken regex in allow", labels(json!({"region": "^us-(east$"})), none(), false),
        ("broken regex in deny", any(), labels(json!({"nothing": "^us-(east$"})), false),
        ("broken expression in allow", expression(r#"labels["env"] =="#), none(), false),
        ("broken expression in deny", any(), expression("nonsense(1)"), false),
        ("expression without truth value in allow", expression(r#"labels["env"]"#), none(), false),
        ("expression without truth value in deny", any(), expression(r#"labels["env"]"#), false),
        ("broken template in deny", any(), labels(json!({"team": "{{external.team"})), false),
        ("broken login template in deny", any(), json!({"logins": ["{{internal.nosuch}}"]}), false),
        ("denied login", any(), json!({"logins": ["root"]}), false),
        ("other denied login", any(), json!({"logins": ["*", "ann"]}), true),
    ] {
        assert_eq!(reaches(&allow, &deny), reached, "{case}");
    }
}

#[test]
fn a_dynamic_label_hides_a_fixed_one() {
    let mut server = lab1();
    server.metadata.as_mut().unwrap().labels.insert("kernel".into(), "Plan9".into());
    let of = |value: &str| {
        let roles =
            set(vec![role("r", json!({"logins": ["root"], "node_labels": {"kernel": value}}), json!({}), json!({}))]);
        roles.can_see_node(&server)
    };
    assert!(of("Linux"));
    assert!(!of("Plan9"));
    assert_eq!(Labels::of(&server).iter().filter(|(k, _)| *k == "kernel").count(), 1);
}

#[test]
fn unlabelled_servers_need_the_lone_wildcard() {
    let bare = ServerV2::default();
    let sees =
        |labels: Value| set(vec![role("r", json!({"node_labels": labels}), json!({}), json!({}))]).can_see_node(&bare);
    assert!(sees(json!({"*": "*"})));
    assert!(!sees(json!({"env": "*"})));
}

#[test]
fn users_cannot_widen_labels_by_their_traits() {
    let roles = RoleSet::compile(
        [role("r", json!({"logins": ["root"], "node_labels": {"team": "{{external.team}}"}}), json!({}), json!({}))],
        traits(&[("team", &["*", "^.*$", "d*"])]),
    );
    assert!(!roles.can_see_node(&lab1()));
}

#[test]
fn a_login_of_one_role_is_not_good_for_the_servers_of_another() {
    let roles = set(vec![
        role("labels", json!({"node_labels": {"env": "prod"}, "logins": ["ann"]}), json!({}), json!({})),
        role("login", json!({"node_labels": {"env": "test"}, "logins": ["root"]}), json!({}), json!({})),
    ]);
    assert!(roles.check_node(&lab1(), "ann", &PROVED).is_allowed());
    assert!(!roles.check_node(&lab1(), "root", &PROVED).is_allowed());
    assert_eq!(roles.node_logins(&lab1()), ["ann"]);
}

#[test]
fn denials_name_the_deciding_role_and_field() {
    let any = || json!({"node_labels": {"*": "*"}, "logins": ["root", "ann"]});
    let roles = set(vec![
        role("open", any(), json!({}), json!({})),
        role("no-root", json!({}), json!({"logins": ["root"]}), json!({})),
    ]);
    let denial = roles.check_node(&lab1(), "root", &PROVED).into_result().unwrap_err();
    assert_eq!(denial.message, "access to node denied. User does not have permissions. Confirm SSH login.");
    assert_eq!((denial.role.as_deref(), denial.field.as_deref()), (Some("no-root"), Some("deny.logins")));
    assert!(denial.is_explicit());

    let roles =
        set(vec![role("dev", json!({"node_labels": {"env": "test"}, "logins": ["ann"]}), json!({}), json!({}))]);
    let denial = roles.check_node(&lab1(), "root", &PROVED).into_result().unwrap_err();
    assert_eq!(denial.cause, Cause::NotGranted);
    let why = denial.explanation();
    assert!(why.contains(r#"role "dev", allow.node_labels: label "env" is "prod""#), "{why}");
    assert!(why.contains(r#"role "dev", allow.logins: does not have "root""#), "{why}");

    let roles = set(vec![role(
        "blind",
        json!({"node_labels": {"*": "*"}, "logins": ["root"]}),
        json!({"node_labels": {"env": "prod"}}),
        json!({}),
    )]);
    let denial = roles.check_node(&lab1(), "root", &PROVED).into_result().unwrap_err();
    assert_eq!(denial.field.as_deref(), Some("deny.node_labels"));
}

#[test]
fn second_factors_and_trusted_devices_are_asked_for() {
    let any = || json!({"node_labels": {"*": "*"}, "logins": ["root"]});
    let plain = || role("plain", any(), json!({}), json!({}));
    let mfa = || role("mfa", any(), json!({}), json!({"require_session_mfa": true}));
    let device = || role("device", any(), json!({}), json!({"device_trust_mode": "required"}));
    let cause =
        |roles: &RoleSet, state: AccessState| roles.check_node(&lab1(), "root", &state).denial().map(|d| d.cause);
    let nothing = AccessState::default();
    let second = AccessState { mfa_verified: true, ..nothing };
    let trusted = AccessState { device_verified: true, ..nothing };

    assert_eq!(cause(&set(vec![plain()]), nothing), None);
    assert_eq!(cause(&set(vec![plain(), mfa()]), nothing), Some(Cause::MfaRequired));
    assert_eq!(cause(&set(vec![plain(), mfa()]), second), None);
    assert_eq!(cause(&set(vec![plain(), device()]), second), Some(Cause::TrustedDeviceRequired));
    assert_eq!(cause(&set(vec![plain(), device()]), trusted), None);
    assert_eq!(cause(&set(vec![device()]), AccessState { device_exempt: true, ..nothing }), None);
    let always = AccessState { mfa_required: MfaRequired::Always, ..nothing };
    assert_eq!(cause(&set(vec![plain()]), always), Some(Cause::MfaRequired));

    // A role that does not grant access does not object either.
    let elsewhere = role(
        "mfa",
        json!({"node_labels": {"env": "test"}, "logins": ["root"]}),
        json!({}),
        json!({"require_session_mfa": true}),
    );
    assert_eq!(cause(&set(vec![plain(), elsewhere]), nothing), None);

    assert_eq!(set(vec![plain()]).mfa_required(0), MfaRequired::Never);
    assert_eq!(set(vec![plain(), mfa()]).mfa_required(0), MfaRequired::PerRole);
    assert_eq!(set(vec![mfa()]).mfa_required(0), MfaRequired::Always);
    assert_eq!(set(vec![plain()]).mfa_required(1), MfaRequired::Always);
    assert!(set(vec![mfa()]).can_see_node(&lab1()));
}

#[test]
fn certificates_bound_to_resources_reach_only_those() {
    let roles = set(vec![role("r", json!({"node_labels": {"*": "*"}, "logins": ["root"]}), json!({}), json!({}))]);
    let id = |cluster: &str, name: &str| ResourceId {
        cluster_name: cluster.into(),
        kind: "node".into(),
        name: name.into(),
        ..Default::default()
    };
    let bound = |ids: Vec<ResourceId>| roles.bound_to("example.com", ids).check_node(&lab1(), "root", &PROVED);
    assert!(bound(vec![id("example.com", "id-lab1")]).is_allowed());
    assert!(bound(Vec::new()).is_allowed());
    for ids in [vec![id("example.com", "other")], vec![id("leaf", "id-lab1")]] {
        let denial = bound(ids).into_result().unwrap_err();
        assert_eq!(denial.message, "access to node denied, not in allowed resource IDs");
    }
}

#[test]
fn databases_and_clouds_compare_names_in_their_own_way() {
    let roles = RoleSet::compile(
        [role(
            "r",
            json!({"db_labels": {"*": "*"}, "db_users": ["Ann", "{{internal.db_users}}"], "db_names": ["{{internal.db_names}}"],
                   "app_labels": {"*": "*"}, "aws_role_arns": ["arn:1"], "azure_identities": ["/Sub/One"]}),
            json!({"db_names": ["secret"], "aws_role_arns": ["*"]}),
            json!({}),
        )],
        traits(&[("db_names", &["*"]), ("db_users", &["reader"])]),
    );
    let labels = std::collections::BTreeMap::new();
    let ask = |kind: &str, asks: &[Ask<'_>]| {
        let target = Target { kind, name: "x", labels: Labels::fixed(&labels) };
        roles.check_access(&target, asks, &PROVED).is_allowed()
    };
    let user = |name, ignore_case| Ask::DatabaseUser { name, ignore_case };
    assert!(ask("db", &[user("reader", false), Ask::DatabaseName("any")]));
    assert!(!ask("db", &[user("reader", false), Ask::DatabaseName("secret")]));
    assert!(!ask("db", &[user("ann", false)]));
    assert!(ask("db", &[user("ann", true)]));
    assert!(!ask("app", &[Ask::AwsRoleArn("arn:1")]), "denied by the wildcard");
    assert!(ask("app", &[Ask::AzureIdentity("/sub/one")]));
    assert!(!ask("nonsense", &[]));
}

#[test]
fn clusters_without_labels_are_open_until_roles_speak_of_clusters() {
    let cluster = |labels: Value| -> RemoteClusterV3 {
        serde_json::from_value(json!({"metadata": {"name": "leaf", "labels": labels}})).unwrap()
    };
    let silent = set(vec![role("r", json!({}), json!({}), json!({}))]);
    let speaking = set(vec![role("r", json!({"cluster_labels": {"env": "test"}}), json!({}), json!({}))]);
    assert!(silent.check_remote_cluster(&cluster(json!({}))).is_allowed());
    assert!(!silent.check_remote_cluster(&cluster(json!({"env": "test"}))).is_allowed());
    assert!(speaking.check_remote_cluster(&cluster(json!({"env": "test"}))).is_allowed());
    let denial = speaking.check_remote_cluster(&cluster(json!({}))).into_result().unwrap_err();
    assert_eq!(denial.message, "access to cluster denied");
}

#[test]
fn an_explanation_shows_every_field_of_every_role() {
    let roles = set(vec![
        role("a", json!({"node_labels": {"env": "prod"}, "logins": ["ann"]}), json!({}), json!({})),
        role("b", json!({"node_labels": {"env": "test"}, "logins": ["root"]}), json!({"logins": ["bob"]}), json!({})),
    ]);
    let server = lab1();
    let explanation = roles.explain(&Target::node(&server), &[Ask::Login("root")], &PROVED);
    assert!(!explanation.decision.is_allowed());
    let of = |name: &str| explanation.roles.iter().find(|r| r.role == name).unwrap();
    let passed = |checks: &[rbac::FieldCheck]| checks.iter().map(|c| (c.field.clone(), c.passed)).collect::<Vec<_>>();
    let pairs = |list: &[(&str, bool)]| list.iter().map(|(f, p)| ((*f).to_owned(), *p)).collect::<Vec<_>>();
    assert_eq!(passed(&of("a").allow), pairs(&[("allow.node_labels", true), ("allow.logins", false)]));
    assert_eq!(passed(&of("b").allow), pairs(&[("allow.node_labels", false), ("allow.logins", true)]));
    assert_eq!(passed(&of("b").deny), pairs(&[("deny.logins", false)]));
    assert!(!of("a").allows() && !of("b").denies());
}

#[test]
fn labels_left_out_mean_all_servers_in_version_v3_and_none_later() {
    let sees = |version: &str| {
        set(vec![versioned(version, "r", json!({"logins": ["root"]}), json!({}), json!({}))]).can_see_node(&lab1())
    };
    assert!(sees("v3"));
    assert!(!sees("v4") && !sees("v5") && !sees("v6") && !sees("v7"));
}

#[test]
fn accounts_are_made_when_every_matching_role_allows_it() {
    let allow = |extra: Value| {
        let mut allow = json!({"node_labels": {"*": "*"}, "logins": ["root"]});
        allow.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        allow
    };
    let keep = role(
        "keep",
        allow(json!({"host_groups": ["wheel", "adm"]})),
        json!({"host_groups": ["adm"]}),
        json!({"create_host_user_mode": "keep"}),
    );
    let drop = role(
        "a-drop",
        allow(json!({"host_sudoers": ["ALL=(ALL) x", "y"]})),
        json!({"host_sudoers": ["y"]}),
        json!({"create_host_user_mode": "insecure-drop"}),
    );
    let off = role("off", allow(json!({})), json!({}), json!({}));
    let user = |roles: Vec<_>| {
        let set = RoleSet::compile(roles, traits(&[("host_user_uid", &["1234"])]));
        set.check_node(&lab1(), "root", &PROVED).into_result().unwrap().host_user
    };
    let made = user(vec![keep.clone(), drop.clone()]).unwrap();
    assert_eq!(made.mode, rbac::HostUserMode::Keep);
    assert_eq!(
        (made.groups, made.sudoers, made.uid, made.gid),
        (vec!["wheel".to_owned()], vec!["ALL=(ALL) x".to_owned()], Some(1234), None)
    );
    assert_eq!(user(vec![drop]).unwrap().mode, rbac::HostUserMode::InsecureDrop);
    let denial = user(vec![keep, off]).unwrap_err();
    assert_eq!(denial.message, "user is not allowed to create host users");
    assert_eq!(denial.role.as_deref(), Some("off"));
}
