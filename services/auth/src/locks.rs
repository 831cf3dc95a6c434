//! Locks: who is shut out at the moment.

use std::sync::Arc;

use audit::codes;
use rbac::{LockSubject, lock_denial, lock_in_force, lock_matches, lock_targets};
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
            (!in_force_only || lock_in_force(lock, now))
                && (targets.is_empty() || targets.iter().any(|target| lock_matches(lock, target)))
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
            Some(lock) => Err(lock_denial(lock).into()),
            None => Ok(()),
        }
    }

    /// Refuses when a user, one of the user's roles or the device is locked.
    pub(crate) fn check_user_locks(&self, user: &UserV2, device: Option<&str>) -> Result<()> {
        let subject = LockSubject {
            user: user.name().to_owned(),
            roles: user.spec.as_ref().map(|spec| spec.roles.clone()).unwrap_or_default(),
            mfa_device: device.map(str::to_owned),
            ..LockSubject::default()
        };
        self.check_locks(&lock_targets(&subject))
    }

    /// Stores a lock.
    ///
    /// # Errors
    /// `BadParameter` for locks without a target.
    pub async fn upsert_lock(&self, caller: &Caller, mut lock: LockV2) -> Result<LockV2> {
        lock.check_and_set_defaults().map_err(Error::from)?;
        let now = self.now();
        let spec = lock.spec.get_or_insert_default();
        // Programs send the year 1 for "not set".
        if time::moment(spec.created_at.as_ref()).is_none() {
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
            target: stored.spec.as_ref().and_then(|spec| spec.target.clone()),
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
