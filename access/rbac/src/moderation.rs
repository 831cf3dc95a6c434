//! Joining sessions, and sessions that need others to be present.

use std::collections::BTreeSet;

use resources::presets::IMPLICIT_ROLE;
use serde::Serialize;
use wire::types::{SessionRequirePolicy, SessionTrackerPolicySet};

use crate::{
    language::{Dialect, Expression},
    pattern::Pattern,
    role::Role,
    role_set::RoleSet,
    rules::RuleContext,
};

/// How somebody takes part in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JoinMode {
    /// Watches.
    Observer,
    /// Watches and may end the session.
    Moderator,
    /// Types.
    Peer,
}

impl JoinMode {
    const ALL: [Self; 3] = [Self::Observer, Self::Moderator, Self::Peer];

    /// The name in roles, requests and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Observer => "observer",
            Self::Moderator => "moderator",
            Self::Peer => "peer",
        }
    }

    /// The mode of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// The user who started a session, with what the roles of that user demanded at that moment.
#[derive(Clone, Copy, Debug)]
pub struct SessionOwner<'a> {
    /// The name of the user.
    pub user: &'a str,
    /// The demands of the roles: [`RoleSet::session_policies`], kept in the session's record.
    pub policies: &'a [SessionTrackerPolicySet],
}

/// Somebody in a session.
#[derive(Clone, Debug)]
pub struct Participant {
    /// The name of the user.
    pub user: String,
    /// The roles of the user.
    pub roles: RoleSet,
    /// How they take part.
    pub mode: JoinMode,
    /// What `user` stands for in filters.
    pub context: RuleContext,
}

impl Participant {
    /// Somebody in a session; `record` is the user as filters see it.
    pub fn new(user: &str, record: &impl Serialize, roles: RoleSet, mode: JoinMode) -> Self {
        Self { user: user.to_owned(), roles, mode, context: RuleContext::new().with_user(record) }
    }
}

/// What happens when those who have to be present leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLeave {
    /// The session ends.
    Terminate,
    /// The session waits.
    Pause,
}

/// Whether a session may run with those who are present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartDecision {
    /// It may.
    pub allowed: bool,
    /// What is missing, in words for those who wait.
    pub missing: Vec<String>,
    /// What happens when somebody leaves and it may not any more.
    pub on_leave: OnLeave,
}

/// The demands of the owner's roles on sessions of one kind (`ssh`, `k8s`).
#[derive(Clone, Copy, Debug)]
pub struct SessionPolicies<'a> {
    owner: SessionOwner<'a>,
    kind: &'a str,
}

impl<'a> SessionPolicies<'a> {
    /// The demands on sessions of a kind.
    pub fn new(owner: SessionOwner<'a>, kind: &'a str) -> Self {
        Self { owner, kind }
    }

    /// Whether others have to be present.
    pub fn is_moderated(&self) -> bool {
        self.owner.policies.iter().any(|role| self.demands(role).next().is_some())
    }

    fn demands<'r>(
        &self,
        role: &'r SessionTrackerPolicySet,
    ) -> impl Iterator<Item = &'r SessionRequirePolicy> + use<'r, 'a> {
        let kind = self.kind;
        role.require_session_join.iter().filter(move |policy| names_kind(&policy.kinds, kind))
    }

    /// Whether the session may run: for every role with demands, one of them is met. The owner does not count.
    pub fn may_run(&self, present: &[Participant]) -> StartDecision {
        let mut missing = Vec::new();
        let mut pauses = Vec::new();
        for role in self.owner.policies {
            let demands: Vec<_> = self.demands(role).collect();
            pauses.extend(demands.iter().map(|d| d.on_leave == "pause"));
            if demands.is_empty() || demands.iter().any(|d| self.is_met(role, d, present)) {
                continue;
            }
            let texts = demands.iter().map(|d| format!("{}x {} ({})", d.count, d.modes.join(" or "), d.name));
            missing.push(format!("role {:?} needs {}", role.name, texts.collect::<Vec<_>>().join(", or ")));
        }
        let on_leave =
            if !pauses.is_empty() && pauses.iter().all(|p| *p) { OnLeave::Pause } else { OnLeave::Terminate };
        StartDecision { allowed: missing.is_empty(), missing, on_leave }
    }

    fn is_met(&self, role: &SessionTrackerPolicySet, demand: &SessionRequirePolicy, present: &[Participant]) -> bool {
        let filter = match demand.filter.trim() {
            "" => None,
            text => match Expression::parse(text, Dialect::Where) {
                Ok(filter) => Some(filter),
                Err(_) => return false,
            },
        };
        let counts = |p: &&Participant| {
            p.user != self.owner.user
                && demand.modes.iter().any(|mode| mode == p.mode.name())
                && filter.as_ref().is_none_or(|f| f.holds(&p.context).unwrap_or(false))
                && p.roles.modes_for(&[role.name.as_str()], self.kind).contains(&p.mode)
        };
        // Nobody is two people at two terminals.
        let found: BTreeSet<&str> = present.iter().filter(counts).map(|p| p.user.as_str()).collect();
        i32::try_from(found.len()).unwrap_or(i32::MAX) >= demand.count
    }
}

impl RoleSet {
    /// What the roles demand of sessions of their user, as kept in the record of a session.
    pub fn session_policies(&self) -> Vec<SessionTrackerPolicySet> {
        let own = self.roles().iter().filter(|role| role.name() != IMPLICIT_ROLE);
        own.map(|role| SessionTrackerPolicySet {
            name: role.name().to_owned(),
            version: role.version().to_owned(),
            require_session_join: role.allow_conditions().require_session_join.clone(),
        })
        .collect()
    }

    /// How `user`, who has these roles, may join a session of a kind (`ssh`, `k8s`, …); empty when not at all.
    pub fn join_modes(&self, user: &str, owner: SessionOwner<'_>, kind: &str) -> Vec<JoinMode> {
        if user == owner.user {
            return JoinMode::ALL.to_vec();
        }
        if self.roles().iter().filter(|r| r.name() != IMPLICIT_ROLE).all(|r| !joins_by_policy(r)) {
            return if kind == "ssh" { vec![JoinMode::Peer] } else { Vec::new() };
        }
        let names: Vec<&str> = owner.policies.iter().map(|role| role.name.as_str()).collect();
        self.modes_for(&names, kind)
    }

    /// How sessions of somebody with one of the roles may be joined.
    fn modes_for(&self, owner_roles: &[&str], kind: &str) -> Vec<JoinMode> {
        let fits = |roles: &[String], kinds: &[String]| {
            let named = |pattern: &String| {
                Pattern::parse(pattern).is_ok_and(|p| owner_roles.iter().any(|role| p.matches(role)))
            };
            names_kind(kinds, kind) && roles.iter().any(named)
        };
        let mut modes = Vec::new();
        for role in self.roles().iter().filter(|r| joins_by_policy(r)) {
            for policy in role.allow_conditions().join_sessions.iter().filter(|p| fits(&p.roles, &p.kinds)) {
                modes.extend(policy.modes.iter().filter_map(|mode| JoinMode::from_name(mode)));
            }
        }
        for role in self.roles() {
            for policy in role.deny_conditions().join_sessions.iter().filter(|p| fits(&p.roles, &p.kinds)) {
                modes.retain(|mode| !policy.modes.iter().any(|denied| denied == mode.name()));
            }
        }
        modes.sort_unstable();
        modes.dedup();
        modes
    }
}

/// Roles before version v5 know nothing of joining.
fn joins_by_policy(role: &Role) -> bool {
    !matches!(role.version(), "v3" | "v4")
}

fn names_kind(kinds: &[String], kind: &str) -> bool {
    kinds.iter().any(|k| k == kind || k == "*")
}
