//! What the user's and the administrator's programs call, in their order.

use std::time::Duration;

use chrono::TimeDelta;
use futures::StreamExt;
use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::x509::Certificate;
use resources::SystemRole;
use serde_json::json;
use tonic::Code;
use tonic::transport::Channel;
use wire::presence::presence_service_client::PresenceServiceClient;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::proto::user_certs_request::{CertPurpose, CertUsage};
use wire::proto::{
    CreateAuthenticateChallengeRequest, CreateResetPasswordTokenRequest, CreateTokenV2Request, GetLocksRequest,
    GetRoleRequest, GetSshTargetsRequest, IsMfaRequiredRequest, ListAccessRequestsRequest, ListResourcesRequest,
    ListRolesRequest, ListUnifiedResourcesRequest, MfaRequired, NodeLogin, UpsertRoleRequest, UserCertsRequest,
    create_authenticate_challenge_request, create_token_v2_request, is_mfa_required_request,
};
use wire::trust::trust_service_client::TrustServiceClient;
use wire::trust::{GenerateHostCertRequest, GetCertAuthoritiesRequest, GetCertAuthorityRequest};
use wire::types::{
    AccessCapabilitiesRequest, GetClusterAlertsRequest, Metadata, ProvisionTokenSpecV2, ProvisionTokenV2, RoleV6,
    ServerSpecV2, ServerV2, SortBy, UserV2,
};
use wire::users::users_service_client::UsersServiceClient;
use wire::users::{CreateUserRequest, GetUserRequest, ListUsersRequest};

use crate::server::testing::{CLUSTER, Cluster, Holder};

fn uuid(number: usize) -> String {
    format!("6d1f5a3e-0000-4000-8000-{number:012}")
}

async fn add_node(cluster: &Cluster, number: usize, hostname: &str, env: &str) {
    let node = ServerV2 {
        kind: "node".to_owned(),
        version: "v2".to_owned(),
        metadata: Some(Metadata {
            name: uuid(number),
            labels: [("env".to_owned(), env.to_owned())].into(),
            ..Default::default()
        }),
        spec: Some(ServerSpecV2 { hostname: hostname.to_owned(), use_tunnel: true, ..Default::default() }),
        ..Default::default()
    };
    cluster.auth.upsert_node(node, None).await.unwrap();
}

async fn dev_role(cluster: &Cluster) {
    cluster
        .add_role(json!({
            "kind": "role", "version": "v7", "metadata": {"name": "dev"},
            "spec": {"allow": {"logins": ["ubuntu"], "node_labels": {"env": "dev"}}}
        }))
        .await;
}

fn hostnames(page: &wire::ResourcePage) -> Vec<String> {
    let nodes = page.items().filter_map(|item| item.unwrap().resource);
    nodes
        .map(|resource| match resource {
            wire::proto::paginated_resource::Resource::Node(node) => node.spec.unwrap().hostname,
            other => panic!("not a server: {other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn tsh_login_status_clusters_and_request_ls_get_what_they_need() {
    let cluster = Cluster::start().await;
    let alice = cluster.user("alice", &["access"], &["root"]).await;
    let channel = cluster.channel(Some(&alice)).await;
    let mut trust = TrustServiceClient::new(channel.clone());
    let request = GetCertAuthoritiesRequest { r#type: "host".to_owned(), include_key: false };
    let authorities = trust.get_cert_authorities(request).await.unwrap().into_inner().cert_authorities_v2;
    let keys = authorities[0].spec.as_ref().unwrap().active_keys.as_ref().unwrap();
    assert!(!keys.tls[0].cert.is_empty() && !keys.ssh[0].public_key.is_empty());
    assert!(keys.tls[0].key.is_empty() && keys.ssh[0].private_key.is_empty());
    let mut auth = AuthServiceClient::new(channel.clone());
    let capabilities = AccessCapabilitiesRequest { user: "alice".to_owned(), ..Default::default() };
    let capabilities = auth.get_access_capabilities(capabilities).await.unwrap().into_inner();
    assert!(!capabilities.require_reason && !capabilities.auto_request);
    let alerts = GetClusterAlertsRequest {
        labels: [("teleport.internal/alert-on-login".to_owned(), "yes".to_owned())].into(),
        ..Default::default()
    };
    assert!(auth.get_cluster_alerts(alerts).await.unwrap().into_inner().alerts.is_empty());
    let mut presence = PresenceServiceClient::new(channel.clone());
    let remote = presence.list_remote_clusters(wire::presence::ListRemoteClustersRequest::default()).await.unwrap();
    assert!(remote.into_inner().remote_clusters.is_empty());
    let requests = auth.list_access_requests(ListAccessRequestsRequest::default()).await.unwrap().into_inner();
    assert!(requests.access_requests.is_empty() && requests.next_key.is_empty());
    let mut sessions = auth.get_active_session_trackers(()).await.unwrap().into_inner();
    assert!(sessions.next().await.is_none());
    let own = GetUserRequest { current_user: true, ..Default::default() };
    let user = UsersServiceClient::new(channel).get_user(own).await.unwrap().into_inner().user.unwrap();
    assert_eq!(user.metadata.unwrap().name, "alice");
    let roles: Vec<_> = auth.get_current_user_roles(()).await.unwrap().into_inner().collect().await;
    assert_eq!(roles[0].as_ref().unwrap().metadata.as_ref().unwrap().name, "access");
}

#[tokio::test]
async fn tsh_ls_shows_what_the_roles_reach_by_label_word_and_query() {
    let cluster = Cluster::start().await;
    dev_role(&cluster).await;
    add_node(&cluster, 1, "web1", "dev").await;
    add_node(&cluster, 2, "web2", "prod").await;
    add_node(&cluster, 3, "db1", "dev").await;
    let alice = cluster.user("alice", &["dev"], &[]).await;
    let mut client = cluster.client(Some(&alice)).await;
    let by_kind = Some(SortBy { field: "kind".to_owned(), is_desc: false });
    let all = ListUnifiedResourcesRequest {
        kinds: vec!["node".to_owned()],
        limit: 1000,
        sort_by: by_kind,
        include_logins: true,
        ..Default::default()
    };
    let listed = client.list_unified_resources(all.clone()).await.unwrap().into_inner();
    assert_eq!(hostnames(&listed), ["web1", "db1"]);
    assert_eq!(listed.items().next().unwrap().unwrap().logins, ["ubuntu"]);
    let words = ListUnifiedResourcesRequest { search_keywords: vec!["DB".to_owned()], ..all.clone() };
    assert_eq!(hostnames(&client.list_unified_resources(words).await.unwrap().into_inner()), ["db1"]);
    let query = ListUnifiedResourcesRequest { predicate_expression: "name ==".to_owned(), ..all };
    let error = client.list_unified_resources(query).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("predicate expression"));
    let counted = ListResourcesRequest {
        resource_type: "node".to_owned(),
        need_total_count: true,
        limit: 1,
        sort_by: Some(SortBy { field: "hostname".to_owned(), is_desc: true }),
        ..Default::default()
    };
    let first = client.list_resources(counted.clone()).await.unwrap().into_inner();
    assert_eq!((hostnames(&first), first.total_count), (vec!["web1".to_owned()], 2));
    let rest = ListResourcesRequest { start_key: first.next_key, ..counted };
    let rest = client.list_resources(rest).await.unwrap().into_inner();
    assert_eq!((hostnames(&rest), rest.next_key.as_str()), (vec!["db1".to_owned()], ""));
    for kind in ["app_server", "db_server", "kube_server"] {
        let none = ListResourcesRequest { resource_type: kind.to_owned(), ..Default::default() };
        assert!(client.list_resources(none).await.unwrap().into_inner().resources.is_empty());
    }
}

#[tokio::test]
async fn many_servers_are_listed_in_pages_that_are_complete() {
    let cluster = Cluster::start().await;
    dev_role(&cluster).await;
    for number in 0..2_500 {
        add_node(&cluster, number, &format!("host-{number}"), if number % 2 == 0 { "dev" } else { "prod" }).await;
    }
    let alice = cluster.user("alice", &["dev"], &[]).await;
    let mut client = cluster.client(Some(&alice)).await;
    let mut names = Vec::new();
    let mut start_key = String::new();
    loop {
        let page = ListUnifiedResourcesRequest { limit: 1000, start_key, ..Default::default() };
        let page = client.list_unified_resources(page).await.unwrap().into_inner();
        assert!(!page.resources.is_empty());
        names.extend(hostnames(&page));
        start_key = page.next_key;
        if start_key.is_empty() {
            break;
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 1_250);
}

#[tokio::test]
async fn tsh_ssh_is_told_at_once_that_no_second_factor_is_needed() {
    let cluster = Cluster::start().await;
    dev_role(&cluster).await;
    add_node(&cluster, 1, "web1", "dev").await;
    let alice = cluster.user("alice", &["dev"], &[]).await;
    let mut client = cluster.client(Some(&alice)).await;
    let check = |node: &str, login: &str| IsMfaRequiredRequest {
        target: Some(is_mfa_required_request::Target::Node(NodeLogin {
            node: node.to_owned(),
            login: login.to_owned(),
        })),
    };
    let challenge = CreateAuthenticateChallengeRequest {
        request: Some(create_authenticate_challenge_request::Request::ContextUser(Default::default())),
        mfa_required_check: Some(check("web1", "ubuntu")),
        ..Default::default()
    };
    let answer = client.create_authenticate_challenge(challenge).await.unwrap().into_inner();
    assert_eq!(answer.mfa_required, MfaRequired::No as i32);
    assert!(answer.totp.is_none());
    cluster
        .add_role(json!({
            "kind": "role", "version": "v7", "metadata": {"name": "careful"},
            "spec": {"options": {"require_session_mfa": true}, "allow": {"logins": ["root"], "node_labels": {"env": "dev"}}}
        }))
        .await;
    let bob = cluster.user("bob", &["dev", "careful"], &[]).await;
    let mut client = cluster.client(Some(&bob)).await;
    for (node, login, expected) in [
        ("web1", "root", true),
        ("web1", "ubuntu", false),
        ("nowhere", "root", false),
        (uuid(1).as_str(), "root", true),
    ] {
        let answer = client.is_mfa_required(check(node, login)).await.unwrap().into_inner();
        assert_eq!(answer.required, expected, "{node} {login}");
    }
    assert_eq!(client.is_mfa_required(check("", "root")).await.unwrap_err().code(), Code::InvalidArgument);
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let error = admin.create_authenticate_challenge(CreateAuthenticateChallengeRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn targets_of_a_host_name_are_found_among_visible_servers() {
    let cluster = Cluster::start().await;
    dev_role(&cluster).await;
    add_node(&cluster, 1, "web", "dev").await;
    add_node(&cluster, 2, "web", "dev").await;
    add_node(&cluster, 3, "web", "prod").await;
    let alice = cluster.user("alice", &["dev"], &[]).await;
    let mut client = cluster.client(Some(&alice)).await;
    let request = GetSshTargetsRequest { host: "web".to_owned(), port: "0".to_owned() };
    assert_eq!(client.get_ssh_targets(request).await.unwrap().into_inner().servers.len(), 2);
}

fn reissue(user: &str, hours: i64, key: &PrivateKey) -> UserCertsRequest {
    UserCertsRequest {
        username: user.to_owned(),
        expires: Some(wire::time::timestamp(chrono::Utc::now() + TimeDelta::hours(hours))),
        tls_public_key: key.public().to_pem().into_bytes(),
        ssh_public_key: key.public().to_ssh_line().into_bytes(),
        ..Default::default()
    }
}

async fn identity(certs: wire::proto::Certs) -> pki::identity::Identity {
    let pem = String::from_utf8(certs.tls).unwrap();
    pki::identity::Identity::from_certificate(&Certificate::from_pem(&pem).unwrap()).unwrap()
}

#[tokio::test]
async fn a_reissued_certificate_ends_with_the_one_it_replaces() {
    let cluster = Cluster::start().await;
    let alice = cluster.user("alice", &["access"], &["root"]).await;
    let ends = alice.certificate.not_after();
    let mut client = cluster.client(Some(&alice)).await;
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let certs = client.generate_user_certs(reissue("alice", 20, &key)).await.unwrap().into_inner();
    assert!(!certs.ssh.is_empty());
    let renewed = identity(certs).await;
    assert_eq!(renewed.username, "alice");
    assert!((renewed.expires.unwrap() - ends).abs() < TimeDelta::minutes(1), "{:?}", renewed.expires);
    let error = client.generate_user_certs(reissue("alice", -1, &key)).await.unwrap_err();
    assert_eq!(error.message(), "access denied: client credentials have expired, please relogin.");
    let mut old = reissue("alice", 1, &key);
    old.public_key = key.public().to_ssh_line().into_bytes();
    assert_eq!(client.generate_user_certs(old.clone()).await.unwrap_err().code(), Code::InvalidArgument);
    (old.tls_public_key, old.ssh_public_key) = (Vec::new(), Vec::new());
    let certs = client.generate_user_certs(old).await.unwrap().into_inner();
    assert!(!certs.ssh.is_empty() && !certs.tls.is_empty());
}

#[tokio::test]
async fn only_who_may_impersonate_gets_certificates_of_others() {
    let cluster = Cluster::start().await;
    cluster.add_user("bob", &["access"], &["root"]).await;
    cluster
        .add_role(json!({
            "kind": "role", "version": "v7", "metadata": {"name": "imp"},
            "spec": {"allow": {"impersonate": {"users": ["bob"], "roles": ["access"]}}}
        }))
        .await;
    let alice = cluster.user("alice", &["access"], &[]).await;
    let ingo = cluster.user("ingo", &["imp", "access"], &["root"]).await;
    let node = cluster.service(SystemRole::Node, &uuid(9)).await;
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let ask = async |holder: &Holder, user: &str| {
        cluster.client(Some(holder)).await.generate_user_certs(reissue(user, 1, &key)).await
    };
    for (who, user) in [(&alice, "bob"), (&alice, "nobody"), (&node, "bob"), (&ingo, "alice")] {
        let error = ask(who, user).await.unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied, "{user}: {error:?}");
    }
    let held = identity(ask(&ingo, "bob").await.unwrap().into_inner()).await;
    assert_eq!((held.username.as_str(), held.impersonator.as_str()), ("bob", "ingo"));
    let admin = cluster.admin().await;
    let signed = identity(ask(&admin, "bob").await.unwrap().into_inner()).await;
    assert_eq!((signed.username.as_str(), signed.impersonator.as_str()), ("bob", ""));
    let error = ask(&admin, "nosuch").await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("nosuch"), "{error:?}");
}

#[tokio::test]
async fn single_use_certificates_need_a_target_and_a_second_factor() {
    let cluster = Cluster::start().await;
    let alice = cluster.user("alice", &["access"], &["root"]).await;
    let mut client = cluster.client(Some(&alice)).await;
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let request = UserCertsRequest { purpose: CertPurpose::SingleUseCerts as i32, ..reissue("alice", 1, &key) };
    let refused = async |client: &mut AuthServiceClient<Channel>, request: UserCertsRequest| {
        client.generate_user_certs(request).await.unwrap_err().code()
    };
    assert_eq!(refused(&mut client, request.clone()).await, Code::InvalidArgument);
    let ssh = UserCertsRequest { usage: CertUsage::Ssh as i32, ..request };
    assert_eq!(refused(&mut client, ssh.clone()).await, Code::InvalidArgument);
    let ssh = UserCertsRequest { node_name: "web1".to_owned(), ..ssh };
    assert_eq!(refused(&mut client, ssh.clone()).await, Code::InvalidArgument);
    let wrong = wire::proto::MfaAuthenticateResponse {
        response: Some(wire::proto::mfa_authenticate_response::Response::Totp(wire::proto::TotpResponse {
            code: "000000".to_owned(),
        })),
    };
    let ssh = UserCertsRequest { mfa_response: Some(wrong), ..ssh };
    assert_eq!(refused(&mut client, ssh).await, Code::PermissionDenied);
}

#[tokio::test]
async fn tctl_manages_users_roles_tokens_and_locks() {
    let cluster = Cluster::start().await;
    let channel = cluster.channel(Some(&cluster.admin().await)).await;
    let mut client = AuthServiceClient::new(channel.clone());
    let role = client.get_role(GetRoleRequest { name: "access".to_owned() }).await.unwrap().into_inner();
    assert_eq!(role.version, "v7");
    let mut users = UsersServiceClient::new(channel.clone());
    let user: UserV2 = serde_json::from_value(json!({
        "kind": "user", "version": "v2", "metadata": {"name": "carol"},
        "spec": {"roles": ["access"], "traits": {"logins": ["root"]}}
    }))
    .unwrap();
    let create = CreateUserRequest { user: Some(user) };
    users.create_user(create.clone()).await.unwrap();
    assert_eq!(users.create_user(create).await.unwrap_err().code(), Code::AlreadyExists);
    let invite = CreateResetPasswordTokenRequest {
        name: "carol".to_owned(),
        r#type: "invite".to_owned(),
        ttl: i64::try_from(Duration::from_secs(3600).as_nanos()).unwrap(),
    };
    let token = client.create_reset_password_token(invite).await.unwrap().into_inner();
    assert!(token.spec.unwrap().url.contains("/web/invite/"));
    let listed = users.list_users(ListUsersRequest::default()).await.unwrap().into_inner().users;
    assert!(listed.iter().any(|user| user.metadata.as_ref().unwrap().name == "carol"));
    let token = ProvisionTokenV2 {
        metadata: Some(Metadata { name: "secret-of-nodes".to_owned(), ..Default::default() }),
        spec: Some(ProvisionTokenSpecV2 { roles: vec!["Node".to_owned()], ..Default::default() }),
        ..Default::default()
    };
    let create = CreateTokenV2Request { token: Some(create_token_v2_request::Token::V2(token)) };
    client.create_token_v2(create.clone()).await.unwrap();
    assert_eq!(client.create_token_v2(create).await.unwrap_err().code(), Code::AlreadyExists);
    assert!(!client.get_tokens(()).await.unwrap().into_inner().provision_tokens.is_empty());
    let dev: RoleV6 =
        serde_json::from_value(json!({"kind": "role", "version": "v7", "metadata": {"name": "dev"}})).unwrap();
    client.upsert_role_v2(UpsertRoleRequest { role: Some(dev) }).await.unwrap();
    let roles = client.list_roles(ListRolesRequest::default()).await.unwrap().into_inner().roles;
    assert!(roles.iter().any(|role| role.metadata.as_ref().unwrap().name == "dev"));
    assert!(client.get_locks(GetLocksRequest::default()).await.unwrap().into_inner().locks.is_empty());
    let mut trust = TrustServiceClient::new(channel);
    for kind in ["host", "user", "db", "db_client", "openssh", "jwt", "saml_idp", "oidc_idp", "spiffe"] {
        let request = GetCertAuthoritiesRequest { r#type: kind.to_owned(), include_key: false };
        trust.get_cert_authorities(request).await.unwrap();
    }
    let unknown = GetCertAuthoritiesRequest { r#type: "awsra".to_owned(), include_key: false };
    let error = trust.get_cert_authorities(unknown).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("authority type is not supported"));
    let host = GenerateHostCertRequest {
        key: PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap().public().to_ssh_line().into_bytes(),
        principals: vec!["db.example.com".to_owned()],
        cluster_name: CLUSTER.to_owned(),
        role: "Node".to_owned(),
        ..Default::default()
    };
    assert!(!trust.generate_host_cert(host).await.unwrap().into_inner().ssh_certificate.is_empty());
}

#[tokio::test]
async fn private_keys_of_authorities_go_to_the_administrator_only() {
    let cluster = Cluster::start().await;
    let editor = cluster.user("eve", &["editor"], &[]).await;
    let proxy = cluster.service(SystemRole::Proxy, &uuid(8)).await;
    let request =
        || GetCertAuthorityRequest { r#type: "user".to_owned(), domain: CLUSTER.to_owned(), include_key: true };
    let stand_in = GenerateHostCertRequest {
        key: PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap().public().to_ssh_line().into_bytes(),
        host_id: uuid(9),
        principals: vec!["web-1".to_owned()],
        role: "Node".to_owned(),
        ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..Default::default()
    };
    for holder in [&editor, &proxy] {
        let mut trust = TrustServiceClient::new(cluster.channel(Some(holder)).await);
        // Sessions are recorded by nodes here.
        assert_eq!(trust.generate_host_cert(stand_in.clone()).await.unwrap_err().code(), Code::PermissionDenied);
        let mut trust = TrustServiceClient::new(cluster.channel(Some(holder)).await);
        assert_eq!(trust.get_cert_authority(request()).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let mut trust = TrustServiceClient::new(cluster.channel(Some(&cluster.admin().await)).await);
    let authority = trust.get_cert_authority(request()).await.unwrap().into_inner();
    assert!(!authority.spec.unwrap().active_keys.unwrap().tls[0].key.is_empty());
}

#[tokio::test]
async fn a_proxy_stands_in_for_a_server_without_an_agent_under_its_own_names_only() {
    let cluster = Cluster::start().await;
    let server = |number: usize, sub_kind: &str, hostname: &str| ServerV2 {
        kind: "node".to_owned(),
        sub_kind: sub_kind.to_owned(),
        version: "v2".to_owned(),
        metadata: Some(Metadata { name: uuid(number), ..Default::default() }),
        spec: Some(ServerSpecV2 { hostname: hostname.into(), addr: "10.0.0.9:22".into(), ..Default::default() }),
    };
    cluster.auth.upsert_node(server(1, "openssh", "legacy"), None).await.unwrap();
    // Nobody makes it unreachable by having its name.
    cluster.auth.upsert_node(server(2, "", "legacy"), None).await.unwrap();
    let proxy = cluster.service(SystemRole::Proxy, &uuid(8)).await;
    let mut trust = TrustServiceClient::new(cluster.channel(Some(&proxy)).await);
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap().public().to_ssh_line().into_bytes();
    let mut ask = async |number: usize, node_name: &str, principal: &str| {
        let request = GenerateHostCertRequest {
            key: key.clone(),
            host_id: uuid(number),
            node_name: node_name.to_owned(),
            principals: vec!["legacy".to_owned(), principal.to_owned()],
            role: "Node".to_owned(),
            ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            ..Default::default()
        };
        trust.generate_host_cert(request).await.map(drop).map_err(|status| status.code())
    };
    for own in [uuid(1).as_str(), "10.0.0.9", &format!("legacy.{CLUSTER}"), &format!("{}.{CLUSTER}", uuid(1))] {
        assert_eq!(ask(1, own, own).await, Ok(()), "{own}");
    }
    let other = uuid(2);
    for foreign in ["*", "LEGACY", "10.0.0.10", "web-1", CLUSTER, "", &other, &format!("{other}.{CLUSTER}")] {
        assert_eq!(ask(1, "legacy", foreign).await, Err(Code::PermissionDenied), "{foreign}");
        if !foreign.is_empty() {
            assert_eq!(ask(1, foreign, "legacy").await, Err(Code::PermissionDenied), "{foreign}");
        }
    }
    assert_eq!(ask(2, "legacy", "legacy").await, Err(Code::PermissionDenied));
}

#[tokio::test]
async fn a_proxy_logs_in_to_servers_without_an_agent_for_users_whose_address_is_pinned() {
    let cluster = Cluster::start().await;
    let role = json!({
        "kind": "role", "version": "v7", "metadata": {"name": "pinned"},
        "spec": {"options": {"pin_source_ip": true}, "allow": {"logins": ["root"]}}
    });
    cluster.add_role(role.clone()).await;
    cluster.add_user("alice", &["pinned"], &["root"]).await;
    let proxy = cluster.service(SystemRole::Proxy, &uuid(8)).await;
    let request = wire::proto::OpenSshCertRequest {
        public_key: PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap().public().to_ssh_line().into_bytes(),
        user: Some(cluster.auth.get_user("alice", false).await.unwrap()),
        roles: vec![serde_json::from_value(role).unwrap()],
        ttl: 300_000_000_000,
        ..Default::default()
    };
    let signed = cluster.client(Some(&proxy)).await.generate_open_ssh_cert(request).await.unwrap().into_inner();
    let line = String::from_utf8(signed.cert).unwrap();
    let identity = pki::ssh_cert::UserCertificate::from_line(line.trim()).unwrap().identity;
    assert_eq!((identity.username.as_str(), identity.pinned_ip.as_str()), ("alice", ""));
}
