//! Who may ask for what, who may decide, and what counts as decided.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{role, set, traits};
use proptest::prelude::*;
use rbac::{RoleSet, Thresholds, Wish, reviewed_state};
use serde_json::{Value, json};
use wire::types::{AccessRequestSpecV3, AccessReview, RequestState, ThresholdIndexSet, ThresholdIndexSets};

fn asking(request: Value) -> RoleSet {
    set(vec![role("asks", json!({"request": request}), json!({}), json!({}))])
}

fn may_ask(set: &RoleSet, name: &str) -> bool {
    set.check_request(name, Wish::Roles).is_allowed()
}

#[test]
fn roles_are_asked_for_by_name_pattern_and_trait() {
    let cases: &[(Value, &str, bool)] = &[
        (json!({"roles": ["dba"]}), "dba", true),
        (json!({"roles": ["dba"]}), "dba2", false),
        (json!({"roles": ["team-*"]}), "team-db", true),
        (json!({"roles": ["^team-(db|web)$"]}), "team-ops", false),
        (json!({"roles": ["team-{{external.team}}"]}), "team-web", true),
        (json!({"roles": ["team-{{external.team}}"]}), "team-ops", false),
        (json!({"claims_to_roles": [{"claim": "team", "value": "db", "roles": ["dba"]}]}), "dba", true),
        (json!({"claims_to_roles": [{"claim": "team", "value": "ops", "roles": ["dba"]}]}), "dba", false),
        (json!({"claims_to_roles": [{"claim": "team", "value": "*", "roles": ["lead-$1"]}]}), "lead-web", true),
        (json!({"claims_to_roles": [{"claim": "team", "value": "^($", "roles": ["dba"]}]}), "dba", false),
        (json!({"search_as_roles": ["dba"]}), "dba", false),
    ];
    for (request, name, expected) in cases {
        assert_eq!(may_ask(&asking(request.clone()), name), *expected, "{request} {name}");
    }
}

#[test]
fn the_values_of_traits_are_no_patterns() {
    let roles = vec![role(
        "asks",
        json!({"request": {
            "roles": ["team-{{external.team}}"],
            "claims_to_roles": [{"claim": "team", "value": "*", "roles": ["lead-$1"]}],
        }}),
        json!({}),
        json!({}),
    )];
    for value in ["*", "^.*$", "{{external.team}}"] {
        let set = RoleSet::compile(roles.clone(), traits(&[("team", &[value])]));
        assert!(!may_ask(&set, "team-ops") && !may_ask(&set, "lead-ops"), "{value}");
    }
}

#[test]
fn what_a_trait_makes_a_pattern_denies_as_one() {
    let claims = json!({"claims_to_roles": [{"claim": "team", "value": "*", "roles": ["lead-$1"]}]});
    let allow = role("allow", json!({"request": {"roles": ["*"]}}), json!({}), json!({}));
    let deny = role("deny", json!({}), json!({"request": claims.clone()}), json!({}));
    for (value, name, allowed) in [
        ("web", "lead-web", false),
        ("web", "lead-ops", true),
        ("*", "lead-ops", false),
        ("^x", "lead-^x", false),
        ("{{external.team", "lead-ops", false),
        ("*", "dba", true),
    ] {
        let set = RoleSet::compile(vec![allow.clone(), deny.clone()], traits(&[("team", &[value])]));
        assert_eq!(may_ask(&set, name), allowed, "{value} {name}");
    }
}

#[test]
fn one_denial_is_enough_and_what_is_broken_denies() {
    let allow = role("allow", json!({"request": {"roles": ["*"], "search_as_roles": ["dba"]}}), json!({}), json!({}));
    for deny in [
        json!({"roles": ["d*"]}),
        json!({"roles": ["{{external.team"]}),
        json!({"claims_to_roles": [{"claim": "team", "value": "db", "roles": ["dba"]}]}),
        json!({"claims_to_roles": [{"claim": "team", "value": "^($", "roles": ["x"]}]}),
    ] {
        let set = set(vec![allow.clone(), role("deny", json!({}), json!({"request": deny}), json!({}))]);
        assert!(!may_ask(&set, "dba"), "{deny}");
    }
    let denied = set(vec![allow, role("deny", json!({}), json!({"request": {"search_as_roles": ["dba"]}}), json!({}))]);
    assert!(denied.search_as_roles().is_empty() && may_ask(&denied, "dba"));
}

#[test]
fn thresholds_come_from_every_role_that_lists_what_is_asked_for() {
    let two = json!({"name": "two", "approve": 2, "deny": 1});
    let set = set(vec![
        role("a", json!({"request": {"roles": ["dba"], "thresholds": [two]}}), json!({}), json!({})),
        role("b", json!({"request": {"roles": ["dba", "dev"]}}), json!({}), json!({})),
    ]);
    let Thresholds { list, by_role } = set.thresholds(&["dba".into(), "dev".into(), "other".into()], Wish::Roles);
    let names: Vec<&str> = list.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["two", "default"]);
    let sets = |role: &str| by_role[role].sets.iter().map(|set| set.indexes.clone()).collect::<Vec<_>>();
    assert_eq!((sets("dba"), sets("dev"), sets("other")), (vec![vec![0], vec![1]], vec![vec![1]], vec![]));
}

#[test]
fn times_reviewers_and_annotations_are_put_together() {
    let set = set(vec![
        role(
            "a",
            json!({"request": {"roles": ["dba", "dev"], "max_duration": "24h", "suggested_reviewers": ["bob"],
                "annotations": {"team": ["{{external.team}}", "x"]}}}),
            json!({"request": {"annotations": {"team": ["x"]}}}),
            json!({}),
        ),
        role("b", json!({"request": {"roles": ["dba"], "max_duration": "48h"}}), json!({}), json!({})),
        role("c", json!({"request": {"roles": ["plain"]}}), json!({}), json!({})),
    ]);
    let longest = |roles: &[&str]| {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        set.longest_request(&roles, Wish::Roles).map(|time| time.as_secs() / 3600)
    };
    assert_eq!((longest(&["dba"]), longest(&["dba", "dev"])), (Some(48), Some(24)));
    assert_eq!((longest(&["dba", "plain"]), longest(&[])), (None, None));
    assert_eq!(set.suggested_reviewers(), ["bob"]);
    assert_eq!(set.request_annotations()["team"], ["db", "web"]);
    assert!(set.longest_request(&["dba".into()], Wish::Resources).is_none_or(|time| time == Duration::ZERO));
}

fn request(roles: &[&str], reason: &str) -> AccessRequestSpecV3 {
    AccessRequestSpecV3 {
        user: "ann".to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        request_reason: reason.to_owned(),
        ..Default::default()
    }
}

#[test]
fn reviewers_review_what_all_their_conditions_allow() {
    let reviewing = |allow: Value, deny: Value| {
        let deny = json!({"review_requests": deny});
        set(vec![role("reviews", json!({"review_requests": allow}), deny, json!({}))])
    };
    let cases = [
        (json!({"roles": ["dba"]}), json!({}), &["dba"][..], true),
        (json!({"roles": ["dba"]}), json!({}), &["dba", "dev"], false),
        (json!({"roles": ["d*"]}), json!({}), &["dba", "dev"], true),
        (json!({"roles": ["d*"]}), json!({"roles": ["dev"]}), &["dba", "dev"], false),
        (json!({"roles": ["d*"]}), json!({"roles": ["dev"]}), &["dba"], true),
        (json!({"roles": ["*"], "where": "contains(request.roles, \"dba\")"}), json!({}), &["dev"], false),
        (json!({"roles": ["*"], "where": "contains(reviewer.traits[\"team\"], \"db\")"}), json!({}), &["dba"], true),
        (json!({"roles": ["*"], "where": "request.reason == \"x\""}), json!({}), &["dba"], false),
        (json!({"roles": ["*"], "where": "nonsense("}), json!({}), &["dba"], false),
        (json!({"roles": ["*"]}), json!({"roles": ["*"], "where": "nonsense("}), &["dba"], false),
        (json!({"roles": ["*"]}), json!({}), &[], false),
    ];
    for (allow, deny, roles, expected) in cases {
        let reviewer = reviewing(allow.clone(), deny.clone());
        assert_eq!(reviewer.check_review(&request(roles, "why")).is_allowed(), expected, "{allow} {deny} {roles:?}");
    }
}

#[test]
fn a_review_counts_for_the_thresholds_whose_filter_fits() {
    let reviewer = set(vec![role("lead", json!({}), json!({}), json!({}))]);
    let mut request = request(&["dba"], "why");
    request.thresholds = serde_json::from_value(json!([
        {"name": "any"},
        {"name": "leads", "filter": "contains(reviewer.roles, \"lead\")"},
        {"name": "others", "filter": "contains(reviewer.roles, \"boss\")"},
        {"name": "reasoned", "filter": "!equals(review.reason, \"\")"},
        {"name": "broken", "filter": "("},
    ]))
    .unwrap();
    assert_eq!(reviewer.thresholds_met_by(&request, &AccessReview::default()), [0, 1]);
    let reasoned = AccessReview { reason: "fine".to_owned(), ..Default::default() };
    assert_eq!(reviewer.thresholds_met_by(&request, &reasoned), [0, 1, 3]);
}

/// A request of one role with these approvals and denials needed, in one set.
fn counted(thresholds: &[(u32, u32)], reviews: &[(RequestState, &[u32])]) -> RequestState {
    let mut request = request(&["dba"], "");
    let listed: Vec<Value> = thresholds.iter().map(|(a, d)| json!({"approve": a, "deny": d})).collect();
    request.thresholds = serde_json::from_value(json!(listed)).unwrap();
    let indexes = (0..u32::try_from(thresholds.len()).unwrap()).collect();
    let sets = ThresholdIndexSets { sets: vec![ThresholdIndexSet { indexes }] };
    request.role_threshold_mapping.insert("dba".to_owned(), sets);
    request.reviews = reviews
        .iter()
        .map(|(state, counted)| AccessReview {
            proposed_state: (*state).into(),
            threshold_indexes: counted.to_vec(),
            ..Default::default()
        })
        .collect();
    reviewed_state(&request)
}

#[test]
fn enough_reviews_decide() {
    use RequestState::{Approved, Denied, Pending};
    assert_eq!(counted(&[(1, 1)], &[]), Pending);
    assert_eq!(counted(&[(1, 1)], &[(Approved, &[0])]), Approved);
    assert_eq!(counted(&[(1, 1)], &[(Approved, &[])]), Pending, "the review fits no threshold");
    assert_eq!(counted(&[(2, 1)], &[(Approved, &[0])]), Pending);
    assert_eq!(counted(&[(2, 1)], &[(Approved, &[0]), (Denied, &[0])]), Denied);
    assert_eq!(counted(&[(2, 2)], &[(Approved, &[0]), (Denied, &[0]), (Approved, &[0])]), Approved);
    assert_eq!(counted(&[(0, 1)], &[(Approved, &[0])]), Pending, "zero approvals are never enough");
    assert_eq!(counted(&[(3, 1), (1, 1)], &[(Approved, &[1])]), Approved, "one threshold of a set is enough");
}

#[test]
fn a_role_without_thresholds_is_never_approved() {
    let mut request = request(&["dba", "dev"], "");
    request.thresholds = serde_json::from_value(json!([{"approve": 1, "deny": 1}])).unwrap();
    let sets = ThresholdIndexSets { sets: vec![ThresholdIndexSet { indexes: vec![0] }] };
    request.role_threshold_mapping.insert("dba".to_owned(), sets);
    let approved = RequestState::Approved.into();
    request.reviews =
        vec![AccessReview { proposed_state: approved, threshold_indexes: vec![0, 7], ..Default::default() }];
    assert_eq!(reviewed_state(&request), RequestState::Pending);
}

proptest! {
    #[test]
    fn another_deny_never_lets_anybody_ask_for_more(
        allowed in prop::collection::vec("[a-c*]{1,2}", 0..3),
        denied in prop::collection::vec("[a-c*]{1,2}", 0..3),
        asked in "[a-c]{1,2}",
    ) {
        let allow = role("allow", json!({"request": {"roles": allowed}}), json!({}), json!({}));
        let deny = role("deny", json!({}), json!({"request": {"roles": denied}}), json!({}));
        let (without, with) = (set(vec![allow.clone()]), set(vec![deny, allow]));
        prop_assert!(!may_ask(&with, &asked) || may_ask(&without, &asked));
    }

    #[test]
    fn denials_never_approve_and_approvals_never_deny(
        approve in 0u32..4, deny in 0u32..4, reviews in prop::collection::vec(any::<bool>(), 0..8),
    ) {
        let state = |approves: &bool| if *approves { RequestState::Approved } else { RequestState::Denied };
        let list: Vec<(RequestState, &[u32])> = reviews.iter().map(|one| (state(one), &[0][..])).collect();
        let decided = counted(&[(approve, deny)], &list);
        let last = list.last().map(|(state, _)| *state);
        prop_assert!(decided == RequestState::Pending || Some(decided) == last);
        let approvals = u32::try_from(reviews.iter().filter(|one| **one).count()).unwrap();
        prop_assert!(decided != RequestState::Approved || (approve > 0 && approvals >= approve));
    }
}
