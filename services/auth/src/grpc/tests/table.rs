//! Every call of the table, made as everybody.

use http::uri::PathAndQuery;
use resources::SystemRole;
use serde_json::json;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::authz::permissions::{PERMISSIONS, Rule};
use crate::server::testing::Cluster;

/// Calls that stream; an empty stream is sent to those that take one.
const STREAMING: [&str; 10] = [
    "InventoryControlStream",
    "GetInstances",
    "GetServerInfos",
    "GetActiveSessionTrackers",
    "GetActiveSessionTrackersWithFilter",
    "WatchEvents",
    "GetAccessRequestsV2",
    "GetCurrentUserRoles",
    "CreateAuditStream",
    "StreamSessionEvents",
];

fn streams(path: &str) -> bool {
    STREAMING.iter().any(|name| path.ends_with(&format!("/{name}"))) || path.contains("StreamUnstructured")
}

/// Calls an RPC with an empty message: every message is one.
async fn call(channel: &Channel, path: &'static str) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<(), ()>::default();
    client.unary(Request::new(()), PathAndQuery::from_static(path), codec).await.map(drop)
}

/// What no message of anybody may lead to.
fn assert_sound(who: &str, path: &str, result: &Result<(), Status>) {
    if let Err(status) = result {
        assert!(
            !matches!(status.code(), Code::Unknown | Code::Internal | Code::Unavailable | Code::DataLoss),
            "{who} {path}: {status:?}"
        );
        assert!(!status.message().is_empty(), "{who} {path}: {status:?}");
    }
}

#[tokio::test]
async fn an_empty_message_of_anybody_is_answered_and_the_table_is_obeyed() {
    let cluster = Cluster::start().await;
    let node = cluster.service(SystemRole::Node, "6d1f5a3e-0000-4000-8000-000000000001").await;
    let proxy = cluster.service(SystemRole::Proxy, "6d1f5a3e-0000-4000-8000-000000000002").await;
    let alice = cluster.user("alice", &["access"], &["root"]).await;
    let editor = cluster.user("eve", &["editor", "auditor"], &[]).await;
    let people = [
        ("nobody", None),
        ("node", Some(node)),
        ("proxy", Some(proxy)),
        ("alice", Some(alice)),
        ("editor", Some(editor)),
        ("admin", Some(cluster.admin().await)),
    ];
    for (who, holder) in &people {
        let channel = cluster.channel(holder.as_ref()).await;
        for (path, rule) in PERMISSIONS.iter().filter(|(path, _)| !streams(path)) {
            // An empty message means everything for these.
            let sweeping = ["/DeleteAll", "/Reset"].iter().any(|verb| path.contains(verb));
            if sweeping && *who == "admin" {
                continue;
            }
            let result = call(&channel, path).await;
            assert_sound(who, path, &result);
            let code = result.as_ref().err().map(Status::code);
            if holder.is_none() {
                let refused = code == Some(Code::PermissionDenied);
                assert!(refused || *rule == Rule::Anyone, "{path} is open to strangers: {result:?}");
            }
            if let Rule::Builtin(roles) = rule
                && *who == "alice"
            {
                assert_eq!(code, Some(Code::PermissionDenied), "{path} {roles:?}");
            }
        }
    }
}

/// Whether a service with this role alone may pass the gate.
fn passes(role: SystemRole, rule: Rule) -> bool {
    match rule {
        Rule::Anyone | Rule::AnyAuthenticated | Rule::Message(_) => true,
        Rule::Users => false,
        Rule::Builtin(roles) | Rule::OwnServerOnly(roles) => roles.contains(&role),
        Rule::Verbs(kind, verbs) | Rule::SelfOrVerbs(kind, verbs) | Rule::Object(kind, verbs) => {
            let set = rbac::builtin_role(role);
            verbs.iter().all(|verb| set.check_rule(kind, verb, &rbac::RuleContext::new()).is_allowed())
        }
    }
}

#[tokio::test]
async fn every_system_role_passes_the_gate_where_its_rules_say_and_nowhere_else() {
    let cluster = Cluster::start().await;
    for role in SystemRole::ALL.into_iter().filter(|role| role.is_local_service()) {
        let holder = cluster.service(role, "6d1f5a3e-0000-4000-8000-000000000009").await;
        let channel = cluster.channel(Some(&holder)).await;
        for (path, rule) in PERMISSIONS.iter().filter(|(path, _)| !streams(path)) {
            // What an Auth Service may do is no less than everything; an empty message of it would do it.
            if role == SystemRole::Auth && ["/DeleteAll", "/Reset"].iter().any(|verb| path.contains(verb)) {
                continue;
            }
            let result = call(&channel, path).await;
            assert_sound(role.name(), path, &result);
            let code = result.as_ref().err().map(Status::code);
            if !passes(role, *rule) {
                assert_eq!(code, Some(Code::PermissionDenied), "{role} {path}");
            } else if let Err(status) = &result {
                assert!(!status.message().contains("this call is for"), "{role} {path}: {status:?}");
            }
        }
    }
}

/// Whether a user with these roles may pass the gate.
fn passes_as_user(roles: &rbac::RoleSet, rule: Rule) -> bool {
    match rule {
        Rule::Anyone | Rule::AnyAuthenticated | Rule::Message(_) | Rule::Users | Rule::SelfOrVerbs(..) => true,
        Rule::Builtin(_) | Rule::OwnServerOnly(_) => false,
        Rule::Verbs(kind, verbs) => {
            verbs.iter().all(|verb| roles.check_rule(kind, verb, &rbac::RuleContext::new()).is_allowed())
        }
        Rule::Object(kind, verbs) => verbs.iter().all(|verb| roles.could_allow(kind, verb)),
    }
}

#[tokio::test]
async fn users_pass_the_gate_where_the_rules_of_their_roles_say_and_nowhere_else() {
    let cluster = Cluster::start().await;
    cluster.add_role(json!({"kind": "role", "version": "v7", "metadata": {"name": "nothing"}, "spec": {}})).await;
    let limited = json!({"kind": "role", "version": "v7", "metadata": {"name": "limited"}, "spec": {
        "allow": {"rules": [{"resources": ["*"], "verbs": ["*"]}]},
        "deny": {"rules": [{"resources": ["user", "app", "bot"], "verbs": ["*"]}]}}});
    cluster.add_role(limited).await;
    for held in [vec!["nothing"], vec!["access"], vec!["auditor"], vec!["editor"], vec!["editor", "limited"]] {
        let who = held.join("-");
        let holder = cluster.user(&who, &held, &[]).await;
        let roles = held.iter().map(|name| (*cluster.auth.role(name).unwrap()).clone());
        let roles = rbac::RoleSet::compile(roles, rbac::Traits::default());
        let channel = cluster.channel(Some(&holder)).await;
        for (path, rule) in PERMISSIONS.iter().filter(|(path, _)| !streams(path)) {
            // An empty message means everything for these.
            let passes = passes_as_user(&roles, *rule);
            if passes && ["/DeleteAll", "/Reset", "/Delete", "/Set", "/Rotate"].iter().any(|verb| path.contains(verb)) {
                continue;
            }
            let result = call(&channel, path).await;
            assert_sound(&who, path, &result);
            let code = result.as_ref().err().map(Status::code);
            if !passes {
                assert_eq!(code, Some(Code::PermissionDenied), "{who} {path}");
            } else if let (Err(status), Rule::Verbs(..)) = (&result, rule) {
                assert!(!status.message().contains("to perform action"), "{who} {path}: {status:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_call_without_a_row_is_unknown_to_everybody() {
    let cluster = Cluster::start().await;
    let channel = cluster.channel(Some(&cluster.admin().await)).await;
    for path in ["/proto.AuthService/DropEverything", "/no.such.Service/Call"] {
        assert_eq!(call(&channel, path).await.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn agents_and_people_write_nothing_that_gives_access() {
    let cluster = Cluster::start().await;
    let node = cluster.service(SystemRole::Node, "6d1f5a3e-0000-4000-8000-000000000001").await;
    let alice = cluster.user("alice", &["access"], &["root"]).await;
    let writes = [
        "/proto.AuthService/UpsertRoleV2",
        "/proto.AuthService/CreateTokenV2",
        "/proto.AuthService/UpsertLock",
        "/proto.AuthService/DeleteAllWebSessions",
        "/proto.AuthService/DeleteAllNodes",
        "/proto.AuthService/CreateResetPasswordToken",
        "/teleport.users.v1.UsersService/CreateUser",
        "/teleport.users.v1.UsersService/DeleteUser",
        "/teleport.trust.v1.TrustService/UpsertCertAuthority",
        "/teleport.trust.v1.TrustService/RotateCertAuthority",
        "/teleport.clusterconfig.v1.ClusterConfigService/ResetAuthPreference",
    ];
    for holder in [node, alice] {
        let channel = cluster.channel(Some(&holder)).await;
        for path in writes {
            assert_eq!(call(&channel, path).await.unwrap_err().code(), Code::PermissionDenied, "{path}");
        }
    }
}
