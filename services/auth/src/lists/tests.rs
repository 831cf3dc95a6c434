#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use resources::Resource as _;
use serde_json::{Value, from_value, json};
use wire::accesslist::{AccessList, Member, Review};
use wire::error::ErrorKind;
use wire::types::{AccessRequestSpecV3, AccessRequestV3, RequestState};

use super::change::MAX_MEMBERS;
use super::list_of;
use crate::requests::{Reviewer, state_of};
use crate::store::kind;
use crate::testing::{Away, Service, user};
use crate::{Auth, Write};

fn list(name: &str, owners: &[&str]) -> AccessList {
    let owners: Vec<Value> = owners.iter().map(|name| json!({"name": name})).collect();
    let spec = json!({"title": name, "owners": owners, "grants": {"roles": ["auditor"]}});
    from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

fn member(list: &str, name: &str, kind: &str) -> Member {
    let spec = json!({"access_list": list, "name": name, "membership_kind": kind});
    from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

const USER: &str = "MEMBERSHIP_KIND_USER";
const LIST: &str = "MEMBERSHIP_KIND_LIST";

/// A service whose audit log can be away, with the list `l` of olga and otto.
async fn service() -> (Service, Auth, Arc<Away>) {
    let service = Service::start().await;
    service.auth.shutdown().await;
    let log = Arc::new(Away::default());
    let auth = service.again(|config| config.audit_sinks.push(log.clone())).await;
    auth.write_access_list(&service.admin(), list("l", &["olga", "otto"]), Write::Upsert).await.unwrap();
    (service, auth, log)
}

fn members(auth: &Auth, list: &str) -> usize {
    auth.store().count_below::<kind::AccessListMember>(list)
}

fn owners(auth: &Auth, list: &str) -> Vec<String> {
    let list = auth.store().cached::<kind::AccessList>(list).unwrap();
    list.spec.iter().flat_map(|spec| &spec.owners).map(|owner| owner.name.clone()).collect()
}

#[tokio::test]
async fn a_removal_of_a_user_that_failed_can_be_repeated() {
    let (service, auth, log) = service().await;
    let admin = service.admin();
    auth.create_user(&admin, user("olga", &["access"])).await.unwrap();
    auth.write_list_member(&admin, member("l", "olga", USER), Write::Upsert).await.unwrap();
    log.0.store(true, Ordering::SeqCst);
    auth.delete_user(&admin, "olga").await.unwrap_err();
    log.0.store(false, Ordering::SeqCst);
    auth.delete_user(&admin, "olga").await.unwrap();
    assert_eq!((members(&auth, "l"), owners(&auth, "l")), (0, vec!["otto".to_owned()]));
    assert_eq!(auth.delete_user(&admin, "olga").await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn the_only_owner_of_a_list_stays() {
    let (service, auth, _) = service().await;
    let admin = service.admin();
    auth.create_user(&admin, user("olga", &["access"])).await.unwrap();
    auth.write_list_member(&admin, member("l", "olga", USER), Write::Upsert).await.unwrap();
    auth.write_access_list(&admin, list("hers", &["olga"]), Write::Upsert).await.unwrap();
    let error = auth.delete_user(&admin, "olga").await.unwrap_err();
    assert!(error.message.contains("only owner of access list \"hers\""), "{error}");
    assert_eq!((members(&auth, "l"), owners(&auth, "l").len()), (1, 2));
    assert!(auth.get_user("olga", false).await.is_ok());
    auth.write_access_list(&admin, list("hers", &["olga", "otto"]), Write::Upsert).await.unwrap();
    auth.delete_user(&admin, "olga").await.unwrap();
    assert_eq!((owners(&auth, "l"), owners(&auth, "hers")), (vec!["otto".to_owned()], vec!["otto".to_owned()]));
}

#[tokio::test]
async fn a_list_that_bears_the_name_of_a_user_stays_where_it_is() {
    let (service, auth, _) = service().await;
    let admin = service.admin();
    auth.create_user(&admin, user("olga", &["access"])).await.unwrap();
    auth.write_access_list(&admin, list("olga", &["otto"]), Write::Upsert).await.unwrap();
    auth.write_list_member(&admin, member("l", "olga", LIST), Write::Upsert).await.unwrap();
    auth.delete_user(&admin, "olga").await.unwrap();
    assert_eq!(members(&auth, "l"), 1);
    let error = auth.delete_access_list(&admin, "olga").await.unwrap_err();
    assert!(error.message.contains("is a member of access list \"l\""), "{error}");
}

/// Twelve lists on each of nine levels, each with all lists of the next level as members: 12⁹ ways down.
#[tokio::test]
async fn lists_in_many_lists_are_counted_once() {
    let (service, auth, _) = service().await;
    let name = |level: usize, number: usize| format!("l{level}-{number}");
    for level in 0..9 {
        for number in 0..12 {
            auth.store().upsert::<kind::AccessList>(list(&name(level, number), &["olga"])).await.unwrap();
            for below in (0..12).filter(|_| level < 8) {
                let nested = member(&name(level, number), &name(level + 1, below), LIST);
                auth.store().upsert::<kind::AccessListMember>(nested).await.unwrap();
            }
        }
    }
    assert_eq!((auth.levels_below("l0-0"), auth.levels_above("l8-0").len()), (8, 8));
    let admin = service.admin();
    let nested = |outer: &str, inner: &str| member(outer, inner, LIST);
    auth.write_list_member(&admin, nested("l", "l0-0"), Write::Upsert).await.unwrap();
    for outer in ["above", "top"] {
        auth.write_access_list(&admin, list(outer, &["olga"]), Write::Upsert).await.unwrap();
    }
    auth.write_list_member(&admin, nested("above", "l"), Write::Upsert).await.unwrap();
    let error = auth.write_list_member(&admin, nested("top", "above"), Write::Upsert).await.unwrap_err();
    assert!(error.message.contains("at most 10 levels deep"), "{error}");
    let error = auth.write_list_member(&admin, nested("l8-11", "above"), Write::Upsert).await.unwrap_err();
    assert!(error.message.contains("would contain itself"), "{error}");
    // A membership that ended is no level.
    auth.delete_list_member(&admin, "l", "l0-0").await.unwrap();
    auth.write_list_member(&admin, nested("top", "above"), Write::Upsert).await.unwrap();
}

#[tokio::test]
async fn a_review_that_failed_leaves_the_list_due_and_can_be_repeated() {
    let (service, auth, log) = service().await;
    let admin = service.admin();
    for name in ["ann", "bob"] {
        auth.write_list_member(&admin, member("l", name, USER), Write::Upsert).await.unwrap();
    }
    let review = |removed: &[&str]| -> Review {
        let spec = json!({"access_list": "l", "changes": {"removed_members": removed}});
        from_value(json!({"spec": spec})).unwrap()
    };
    let due = || {
        let list = auth.store().cached::<kind::AccessList>("l").unwrap();
        list.spec.as_ref().unwrap().audit.unwrap().next_audit_date
    };
    let before = due();
    log.0.store(true, Ordering::SeqCst);
    auth.review_access_list(&admin, "olga", review(&["ann", "bob"])).await.unwrap_err();
    log.0.store(false, Ordering::SeqCst);
    assert_eq!((due(), members(&auth, "l")), (before, 1));
    let reviews = || auth.store().cached_below::<kind::AccessListReview>("l").len();
    assert_eq!(reviews(), 0, "nobody sees what was not done");
    auth.review_access_list(&admin, "olga", review(&["ann", "bob"])).await.unwrap();
    assert_eq!(members(&auth, "l"), 0);
    assert_ne!(due(), before);
    let error = auth.review_access_list(&admin, "olga", review(&["carl"])).await.unwrap_err();
    assert!(error.message.contains("\"carl\" is no member"), "{error}");
    assert_eq!(reviews(), 1);
    let error = auth.review_access_list(&admin, "olga", review(&["ann"])).await.unwrap_err();
    assert!(error.message.contains("\"ann\" is no member"), "the review that removed her is done: {error}");
}

#[tokio::test]
async fn a_request_is_not_decided_when_the_list_takes_no_more_members() {
    let (service, auth, _) = service().await;
    let admin = service.admin();
    for number in 0..MAX_MEMBERS {
        let member = member("l", &format!("m{number}"), USER);
        auth.store().upsert::<kind::AccessListMember>(member).await.unwrap();
    }
    let mut request = AccessRequestV3 {
        spec: Some(AccessRequestSpecV3 {
            user: "ann".into(),
            roles: vec!["auditor".into()],
            state: RequestState::Pending.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    request.metadata_mut().name = "6d1f5a3e-0000-4000-8000-000000000001".to_owned();
    let id = request.name().to_owned();
    auth.store().upsert::<kind::AccessRequest>(request).await.unwrap();
    let roles = rbac::RoleSet::compile(Vec::new(), rbac::Traits::default());
    let promote =
        || auth.promote_access_request(&admin, Reviewer { name: "olga", roles: &roles }, (&id, "l"), "needed");
    assert_eq!(promote().await.unwrap_err().kind, ErrorKind::LimitExceeded);
    let request = auth.store().cached::<kind::AccessRequest>(&id).unwrap();
    assert_eq!(state_of(request.spec.as_ref().unwrap()), RequestState::Pending);
    auth.delete_list_member(&admin, "l", "m0").await.unwrap();
    promote().await.unwrap();
    assert!(
        auth.store().cached_below::<kind::AccessListMember>("l").iter().any(|m| m.name() == "ann" && list_of(m) == "l")
    );
}
