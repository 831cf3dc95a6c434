//! SSH servers: who gets in, and what the session may do.

use std::{collections::BTreeSet, sync::Arc};

use wire::types::{CreateHostUserMode, RoleOptions, ServerV2};

use crate::{
    access::{AccessState, Ask, ResourcePermit, Target},
    decision::{Cause, Decision, Denial},
    fields::{LabelField, ListField},
    labels::{Labels, Lookup},
    options::Options,
    role::Role,
    role_set::RoleSet,
};

/// Permission for SSH sessions on a server with one login.
#[derive(Clone, Debug)]
pub struct SshPermit {
    /// The names of the roles that allow it.
    pub granted_by: Vec<String>,
    /// The login it is for.
    pub login: String,
    /// Limits and features of the session.
    pub options: Arc<Options>,
    /// Whether the client's agent may be forwarded: a role that allows it lists the login.
    pub forward_agent: bool,
    /// Whether an account is made for the login when there is none, and how; or why not.
    pub host_user: Result<HostUser, Denial>,
}

/// An account that the server makes for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostUser {
    /// What happens to the account afterwards.
    pub mode: HostUserMode,
    /// The groups it is put into.
    pub groups: Vec<String>,
    /// Lines of its sudoers file, in order.
    pub sudoers: Vec<String>,
    /// Its user id, when the user's traits say one.
    pub uid: Option<u32>,
    /// Its group id, when the user's traits say one.
    pub gid: Option<u32>,
}

/// What happens to an account made for a session when the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostUserMode {
    /// It stays.
    Keep,
    /// It is removed with all that belongs to it.
    InsecureDrop,
}

impl RoleSet {
    /// Whether a login on a server may be used, and within which bounds.
    pub fn check_node(&self, node: &ServerV2, login: &str, state: &AccessState) -> Decision<SshPermit> {
        match self.check_access(&Target::node(node), &[Ask::Login(login)], state) {
            Decision::Deny(denial) => Decision::Deny(denial),
            Decision::Allow(ResourcePermit { granted_by, .. }) => Decision::Allow(SshPermit {
                granted_by,
                login: login.to_owned(),
                options: Arc::clone(self.options()),
                forward_agent: self.can_forward_agent(login),
                host_user: self.host_user(Labels::of(node)),
            }),
        }
    }

    /// Whether a server shows up in lists.
    pub fn can_see_node(&self, node: &ServerV2) -> bool {
        self.can_see(&Target::node(node))
    }

    /// The logins that can be used on a server, after the second factor where one is wanted.
    pub fn node_logins(&self, node: &ServerV2) -> Vec<String> {
        let target = Target::node(node);
        let names: BTreeSet<&String> = self.roles().iter().flat_map(|r| r.allowed(ListField::Logins)).collect();
        // Without the reasons of refusals: lists ask for every login on every server.
        let usable = |login: &&&String| self.decide(&target, &[Ask::Login(login)], &AccessState::VISIBLE).is_ok();
        names.iter().filter(usable).map(|login| (*login).clone()).collect()
    }

    /// The account that is made on a server with these labels.
    ///
    /// # Errors
    /// A role that allows the server does not allow accounts to be made.
    pub fn host_user(&self, labels: Labels<'_>) -> Result<HostUser, Denial> {
        let field = LabelField::Node;
        let labels = Lookup::new(labels);
        let matching: Vec<&Role> =
            self.allowing(field).filter(|r| r.allow.selection(field).allows(&labels, self.traits())).collect();
        let refused = || Denial::new(Cause::NotGranted, "user is not allowed to create host users");
        let mut mode = None;
        for role in &matching {
            match host_user_mode(role.options()) {
                None => {
                    let detail = "every role that allows the server has to allow accounts to be made";
                    return Err(refused().by(role.name(), "options.create_host_user_mode", detail));
                }
                Some(HostUserMode::Keep) => mode = Some(HostUserMode::Keep),
                Some(HostUserMode::InsecureDrop) => mode = mode.or(Some(HostUserMode::InsecureDrop)),
            }
        }
        let mode = mode.ok_or_else(refused)?;
        let mut groups: BTreeSet<&String> = matching.iter().flat_map(|r| r.allowed(ListField::HostGroups)).collect();
        let mut sudoers: Vec<&String> = Vec::new();
        for line in matching.iter().flat_map(|r| r.allowed(ListField::HostSudoers)) {
            if !sudoers.contains(&line) {
                sudoers.push(line);
            }
        }
        for role in self.roles() {
            groups.retain(|group| !role.denied(ListField::HostGroups).contains(group));
            let denied = role.denied(ListField::HostSudoers);
            sudoers.retain(|line| !denied.contains(line) && !denied.iter().any(|d| d == "*"));
        }
        let id = |name: &str| self.traits().get(name).first().and_then(|text| text.trim().parse().ok());
        Ok(HostUser {
            mode,
            groups: groups.into_iter().cloned().collect(),
            sudoers: sudoers.into_iter().cloned().collect(),
            uid: id("host_user_uid"),
            gid: id("host_user_gid"),
        })
    }
}

/// What a role says about accounts; `None` is no.
fn host_user_mode(options: &RoleOptions) -> Option<HostUserMode> {
    match CreateHostUserMode::try_from(options.create_host_user_mode) {
        Ok(CreateHostUserMode::HostUserModeKeep) => Some(HostUserMode::Keep),
        Ok(CreateHostUserMode::HostUserModeDrop | CreateHostUserMode::HostUserModeInsecureDrop) => {
            Some(HostUserMode::InsecureDrop)
        }
        Ok(CreateHostUserMode::HostUserModeUnspecified) => {
            options.create_host_user.is_some_and(|b| b.value).then_some(HostUserMode::Keep)
        }
        Ok(CreateHostUserMode::HostUserModeOff) | Err(_) => None,
    }
}
