//! New certificates: for users (reissue, single use, in somebody else's name) and for hosts.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use resources::SystemRole;
use wire::error::{Error, Result};
use wire::mfa::ChallengeScope;
use wire::proto::user_certs_request::{CertPurpose, CertUsage, Requester};
use wire::proto::{Certs, HostCertsRequest, OpenSshCert, OpenSshCertRequest, UserCertsRequest};
use wire::types::Rotation;

use super::impersonation::{self, Subject};
use super::{Api, named};
use crate::authz::AuthContext;
use crate::{HostCertRequest, PublicKeys, UserCertRequest};

/// Lifetime of a certificate for one connection.
const SINGLE_USE_TTL: TimeDelta = TimeDelta::minutes(1);
/// Lifetime of certificates that bots renew, at most.
const RENEWABLE_TTL: TimeDelta = TimeDelta::hours(24);
/// What clients recognise as a reason to log in again.
const EXPIRED: &str = "access denied: client credentials have expired, please relogin.";

/// Certificates for a user's keys.
pub async fn generate_user_certs(api: &Api, context: &AuthContext, message: UserCertsRequest) -> Result<Certs> {
    named(&message.username, "Username")?;
    let keys = keys(&message)?;
    if context.identity().is_some_and(|identity| identity.disallow_reissue) {
        return Err(Error::access_denied("access denied: this certificate cannot be exchanged for another one"));
    }
    let request = if message.purpose == CertPurpose::SingleUseCerts as i32 {
        single_use(api, context, &message, keys).await?
    } else {
        let subject = impersonation::subject(api, context, &message).await?;
        reissue(api, context, &message, keys, subject).await?
    };
    api.auth().generate_user_certs(request).await
}

/// Certificates for the keys of a host, asked for by the host itself.
pub async fn generate_host_certs(api: &Api, context: &AuthContext, message: HostCertsRequest) -> Result<Certs> {
    context.require_own_server(&message.host_id)?;
    let role = SystemRole::from_name(named(&message.role, "Role")?)
        .ok_or_else(|| Error::bad_parameter(format!("{:?} is no system role", message.role)))?;
    if role != SystemRole::Instance && !context.has_role(role) {
        return Err(Error::access_denied(format!("access denied: the certificate does not hold the role {role}")));
    }
    if role != SystemRole::Instance && !message.system_roles.is_empty() {
        return Err(Error::bad_parameter("only instances have further system roles"));
    }
    let asserted = api.assertions().of(&message.host_id, &message.system_role_assertion_id, api.auth().now());
    let mut system_roles = Vec::with_capacity(message.system_roles.len());
    for name in &message.system_roles {
        let held = SystemRole::from_name(name).filter(|held| held.is_local_service());
        let held = held.ok_or_else(|| Error::bad_parameter(format!("{name:?} is no role of a service")))?;
        if !context.has_role(held) && !asserted.contains(&held) {
            return Err(Error::access_denied(format!("access denied: the role {held} was not proven")));
        }
        system_roles.push(held);
    }
    let request = HostCertRequest {
        host_id: message.host_id,
        node_name: message.node_name,
        role,
        additional_principals: message.additional_principals,
        dns_names: message.dns_names,
        public_tls_key: utf8(message.public_tls_key, "PublicTLSKey")?,
        public_ssh_key: utf8(message.public_ssh_key, "PublicSSHKey")?,
        remote_addr: context.caller().remote_ip(),
        system_roles,
        serving: false,
    };
    if let Some(expected) = &message.rotation {
        check_rotation(api, expected)?;
    }
    api.auth().generate_host_certs(request).await
}

/// Refuses a host that acts upon another phase of a rotation than the present one: its certificates would be of keys
/// that it does not expect.
fn check_rotation(api: &Api, expected: &Rotation) -> Result<()> {
    let ca = api.auth().host_authority()?;
    let present = ca.spec.as_ref().and_then(|spec| spec.rotation.clone()).unwrap_or_default();
    let standby = |state: &str| state.is_empty() || state == "standby";
    let both_rest = standby(&expected.state) && standby(&present.state);
    if both_rest || (expected.current_id == present.current_id && expected.phase == present.phase) {
        return Ok(());
    }
    Err(Error::bad_parameter(format!(
        "the rotation of the host authority is in phase {:?}, not in {:?}: look again and retry",
        present.phase, expected.phase
    )))
}

/// A certificate with which a proxy logs in to a server without an agent, in a user's name. Roles count by their names:
/// what they allow is read here.
pub async fn generate_open_ssh_cert(api: &Api, _: &AuthContext, message: OpenSshCertRequest) -> Result<OpenSshCert> {
    let user = message.user.ok_or_else(|| Error::bad_parameter("missing parameter User"))?;
    let name = user.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
    if name.is_empty() || message.roles.is_empty() {
        return Err(Error::bad_parameter("missing parameter User or Roles"));
    }
    if !message.cluster.is_empty() && message.cluster != api.auth().cluster_name() {
        return Err(Error::bad_parameter(format!("cluster {:?} is not this one", message.cluster)));
    }
    let roles = message.roles.iter().map(|role| role.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default());
    let request = UserCertRequest {
        user: name,
        roles: roles.collect(),
        traits: crate::login::traits_of(&user),
        ttl: Duration::from_nanos(u64::try_from(message.ttl).unwrap_or_default()),
        keys: PublicKeys { ssh: Some(utf8(message.public_key, "PublicKey")?), tls: None },
        ..UserCertRequest::default()
    };
    let certificate = api.auth().generate_open_ssh_certificate(request).await?;
    Ok(OpenSshCert { cert: certificate.into_bytes() })
}

/// The keys to certify: one for SSH and one for TLS, or one old-style key for both.
fn keys(message: &UserCertsRequest) -> Result<PublicKeys> {
    let split = !message.ssh_public_key.is_empty() || !message.tls_public_key.is_empty();
    match (message.public_key.is_empty(), split) {
        (false, true) => Err(Error::bad_parameter("PublicKey cannot be given with SSHPublicKey or TLSPublicKey")),
        (true, false) => Err(Error::bad_parameter("missing parameter SSHPublicKey or TLSPublicKey")),
        (false, false) => PublicKeys::one(&utf8(message.public_key.clone(), "PublicKey")?),
        (true, true) => {
            let text = |key: &[u8], name| (!key.is_empty()).then(|| utf8(key.to_vec(), name)).transpose();
            Ok(PublicKeys {
                ssh: text(&message.ssh_public_key, "SSHPublicKey")?,
                tls: text(&message.tls_public_key, "TLSPublicKey")?,
            })
        }
    }
}

/// A certificate for one connection, after a second factor was proven for it.
async fn single_use(
    api: &Api,
    context: &AuthContext,
    message: &UserCertsRequest,
    mut keys: PublicKeys,
) -> Result<UserCertRequest> {
    if !context.is_local_person() || !context.is_user(&message.username) {
        return Err(Error::access_denied("access denied: users get certificates for single use for themselves only"));
    }
    let usage = usage(message)?;
    let missing = |what: &str| Error::bad_parameter(format!("single-use certificates need {what}"));
    let (wanted, what) = match usage {
        CertUsage::All => return Err(missing("a usage")),
        CertUsage::Ssh => (!message.node_name.is_empty(), "NodeName"),
        CertUsage::Kubernetes => (!message.kubernetes_cluster.is_empty(), "KubernetesCluster"),
        CertUsage::Database => (
            message.route_to_database.as_ref().is_some_and(|r| !r.service_name.is_empty()),
            "RouteToDatabase.ServiceName",
        ),
        CertUsage::App => (message.route_to_app.as_ref().is_some_and(|r| !r.name.is_empty()), "RouteToApp.Name"),
        CertUsage::WindowsDesktop => (
            message.route_to_windows_desktop.as_ref().is_some_and(|r| !r.windows_desktop.is_empty()),
            "RouteToWindowsDesktop.WindowsDesktop",
        ),
    };
    if !wanted {
        return Err(missing(what));
    }
    match usage {
        CertUsage::Ssh => keys.tls = None,
        _ => keys.ssh = None,
    }
    let response = message.mfa_response.clone().ok_or_else(|| missing("MFAResponse"))?;
    let device = api
        .auth()
        .verify_mfa_response(context.caller(), context.username(), response, ChallengeScope::UserSession)
        .await?;
    let subject = impersonation::own(api, context, message).await?;
    let local_proxy = matches!(
        (usage, requester(message)),
        (CertUsage::Database, Requester::TshDbLocalProxyTunnel)
            | (CertUsage::Kubernetes, Requester::TshKubeLocalProxy)
            | (CertUsage::App, Requester::TshAppLocalProxy)
    );
    let now = api.auth().now();
    let cap = if local_proxy { context.expires() } else { Some(now + SINGLE_USE_TTL) };
    let ttl = lifetime(now, expiry(message, now)?, cap.into_iter().chain(subject.expires).min())?;
    let mut request = request(api, context, message, keys, subject, ttl)?;
    request.mfa_verified = device.id;
    request.previous_expiry = context.expires();
    request.login_ip = context.caller().remote_ip();
    Ok(request)
}

/// A certificate like the present one for other keys or another target, or one in somebody else's name.
async fn reissue(
    api: &Api,
    context: &AuthContext,
    message: &UserCertsRequest,
    keys: PublicKeys,
    subject: Subject,
) -> Result<UserCertRequest> {
    let now = api.auth().now();
    let renewable = context.identity().is_some_and(|identity| identity.renewable);
    let own = context.is_user(&message.username);
    let wanted = expiry(message, now)?;
    if own && wanted <= now {
        return Err(Error::access_denied(EXPIRED));
    }
    let cap = match requester(message) {
        _ if context.is_admin() => None,
        _ if renewable || subject.by_role_request => Some(now + RENEWABLE_TTL),
        Requester::TshKubeLocalProxyHeadless if usage(message)? == CertUsage::Kubernetes => {
            Some(now + TimeDelta::nanoseconds(default_session_ttl(api)?))
        }
        _ => context.expires(),
    };
    let wanted = match requester(message) {
        Requester::TshKubeLocalProxyHeadless if cap.is_some() => cap.unwrap_or(wanted),
        _ => wanted,
    };
    let ttl = lifetime(now, wanted, cap.into_iter().chain(subject.expires).min())?;
    let mut request = request(api, context, message, keys, subject, ttl)?;
    if let (true, Some(response)) = (own, message.mfa_response.clone()) {
        let scope = ChallengeScope::UserSession;
        request.mfa_verified =
            api.auth().verify_mfa_response(context.caller(), context.username(), response, scope).await?.id;
    }
    request.login_ip = match context.identity() {
        Some(identity) if own => identity.login_ip.clone(),
        _ => context.caller().remote_ip(),
    };
    // What the administrator signs on this machine is not bound by the roles' longest session.
    request.override_ttl = context.is_admin();
    Ok(request)
}

fn request(
    api: &Api,
    context: &AuthContext,
    message: &UserCertsRequest,
    keys: PublicKeys,
    subject: Subject,
    ttl: Duration,
) -> Result<UserCertRequest> {
    let identity = context.identity();
    let route_to_cluster = match (message.route_to_cluster.as_str(), identity) {
        ("", Some(identity)) if !identity.route_to_cluster.is_empty() => identity.route_to_cluster.clone(),
        ("", _) => api.auth().cluster_name().to_owned(),
        (cluster, _) => cluster.to_owned(),
    };
    Ok(UserCertRequest {
        user: message.username.clone(),
        roles: subject.roles,
        traits: subject.traits,
        ttl,
        keys,
        compatibility: message.format.clone(),
        route_to_cluster,
        kubernetes_cluster: message.kubernetes_cluster.clone(),
        route_to_app: message.route_to_app.clone(),
        route_to_database: message.route_to_database.clone(),
        usage: usage(message)?.into(),
        impersonator: subject.impersonator,
        disallow_reissue: subject.by_role_request,
        active_requests: subject.active_requests,
        only_resources: subject.only_resources,
        renewable: false,
        ..Default::default()
    })
}

/// When the caller wants the certificate to end; without a wish, as late as allowed.
fn expiry(message: &UserCertsRequest, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    match &message.expires {
        None => Ok(now + TimeDelta::days(365 * 10)),
        Some(_) => {
            wire::time::moment(message.expires.as_ref()).ok_or_else(|| Error::bad_parameter("Expires is not a moment"))
        }
    }
}

fn lifetime(now: DateTime<Utc>, wanted: DateTime<Utc>, cap: Option<DateTime<Utc>>) -> Result<Duration> {
    let end = cap.map_or(wanted, |cap| cap.min(wanted));
    if end <= now {
        return Err(Error::access_denied(EXPIRED));
    }
    Ok((end - now).to_std().unwrap_or_default())
}

fn default_session_ttl(api: &Api) -> Result<i64> {
    let preference = api.auth().auth_preference()?;
    Ok(preference
        .spec
        .as_ref()
        .map(|spec| spec.default_session_ttl)
        .filter(|ttl| *ttl > 0)
        .unwrap_or(resources::DEFAULT_SESSION_TTL))
}

fn usage(message: &UserCertsRequest) -> Result<CertUsage> {
    CertUsage::try_from(message.usage).map_err(|_| Error::bad_parameter(format!("unknown usage {}", message.usage)))
}

fn requester(message: &UserCertsRequest) -> Requester {
    Requester::try_from(message.requester_name).unwrap_or_default()
}

fn utf8(key: Vec<u8>, name: &str) -> Result<String> {
    String::from_utf8(key).map_err(|_| Error::bad_parameter(format!("{name}: expected text")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn old_and_new_keys_cannot_be_mixed() {
        let mixed = UserCertsRequest { public_key: b"a".into(), ssh_public_key: b"b".into(), ..Default::default() };
        assert!(keys(&mixed).is_err());
        assert!(keys(&UserCertsRequest::default()).is_err());
        let split = UserCertsRequest { ssh_public_key: b"line".into(), ..Default::default() };
        let found = keys(&split).unwrap();
        assert_eq!((found.ssh.as_deref(), found.tls), (Some("line"), None));
        assert!(keys(&UserCertsRequest { tls_public_key: vec![0xff], ..Default::default() }).is_err());
    }

    #[test]
    fn a_lifetime_is_cut_to_its_cap_and_may_be_short() {
        let now = Utc::now();
        let hour = now + TimeDelta::hours(1);
        assert_eq!(lifetime(now, hour, None).unwrap(), Duration::from_secs(3600));
        assert_eq!(lifetime(now, hour, Some(now + SINGLE_USE_TTL)).unwrap(), Duration::from_secs(60));
        assert_eq!(lifetime(now, now + TimeDelta::seconds(3), None).unwrap(), Duration::from_secs(3));
        assert_eq!(lifetime(now, hour, Some(now - TimeDelta::seconds(1))).unwrap_err().message, EXPIRED);
    }
}
