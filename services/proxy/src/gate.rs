//! Whether a user's connection may begin, and when it must end: locks and expiry.

use std::sync::Arc;
use std::time::Duration;

use cache::Cache;
use chrono::{DateTime, Utc};
use pki::identity::Identity;
use process::locks;
use resources::SystemRole;
use tokio::time::sleep;
use tonic::Status;
use wire::types::LockV2;

use crate::report::Reports;
use crate::transport::TransportPeer;

/// The rules for connections through this proxy.
#[derive(Clone)]
pub(crate) struct Gate {
    cache: Cache,
    /// Where connections that this proxy ends are told of.
    reports: Option<Reports>,
}

/// Watches one connection.
pub(crate) struct Watch {
    cache: Cache,
    reports: Option<Reports>,
    peer: TransportPeer,
    identity: Arc<Identity>,
    ends: Option<DateTime<Utc>>,
}

impl Gate {
    pub(crate) fn new(cache: Cache) -> Self {
        Self { cache, reports: None }
    }

    /// The same, for connections that go on: the audit log is told when they are ended here.
    pub(crate) fn with_reports(self, reports: Reports) -> Self {
        Self { reports: Some(reports), ..self }
    }

    /// Lets a peer in, or says why not.
    pub(crate) fn admit(&self, peer: &TransportPeer) -> Result<Watch, Status> {
        let identity = peer.identity.clone();
        if identity.is_expired(Utc::now()) {
            return Err(Status::permission_denied("access denied: client credentials have expired, please relogin."));
        }
        if !identity.usage.is_empty() {
            return Err(Status::permission_denied("access denied: invalid client certificate"));
        }
        if identity.groups.iter().any(|role| SystemRole::from_name(role).is_some()) {
            return Err(Status::permission_denied("access denied: this is for users, not for services of the cluster"));
        }
        if let Some(lock) = lock_in_force(&self.cache, &identity) {
            return Err(Status::permission_denied(lock));
        }
        let ends = if self.ends_when_expired(&identity) {
            identity.previous_identity_expires.or(identity.expires)
        } else {
            None
        };
        Ok(Watch { cache: self.cache.clone(), reports: self.reports.clone(), peer: peer.clone(), identity, ends })
    }

    /// Whether the cluster, or a role of the user, ends connections when the certificate expires. The certificate that
    /// is seen here may end before the one that the host sees.
    fn ends_when_expired(&self, identity: &Identity) -> bool {
        let preference = self.cache.auth_preference();
        let of_cluster = preference.spec.as_ref().and_then(|s| s.disconnect_expired_cert.as_ref());
        let of_role = |name: &String| {
            let role = self.cache.role(name);
            let options = role.as_ref().and_then(|role| role.spec.as_ref()).and_then(|spec| spec.options.as_ref());
            options.is_some_and(|options| options.disconnect_expired_cert)
        };
        of_cluster.is_some_and(|v| v.value) || identity.groups.iter().any(of_role)
    }
}

impl Watch {
    /// Returns when the connection must end, with the reason. Whether the list of locks can be relied on is for the host to say.
    pub(crate) async fn ended(&self) -> Status {
        let locked = locks::ended(&self.cache, false, || lock_in_force(&self.cache, &self.identity));
        tokio::select! {
            lock = locked => Status::permission_denied(lock),
            end = self.expired() => {
                if let Some(reports) = &self.reports {
                    reports.disconnected(&self.peer, &format!("client certificate expired at {}", end.to_rfc3339())).await;
                }
                Status::permission_denied("client certificate expired")
            }
        }
    }

    /// Returns when the certificate has ended, if that ends the connection.
    async fn expired(&self) -> DateTime<Utc> {
        let Some(end) = self.ends else { return std::future::pending().await };
        sleep((end - Utc::now()).to_std().unwrap_or(Duration::ZERO)).await;
        end
    }
}

/// The text of a lock that stops this user, if there is one.
fn lock_in_force(cache: &Cache, identity: &Identity) -> Option<String> {
    let now = Utc::now();
    let locks = cache.locks();
    let lock = locks.iter().find(|l| cache::in_force(l, now) && targets(l, identity))?;
    let message = lock.spec.as_ref().map(|s| s.message.as_str()).unwrap_or_default();
    let name = identity.username.as_str();
    Some(if message.is_empty() {
        format!("lock targeting User:{name:?} is in force")
    } else {
        format!("lock targeting User:{name:?} is in force: {message}")
    })
}

/// Whether a lock is about this user, one of their roles, their device or their request.
fn targets(lock: &LockV2, identity: &Identity) -> bool {
    let Some(target) = lock.spec.as_ref().and_then(|s| s.target.as_ref()) else { return false };
    let is = |wanted: &str, actual: &str| !wanted.is_empty() && wanted == actual;
    is(&target.user, &identity.username)
        || identity.groups.iter().any(|role| is(&target.role, role))
        || is(&target.mfa_device, &identity.mfa_verified)
        || is(&target.device, &identity.device.device_id)
        || identity.active_requests.iter().any(|request| is(&target.access_request, request))
}
