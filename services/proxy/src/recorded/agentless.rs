//! Servers without an agent: the proxy decides about the user, and logs in with a certificate that such servers trust.

use std::sync::Arc;
use std::time::Duration;

use audit::codes;
use chrono::Utc;
use pki::identity::Identity;
use pki::keys::{KeyAlgorithm, PrivateKey};
use process::leases::{NoLease, too_many};
use process::locks;
use rbac::{AccessState, Decision, KeyPolicy, RoleSet, SessionOwner, SessionPolicies};
use russh::client::{AuthResult, Handle};
use russh::keys::Certificate;
use tokio::time::timeout;
use tonic::Request;
use wire::events::{AuthAttempt, ClientDisconnect, Status};
use wire::proto::OpenSshCertRequest;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::types::{Metadata, RoleV6, UserSpecV2, UserV2};
use wire::wrappers::{LabelValues, StringValues};

use super::door::Visit;
use super::host::node_id;
use super::limits::Limits;
use super::target::NodeSide;
use super::trail::{rejected, server};
use super::{Meeting, Shared, foreign};

/// How long the Auth Service may take.
const CALL: Duration = Duration::from_secs(10);
/// The life of the proxy's certificate: it is used at once.
const LIFE: Duration = Duration::from_secs(5 * 60);

/// Decides whether a user may log in, as a node does; the reason of a refusal is in the audit log as well.
pub(super) async fn decide(
    shared: &Shared,
    meeting: &Meeting,
    identity: &Identity,
    login: &str,
) -> Result<Limits, String> {
    let reason = match judge(shared, meeting, identity, login).await {
        Ok((limits, max)) => return with_place(shared, meeting, (identity, login), limits, max).await,
        Err(reason) => reason,
    };
    let body = AuthAttempt {
        user: Some(process::said::user_metadata(identity, login)),
        connection: Some(process::said::connection_metadata(meeting.client, meeting.server)),
        status: Some(Status { success: false, error: reason.clone(), user_message: String::new() }),
        ..Default::default()
    };
    shared.log.emit(codes::AUTH_ATTEMPT_FAILURE.event(body)).await;
    Err(reason)
}

/// Takes a place among the user's simultaneous connections, where the roles limit them to `max`.
async fn with_place(
    shared: &Shared,
    meeting: &Meeting,
    who: (&Identity, &str),
    mut limits: Limits,
    max: Option<u64>,
) -> Result<Limits, String> {
    let Some(max) = max.filter(|max| *max > 0) else { return Ok(limits) };
    let user = &foreign::local_name(shared, who.0);
    let networking = shared.cache.networking();
    let ttl = networking.spec.as_ref().and_then(|spec| u64::try_from(spec.session_control_timeout).ok());
    match shared.leases.take(user, max, ttl.map(Duration::from_nanos)).await {
        Ok(lease) => limits.hold(lease),
        Err(NoLease::AllTaken) => {
            rejected(shared, meeting, who, ("max_connections limit reached", max)).await;
            return Err(too_many(user, max));
        }
        Err(NoLease::Unknown(problem)) => {
            return Err(format!("max_connections of user {user:?} cannot be checked: {problem}"));
        }
    }
    Ok(limits)
}

/// The limits of somebody who may log in, and how many connections the roles allow.
async fn judge(
    shared: &Shared,
    meeting: &Meeting,
    identity: &Identity,
    login: &str,
) -> Result<(Limits, Option<u64>), String> {
    let roles = role_set(shared, identity).await?;
    let device = &identity.device;
    let trusted = ![&device.device_id, &device.asset_tag, &device.credential_id].into_iter().any(String::is_empty);
    let preference = shared.cache.auth_preference();
    let state = AccessState::of(&roles, &preference, identity.is_mfa_verified(), trusted);
    let (user, cluster) = (&identity.username, &meeting.cluster);
    let permit = match roles.check_node(&meeting.node, login, &state) {
        Decision::Allow(permit) => permit,
        Decision::Deny(denial) => {
            return Err(format!(
                "user {user}@{cluster} is not authorized to login as {login}@{cluster}: {} ({})",
                denial.message,
                denial.explanation()
            ));
        }
    };
    if let Some(lock) = lock_on(shared, meeting, identity, login) {
        return Err(lock);
    }
    let spec = preference.spec.clone().unwrap_or_default();
    if locks::are_strict_for(&shared.cache, &roles) && locks::are_stale(&shared.cache) {
        return Err(rbac::stale_locks_denial().message);
    }
    let required = roles.options().key_policy(spec.require_mfa_type);
    let key = KeyPolicy::from_name(&identity.private_key_policy).unwrap_or(KeyPolicy::None);
    if !key.satisfies(required) {
        return Err(format!("private key policy not met: {}", required.name()));
    }
    let policies = roles.session_policies();
    if SessionPolicies::new(SessionOwner { user, policies: &policies }, "ssh").is_moderated() {
        return Err("Moderated sessions cannot be created for OpenSSH nodes".to_owned());
    }
    Ok((Limits::of(&permit.options, &shared.cache, user), permit.options.max_connections))
}

/// The message of a lock on somebody at this server, if one is in force.
fn lock_on(shared: &Shared, meeting: &Meeting, identity: &Identity, login: &str) -> Option<String> {
    let subject = locks::subject(identity, login, (node_id(meeting), &meeting.cluster));
    locks::on(&shared.cache, &subject, &foreign::local_name(shared, identity))
}

/// Returns when a connection must end, with the words for its user; the reason is in the audit log then.
pub(super) async fn must_end(visit: &Visit) -> String {
    let (reason, words) = tokio::select! {
        reason = locked(visit) => (reason, None),
        reason = visit.limits.place_lost() => (reason, None),
        reason = shut_out(visit) => (reason, None),
        reason = visit.limits.idle() => {
            let networking = visit.shared.cache.networking();
            let words = networking.spec.as_ref().map(|spec| spec.client_idle_timeout_message.clone());
            (reason, words.filter(|words| !words.is_empty()))
        }
    };
    disconnected(visit, &reason).await;
    words.unwrap_or(reason)
}

/// Returns when the certificate has expired where that ends connections, and nobody on the way here sees to it.
async fn shut_out(visit: &Visit) -> String {
    match &visit.watch {
        Some(watch) => watch.ended().await.message().to_owned(),
        None => std::future::pending().await,
    }
}

/// Returns when a lock is on somebody at this server, or when strict mode cannot tell any more; with the reason.
async fn locked(visit: &Visit) -> String {
    let Visit { shared, meeting, identity, login, .. } = visit;
    // Whose roles are not known may be somebody for whom it is strict.
    let strict = role_set(shared, identity).await.map_or(true, |roles| locks::are_strict_for(&shared.cache, &roles));
    locks::ended(&shared.cache, strict, || lock_on(shared, meeting, identity, login)).await
}

/// Says in the audit log why a connection is ended.
async fn disconnected(visit: &Visit, reason: &str) {
    let Visit { shared, meeting, identity, login, .. } = visit;
    let body = ClientDisconnect {
        user: Some(process::said::user_metadata(identity, login)),
        connection: Some(process::said::connection_metadata(meeting.client, meeting.server)),
        server: Some(server(shared, meeting)),
        reason: reason.to_owned(),
        ..Default::default()
    };
    shared.log.emit(codes::CLIENT_DISCONNECT.event(body)).await;
}

async fn role_set(shared: &Shared, identity: &Identity) -> Result<RoleSet, String> {
    let roles = known_roles(shared, identity).await?;
    let traits = rbac::Traits::from(identity.traits.clone().unwrap_or_default());
    let roles = RoleSet::compile(roles, traits);
    Ok(roles.bound_by_certificate(&shared.cache.cluster_name(), &identity.allowed_resource_ids))
}

async fn known_roles(shared: &Shared, identity: &Identity) -> Result<Vec<RoleV6>, String> {
    let mut roles = Vec::new();
    for name in &identity.groups {
        let role = shared.cache.find_role(name).await.ok_or_else(|| format!("role {name:?} is not found"))?;
        roles.push((*role).clone());
    }
    Ok(roles)
}

/// Logs in to the server in the user's name.
pub(super) async fn log_in(
    handle: &mut Handle<NodeSide>,
    shared: &Shared,
    identity: &Identity,
    login: &str,
) -> Result<(), String> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| format!("logging in to a server without an agent: {what}: {error}");
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).map_err(|e| failed("key", &e))?;
    let values = identity.traits.clone().unwrap_or_default().into_iter();
    let values = values.map(|(name, values)| (name, StringValues { values })).collect();
    let left = identity.expires.and_then(|end| (end - Utc::now()).to_std().ok()).unwrap_or(LIFE).min(LIFE);
    let request = OpenSshCertRequest {
        public_key: key.public().to_ssh_line().into_bytes(),
        ttl: i64::try_from(left.as_nanos()).unwrap_or_default(),
        cluster: shared.cache.cluster_name(),
        user: Some(UserV2 {
            metadata: Some(Metadata { name: foreign::local_name(shared, identity), ..Default::default() }),
            spec: Some(UserSpecV2 {
                roles: identity.groups.clone(),
                traits: Some(LabelValues { values }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        roles: known_roles(shared, identity).await?,
    };
    let call =
        async { AuthServiceClient::new(shared.channel.clone()).generate_open_ssh_cert(Request::new(request)).await };
    let answer = timeout(CALL, call).await.map_err(|_| failed("certificate", &"waited 10 s"))?;
    let answer = answer.map_err(|status| failed("certificate", &status.message()))?.into_inner();
    let line = String::from_utf8_lossy(&answer.cert).into_owned();
    let certificate = Certificate::from_openssh(line.trim()).map_err(|e| failed("certificate", &e))?;
    let key = Arc::new(key.to_ssh().map_err(|e| failed("key", &e))?);
    match handle.authenticate_openssh_cert(login, key, certificate).await {
        Ok(AuthResult::Success) => Ok(()),
        Ok(AuthResult::Failure { .. }) => Err(String::new()),
        Err(error) => Err(failed("connection", &error)),
    }
}
