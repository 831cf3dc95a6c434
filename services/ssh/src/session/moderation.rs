//! Sessions that need others to be present.

use rbac::{OnLeave, Participant, SessionOwner, SessionPolicies};
use wire::types::SessionTrackerPolicySet;

/// The kind of session in roles.
const KIND: &str = "ssh";

/// What the owner's roles demand, and how it is said to those at the terminal.
#[derive(Clone, Debug)]
pub struct Moderation {
    owner: String,
    policies: Vec<SessionTrackerPolicySet>,
    /// Whether those who wait are told who is missing.
    shows_requirements: bool,
}

/// Whether the session may run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Those who have to be present are.
    Run,
    /// They are not: nobody types and nothing is shown.
    Wait,
    /// They are not, and a session that has begun ends.
    End,
}

impl Moderation {
    /// The demands on sessions of a user; `None` when there are none.
    pub fn of(owner: &str, policies: Vec<SessionTrackerPolicySet>, shows_requirements: bool) -> Option<Self> {
        let moderation = Self { owner: owner.to_owned(), policies, shows_requirements };
        moderation.rules().is_moderated().then_some(moderation)
    }

    /// Whether a session may run with those who are present.
    pub fn judge(&self, present: &[Participant]) -> Verdict {
        let decision = self.rules().may_run(present);
        match (decision.allowed, decision.on_leave) {
            (true, _) => Verdict::Run,
            (false, OnLeave::Pause) => Verdict::Wait,
            (false, OnLeave::Terminate) => Verdict::End,
        }
    }

    fn rules(&self) -> SessionPolicies<'_> {
        SessionPolicies::new(SessionOwner { user: &self.owner, policies: &self.policies }, KIND)
    }

    /// What is shown while the session waits to begin.
    pub fn waiting(&self) -> String {
        let mut text = "Waiting for required participants...".to_owned();
        if self.shows_requirements {
            text.push_str("\r\n");
            text.push_str(&self.requirements());
        }
        text
    }

    /// Who has to be present, in words.
    fn requirements(&self) -> String {
        let mut text = "require all:".to_owned();
        for set in &self.policies {
            let applies = |kinds: &[String]| kinds.iter().any(|kind| kind == KIND || kind == "*");
            let mut policies = set.require_session_join.iter().filter(|policy| applies(&policy.kinds)).peekable();
            if policies.peek().is_some() {
                text.push_str(&format!("\r\n   one of ({}):", set.name));
            }
            for policy in policies {
                let modes = policy.modes.join(" or ");
                text.push_str(&format!("\r\n    - {}x {} with mode {modes}", policy.count, policy.filter));
            }
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use rbac::{JoinMode, RoleSet, Traits};
    use wire::types::{RoleConditions, RoleSpecV6, RoleV6, SessionJoinPolicy, SessionRequirePolicy};

    use super::*;

    /// Demands one moderator on sessions of the role `guarded`, which alice has.
    pub(crate) fn guarded(on_leave: &str) -> Moderation {
        guarded_of("alice", on_leave)
    }

    /// The same of another user.
    pub(crate) fn guarded_of(owner: &str, on_leave: &str) -> Moderation {
        let policy = SessionRequirePolicy {
            name: "watched".into(),
            filter: "contains(user.roles, \"auditor\")".into(),
            kinds: vec!["ssh".into()],
            count: 1,
            modes: vec!["moderator".into()],
            on_leave: on_leave.into(),
        };
        let set = SessionTrackerPolicySet {
            name: "guarded".into(),
            version: "v7".into(),
            require_session_join: vec![policy],
        };
        Moderation::of(owner, vec![set], true).unwrap()
    }

    /// Somebody whose role lets him join sessions of `guarded`.
    pub(crate) fn auditor(mode: JoinMode) -> Participant {
        let policy = SessionJoinPolicy {
            name: "watch".into(),
            roles: vec!["guarded".into()],
            kinds: vec!["ssh".into()],
            modes: vec!["moderator".into(), "observer".into()],
        };
        let allow = RoleConditions { join_sessions: vec![policy], ..Default::default() };
        let role = RoleV6 {
            version: "v7".into(),
            metadata: Some(wire::types::Metadata { name: "auditor".into(), ..Default::default() }),
            spec: Some(RoleSpecV6 { allow: Some(allow), ..Default::default() }),
            ..Default::default()
        };
        let roles = RoleSet::compile([role], Traits::default());
        Participant::new("bob", &serde_json::json!({"name": "bob", "roles": ["auditor"]}), roles, mode)
    }

    #[test]
    fn a_session_runs_while_its_moderator_is_present() {
        assert_eq!(guarded("pause").judge(&[]), Verdict::Wait);
        assert_eq!(guarded("terminate").judge(&[auditor(JoinMode::Observer)]), Verdict::End);
        assert_eq!(guarded("pause").judge(&[auditor(JoinMode::Moderator)]), Verdict::Run);
        assert!(Moderation::of("alice", Vec::new(), false).is_none());
    }

    #[test]
    fn those_who_wait_read_who_is_missing() {
        let expected = "Waiting for required participants...\r\nrequire all:\r\n   one of (guarded):\r\n    \
                        - 1x contains(user.roles, \"auditor\") with mode moderator";
        assert_eq!(guarded("").waiting(), expected);
    }
}
