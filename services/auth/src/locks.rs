//! Locks: who is shut out at the moment.

use std::sync::Arc;

use audit::codes;
use chrono::{DateTime, Utc};
use resources::Resource;
use wire::{
    error::{Error, Result},
    events, time,
    types::{LockTarget, LockV2, UserV2},
};

use crate::{Auth, Caller, store::kind};

impl Auth {
    /// The locks, or only those in force, or only those that shut out one of `targets`.
    ///
    /// # Errors
    /// Only while the storage is being reloaded.
    pub fn locks(&self, in_force_only: bool, targets: &[LockTarget]) -> Result<Vec<LockV2>> {
        let now = self.now();
        let wanted = |lock: &LockV2| {
            (!in_force_only || is_in_force(lock, now)) && (targets.is_empty() || targets.iter().any(|t| shuts_out(lock, t)))
        };
        let all = self.store().cached_list::<kind::Lock>();
        Ok(all.into_iter().filter(|lock| wanted(lock)).map(Arc::unwrap_or_clone).collect())
    }

    /// Refuses when a lock in force shuts out one of `targets`.
    ///
    /// # Errors
    /// `AccessDenied` with the lock's message.
    pub fn check_locks(&self, targets: &[LockTarget]) -> Result<()> {
        match self.locks(true, targets)?.first() {
            Some(lock) => Err(Error::access_denied(refusal(lock))),
            None => Ok(()),
        }
    }

    /// Refuses when a user, one of the user's roles or the device is locked.
    pub(crate) fn check_user_locks(&self, user: &UserV2, device: Option<&str>) -> Result<()> {
        let mut targets = vec![LockTarget { user: user.name().to_owned(), ..LockTarget::default() }];
        let roles = user.spec.as_ref().map(|spec| spec.roles.clone()).unwrap_or_default();
        targets.extend(roles.into_iter().map(|role| LockTarget { role, ..LockTarget::default() }));
        if let Some(id) = device {
            targets.push(LockTarget { mfa_device: id.to_owned(), ..LockTarget::default() });
        }
        self.check_locks(&targets)
    }

    /// Stores a lock.
    ///
    /// # Errors
    /// `BadParameter` for locks without a target.
    pub async fn upsert_lock(&self, caller: &Caller, mut lock: LockV2) -> Result<LockV2> {
        lock.check_and_set_defaults().map_err(Error::from)?;
        let now = self.now();
        let spec = lock.spec.get_or_insert_default();
        if spec.created_at.is_none() {
            spec.created_at = Some(time::timestamp(now));
        }
        if spec.created_by.is_empty() {
            spec.created_by = caller.user_name();
        }
        if time::moment(spec.expires.as_ref()).is_some_and(|expires| expires <= now) {
            return Err(Error::bad_parameter(format!("lock {:?} would have expired already", lock.name())));
        }
        let expires = time::moment(lock.spec.as_ref().and_then(|spec| spec.expires.as_ref()));
        lock.set_expires(expires);
        let stored = self.store().upsert::<kind::Lock>(lock).await?;
        self.emit(codes::LOCK_CREATE.event(events::LockCreate {
            resource: Some(events::ResourceMetadata {
                name: stored.name().to_owned(),
                expires: stored.metadata().expires,
                updated_by: caller.user_name(),
                ..Default::default()
            }),
            user: Some(caller.user_metadata()),
            lock: Some(events::LockMetadata { target: stored.spec.as_ref().and_then(|spec| spec.target.clone()) }),
            ..Default::default()
        }))
        .await?;
        Ok(Arc::unwrap_or_clone(stored))
    }

    /// Removes a lock.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_lock(&self, caller: &Caller, name: &str) -> Result<()> {
        let lock = self.store().cached::<kind::Lock>(name)?;
        self.store().delete::<kind::Lock>(name).await?;
        self.emit(codes::LOCK_DELETE.event(events::LockDelete {
            resource: Some(events::ResourceMetadata { name: name.to_owned(), ..Default::default() }),
            user: Some(caller.user_metadata()),
            lock: Some(events::LockMetadata { target: lock.spec.as_ref().and_then(|spec| spec.target.clone()) }),
            ..Default::default()
        }))
        .await
    }
}

fn is_in_force(lock: &LockV2, now: DateTime<Utc>) -> bool {
    let expires = lock.spec.as_ref().and_then(|spec| spec.expires.as_ref());
    time::moment(expires).is_none_or(|expires| expires > now)
}

/// Whether everything a lock names is what the target names.
fn shuts_out(lock: &LockV2, target: &LockTarget) -> bool {
    let Some(locked) = lock.spec.as_ref().and_then(|spec| spec.target.as_ref()) else { return false };
    let pairs = [
        (&locked.user, &target.user),
        (&locked.role, &target.role),
        (&locked.login, &target.login),
        (&locked.node, &target.node),
        (&locked.mfa_device, &target.mfa_device),
        (&locked.windows_desktop, &target.windows_desktop),
        (&locked.access_request, &target.access_request),
        (&locked.device, &target.device),
        (&locked.server_id, &target.server_id),
    ];
    let mut named = pairs.iter().filter(|(locked, _)| !locked.is_empty()).peekable();
    named.peek().is_some() && named.all(|(locked, target)| locked == target)
}

/// What somebody is told who is locked out.
fn refusal(lock: &LockV2) -> String {
    let target = lock.spec.as_ref().and_then(|spec| spec.target.clone()).unwrap_or_default();
    let parts = [
        ("User", &target.user),
        ("Role", &target.role),
        ("Login", &target.login),
        ("Node", &target.node),
        ("MFADevice", &target.mfa_device),
        ("WindowsDesktop", &target.windows_desktop),
        ("AccessRequest", &target.access_request),
        ("Device", &target.device),
        ("ServerID", &target.server_id),
    ];
    let named: Vec<String> =
        parts.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}:{value:?}")).collect();
    let text = format!("lock targeting {} is in force", named.join(" "));
    match lock.spec.as_ref().map_or("", |spec| &spec.message) {
        "" => text,
        message => format!("{text}: {message}"),
    }
}
