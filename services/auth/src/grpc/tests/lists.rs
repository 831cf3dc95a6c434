//! Access lists from the record to the certificate, and what users are told.

use pki::identity::Identity;
use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::x509::Certificate;
use resources::Resource as _;
use serde_json::{Value, from_value, json};
use tonic::Code;
use tonic::transport::Channel;
use wire::accesslist::access_list_service_client::AccessListServiceClient;
use wire::accesslist::{
    AccessRequestPromoteRequest, CreateAccessListReviewRequest, DeleteAccessListRequest, GetAccessListRequest,
    GetAccessListsRequest, GetSuggestedAccessListsRequest, UpsertAccessListMemberRequest, UpsertAccessListRequest,
};
use wire::notifications::notification_service_client::NotificationServiceClient;
use wire::notifications::{
    CreateGlobalNotificationRequest, CreateUserNotificationRequest, ListNotificationsRequest, Notification,
    UpsertUserNotificationStateRequest,
};
use wire::proto::UserCertsRequest;
use wire::types::{AccessRequestSpecV3, AccessRequestV3, PluginDataFilter, PluginDataUpdateParams, RequestState};

use crate::server::testing::{Cluster, Holder};
use crate::store::kind;

type Lists = AccessListServiceClient<Channel>;

async fn lists(cluster: &Cluster, holder: &Holder) -> Lists {
    AccessListServiceClient::new(cluster.channel(Some(holder)).await)
}

fn list(name: &str, owner: &str, more: Value) -> UpsertAccessListRequest {
    let mut spec = json!({"title": name, "owners": [{"name": owner}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let list = json!({"metadata": {"name": name}, "spec": spec});
    UpsertAccessListRequest { access_list: Some(from_value(list).unwrap()) }
}

fn member(list: &str, name: &str, more: Value) -> UpsertAccessListMemberRequest {
    let mut spec = json!({"access_list": list, "name": name});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    UpsertAccessListMemberRequest {
        member: Some(from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()),
    }
}

/// What the certificate of a user says who asks for a new one.
async fn certified(cluster: &Cluster, holder: &Holder, name: &str) -> Identity {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let request = UserCertsRequest {
        username: name.to_owned(),
        tls_public_key: key.public().to_pem().into_bytes(),
        ..Default::default()
    };
    let certs = cluster.client(Some(holder)).await.generate_user_certs(request).await.unwrap().into_inner();
    Identity::from_certificate(&Certificate::from_pem(&String::from_utf8(certs.tls).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn what_a_list_grants_is_in_certificates_as_long_as_the_membership_lasts() {
    let cluster = Cluster::start().await;
    let mut admin = lists(&cluster, &cluster.admin().await).await;
    let olga = cluster.user("olga", &["access"], &[]).await;
    let alice = cluster.user("alice", &["access"], &[]).await;
    let grants = json!({"grants": {"roles": ["auditor"], "traits": {"logins": ["root"]}}});
    admin.upsert_access_list(list("l", "olga", grants)).await.unwrap();
    assert_eq!(certified(&cluster, &alice, "alice").await.groups, ["access"]);

    // Members do not see the list before they are some, owners add them.
    let mut alices = lists(&cluster, &alice).await;
    let name = || GetAccessListRequest { name: "l".to_owned() };
    assert_eq!(alices.get_access_list(name()).await.unwrap_err().code(), Code::PermissionDenied);
    let error = alices.upsert_access_list_member(member("l", "alice", json!({}))).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    let ends = cluster.auth.now() + chrono::TimeDelta::minutes(10);
    let mut olgas = lists(&cluster, &olga).await;
    let added = member("l", "alice", json!({"added_by": "root", "expires": ends.to_rfc3339()}));
    let stored = olgas.upsert_access_list_member(added).await.unwrap().into_inner();
    assert_eq!(stored.spec.unwrap().added_by, "olga");
    assert_eq!(alices.get_access_list(name()).await.unwrap().into_inner().name(), "l");
    let seen = alices.get_access_lists(GetAccessListsRequest {}).await.unwrap().into_inner().access_lists;
    assert_eq!(seen.len(), 1);

    let identity = certified(&cluster, &alice, "alice").await;
    assert_eq!(identity.groups, ["access", "auditor"]);
    assert_eq!(identity.traits.unwrap()["logins"], ["root"]);
    assert_eq!(identity.expires.unwrap().timestamp(), ends.timestamp());
    // An owner decides about members, not about the list.
    let grants = json!({"grants": {"roles": ["editor"]}});
    let error = olgas.upsert_access_list(list("l", "olga", grants)).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    // What a list grants cannot be removed from under it.
    assert!(cluster.auth.delete_role(&cluster.admin_caller(), "auditor").await.is_err());
}

#[tokio::test]
async fn a_login_writes_down_what_the_user_was_let_in_with() {
    let cluster = Cluster::start().await;
    cluster.add_user("alice", &["access"], &[]).await;
    let mut admin = lists(&cluster, &cluster.admin().await).await;
    admin.upsert_access_list(list("l", "olga", json!({"grants": {"roles": ["auditor"]}}))).await.unwrap();
    admin.upsert_access_list_member(member("l", "alice", json!({}))).await.unwrap();
    let user = cluster.auth.get_user("alice", false).await.unwrap();
    cluster.auth.rights_at_login(&user).await.unwrap();
    let state = cluster.auth.store().cached::<kind::UserLoginState>("alice").unwrap();
    let spec = state.spec.clone().unwrap();
    assert_eq!((spec.original_roles, spec.roles), (vec!["access".to_owned()], vec!["access".into(), "auditor".into()]));
    assert_eq!(spec.user_type, "local");
    cluster.auth.delete_user(&cluster.admin_caller(), "alice").await.unwrap();
    assert!(cluster.auth.store().cached::<kind::UserLoginState>("alice").is_err());
}

#[tokio::test]
async fn nobody_inherits_a_place_in_a_list_with_a_name() {
    let cluster = Cluster::start().await;
    let (admin, caller) = (cluster.admin().await, cluster.admin_caller());
    let mut admin = lists(&cluster, &admin).await;
    cluster.add_user("alice", &["access"], &[]).await;
    let grants = || json!({"grants": {"roles": ["auditor"]}});
    let owners = json!([{"name": "olga"}, {"name": "alice"}]);
    let roles = |name: &str| json!({"roles": [name]});
    let owned = json!({"owners": owners, "owner_grants": roles("editor"), "grants": roles("auditor")});
    admin.upsert_access_list(list("l", "olga", grants())).await.unwrap();
    admin.upsert_access_list(list("owned", "olga", owned)).await.unwrap();
    let alice = || member("l", "alice", json!({}));
    admin.upsert_access_list_member(alice()).await.unwrap();

    // Not the next user of the name.
    cluster.auth.delete_user(&caller, "alice").await.unwrap();
    assert_eq!(cluster.auth.store().count_below::<kind::AccessListMember>("l"), 0);
    let alice_again = cluster.user("alice", &["access"], &[]).await;
    assert_eq!(certified(&cluster, &alice_again, "alice").await.groups, ["access"]);
    let refused = lists(&cluster, &alice_again).await.upsert_access_list_member(member("owned", "x", json!({}))).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);

    // Nor the members of a list that was there before.
    let left = alice().member.unwrap();
    let left = cluster.auth.write_list_member(&caller, left, crate::Write::Upsert).await.unwrap();
    admin.delete_access_list(DeleteAccessListRequest { name: "l".to_owned() }).await.unwrap();
    cluster.auth.store().create::<kind::AccessListMember>(left).await.unwrap();
    admin.upsert_access_list(list("l", "olga", grants())).await.unwrap();
    assert_eq!(cluster.auth.store().count_below::<kind::AccessListMember>("l"), 0);

    // Nor a list that is called otherwise than its record.
    let mut other = member("l", "alice", json!({})).member.unwrap();
    other.spec.get_or_insert_default().name = "bob".to_owned();
    let other = UpsertAccessListMemberRequest { member: Some(other) };
    let error = admin.upsert_access_list_member(other).await.unwrap_err();
    assert!(error.message().contains("is not the name of the record"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_chosen_roles_owns_no_lists() {
    let cluster = Cluster::start().await;
    let mut admin = lists(&cluster, &cluster.admin().await).await;
    admin.upsert_access_list(list("l", "olga", json!({"grants": {"roles": ["auditor"]}}))).await.unwrap();
    let impersonate = json!({"impersonate": {"roles": ["access"]}});
    cluster
        .add_role(
            json!({"kind": "role", "version": "v7", "metadata": {"name": "chooses"}, "spec": {"allow": impersonate}}),
        )
        .await;
    let olga = cluster.user("olga", &["chooses"], &[]).await;
    lists(&cluster, &olga).await.upsert_access_list_member(member("l", "ann", json!({}))).await.unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let request = UserCertsRequest {
        username: "olga".to_owned(),
        tls_public_key: key.public().to_pem().into_bytes(),
        role_requests: vec!["access".to_owned()],
        use_role_requests: true,
        ..Default::default()
    };
    let certs = cluster.client(Some(&olga)).await.generate_user_certs(request).await.unwrap().into_inner();
    let certificate = Certificate::from_pem(&String::from_utf8(certs.tls).unwrap()).unwrap();
    let weaker = Holder { key, certificate };
    let refused = lists(&cluster, &weaker).await.upsert_access_list_member(member("l", "bob", json!({}))).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn lists_of_lists_are_checked_when_they_are_written() {
    let cluster = Cluster::start().await;
    let mut admin = lists(&cluster, &cluster.admin().await).await;
    for name in ["a", "b", "c"] {
        admin.upsert_access_list(list(name, "olga", json!({"grants": {"roles": ["access"]}}))).await.unwrap();
    }
    let nested = |outer: &str, inner: &str| member(outer, inner, json!({"membership_kind": "MEMBERSHIP_KIND_LIST"}));
    admin.upsert_access_list_member(nested("a", "b")).await.unwrap();
    admin.upsert_access_list_member(nested("b", "c")).await.unwrap();
    for (outer, inner) in [("c", "a"), ("b", "a"), ("a", "a")] {
        let error = admin.upsert_access_list_member(nested(outer, inner)).await.unwrap_err();
        assert!(error.message().contains("would contain itself"), "{outer} {inner}: {error:?}");
    }
    assert_eq!(admin.upsert_access_list_member(nested("a", "none")).await.unwrap_err().code(), Code::NotFound);
    let remove = |name: &str| DeleteAccessListRequest { name: name.to_owned() };
    assert!(admin.delete_access_list(remove("b")).await.unwrap_err().message().contains("member of access list \"a\""));
    admin.delete_access_list(remove("a")).await.unwrap();
    admin.delete_access_list(remove("b")).await.unwrap();
    let unknown = list("d", "olga", json!({"grants": {"roles": ["nobody-has-it"]}}));
    assert!(admin.upsert_access_list(unknown).await.unwrap_err().message().contains("nobody-has-it"));
}

#[tokio::test]
async fn a_review_removes_members_and_says_when_the_next_is_due() {
    let cluster = Cluster::start().await;
    let mut admin = lists(&cluster, &cluster.admin().await).await;
    let olga = cluster.user("olga", &["access"], &[]).await;
    admin.upsert_access_list(list("l", "olga", json!({"grants": {"roles": ["access"]}}))).await.unwrap();
    for name in ["alice", "bob"] {
        admin.upsert_access_list_member(member("l", name, json!({}))).await.unwrap();
    }
    let review = |removed: &[&str]| {
        let changes = json!({"removed_members": removed, "review_frequency_changed": "1 month"});
        let spec = json!({"access_list": "l", "reviewers": ["root"], "notes": "fine", "changes": changes});
        CreateAccessListReviewRequest { review: Some(from_value(json!({"spec": spec})).unwrap()) }
    };
    let alice = cluster.user("alice", &["access"], &[]).await;
    let refused = lists(&cluster, &alice).await.create_access_list_review(review(&[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut olgas = lists(&cluster, &olga).await;
    assert!(olgas.create_access_list_review(review(&["carl"])).await.is_err());
    let answer = olgas.create_access_list_review(review(&["bob"])).await.unwrap().into_inner();
    let next = wire::time::moment(answer.next_audit_date.as_ref()).unwrap();
    assert!(next > cluster.auth.now());
    let stored = cluster.auth.store().cached_below::<kind::AccessListReview>("l");
    assert_eq!(stored[0].spec.clone().unwrap().reviewers, ["olga"]);
    assert_eq!(cluster.auth.store().count_below::<kind::AccessListMember>("l"), 1);
}

#[tokio::test]
async fn a_request_becomes_a_membership() {
    let cluster = Cluster::start().await;
    let role = |name: &str, allow: Value| json!({"kind": "role", "version": "v7", "metadata": {"name": name}, "spec": {"allow": allow}});
    cluster.add_role(role("asks", json!({"request": {"roles": ["auditor"]}}))).await;
    cluster.add_role(role("reviews", json!({"review_requests": {"roles": ["auditor"]}}))).await;
    let mut admin = lists(&cluster, &cluster.admin().await).await;
    let olga = cluster.user("olga", &["reviews"], &[]).await;
    let alice = cluster.user("alice", &["asks"], &[]).await;
    admin.upsert_access_list(list("l", "olga", json!({"grants": {"roles": ["auditor"]}}))).await.unwrap();
    admin.upsert_access_list(list("other", "olga", json!({"grants": {"roles": ["access"]}}))).await.unwrap();
    let wish = AccessRequestV3 {
        spec: Some(AccessRequestSpecV3 {
            user: "alice".to_owned(),
            roles: vec!["auditor".to_owned()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let made = cluster.client(Some(&alice)).await.create_access_request_v2(wish).await.unwrap().into_inner();
    let id = made.name().to_owned();

    let params = |expected: &str, set: &str| PluginDataUpdateParams {
        kind: "access_request".to_owned(),
        resource: id.clone(),
        plugin: "chat".to_owned(),
        set: [("message".to_owned(), set.to_owned())].into(),
        expect: [("message".to_owned(), expected.to_owned())].into(),
    };
    let mut plugin = cluster.client(Some(&cluster.admin().await)).await;
    plugin.update_plugin_data(params("", "1")).await.unwrap();
    assert!(plugin.update_plugin_data(params("", "2")).await.is_err());
    plugin.update_plugin_data(params("1", "2")).await.unwrap();
    let kept = plugin.get_plugin_data(PluginDataFilter { resource: id.clone(), ..Default::default() }).await.unwrap();
    assert_eq!(kept.into_inner().plugin_data[0].spec.clone().unwrap().entries["chat"].data["message"], "2");

    let mut olgas = lists(&cluster, &olga).await;
    let asked = GetSuggestedAccessListsRequest { access_request_id: id.clone() };
    let found = olgas.get_suggested_access_lists(asked).await.unwrap().into_inner().access_lists;
    assert_eq!(found.iter().map(|list| list.name()).collect::<Vec<_>>(), ["l"]);
    let promotion = AccessRequestPromoteRequest {
        request_id: id,
        access_list_name: "l".to_owned(),
        reason: "needed for long".to_owned(),
    };
    let refused = lists(&cluster, &alice).await.access_request_promote(promotion.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let elsewhere = AccessRequestPromoteRequest { access_list_name: "other".to_owned(), ..promotion.clone() };
    let refused = olgas.access_request_promote(elsewhere).await.unwrap_err();
    assert!(refused.message().contains("does not grant what was asked for"), "{refused}");
    let request = olgas.access_request_promote(promotion.clone()).await.unwrap().into_inner().access_request.unwrap();
    let spec = request.spec.unwrap();
    assert_eq!((spec.state(), spec.access_list.unwrap().name.as_str()), (RequestState::Promoted, "l"));
    assert!(olgas.access_request_promote(promotion).await.is_err());
    assert_eq!(certified(&cluster, &alice, "alice").await.groups, ["asks", "auditor"]);
}

#[tokio::test]
async fn users_read_their_own_notifications_and_put_them_away() {
    let cluster = Cluster::start().await;
    let client = |holder: Holder| {
        let cluster = &cluster;
        async move { NotificationServiceClient::new(cluster.channel(Some(&holder)).await) }
    };
    let mut admin = client(cluster.admin().await).await;
    let mut alice = client(cluster.user("alice", &["access"], &[]).await).await;
    let mut bob = client(cluster.user("bob", &["auditor"], &[]).await).await;
    let text = |title: &str| -> Notification {
        let labels = json!({"teleport.internal/notification-title": title});
        from_value(json!({"sub_kind": "user-created-informational", "metadata": {"labels": labels}})).unwrap()
    };
    let mine = CreateUserNotificationRequest { username: "alice".to_owned(), notification: Some(text("hello")) };
    assert_eq!(alice.create_user_notification(mine.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let made = admin.create_user_notification(mine).await.unwrap().into_inner();
    let spec = json!({"by_roles": {"roles": ["auditor"]}, "notification": text("to auditors")});
    let global = from_value(json!({"kind": "global_notification", "spec": spec})).unwrap();
    let global = CreateGlobalNotificationRequest { global_notification: Some(global) };
    admin.create_global_notification(global).await.unwrap();
    for rule in [json!({"resources": ["role"]}), json!({"verbs": ["read"]}), json!({})] {
        let by = json!({"role_conditions": [{"rules": [rule]}]});
        let spec = json!({"by_permissions": by, "notification": text("to nobody")});
        let global = from_value(json!({"kind": "global_notification", "spec": spec})).unwrap();
        let global = CreateGlobalNotificationRequest { global_notification: Some(global) };
        admin.create_global_notification(global).await.unwrap();
    }

    let all = ListNotificationsRequest::default;
    let seen = alice.list_notifications(all()).await.unwrap().into_inner().notifications;
    assert_eq!(seen.iter().map(|one| one.name()).collect::<Vec<_>>(), [made.name()]);
    assert_eq!(bob.list_notifications(all()).await.unwrap().into_inner().notifications.len(), 1);
    assert_eq!(admin.list_notifications(all()).await.unwrap().into_inner().notifications.len(), 5);
    let state = |user: &str| UpsertUserNotificationStateRequest {
        username: user.to_owned(),
        user_notification_state: Some(
            from_value(json!({"spec": {"notification_id": made.name()}, "status": {"notification_state": 2}})).unwrap(),
        ),
    };
    assert_eq!(bob.upsert_user_notification_state(state("alice")).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(bob.upsert_user_notification_state(state("bob")).await.unwrap_err().code(), Code::NotFound);
    alice.upsert_user_notification_state(state("alice")).await.unwrap();
    assert!(alice.list_notifications(all()).await.unwrap().into_inner().notifications.is_empty());
}
