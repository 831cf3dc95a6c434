//! Locks: who is stopped, and whether it is so now.

use chrono::{DateTime, Utc};
use wire::{
    time,
    types::{LockTarget, LockV2},
};

use crate::decision::{Cause, Denial};

/// What a lock may be aimed at in one action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockSubject {
    /// The user who acts.
    pub user: String,
    /// The user's roles.
    pub roles: Vec<String>,
    /// The account on the server.
    pub login: Option<String>,
    /// The id of the second factor that was used.
    pub mfa_device: Option<String>,
    /// The id of the trusted device.
    pub device: Option<String>,
    /// Access requests the certificate was issued for.
    pub access_requests: Vec<String>,
    /// The ids of the servers involved, each with its cluster when known.
    pub servers: Vec<(String, Option<String>)>,
    /// The name of the desktop.
    pub windows_desktop: Option<String>,
}

/// The targets by which locks on a subject are found: one field each.
pub fn lock_targets(subject: &LockSubject) -> Vec<LockTarget> {
    let blank = LockTarget::default;
    let mut targets = Vec::new();
    if !subject.user.is_empty() {
        targets.push(LockTarget { user: subject.user.clone(), ..blank() });
    }
    targets.extend(subject.roles.iter().map(|role| LockTarget { role: role.clone(), ..blank() }));
    targets.extend(subject.login.iter().map(|login| LockTarget { login: login.clone(), ..blank() }));
    targets.extend(subject.mfa_device.iter().map(|id| LockTarget { mfa_device: id.clone(), ..blank() }));
    targets.extend(subject.device.iter().map(|id| LockTarget { device: id.clone(), ..blank() }));
    targets.extend(subject.access_requests.iter().map(|id| LockTarget { access_request: id.clone(), ..blank() }));
    for (id, cluster) in &subject.servers {
        let full = cluster.as_ref().map(|cluster| format!("{id}.{cluster}"));
        for id in [id.clone()].into_iter().chain(full) {
            targets.push(LockTarget { node: id.clone(), ..blank() });
            targets.push(LockTarget { server_id: id, ..blank() });
        }
    }
    let desktop = subject.windows_desktop.iter();
    targets.extend(desktop.map(|name| LockTarget { windows_desktop: name.clone(), ..blank() }));
    targets
}

/// Whether a lock is about a target: every field the target has is that of the lock.
pub fn lock_matches(lock: &LockV2, target: &LockTarget) -> bool {
    let Some(locked) = lock.spec.as_ref().and_then(|s| s.target.as_ref()) else { return false };
    let (wanted, locked) = (fields(target), fields(locked));
    let mut given = wanted.iter().zip(locked).filter(|((_, value), _)| !value.is_empty()).peekable();
    given.peek().is_some() && given.all(|((_, value), (_, locked))| *value == locked)
}

/// Whether a lock has not ended yet.
pub fn lock_in_force(lock: &LockV2, now: DateTime<Utc>) -> bool {
    let expires = lock.spec.as_ref().and_then(|s| time::moment(s.expires.as_ref()));
    let record = lock.metadata.as_ref().and_then(|m| time::moment(m.expires.as_ref()));
    [expires, record].into_iter().flatten().all(|end| end > now)
}

/// The refusal because of a lock: what users see and sessions are ended with.
pub fn lock_denial(lock: &LockV2) -> Denial {
    let spec = lock.spec.clone().unwrap_or_default();
    let target = spec.target.unwrap_or_default();
    let shown = fields(&target).into_iter().filter(|(_, value)| !value.is_empty());
    let shown = shown.map(|(name, value)| format!("{name}:{value:?}")).collect::<Vec<_>>().join(" ");
    let message = match spec.message.as_str() {
        "" => format!("lock targeting {shown} is in force"),
        reason => format!("lock targeting {shown} is in force: {reason}"),
    };
    let name = lock.metadata.as_ref().map_or("", |m| m.name.as_str());
    Denial::new(Cause::Locked, message).because(format!("lock {name:?}"))
}

/// The refusal when the list of locks is too old to be trusted and the mode is strict.
pub fn stale_locks_denial() -> Denial {
    Denial::new(Cause::Locked, "preventive lock-out due to local lock view becoming unreliable")
}

/// The fields of a target with the names that messages give them.
fn fields(target: &LockTarget) -> [(&'static str, &str); 9] {
    [
        ("User", &target.user),
        ("Role", &target.role),
        ("Login", &target.login),
        ("Node", &target.node),
        ("MFADevice", &target.mfa_device),
        ("WindowsDesktop", &target.windows_desktop),
        ("AccessRequest", &target.access_request),
        ("Device", &target.device),
        ("ServerID", &target.server_id),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use chrono::TimeDelta;
    use wire::types::LockSpecV2;

    use super::*;

    fn lock(target: LockTarget) -> LockV2 {
        LockV2 { spec: Some(LockSpecV2 { target: Some(target), ..Default::default() }), ..Default::default() }
    }

    fn hits(target: LockTarget, subject: &LockSubject) -> bool {
        let lock = lock(target);
        lock_targets(subject).iter().any(|t| lock_matches(&lock, t))
    }

    #[test]
    fn locks_hit_what_they_name() {
        let subject = LockSubject {
            user: "alice".into(),
            roles: vec!["dev".into()],
            login: Some("root".into()),
            servers: vec![("id-1".into(), Some("example.com".into()))],
            ..Default::default()
        };
        assert!(hits(LockTarget { user: "alice".into(), ..Default::default() }, &subject));
        assert!(hits(LockTarget { role: "dev".into(), ..Default::default() }, &subject));
        assert!(hits(LockTarget { login: "root".into(), ..Default::default() }, &subject));
        assert!(hits(LockTarget { server_id: "id-1".into(), ..Default::default() }, &subject));
        assert!(hits(LockTarget { server_id: "id-1.example.com".into(), ..Default::default() }, &subject));
        assert!(!hits(LockTarget { user: "bob".into(), ..Default::default() }, &subject));
        assert!(!hits(LockTarget { login: "alice".into(), ..Default::default() }, &subject));
        assert!(!hits(LockTarget::default(), &subject));
        assert!(!hits(LockTarget { user: "alice".into(), ..Default::default() }, &LockSubject::default()));
    }

    #[test]
    fn locks_end() {
        let now = Utc::now();
        let mut lock = lock(LockTarget { user: "alice".into(), ..Default::default() });
        assert!(lock_in_force(&lock, now));
        lock.spec.as_mut().unwrap().expires = Some(time::timestamp(now + TimeDelta::seconds(1)));
        assert!(lock_in_force(&lock, now));
        assert!(!lock_in_force(&lock, now + TimeDelta::seconds(1)));
    }

    #[test]
    fn the_message_names_target_and_reason() {
        let mut lock = lock(LockTarget { user: "alice".into(), ..Default::default() });
        assert_eq!(lock_denial(&lock).message, "lock targeting User:\"alice\" is in force");
        lock.spec.as_mut().unwrap().message = "on holiday".into();
        assert_eq!(lock_denial(&lock).message, "lock targeting User:\"alice\" is in force: on holiday");
    }
}
