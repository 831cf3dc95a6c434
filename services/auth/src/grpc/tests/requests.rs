//! Requests for more access, from the wish to the certificate.

use std::time::Duration;

use pki::identity::Identity;
use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::x509::Certificate;
use resources::SystemRole;
use serde_json::json;
use tonic::Code;
use tonic::transport::Channel;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::proto::user_certs_request::{CertPurpose, CertUsage, Requester};
use wire::proto::{
    ListAccessRequestsRequest, ListResourcesRequest, Operation, RequestId, RequestStateSetter, RouteToApp,
    UserCertsRequest, Watch, event,
};
use wire::types::{
    AccessCapabilitiesRequest, AccessRequestFilter, AccessRequestScope, AccessRequestSpecV3, AccessRequestV3,
    AccessReview, AccessReviewSubmission, Metadata, RequestState, ResourceId, ServerSpecV2, ServerV2, WatchKind,
};

use crate::server::testing::{CLUSTER, Cluster, Holder};

const NODE: &str = "6d1f5a3e-0000-4000-8000-000000000001";
const OTHER: &str = "6d1f5a3e-0000-4000-8000-000000000002";

type Client = AuthServiceClient<Channel>;

/// A cluster with ann who may ask, bob and carl who may review, and the roles they ask for.
struct Scene {
    cluster: Cluster,
    ann: Holder,
}

impl Scene {
    async fn new(request: serde_json::Value) -> Self {
        let cluster = Cluster::start().await;
        let role = |name: &str, spec: serde_json::Value| json!({"kind": "role", "version": "v7", "metadata": {"name": name}, "spec": spec});
        cluster.add_role(role("asks", json!({"allow": {"request": request}}))).await;
        cluster.add_role(role("reviews", json!({"allow": {"review_requests": {"roles": ["dba"]}}}))).await;
        let reach = json!({"logins": ["root"], "node_labels": {"env": "prod"}});
        cluster.add_role(role("dba", json!({"allow": reach, "options": {"max_session_ttl": "2h"}}))).await;
        cluster.add_role(role("secret", json!({"allow": {}}))).await;
        let ann = cluster.user("ann", &["asks"], &["ann"]).await;
        for name in ["bob", "carl"] {
            cluster.add_user(name, &["reviews"], &[]).await;
        }
        for (id, env) in [(NODE, "prod"), (OTHER, "prod"), ("6d1f5a3e-0000-4000-8000-000000000003", "test")] {
            let node = ServerV2 {
                kind: "node".to_owned(),
                version: "v2".to_owned(),
                metadata: Some(Metadata {
                    name: id.to_owned(),
                    namespace: "default".to_owned(),
                    labels: [("env".to_owned(), env.to_owned())].into(),
                    ..Default::default()
                }),
                spec: Some(ServerSpecV2 { hostname: format!("host-{env}"), ..Default::default() }),
                ..Default::default()
            };
            cluster.client(Some(&cluster.admin().await)).await.upsert_node(node).await.unwrap();
        }
        Self { cluster, ann }
    }

    async fn client(&self, name: &str) -> Client {
        let holder = match name {
            "ann" => self.ann.clone(),
            "admin" => self.cluster.admin().await,
            name => self.cluster.certificate(name, Duration::from_secs(3600)).await,
        };
        self.cluster.client(Some(&holder)).await
    }

    async fn ask(&self, spec: AccessRequestSpecV3) -> Result<AccessRequestV3, tonic::Status> {
        let request = AccessRequestV3 { spec: Some(spec), ..Default::default() };
        self.client("ann").await.create_access_request_v2(request).await.map(tonic::Response::into_inner)
    }

    async fn review(&self, by: &str, id: &str, state: RequestState) -> Result<AccessRequestV3, tonic::Status> {
        let review = AccessReview { proposed_state: state.into(), reason: format!("says {by}"), ..Default::default() };
        let submission = AccessReviewSubmission { request_id: id.to_owned(), review: Some(review) };
        self.client(by).await.submit_access_review(submission).await.map(tonic::Response::into_inner)
    }

    /// The certificate that ann gets with these requests.
    async fn assume(&self, ids: &[&str]) -> Result<(Holder, Identity), tonic::Status> {
        let access_requests = ids.iter().map(|id| (*id).to_owned()).collect();
        let request = UserCertsRequest { username: "ann".to_owned(), access_requests, ..Default::default() };
        certificate(&mut self.client("ann").await, request).await
    }

    /// A role that lets others be impersonated, for a user who exists.
    async fn impersonates(&self, user: &str, name: &str, conditions: serde_json::Value) {
        let spec = json!({"allow": {"impersonate": conditions}});
        let role = json!({"kind": "role", "version": "v7", "metadata": {"name": name}, "spec": spec});
        self.cluster.add_role(role).await;
        self.change_roles(user, |roles| roles.push(name.to_owned())).await;
    }

    async fn change_roles(&self, user: &str, change: impl FnOnce(&mut Vec<String>)) {
        let mut user = self.cluster.auth.get_user(user, false).await.unwrap();
        change(&mut user.spec.as_mut().unwrap().roles);
        self.cluster.auth.upsert_user(&self.cluster.admin_caller(), user).await.unwrap();
    }

    async fn approve(&self, id: &str) {
        let approve = RequestStateSetter { id: id.to_owned(), state: 2, ..Default::default() };
        self.client("admin").await.set_access_request_state(approve).await.unwrap();
    }
}

/// A certificate for a new key.
async fn certificate(client: &mut Client, wish: UserCertsRequest) -> Result<(Holder, Identity), tonic::Status> {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let request = UserCertsRequest { tls_public_key: key.public().to_pem().into_bytes(), ..wish };
    let certs = client.generate_user_certs(request).await?.into_inner();
    let certificate = Certificate::from_pem(std::str::from_utf8(&certs.tls).unwrap()).unwrap();
    let identity = Identity::from_certificate(&certificate).unwrap();
    Ok((Holder { key, certificate }, identity))
}

fn roles(names: &[&str]) -> AccessRequestSpecV3 {
    AccessRequestSpecV3 {
        user: "ann".to_owned(),
        roles: names.iter().map(|name| (*name).to_owned()).collect(),
        request_reason: "to mend it".to_owned(),
        ..Default::default()
    }
}

fn id(request: &AccessRequestV3) -> &str {
    &request.metadata.as_ref().unwrap().name
}

fn state(request: &AccessRequestV3) -> RequestState {
    request.spec.as_ref().unwrap().state()
}

fn node(name: &str) -> ResourceId {
    ResourceId {
        cluster_name: CLUSTER.to_owned(),
        kind: "node".to_owned(),
        name: name.to_owned(),
        sub_resource_name: String::new(),
    }
}

async fn seen(mut client: Client, filter: AccessRequestFilter) -> Vec<String> {
    let request = ListAccessRequestsRequest { filter: Some(filter), ..Default::default() };
    let found = client.list_access_requests(request).await.unwrap().into_inner().access_requests;
    found.iter().map(|request| id(request).to_owned()).collect()
}

async fn nodes(client: &mut Client, search: bool) -> usize {
    let request =
        ListResourcesRequest { resource_type: "node".to_owned(), use_search_as_roles: search, ..Default::default() };
    client.list_resources(request).await.unwrap().into_inner().resources.len()
}

#[tokio::test]
async fn an_approved_request_adds_its_roles_until_it_is_gone() {
    let thresholds = json!([{"approve": 2, "deny": 1}]);
    let scene = Scene::new(json!({"roles": ["dba"], "thresholds": thresholds, "suggested_reviewers": ["bob"]})).await;
    let request = scene.ask(roles(&["dba"])).await.unwrap();
    let (id, spec) = (id(&request).to_owned(), request.spec.clone().unwrap());
    assert_eq!((spec.state(), spec.suggested_reviewers), (RequestState::Pending, vec!["bob".to_owned()]));
    let refused = scene.assume(&[&id]).await.unwrap_err();
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains("not approved"), "{refused:?}");

    assert_eq!(state(&scene.review("bob", &id, RequestState::Approved).await.unwrap()), RequestState::Pending);
    let again = scene.review("bob", &id, RequestState::Denied).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let decided = scene.review("carl", &id, RequestState::Approved).await.unwrap();
    assert_eq!((state(&decided), decided.spec.unwrap().resolve_reason), (RequestState::Approved, "says carl".into()));

    let (holder, identity) = scene.assume(&[&id]).await.unwrap();
    let mut held = identity.groups;
    held.sort();
    assert_eq!((held, identity.active_requests), (vec!["asks".into(), "dba".into()], vec![id.clone()]));
    let end = identity.expires.unwrap() - scene.cluster.auth.now();
    assert!(end <= chrono::TimeDelta::hours(1), "no longer than the login: {end}");
    assert_eq!(nodes(&mut scene.cluster.client(Some(&holder)).await, false).await, 2);

    let late = scene.review("carl", &id, RequestState::Denied).await.unwrap_err();
    assert!(late.message().contains("already approved"), "{late:?}");
    scene.client("admin").await.delete_access_request(RequestId { id: id.clone() }).await.unwrap();
    assert_eq!(scene.assume(&[&id]).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn only_what_roles_list_is_asked_for_and_only_by_oneself() {
    let scene = Scene::new(json!({"roles": ["dba"]})).await;
    for (wrong, code, word) in [
        (roles(&["secret"]), Code::PermissionDenied, "secret"),
        (roles(&["nosuch"]), Code::NotFound, "nosuch"),
        (roles(&[]), Code::InvalidArgument, "roles or resources"),
        (AccessRequestSpecV3 { user: "bob".into(), ..roles(&["dba"]) }, Code::PermissionDenied, "create"),
        (AccessRequestSpecV3 { state: 2, ..roles(&["dba"]) }, Code::InvalidArgument, "pending"),
        (AccessRequestSpecV3 { request_reason: "x".repeat(5000), ..roles(&["dba"]) }, Code::InvalidArgument, "4096"),
        (AccessRequestSpecV3 { login_hint: "x".repeat(70_000), ..roles(&["dba"]) }, Code::InvalidArgument, "65536"),
        (
            AccessRequestSpecV3 { roles: Vec::new(), requested_resource_i_ds: vec![node(NODE)], ..roles(&[]) },
            Code::PermissionDenied,
            "search_as_roles",
        ),
    ] {
        let refused = scene.ask(wrong).await.unwrap_err();
        assert!(refused.code() == code && refused.message().contains(word), "{refused:?}");
    }
    let all = scene.ask(roles(&["*"])).await.unwrap();
    assert_eq!(all.spec.clone().unwrap().roles, ["dba"]);
    let dry = scene.ask(AccessRequestSpecV3 { dry_run: true, ..roles(&["dba"]) }).await.unwrap();
    assert_eq!(seen(scene.client("ann").await, AccessRequestFilter::default()).await, [id(&all)]);
    assert_ne!(id(&dry), id(&all));
    // What a client says about the outcome is forgotten.
    let review =
        AccessReview { author: "bob".into(), proposed_state: 2, threshold_indexes: vec![0], ..Default::default() };
    let forged = scene.ask(AccessRequestSpecV3 { reviews: vec![review], ..roles(&["dba"]) }).await.unwrap();
    assert!(forged.spec.unwrap().reviews.is_empty());
}

#[tokio::test]
async fn nobody_decides_about_their_own_request() {
    let scene = Scene::new(json!({"roles": ["dba"]})).await;
    let role = json!({"kind": "role", "version": "v7", "metadata": {"name": "decides"}, "spec": {"allow": {
        "review_requests": {"roles": ["*"]},
        "rules": [{"resources": ["access_request"], "verbs": ["update", "list", "read"]}]}}});
    scene.cluster.add_role(role).await;
    scene.change_roles("ann", |roles| roles.push("decides".to_owned())).await;
    let ann = scene.cluster.certificate("ann", Duration::from_secs(3600)).await;
    let mut ann = scene.cluster.client(Some(&ann)).await;
    let request = scene.ask(roles(&["dba"])).await.unwrap();
    let approve = RequestStateSetter { id: id(&request).to_owned(), state: 2, ..Default::default() };
    let refused = ann.set_access_request_state(approve.clone()).await.unwrap_err();
    assert!(refused.message().contains("their own"), "{refused:?}");
    let review = AccessReview { author: "ann".into(), proposed_state: 2, ..Default::default() };
    let submission = AccessReviewSubmission { request_id: id(&request).to_owned(), review: Some(review.clone()) };
    assert!(ann.submit_access_review(submission).await.unwrap_err().message().contains("their own"));
    // Nor in the name of somebody else.
    let review = AccessReview { author: "bob".into(), ..review };
    let submission = AccessReviewSubmission { request_id: id(&request).to_owned(), review: Some(review) };
    assert_eq!(ann.submit_access_review(submission).await.unwrap_err().code(), Code::PermissionDenied);

    let mut bob = scene.client("bob").await;
    assert_eq!(bob.set_access_request_state(approve.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    scene.client("admin").await.set_access_request_state(approve).await.unwrap();
    assert!(scene.assume(&[id(&request)]).await.is_ok());
}

#[tokio::test]
async fn nobody_decides_about_their_own_request_as_somebody_else() {
    let scene = Scene::new(json!({"roles": ["dba"]})).await;
    let role = json!({"kind": "role", "version": "v7", "metadata": {"name": "decides"}, "spec": {"allow": {
        "rules": [{"resources": ["access_request"], "verbs": ["update", "list", "read"]}]}}});
    scene.cluster.add_role(role).await;
    scene.change_roles("bob", |roles| roles.push("decides".to_owned())).await;
    scene.impersonates("ann", "bobs", json!({"users": ["bob"], "roles": ["reviews", "decides"]})).await;
    let request = scene.ask(roles(&["dba"])).await.unwrap();
    let ann = scene.cluster.certificate("ann", Duration::from_secs(3600)).await;
    let as_bob = UserCertsRequest { username: "bob".to_owned(), ..Default::default() };
    let (bob, held) = certificate(&mut scene.cluster.client(Some(&ann)).await, as_bob.clone()).await.unwrap();
    assert_eq!((held.username.as_str(), held.impersonator.as_str()), ("bob", "ann"));
    // Another certificate from this one is ann's as well.
    let mut bob = scene.cluster.client(Some(&bob)).await;
    let (again, held) = certificate(&mut bob, as_bob.clone()).await.unwrap();
    assert_eq!(held.impersonator, "ann");
    for mut bob in [bob, scene.cluster.client(Some(&again)).await] {
        let approve = RequestStateSetter { id: id(&request).to_owned(), state: 2, ..Default::default() };
        let refused = bob.set_access_request_state(approve).await.unwrap_err();
        assert!(refused.message().contains("their own"), "{refused:?}");
        let review = AccessReview { proposed_state: 2, ..Default::default() };
        let submission = AccessReviewSubmission { request_id: id(&request).to_owned(), review: Some(review) };
        assert!(bob.submit_access_review(submission).await.unwrap_err().message().contains("their own"));
        let wish = AccessRequestSpecV3 { user: "bob".into(), ..roles(&["dba"]) };
        let wish = AccessRequestV3 { spec: Some(wish), ..Default::default() };
        let refused = bob.create_access_request_v2(wish).await.unwrap_err();
        assert!(refused.message().contains("as somebody else"), "{refused:?}");
        let chosen = UserCertsRequest { role_requests: vec!["reviews".to_owned()], ..as_bob.clone() };
        assert_eq!(certificate(&mut bob, chosen).await.unwrap_err().code(), Code::PermissionDenied);
    }
    assert_eq!(
        state(&scene.review("bob", id(&request), RequestState::Approved).await.unwrap()),
        RequestState::Approved
    );
}

#[tokio::test]
async fn whoever_reviews_holds_the_role_for_it_by_now_and_without_a_request() {
    let scene = Scene::new(json!({"roles": ["dba", "reviews"]})).await;
    let dora = scene.cluster.user("dora", &["asks"], &[]).await;
    let wish = AccessRequestSpecV3 { user: "dora".into(), ..roles(&["dba"]) };
    let wish = AccessRequestV3 { spec: Some(wish), ..Default::default() };
    let request = scene.cluster.client(Some(&dora)).await.create_access_request_v2(wish).await.unwrap().into_inner();
    let review = AccessReview { proposed_state: 2, ..Default::default() };
    let submission = AccessReviewSubmission { request_id: id(&request).to_owned(), review: Some(review) };

    let temporary = scene.ask(roles(&["reviews"])).await.unwrap();
    scene.approve(id(&temporary)).await;
    let (ann, identity) = scene.assume(&[id(&temporary)]).await.unwrap();
    assert!(identity.groups.contains(&"reviews".to_owned()));
    let mut ann = scene.cluster.client(Some(&ann)).await;
    assert_eq!(ann.submit_access_review(submission.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(!seen(ann, AccessRequestFilter::default()).await.contains(&id(&request).to_owned()));

    let bob = scene.cluster.certificate("bob", Duration::from_secs(3600)).await;
    scene.change_roles("bob", |roles| *roles = vec!["asks".to_owned()]).await;
    let mut bob = scene.cluster.client(Some(&bob)).await;
    assert_eq!(bob.submit_access_review(submission.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    scene.change_roles("bob", |roles| roles.push("reviews".to_owned())).await;
    assert_eq!(state(&bob.submit_access_review(submission).await.unwrap().into_inner()), RequestState::Approved);
}

#[tokio::test]
async fn a_certificate_for_one_use_ends_with_its_access_request() {
    let scene = Scene::new(json!({"roles": ["dba"]})).await;
    let secret = scene.cluster.add_device("ann").await;
    let soon = wire::time::timestamp(scene.cluster.auth.now() + chrono::TimeDelta::minutes(10));
    let request = scene.ask(AccessRequestSpecV3 { session_ttl: Some(soon), ..roles(&["dba"]) }).await.unwrap();
    scene.approve(id(&request)).await;
    let code = crate::testing::code(&scene.cluster.clock, &secret);
    let answer = wire::proto::mfa_authenticate_response::Response::Totp(wire::proto::TotpResponse { code });
    // The tunnel of a local proxy lives as long as the login, which here is an hour.
    let wish = UserCertsRequest {
        username: "ann".to_owned(),
        purpose: CertPurpose::SingleUseCerts.into(),
        usage: CertUsage::App.into(),
        requester_name: Requester::TshAppLocalProxy.into(),
        route_to_app: Some(RouteToApp { name: "wiki".to_owned(), ..Default::default() }),
        access_requests: vec![id(&request).to_owned()],
        mfa_response: Some(wire::proto::MfaAuthenticateResponse { response: Some(answer) }),
        ..Default::default()
    };
    let (_, identity) = certificate(&mut scene.client("ann").await, wish).await.unwrap();
    assert!(identity.groups.contains(&"dba".to_owned()));
    let left = identity.expires.unwrap() - scene.cluster.auth.now();
    assert!(left <= chrono::TimeDelta::minutes(10), "{left}");
}

#[tokio::test]
async fn the_access_of_a_request_is_not_carried_into_other_certificates() {
    let scene = Scene::new(json!({"search_as_roles": ["dba"]})).await;
    scene.impersonates("ann", "bobs", json!({"users": ["bob"], "roles": ["reviews"]})).await;
    scene.impersonates("ann", "dbas", json!({"roles": ["dba"]})).await;
    let mut plain =
        scene.cluster.client(Some(&scene.cluster.certificate("ann", Duration::from_secs(3600)).await)).await;
    let wanted = AccessRequestSpecV3 { requested_resource_i_ds: vec![node(NODE)], ..roles(&[]) };
    let request = scene.ask(wanted).await.unwrap();
    scene.approve(id(&request)).await;
    let (ann, _) = scene.assume(&[id(&request)]).await.unwrap();
    let mut ann = scene.cluster.client(Some(&ann)).await;
    let chosen = UserCertsRequest {
        username: "ann".into(),
        use_role_requests: true,
        role_requests: vec!["dba".into()],
        ..Default::default()
    };
    for wish in [chosen, UserCertsRequest { username: "bob".into(), ..Default::default() }] {
        let refused = certificate(&mut ann, wish.clone()).await.unwrap_err();
        assert!(refused.code() == Code::PermissionDenied && refused.message().contains("drop"), "{refused:?}");
        certificate(&mut plain, wish).await.unwrap();
    }
}

#[tokio::test]
async fn access_for_resources_is_for_these_resources_alone() {
    let scene = Scene::new(json!({"search_as_roles": ["dba", "secret"]})).await;
    let mut ann = scene.client("ann").await;
    assert_eq!((nodes(&mut ann, false).await, nodes(&mut ann, true).await), (0, 2));
    let ids = |names: &[&str]| AccessRequestSpecV3 {
        requested_resource_i_ds: names.iter().map(|name| node(name)).collect(),
        ..roles(&[])
    };
    let request = scene.ask(ids(&[NODE])).await.unwrap();
    assert_eq!(request.spec.clone().unwrap().roles, ["dba"], "a role that reaches none of them is left out");
    let approve = |id: &str| RequestStateSetter { id: id.to_owned(), state: 2, ..Default::default() };
    let mut admin = scene.client("admin").await;
    admin.set_access_request_state(approve(id(&request))).await.unwrap();
    let (holder, identity) = scene.assume(&[id(&request)]).await.unwrap();
    assert_eq!(identity.allowed_resource_ids, [format!("/{CLUSTER}/node/{NODE}")]);
    assert_eq!(nodes(&mut scene.cluster.client(Some(&holder)).await, false).await, 1);

    let second = scene.ask(ids(&[OTHER])).await.unwrap();
    admin.set_access_request_state(approve(id(&second))).await.unwrap();
    let refused = scene.assume(&[id(&request), id(&second)]).await.unwrap_err();
    assert!(refused.message().contains("only one access request for resources"), "{refused:?}");
    let unknown = scene.ask(ids(&["nowhere"])).await.unwrap_err();
    assert_eq!(unknown.code(), Code::PermissionDenied);
    let elsewhere = ResourceId { cluster_name: "two".into(), ..node(NODE) };
    let elsewhere = AccessRequestSpecV3 { requested_resource_i_ds: vec![elsewhere], ..roles(&[]) };
    assert_eq!(scene.ask(elsewhere).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn requests_are_seen_by_those_they_concern() {
    let scene = Scene::new(json!({"roles": ["dba", "secret"]})).await;
    let ours = id(&scene.ask(roles(&["dba"])).await.unwrap()).to_owned();
    let hidden = id(&scene.ask(roles(&["secret"])).await.unwrap()).to_owned();
    scene.cluster.add_user("dora", &["access"], &[]).await;
    let all = AccessRequestFilter::default();
    assert_eq!(seen(scene.client("ann").await, all.clone()).await.len(), 2);
    assert_eq!(seen(scene.client("bob").await, all.clone()).await, std::slice::from_ref(&ours));
    assert!(seen(scene.client("dora").await, all.clone()).await.is_empty());
    let node = scene.cluster.service(SystemRole::Node, NODE).await;
    assert!(seen(scene.cluster.client(Some(&node)).await, all).await.is_empty());
    let scope = |scope: AccessRequestScope| AccessRequestFilter { scope: scope.into(), ..Default::default() };
    assert_eq!(
        seen(scene.client("bob").await, scope(AccessRequestScope::NeedsReview)).await,
        std::slice::from_ref(&ours)
    );
    scene.review("bob", &ours, RequestState::Denied).await.unwrap();
    assert!(seen(scene.client("bob").await, scope(AccessRequestScope::NeedsReview)).await.is_empty());
    assert_eq!(seen(scene.client("bob").await, scope(AccessRequestScope::Reviewed)).await, [ours]);
    let refused = scene.review("bob", &hidden, RequestState::Approved).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    let asked = AccessCapabilitiesRequest { requestable_roles: true, ..Default::default() };
    let found = scene.client("ann").await.get_access_capabilities(asked.clone()).await.unwrap().into_inner();
    assert_eq!(found.requestable_roles, ["dba", "secret"]);
    let theirs = AccessCapabilitiesRequest { user: "ann".into(), ..asked };
    assert!(scene.client("dora").await.get_access_capabilities(theirs).await.is_err());
}

#[tokio::test]
async fn only_roles_that_give_access_to_a_resource_are_offered_for_it() {
    // No role is searched as: what can be requested is roles by name.
    let scene = Scene::new(json!({"roles": ["dba", "secret"]})).await;
    let offered = async |names: &[&str], login: &str| {
        let id = |name: &&str| ResourceId {
            cluster_name: CLUSTER.to_owned(),
            kind: "node".to_owned(),
            name: (*name).to_owned(),
            ..Default::default()
        };
        let asked = AccessCapabilitiesRequest {
            requestable_roles: true,
            filter_requestable_roles_by_resource: true,
            resource_i_ds: names.iter().map(id).collect(),
            login: login.to_owned(),
            ..Default::default()
        };
        let found = scene.client("ann").await.get_access_capabilities(asked).await;
        found.map(|found| found.into_inner().requestable_roles)
    };
    let none = Vec::<String>::new();
    assert_eq!(offered(&[], "root").await.unwrap(), ["dba", "secret"]);
    assert_eq!(offered(&[NODE], "root").await.unwrap(), ["dba"]);
    assert_eq!(offered(&[NODE, OTHER], "").await.unwrap(), ["dba"]);
    assert_eq!(offered(&[NODE], "nobody").await.unwrap(), none);
    assert_eq!(offered(&[NODE, "6d1f5a3e-0000-4000-8000-000000000003"], "root").await.unwrap(), none);
    assert_eq!(offered(&["gone"], "root").await.unwrap(), none);
    assert_eq!(offered(&[NODE; 101], "root").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn whoever_asked_hears_of_the_decision() {
    let scene = Scene::new(json!({"roles": ["dba"]})).await;
    let request = scene.ask(roles(&["dba"])).await.unwrap();
    let filter = [("id", id(&request)), ("user", "ann")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let kinds = vec![WatchKind { kind: "access_request".into(), filter: filter.into(), ..Default::default() }];
    let watch = Watch { kinds, ..Default::default() };
    assert!(scene.client("bob").await.watch_events(watch.clone()).await.is_err());
    let mut events = scene.client("ann").await.watch_events(watch).await.unwrap().into_inner();
    assert_eq!(events.message().await.unwrap().unwrap().r#type(), Operation::Init);
    scene.review("bob", id(&request), RequestState::Approved).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(20), events.message()).await.unwrap().unwrap().unwrap();
    let Some(event::Resource::AccessRequest(heard)) = heard.resource else { panic!("{heard:?}") };
    assert_eq!(state(&heard), RequestState::Approved);
}
