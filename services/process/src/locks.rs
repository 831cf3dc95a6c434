//! Locks, as those see them who let users in at servers: whether one is in force, and when one ends a connection.

use std::time::Duration;

use cache::{Cache, Change};
use chrono::Utc;
use pki::identity::Identity;
use rbac::{LockSubject, RoleSet, Strictness};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

/// For how long the list of locks may be out of date before strict mode refuses.
const MAX_STALE: Duration = Duration::from_secs(5 * 60);
/// How often the age of the list of locks is looked at.
const STALE_CHECK: Duration = Duration::from_secs(15);

/// What locks may be on: somebody with a login at a server, which is a host of a cluster.
pub fn subject(identity: &Identity, login: &str, (host, cluster): (&str, &str)) -> LockSubject {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    LockSubject {
        user: identity.username.clone(),
        roles: identity.groups.clone(),
        login: some(login),
        mfa_device: some(&identity.mfa_verified),
        device: some(&identity.device.device_id),
        access_requests: identity.active_requests.clone(),
        servers: vec![(host.to_owned(), some(cluster))],
        windows_desktop: None,
    }
}

/// The message of a lock on somebody, if one is in force: under the name that they brought, or the one that they have here.
pub fn on(cache: &Cache, subject: &LockSubject, local_name: &str) -> Option<String> {
    let mut targets = rbac::lock_targets(subject);
    if subject.user != local_name {
        targets.extend(rbac::lock_targets(&LockSubject { user: local_name.to_owned(), ..LockSubject::default() }));
    }
    let now = Utc::now();
    let locks = cache.locks();
    let lock = locks
        .iter()
        .find(|lock| rbac::lock_in_force(lock, now) && targets.iter().any(|target| rbac::lock_matches(lock, target)));
    lock.map(|lock| rbac::lock_denial(lock).message)
}

/// Whether somebody with these roles is let in only while the list of locks can be relied on.
pub fn are_strict_for(cache: &Cache, roles: &RoleSet) -> bool {
    let preference = cache.auth_preference();
    let strict = preference.spec.as_ref().is_some_and(|spec| spec.locking_mode == "strict");
    let cluster_wide = if strict { Strictness::Strict } else { Strictness::BestEffort };
    roles.options().lock_mode(cluster_wide) == Strictness::Strict
}

/// Whether the list of locks is too old to be relied on in strict mode.
pub fn are_stale(cache: &Cache) -> bool {
    cache.stale_for().is_some_and(|age| age > MAX_STALE)
}

/// Returns when a connection must end, with the reason: there is a lock, for which `find` looks whenever locks have changed, or
/// `strict` mode cannot tell any more. Locks that were there before are found as well.
pub async fn ended(cache: &Cache, strict: bool, find: impl Fn() -> Option<String>) -> String {
    watched(cache.subscribe(), strict.then_some(|| are_stale(cache)), find).await
}

async fn watched(
    mut changes: Receiver<Change>,
    strict: Option<impl Fn() -> bool>,
    find: impl Fn() -> Option<String>,
) -> String {
    let mut changed = true;
    loop {
        if changed && let Some(message) = find() {
            return message;
        }
        if strict.as_ref().is_some_and(|are_stale| are_stale()) {
            return rbac::stale_locks_denial().message;
        }
        changed = tokio::select! {
            change = changes.recv() => match change {
                Ok(Change::Lock(_) | Change::Everything) | Err(RecvError::Lagged(_)) => true,
                Ok(_) => false,
                Err(RecvError::Closed) => return std::future::pending().await,
            },
            () = sleep(STALE_CHECK), if strict.is_some() => false,
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use cache::State;
    use tokio::sync::broadcast;
    use tokio::time::{Instant, timeout};
    use wire::types::{AuthPreferenceSpecV2, AuthPreferenceV2, LockSpecV2, LockTarget, LockV2};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn not_strict() -> Option<fn() -> bool> {
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_is_seen_when_it_comes_and_when_it_was_there_before() {
        let (sender, changes) = broadcast::channel(4);
        assert_eq!(watched(changes, not_strict(), || Some("before".to_owned())).await, "before");

        let (there, looked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_there, looks) = (there.clone(), looked.clone());
        let find = move || {
            looks.fetch_add(1, Ordering::Relaxed);
            is_there.load(Ordering::Relaxed).then(|| "locked".to_owned())
        };
        let watching = tokio::spawn(watched(sender.subscribe(), not_strict(), find));
        tokio::task::yield_now().await;
        sender.send(Change::Settings).unwrap();
        sender.send(Change::Lock(String::new())).unwrap();
        tokio::time::sleep(LONG).await;
        assert_eq!((watching.is_finished(), looked.load(Ordering::Relaxed)), (false, 2), "other changes are no locks");
        there.store(true, Ordering::Relaxed);
        sender.send(Change::Lock(String::new())).unwrap();
        assert_eq!(watching.await.unwrap(), "locked");
    }

    #[tokio::test(start_paused = true)]
    async fn only_strict_mode_ends_what_nobody_can_tell_about() {
        let (sender, changes) = broadcast::channel(4);
        assert!(timeout(LONG, watched(changes, not_strict(), || None)).await.is_err());
        let since = Instant::now();
        let is_stale = move || since.elapsed() > MAX_STALE;
        let reason = watched(sender.subscribe(), Some(is_stale), || None).await;
        assert_eq!(reason, rbac::stale_locks_denial().message);
        assert!(since.elapsed() <= MAX_STALE + 2 * STALE_CHECK, "after {:?}", since.elapsed());
    }

    #[test]
    fn a_lock_is_on_either_name_and_strictness_is_the_cluster_s_or_a_role_s() {
        let identity = Identity { username: "alice".into(), ..Identity::default() };
        let subject = subject(&identity, "root", ("host", "c"));
        let on_user = |user: &str| {
            let target = Some(LockTarget { user: user.into(), ..LockTarget::default() });
            let spec = Some(LockSpecV2 { target, message: user.into(), ..LockSpecV2::default() });
            let mut state = State::default();
            state.locks.insert("lock".into(), Arc::new(LockV2 { spec, ..LockV2::default() }));
            on(&Cache::fixed(state), &subject, "remote-alice-c")
        };
        assert!(on_user("alice").unwrap().contains("alice"));
        assert!(on_user("remote-alice-c").unwrap().contains("remote-alice-c"));
        assert_eq!(on_user("bob"), None);

        let roles = RoleSet::compile(Vec::new(), rbac::Traits::default());
        assert!(!are_strict_for(&Cache::fixed(State::default()), &roles));
        let spec = Some(AuthPreferenceSpecV2 { locking_mode: "strict".into(), ..AuthPreferenceSpecV2::default() });
        let preference = Arc::new(AuthPreferenceV2 { spec, ..AuthPreferenceV2::default() });
        assert!(are_strict_for(&Cache::fixed(State { auth_preference: preference, ..State::default() }), &roles));
    }
}
