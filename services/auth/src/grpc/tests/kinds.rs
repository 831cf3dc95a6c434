//! Resources of the kinds that agents serve and administrators keep.

use std::time::Duration;

use futures::StreamExt;
use resources::SystemRole;
use serde_json::{Value, from_value, json};
use tonic::Code;
use wire::accesslist::access_list_service_client::AccessListServiceClient;
use wire::accesslist::{
    DeleteAccessListRequest, GetAccessListRequest, ListAccessListMembersRequest, UpsertAccessListMemberRequest,
    UpsertAccessListRequest,
};
use wire::devicetrust::device_trust_service_client::DeviceTrustServiceClient;
use wire::devicetrust::{CreateDeviceRequest, Device, FindDevicesRequest, OsType};
use wire::machineid::bot_service_client::BotServiceClient;
use wire::machineid::{CreateBotRequest, DeleteBotRequest, GetBotRequest};
use wire::proto::paginated_resource::Resource as Listed;
use wire::proto::{
    ListResourcesRequest, ListUnifiedResourcesRequest, UpsertDatabaseServerRequest, UpsertOidcConnectorRequest,
};
use wire::types::app_server_or_saml_id_p_service_provider_v1::Resource as Either;
use wire::types::{
    AppV3, DatabaseServerV3, ResourceRequest, ResourceWithSecretsRequest, SortBy, WatchKind, WindowsDesktopFilter,
};

use crate::server::testing::Cluster;
use crate::store::kind;

const HOST: &str = "6d1f5a3e-0000-4000-8000-000000000001";
const OTHER: &str = "6d1f5a3e-0000-4000-8000-000000000002";

fn app(name: &str, env: &str) -> AppV3 {
    from_value(json!({"metadata": {"name": name, "labels": {"env": env}}, "spec": {"uri": "http://localhost:1"}}))
        .unwrap()
}

fn database_server(host: &str, name: &str, env: &str) -> DatabaseServerV3 {
    from_value(json!({
        "metadata": {"name": name},
        "spec": {"host_id": host, "hostname": "db-host", "database": {
            "metadata": {"name": name, "labels": {"env": env}},
            "spec": {"protocol": "postgres", "uri": "localhost:5432"}}}
    }))
    .unwrap()
}

async fn role(cluster: &Cluster, name: &str, allow: Value) {
    cluster
        .add_role(json!({"kind": "role", "version": "v7", "metadata": {"name": name}, "spec": {"allow": allow}}))
        .await;
}

#[tokio::test]
async fn an_application_is_seen_and_changed_where_a_role_reaches_its_labels() {
    let cluster = Cluster::start().await;
    let rules = json!([{"resources": ["app"], "verbs": ["*"]}]);
    role(&cluster, "dev", json!({"app_labels": {"env": "dev"}, "rules": rules})).await;
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    for (name, env) in [("shop", "dev"), ("bank", "prod")] {
        admin.create_app(app(name, env)).await.unwrap();
    }
    let error = admin.create_app(app("shop", "dev")).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::AlreadyExists, "app \"shop\" already exists"));
    let mut alice = cluster.client(Some(&cluster.user("alice", &["dev"], &[]).await)).await;
    let seen = alice.get_apps(()).await.unwrap().into_inner().apps;
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].metadata.as_ref().unwrap().revision.is_empty());
    let bank = ResourceRequest { name: "bank".to_owned() };
    assert_eq!(alice.get_app(bank.clone()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(alice.delete_app(bank).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(alice.update_app(app("bank", "dev")).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(alice.create_app(app("new", "prod")).await.unwrap_err().code(), Code::PermissionDenied);
    alice.delete_app(ResourceRequest { name: "shop".to_owned() }).await.unwrap();
    let malformed = admin.create_app(AppV3::default()).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_agent_announces_what_it_serves_and_speaks_for_no_other() {
    let cluster = Cluster::start().await;
    role(&cluster, "dev", json!({"db_labels": {"env": "dev"}})).await;
    let mut agent = cluster.client(Some(&cluster.service(SystemRole::Db, HOST).await)).await;
    let announce = |host: &str, name: &str, env: &str| UpsertDatabaseServerRequest {
        server: Some(database_server(host, name, env)),
    };
    let lease = agent.upsert_database_server(announce(HOST, "orders", "dev")).await.unwrap().into_inner();
    assert_eq!(lease.host_id, HOST);
    assert!(lease.expires.is_some());
    agent.upsert_database_server(announce(HOST, "salaries", "prod")).await.unwrap();
    let foreign = agent.upsert_database_server(announce(OTHER, "orders", "dev")).await.unwrap_err();
    assert_eq!(foreign.code(), Code::PermissionDenied);
    let mut second = cluster.client(Some(&cluster.service(SystemRole::Db, OTHER).await)).await;
    second.upsert_database_server(announce(OTHER, "orders", "dev")).await.unwrap();

    let mut alice = cluster.client(Some(&cluster.user("alice", &["dev"], &[]).await)).await;
    let request = ListResourcesRequest { resource_type: "db_server".to_owned(), ..Default::default() };
    assert_eq!(alice.list_resources(request).await.unwrap().into_inner().resources.len(), 2);
    let request = ListUnifiedResourcesRequest { kinds: vec!["db".to_owned()], ..Default::default() };
    assert_eq!(alice.list_unified_resources(request).await.unwrap().into_inner().resources.len(), 1);
    let sweep = wire::proto::DeleteAllDatabaseServersRequest::default();
    assert_eq!(agent.delete_all_database_servers(sweep).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn the_unified_list_is_cut_into_pages_over_all_kinds() {
    let cluster = Cluster::start().await;
    let mut agent = cluster.client(Some(&cluster.service(SystemRole::Db, HOST).await)).await;
    for name in ["a", "b", "c"] {
        let server = Some(database_server(HOST, name, "dev"));
        agent.upsert_database_server(UpsertDatabaseServerRequest { server }).await.unwrap();
    }
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let mut request = ListUnifiedResourcesRequest { limit: 2, ..Default::default() };
    let mut found = 0;
    loop {
        let page = admin.list_unified_resources(request.clone()).await.unwrap().into_inner();
        found += page.resources.len();
        assert!(page.resources.len() <= 2);
        if page.next_key.is_empty() {
            break;
        }
        request.start_key = page.next_key;
    }
    assert_eq!(found, 3);
}

#[tokio::test]
async fn applications_are_sorted_by_what_people_see() {
    let cluster = Cluster::start().await;
    for (name, description) in [("a", "last"), ("b", ""), ("c", "first"), ("d", "first")] {
        let server = json!({"metadata": {"name": name}, "spec": {"host_id": HOST, "hostname": "h", "app": {
            "metadata": {"name": name, "description": description},
            "spec": {"uri": "http://localhost:1", "public_addr": format!("{}.example.com", name.repeat(2))}}}});
        cluster.auth.store().upsert::<kind::AppServer>(from_value(server).unwrap()).await.unwrap();
    }
    let provider = json!({"metadata": {"name": "idp", "description": "mid"}, "spec": {"entity_id": "x"}});
    cluster.auth.store().upsert::<kind::SamlServiceProvider>(from_value(provider).unwrap()).await.unwrap();
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let mut sorted = async |field: &str, is_desc: bool| {
        let mut request = ListResourcesRequest {
            resource_type: "app_and_idp_service_provider".to_owned(),
            sort_by: Some(SortBy { field: field.to_owned(), is_desc }),
            limit: 2,
            ..Default::default()
        };
        let mut names = String::new();
        loop {
            let page = admin.list_resources(request.clone()).await?.into_inner();
            for item in page.items() {
                let item = item?;
                let Some(Listed::AppServerOrSamlIdPServiceProvider(either)) = item.resource else { panic!("{item:?}") };
                names.push_str(&match either.resource.unwrap() {
                    Either::AppServer(server) => server.metadata.unwrap().name,
                    Either::SamlIdPServiceProvider(provider) => provider.header.unwrap().metadata.unwrap().name,
                });
            }
            if page.next_key.is_empty() {
                return Ok::<_, tonic::Status>(names);
            }
            request.start_key = page.next_key;
        }
    };
    assert_eq!(sorted("name", false).await.unwrap(), "abcdidp");
    assert_eq!(sorted("description", false).await.unwrap(), "bcdaidp");
    assert_eq!(sorted("description", true).await.unwrap(), "idpadcb");
    assert_eq!(sorted("public_addr", true).await.unwrap(), "dcbaidp");
    assert_eq!(sorted("hostname", true).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn changes_of_new_kinds_are_watched() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let kinds = vec![WatchKind { kind: "app".to_owned(), ..Default::default() }];
    let watch = wire::proto::Watch { kinds, ..Default::default() };
    let mut events = admin.watch_events(watch).await.unwrap().into_inner();
    events.next().await.unwrap().unwrap();
    admin.create_app(app("shop", "dev")).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap().unwrap();
    match event.resource {
        Some(wire::proto::event::Resource::App(app)) => assert_eq!(app.metadata.unwrap().name, "shop"),
        other => panic!("unexpected: {other:?}"),
    }
    let counted = cluster.metrics();
    assert!(counted.contains("watcher_events_count{resource=\"app\"} 1\n"), "{counted}");
    assert!(counted.contains("watcher_event_sizes_count 1\n"), "{counted}");
}

#[tokio::test]
async fn the_secret_of_a_connector_is_kept_and_shown_only_on_request() {
    let cluster = Cluster::start().await;
    let connector = |display: &str, secret: &str| UpsertOidcConnectorRequest {
        connector: Some(
            from_value(json!({
                "metadata": {"name": "corp"},
                "spec": {"issuer_url": "https://idp.example.com", "client_id": "c", "client_secret": secret,
                         "display": display, "redirect_url": "https://proxy.example.com/v1/webapi/oidc/callback"}
            }))
            .unwrap(),
        ),
    };
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let made = admin.upsert_oidc_connector_v2(connector("one", "hush")).await.unwrap().into_inner();
    assert_eq!(made.spec.unwrap().client_secret, "");
    admin.upsert_oidc_connector_v2(connector("two", "")).await.unwrap();
    let read = |with_secrets| ResourceWithSecretsRequest { name: "corp".to_owned(), with_secrets };
    let shown = admin.get_oidc_connector(read(true)).await.unwrap().into_inner().spec.unwrap();
    assert_eq!((shown.client_secret.as_str(), shown.display.as_str()), ("hush", "two"));
    assert_eq!(admin.get_oidc_connector(read(false)).await.unwrap().into_inner().spec.unwrap().client_secret, "");
    let mut proxy = cluster.client(Some(&cluster.service(SystemRole::Proxy, HOST).await)).await;
    proxy.get_oidc_connector(read(false)).await.unwrap();
    assert_eq!(proxy.get_oidc_connector(read(true)).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_bot_is_a_user_and_a_role_or_nothing() {
    let cluster = Cluster::start().await;
    let channel = cluster.channel(Some(&cluster.admin().await)).await;
    let mut bots = BotServiceClient::new(channel);
    let bot = |roles: &[&str]| {
        let bot = json!({"kind": "bot", "version": "v1", "metadata": {"name": "ci"}, "spec": {"roles": roles}});
        CreateBotRequest { bot: Some(from_value(bot).unwrap()) }
    };
    let error = bots.create_bot(bot(&["nosuch"])).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::NotFound, "bot \"ci\": role \"nosuch\" not found"));
    let made = bots.create_bot(bot(&["access"])).await.unwrap().into_inner();
    assert_eq!(made.status.unwrap().user_name, "bot-ci");
    let role = cluster.auth.role("bot-ci").unwrap();
    let allow = role.spec.as_ref().unwrap().allow.clone().unwrap();
    assert_eq!(allow.impersonate.unwrap().roles, ["access"]);
    assert!(allow.logins.is_empty());
    assert_eq!(bots.create_bot(bot(&["access"])).await.unwrap_err().code(), Code::AlreadyExists);
    bots.delete_bot(DeleteBotRequest { bot_name: "ci".to_owned() }).await.unwrap();
    let gone = bots.get_bot(GetBotRequest { bot_name: "ci".to_owned() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert!(cluster.auth.role("bot-ci").is_err());
}

#[tokio::test]
async fn an_access_list_counts_its_members_and_takes_them_along() {
    let cluster = Cluster::start().await;
    let channel = cluster.channel(Some(&cluster.admin().await)).await;
    let mut lists = AccessListServiceClient::new(channel);
    let list = json!({"metadata": {"name": "dba"}, "spec": {"title": "Database team", "owners": [{"name": "chief"}],
                      "grants": {"roles": ["access"]}}});
    let access_list = Some(from_value(list).unwrap());
    lists.upsert_access_list(UpsertAccessListRequest { access_list }).await.unwrap();
    let member = |list: &str| {
        let member = json!({"metadata": {"name": "alice"}, "spec": {"access_list": list, "name": "alice"}});
        UpsertAccessListMemberRequest { member: Some(from_value(member).unwrap()) }
    };
    let stored = lists.upsert_access_list_member(member("dba")).await.unwrap().into_inner().spec.unwrap();
    assert!(stored.joined.is_some() && !stored.added_by.is_empty());
    assert_eq!(lists.upsert_access_list_member(member("none")).await.unwrap_err().code(), Code::NotFound);
    let name = || "dba".to_owned();
    let read = lists.get_access_list(GetAccessListRequest { name: name() }).await.unwrap().into_inner();
    assert_eq!(read.status.unwrap().member_count, Some(1));
    let request = ListAccessListMembersRequest { access_list: name(), ..Default::default() };
    assert_eq!(lists.list_access_list_members(request.clone()).await.unwrap().into_inner().members.len(), 1);
    lists.delete_access_list(DeleteAccessListRequest { name: name() }).await.unwrap();
    assert_eq!(lists.list_access_list_members(request).await.unwrap_err().code(), Code::NotFound);
    assert!(cluster.auth.store().cached_list::<crate::store::kind::AccessListMember>().is_empty());
}

#[tokio::test]
async fn a_device_is_known_once_by_its_tag() {
    let cluster = Cluster::start().await;
    let channel = cluster.channel(Some(&cluster.admin().await)).await;
    let mut devices = DeviceTrustServiceClient::new(channel);
    let device = |tag: &str| {
        let device = Device { os_type: OsType::Linux as i32, asset_tag: tag.to_owned(), ..Default::default() };
        CreateDeviceRequest { device: Some(device), ..Default::default() }
    };
    let made = devices.create_device(device("t1")).await.unwrap().into_inner();
    assert!(!made.id.is_empty());
    assert_eq!(devices.create_device(device("t1")).await.unwrap_err().code(), Code::AlreadyExists);
    let found = devices.find_devices(FindDevicesRequest { id_or_tag: "t1".to_owned() }).await.unwrap().into_inner();
    assert_eq!(found.devices[0].id, made.id);
}

#[tokio::test]
async fn a_desktop_of_a_name_that_does_not_exist_is_not_found() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    assert!(
        admin.get_windows_desktops(WindowsDesktopFilter::default()).await.unwrap().into_inner().desktops.is_empty()
    );
    let filter = WindowsDesktopFilter { name: "none".to_owned(), ..Default::default() };
    assert_eq!(admin.get_windows_desktops(filter).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_credentials_of_a_cluster_are_for_agents_and_administrators() {
    let cluster = Cluster::start().await;
    role(&cluster, "dev", json!({"kubernetes_labels": {"*": "*"}})).await;
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let kube = json!({"metadata": {"name": "k8s", "labels": {"env": "dev"}}, "spec": {"kubeconfig": "c2VjcmV0"}});
    admin.create_kubernetes_cluster(from_value::<wire::types::KubernetesClusterV3>(kube).unwrap()).await.unwrap();
    let name = ResourceRequest { name: "k8s".to_owned() };
    let mut alice = cluster.client(Some(&cluster.user("alice", &["dev"], &[]).await)).await;
    let mut agent = cluster.client(Some(&cluster.service(SystemRole::Kube, HOST).await)).await;
    let seen = alice.get_kubernetes_cluster(name.clone()).await.unwrap().into_inner().spec.unwrap().kubeconfig;
    assert!(seen.is_empty());
    for client in [&mut agent, &mut admin] {
        let seen = client.get_kubernetes_cluster(name.clone()).await.unwrap().into_inner().spec.unwrap().kubeconfig;
        assert_eq!(seen, b"secret");
    }
}

#[tokio::test]
async fn a_watch_shows_people_what_their_roles_reach() {
    let cluster = Cluster::start().await;
    role(&cluster, "dev", json!({"app_labels": {"env": "dev"}})).await;
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let mut alice = cluster.client(Some(&cluster.user("alice", &["dev"], &[]).await)).await;
    let kinds = vec![WatchKind { kind: "app".to_owned(), ..Default::default() }];
    let watch = wire::proto::Watch { kinds, ..Default::default() };
    let mut events = alice.watch_events(watch).await.unwrap().into_inner();
    events.next().await.unwrap().unwrap();
    admin.create_app(app("bank", "prod")).await.unwrap();
    admin.create_app(app("shop", "dev")).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap().unwrap();
    match event.resource {
        Some(wire::proto::event::Resource::App(app)) => assert_eq!(app.metadata.unwrap().name, "shop"),
        other => panic!("unexpected: {other:?}"),
    }
}
