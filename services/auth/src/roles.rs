//! Roles, parsed once and put together for users.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use pki::identity::Traits;
use rbac::{ParsedRole, RoleSet};
use resources::Resource;
use wire::{
    error::Result,
    types::{RoleV6, UserV2},
};

use crate::{Auth, store::kind};

/// How many parsed roles are kept.
const MAX_PARSED: usize = 10_000;

/// Parsed roles by name, each with the revision it was parsed from.
#[derive(Default)]
pub(crate) struct ParsedRoles(Mutex<HashMap<String, (String, Arc<ParsedRole>)>>);

impl ParsedRoles {
    /// A role, parsed unless it is known as it is.
    pub(crate) fn get(&self, role: &Arc<RoleV6>) -> Arc<ParsedRole> {
        let mut parsed = self.0.lock();
        if let Some((revision, ready)) = parsed.get(role.name())
            && revision == role.revision()
        {
            return ready.clone();
        }
        let ready = ParsedRole::new((**role).clone());
        if parsed.len() >= MAX_PARSED {
            parsed.clear();
        }
        parsed.insert(role.name().to_owned(), (role.revision().to_owned(), ready.clone()));
        ready
    }
}

impl Auth {
    /// A role.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn role(&self, name: &str) -> Result<Arc<RoleV6>> {
        self.store().cached::<kind::Role>(name)
    }

    /// The roles of these names.
    ///
    /// # Errors
    /// `NotFound` for the first that does not exist.
    pub fn roles(&self, names: &[String]) -> Result<Vec<Arc<RoleV6>>> {
        names.iter().map(|name| self.role(name)).collect()
    }

    /// Roles put together for a user with these traits.
    ///
    /// # Errors
    /// `NotFound` for roles that do not exist.
    pub fn role_set(&self, names: &[String], traits: &Traits, _user: &str) -> Result<RoleSet> {
        let roles = self.roles(names)?;
        let parsed: Vec<Arc<ParsedRole>> = roles.iter().map(|role| self.0.parsed_roles.get(role)).collect();
        Ok(RoleSet::new(parsed, rbac::Traits::from(traits.clone())))
    }

    /// A user with all roles of this moment put together, those of access lists included.
    ///
    /// # Errors
    /// `NotFound` for unknown users and roles.
    pub fn user_role_set(&self, name: &str) -> Result<(Arc<UserV2>, RoleSet)> {
        let user = self.store().cached::<kind::User>(name)?;
        let rights = self.rights_of(&user);
        let set = self.role_set(&rights.roles, &rights.traits, name)?;
        Ok((user, set))
    }

    /// A number that grows whenever what decides about access has changed.
    pub fn revision_of_roles(&self) -> u64 {
        self.store().policy_generation()
    }
}
